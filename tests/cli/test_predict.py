"""What is in images, folders and videos, by models that find red and blue squares and by those of a finished study."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import NmsSettings
from edgetl.graph.detection_postprocessing import RawHead, with_detections

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Fault = Callable[[Done], str]

SIDE, CELL = 64, 16
COLOURS = ("red", "green", "blue")


def square_finder(
    heads: dict[str, tuple[str, ...]],
    form: NmsImplementation = "operator",
    suppression: NmsSettings | None = None,
    batch: Any = "N",
) -> onnx.ModelProto:
    """A detector of cells of one colour: an image of 128 x 64 is letterboxed, 32 of its pixels to a cell of 16."""
    nodes, outputs, constants, raws = [], [], [], []
    for name, labels in heads.items():
        mean = np.zeros((5 + len(labels), 3, CELL, CELL), np.float32)
        bias = np.zeros(5 + len(labels), np.float32)
        for position, label in enumerate(labels, 5):
            # White, grey and black have no colour above the others.
            for channel, colour in enumerate(COLOURS):
                mean[position, channel] = (2.0 if colour == label else -1.0) * 40 / CELL**2
        bias[4], bias[5:] = 20.0, -20.0
        raws.append(RawHead(name, labels, (YoloScale(anchors=((CELL, CELL),)),), (f"{name}/0",)))
        weights = [numpy_helper.from_array(mean, f"{name}/mean"), numpy_helper.from_array(bias, f"{name}/bias")]
        reads = ["images", *(tensor.name for tensor in weights)]
        nodes.append(helper.make_node("Conv", reads, [f"{name}/0"], strides=[CELL, CELL]))
        shape = [batch, 5 + len(labels), SIDE // CELL, SIDE // CELL]
        outputs.append(helper.make_tensor_value_info(f"{name}/0", TensorProto.FLOAT, shape))
        constants += weights
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "squares", [images], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    preprocessing = Preprocessing(width=SIDE, height=SIDE, fit="letterbox")
    return with_detections(model, raws, preprocessing, suppression or NmsSettings(), form)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    return saved(square_finder({"squares": ("red", "blue")}), folder / "squares.onnx")


def picture(*squares: tuple[str, int, int], size: tuple[int, int] = (128, 64)) -> Image.Image:
    """Squares of 32 pixels on grey."""
    image = Image.new("RGB", size, "grey")
    for colour, left, top in squares:
        ImageDraw.Draw(image).rectangle([left, top, left + 31, top + 31], fill=colour)
    return image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    picture(("red", 32, 0), ("blue", 96, 32)).save(path)
    return path


FOUND = [
    {"label": "red", "score": 1.0, "xyxy": [32.0, 0.0, 64.0, 32.0]},
    {"label": "blue", "score": 1.0, "xyxy": [96.0, 32.0, 128.0, 64.0]},
]


def test_boxes_are_in_pixels_of_the_image(call: Command, detector: Path, photo: Path) -> None:
    done = call("predict", detector, photo, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "schema_version": 1,
        "model": str(detector),
        "images": [{"path": str(photo), "width": 128, "height": 64, "detections": FOUND}],
        "broken": [],
    }
    assert call("predict", detector, photo).stdout.splitlines() == [
        f"{photo}: 128 x 64",
        "  1.000  red  32.0 0.0 64.0 32.0",
        "  1.000  blue  96.0 32.0 128.0 64.0",
    ]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_are_those_of_the_upright_image(orientation: int, call: Command, detector: Path, tmp_path: Path) -> None:
    """A camera that was held sideways stores the pixels turned, and says so."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = picture(("red", 32, 0), ("blue", 96, 32)).transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    (image,) = json.loads(call("predict", detector, tmp_path / "turned.jpg", "--json").stdout)["images"]
    assert (image["width"], image["height"]) == (128, 64)
    assert [one["xyxy"] for one in image["detections"]] == [one["xyxy"] for one in FOUND]


def test_an_engine_says_what_its_graph_says(call: Command, detector: Path, photo: Path, tmp_path: Path) -> None:
    engine = tmp_path / "engine.onnx"
    assert call("build-engine", detector, "-o", engine).returncode == 0
    from_graph, from_engine = (json.loads(call("predict", m, photo, "--json").stdout) for m in (detector, engine))
    assert from_engine["images"] == from_graph["images"]


def test_nothing_found_is_said(call: Command, detector: Path, tmp_path: Path) -> None:
    picture().save(tmp_path / "grey.png")
    done = call("predict", detector, tmp_path / "grey.png")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{tmp_path / 'grey.png'}: 128 x 64", "  nothing found"]
    (image,) = json.loads(call("predict", detector, tmp_path / "grey.png", "--json").stdout)["images"]
    assert image["detections"] == []


@pytest.mark.parametrize("form", ["operator", "loop"])
def test_several_heads_become_one_list(form: NmsImplementation, call: Command, photo: Path, tmp_path: Path) -> None:
    """A label that two heads know is found once, and each label keeps its name."""
    heads = {"warm": ("red", "green"), "cold": ("blue", "red")}
    model = saved(square_finder(heads, form), tmp_path / "two.onnx")
    (image,) = json.loads(call("predict", model, photo, "--json").stdout)["images"]
    assert image["detections"] == FOUND


def test_a_graph_of_fixed_batch_predicts_one_image(call: Command, photo: Path, tmp_path: Path) -> None:
    model = saved(square_finder({"squares": ("red", "blue")}, batch=4), tmp_path / "four.onnx")
    (image,) = json.loads(call("predict", model, photo, "--json").stdout)["images"]
    assert image["detections"] == FOUND


# --- the least score --------------------------------------------------------------------------------------------------


def test_boxes_below_the_threshold_are_left_out(call: Command, detector: Path, tmp_path: Path) -> None:
    pale = picture()
    ImageDraw.Draw(pale).rectangle([32, 0, 63, 31], fill=(156, 95, 95))
    pale.save(tmp_path / "pale.png")

    def scores(*options: object) -> list[float]:
        (image,) = json.loads(call("predict", detector, tmp_path / "pale.png", "--json", *options).stdout)["images"]
        return [one["score"] for one in image["detections"]]

    (score,) = scores("--score-threshold", 0.05)
    assert 0.05 < score < 0.25
    assert scores("--score-threshold", score - 1e-3) == [score]
    assert scores("--score-threshold", score + 1e-3) == scores() == []


def test_a_threshold_below_the_models_is_refused(call: Command, fault: Fault, photo: Path, tmp_path: Path) -> None:
    strict = square_finder({"squares": ("red", "blue")}, suppression=NmsSettings(score_threshold=0.5))
    model = saved(strict, tmp_path / "strict.onnx")
    message = fault(call("predict", model, photo, "--score-threshold", 0.3))
    assert "drops boxes that score less than 0.5, and 0.3 is asked for; make it again with a lower" in message
    assert call("predict", model, photo).returncode == 0, "its own threshold is the default where that is higher"


# --- classifiers ------------------------------------------------------------------------------------------------------


def test_a_classifier_gives_its_top_labels(call: Command, finished: Path, photos: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    done = call("predict", graph, photos, "--top", 2, "--json")
    assert done.returncode == 0, done.stderr
    images = json.loads(done.stdout)["images"]
    files = [path for path in photos.rglob("*") if path.is_file()]
    assert sorted(image["path"] for image in images) == sorted(map(str, files))
    right = []
    for image in images:
        assert "detections" not in image
        first, second = image["labels"]
        assert first["head"] == second["head"] == "combined"
        assert 1 >= first["probability"] >= second["probability"] >= 0
        right.append(first["label"] == Path(image["path"]).parent.name)
    known = [one for image, one in zip(images, right, strict=True) if Path(image["path"]).parent.name in "068147"]
    assert np.mean(known) > 0.8


def test_every_head_of_a_graph_has_its_say(call: Command, finished: Path, photos: Path) -> None:
    graph = finished / "run" / "graphs" / "shared.fp32.onnx"
    one = next(path for path in photos.rglob("*") if path.parent.name == "8")
    (image,) = json.loads(call("predict", graph, one, "--top", 1, "--json").stdout)["images"]
    assert [guess["head"] for guess in image["labels"]] == ["round", "ángulo"]
    lines = call("predict", graph, one, "--top", 1).stdout.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["round:", "ángulo:"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_is_done_without_what_is_no_image(call: Command, detector: Path, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    picture(("red", 0, 0)).save(folder / "a.png")
    picture(("blue", 0, 0)).save(folder / "inner" / "b.bmp")
    (folder / "LICENSE").write_text("no image")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    done = call("predict", detector, folder, photo, "--json", "-o", tmp_path / "drawn")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert [image["path"] for image in document["images"]] == [
        str(folder / "a.png"),
        str(folder / "inner" / "b.bmp"),
        str(photo),
    ]
    assert [broken["path"] for broken in document["broken"]] == [str(folder / "cut.jpg")]
    assert done.stderr.startswith(f"{folder / 'cut.jpg'} is left out: ")
    drawn = sorted(path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.*"))
    assert drawn == ["a.png", "inner/b.bmp.png", "photo.png"]


def test_where_no_image_can_be_read_that_is_an_error(call: Command, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty.png").touch()
    done = call("predict", detector, tmp_path / "cut.jpg", tmp_path / "empty.png", "--json")
    assert done.returncode == 1 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: none of 2 files can be read; the first: {tmp_path / 'cut.jpg'} (")


def test_a_picture_is_the_image_with_boxes(call: Command, detector: Path, photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    done = call("predict", detector, photo, "-o", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    assert photo.read_bytes() == before
    with Image.open(tmp_path / "drawn" / "photo.png") as drawn, Image.open(photo) as original:
        assert drawn.size == original.size
        changed = np.asarray(drawn) != np.asarray(original)
    assert changed[31, 32:64].any(axis=1).all(), "the lower edge of the red box"
    assert not changed[40:60, 4:28].any(), "where nothing was found"


@pytest.mark.parametrize("where", ["beside", "through a link"])
def test_a_picture_never_overwrites_an_input(
    where: str, call: Command, fault: Fault, detector: Path, photo: Path, tmp_path: Path
) -> None:
    before = photo.read_bytes()
    folder = photo.parent
    if where == "through a link":
        folder = tmp_path / "link"
        folder.symlink_to(photo.parent)
    assert "would overwrite" in fault(call("predict", detector, photo, "-o", folder))
    assert photo.read_bytes() == before


def test_two_pictures_of_one_name_are_refused(
    call: Command, fault: Fault, detector: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / photo.name
    picture().save(other)
    message = fault(call("predict", detector, photo, other, "-o", tmp_path / "drawn"))
    assert f"the pictures of {photo} and {other} would both be" in message
    assert not (tmp_path / "drawn").exists()
    assert call("predict", detector, photo, photo, "-o", tmp_path / "drawn").returncode == 0, "the same one twice"


def test_missing_and_useless_sources_are_one_line(
    call: Command, fault: Fault, detector: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    assert "gone.jpg does not exist; give images" in fault(call("predict", detector, photo, tmp_path / "gone.jpg"))
    assert "holds no images" in fault(call("predict", detector, tmp_path / "none"))
    assert "gone.onnx does not exist" in fault(call("predict", tmp_path / "gone.onnx", photo))
    assert "not an ONNX model" in fault(call("predict", photo, photo))
    (tmp_path / "file").touch()
    assert "cannot write" in fault(call("predict", detector, photo, "-o", tmp_path / "file" / "drawn"))


# --- models that will not do ------------------------------------------------------------------------------------------


def test_a_graph_without_suppression_is_refused(call: Command, fault: Fault, photo: Path, tmp_path: Path) -> None:
    model = saved(square_finder({"squares": ("red", "blue")}, "none"), tmp_path / "bare.onnx")
    assert "leaves suppression to others" in fault(call("predict", model, photo))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "has no labels in its metadata (edgetl.labels); give an ONNX file that edgetl wrote"),
        ({"edgetl.labels": '{"squares": ["red"]}'}, "is N x 100 x 6, expected N x 1 by its metadata"),
        ({"edgetl.labels": '{"triangles": ["red"]}'}, "'triangles' of"),
        ({"edgetl.labels": "[7]"}, "edgetl.labels of the graph is damaged"),
    ],
)
def test_metadata_that_do_not_fit_are_one_line(
    entries: dict[str, str], message: str, call: Command, fault: Fault, photo: Path, tmp_path: Path
) -> None:
    model = square_finder({"squares": ("red", "blue")})
    del model.metadata_props[:]
    helper.set_model_props(model, entries)
    assert message in fault(call("predict", saved(model, tmp_path / "changed.onnx"), photo))


def test_labels_not_in_the_metadata_are_one_line(call: Command, fault: Fault, photo: Path, tmp_path: Path) -> None:
    model = square_finder({"squares": ("red", "blue")})
    labels = next(entry for entry in model.metadata_props if entry.key == "edgetl.labels")
    labels.value = '{"squares": ["red"]}'
    assert "finds label number 1 of 1" in fault(call("predict", saved(model, tmp_path / "changed.onnx"), photo))


def test_weights_that_give_no_numbers_are_one_line(call: Command, fault: Fault, photo: Path, tmp_path: Path) -> None:
    model = square_finder({"squares": ("red", "blue")})
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "squares/bias")
    value = numpy_helper.to_array(bias).copy()
    value[0] = np.nan
    bias.CopyFrom(numpy_helper.from_array(value, bias.name))
    assert "holds NaN or infinity" in fault(call("predict", saved(model, tmp_path / "nan.onnx"), photo))


# --- videos -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A red square that moves by a cell in each of four frames, ten in a second."""
    pytest.importorskip("av", reason="the extra detect is not installed")
    from fractions import Fraction

    from edgetl.data.video import video_writer

    with video_writer(tmp_path / "moving.mp4", Fraction(10)) as add:
        for frame in range(4):
            add(picture(("red", 32 * frame, 0)), frame / 10)
    return tmp_path / "moving.mp4"


def test_a_video_is_a_line_for_every_frame(call: Command, detector: Path, photo: Path, video: Path) -> None:
    done = call("predict", detector, video, photo, "--json")
    assert done.returncode == 0, done.stderr
    *frames, image = map(json.loads, done.stdout.splitlines())
    assert [(frame["frame"], frame["seconds"]) for frame in frames] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    for number, frame in enumerate(frames):
        assert (frame["path"], frame["width"], frame["height"]) == (str(video), 128, 64)
        (found,) = frame["detections"]
        assert found["label"] == "red" and found["xyxy"] == [32.0 * number, 0.0, 32.0 * number + 32, 32.0]
    assert image == {"path": str(photo), "width": 128, "height": 64, "detections": FOUND}


def test_a_video_is_written_with_its_boxes(call: Command, detector: Path, video: Path, tmp_path: Path) -> None:
    from edgetl.data.video import open_video

    assert call("predict", detector, video, "-o", tmp_path / "drawn").returncode == 0
    with open_video(tmp_path / "drawn" / "moving.mp4") as drawn, open_video(video) as original:
        pairs = list(zip(drawn.frames, original.frames, strict=True))
        assert drawn.fps == original.fps == 10
    assert len(pairs) == 4
    for number, (after, before) in enumerate(pairs):
        assert after.seconds == pytest.approx(before.seconds)
        apart = np.abs(np.asarray(after.image).astype(int) - np.asarray(before.image)).max(axis=2) > 40
        assert apart[:36, 32 * number : 32 * number + 32].any()
        assert not apart[44:].any()


def test_a_broken_video_is_reported_and_leaves_no_picture(
    call: Command, detector: Path, photo: Path, video: Path, tmp_path: Path
) -> None:
    video.write_bytes(video.read_bytes()[:-600])
    done = call("predict", detector, video, photo, "-o", tmp_path / "drawn")
    assert done.returncode == 0
    assert f"{video} is left out: " in done.stderr
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["photo.png"]


def test_a_video_without_pyav_names_the_extra(
    call: Command, fault: Fault, detector: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'edgetl[detect]'" in fault(call("predict", detector, video))
