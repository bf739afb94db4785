from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetl.config import CalibrationRecipe, Study, load_recipe, load_study
from edgetl.errors import EdgetlError, StudyError

PROJECT = Path(__file__).parents[2]

GOOD = """\
name: signs
data:
  format: digits
groups:
  a: [x, y]
  b: [z]
backbone:
  name: edgetl/nano
deployments: [combined]
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return tmp_path / "study.yaml"


def faults(study_file: Path, content: str) -> tuple[str, ...]:
    study_file.write_text(content, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load_study(study_file)
    assert "\n" not in str(caught.value)
    return caught.value.faults


def refusal(study_file: Path, content: str | bytes) -> str:
    study_file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(EdgetlError) as caught:
        load_study(study_file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_short_study_gets_the_documented_defaults(study_file: Path) -> None:
    study_file.write_text(GOOD)
    study = load_study(study_file)
    assert study.labels == ("x", "y", "z")
    assert (study.task, study.runtime, study.calibration, study.seed) == ("classify", "auto", "default", 0)
    assert study.precisions == ("fp32", "int8")
    assert study.budget.model_dump() == dict.fromkeys(study.budget.model_dump())


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_that_comes_with_edgetl_loads(path: Path) -> None:
    assert load_study(path).labels


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: signs\n", "", "line 1: name is missing"),
        ("  format: digits\n", "  per_label: 5\n", "line 2: data.format is missing"),
        ("name: signs", "name: 7", "line 1: name is 7: input should be a valid string"),
        ("name: signs", "name: a/b", "line 1: name is used in file names"),
        ("name: signs", "name: ''", "line 1: name is used in file names"),
        ("deployments: [", "budgets: {}\ndeployments: [", "line 9: budgets is not a known key (did you mean budget?)"),
        (
            "  format: digits",
            "  format: digits\n  vall: 0.1",
            "line 4: data.vall is not a known key (did you mean val?)",
        ),
        ("  format: digits", "  format: digits\n  zzz: 1", "line 4: data.zzz is not a known key"),
        ("[combined]", "[combned]", "line 9: deployments.0 is 'combned', expected 'combined', 'shared', 'one-vs-rest'"),
        ("[combined]", "[combned]", "(did you mean combined?)"),
        ("[combined]", "[combined, combined]", "line 9: deployments names combined twice"),
        ("[combined]", "[]", "line 9: deployments is empty; name at least one"),
        ("[combined]", "combined", "line 9: deployments is 'combined'"),
        (
            "deployments: [",
            "precisions: [fp8]\ndeployments: [",
            "line 9: precisions.0 is 'fp8', expected 'fp32', 'fp16'",
        ),
        (
            "deployments: [",
            "seed: -1\ndeployments: [",
            "line 9: seed is -1: input should be greater than or equal to 0",
        ),
        ("deployments: [", "seed: 1.5\ndeployments: [", "line 9: seed is 1.5"),
        ("deployments: [", f"seed: {2**63}\ndeployments: [", f"line 9: seed is {2**63}"),
        ("deployments: [", "seed: yes\ndeployments: [", "line 9: seed is True"),
        ("deployments: [", "budget: {max_latency_ms: 0}\ndeployments: [", "line 9: budget.max_latency_ms is 0"),
        ("deployments: [", "budget: {max_latency_ms: .inf}\ndeployments: [", "line 9: budget.max_latency_ms is inf"),
        ("deployments: [", "budget: {min_accuracy: .nan}\ndeployments: [", "line 9: budget.min_accuracy is nan"),
        ("deployments: [", "budget: {min_accuracy: 97}\ndeployments: [", "line 9: budget.min_accuracy is 97"),
        ("deployments: [", "training: {views: 0}\ndeployments: [", "line 9: training.views is 0"),
        (
            "deployments: [",
            "training: {l2: []}\ndeployments: [",
            "line 9: training.l2 is empty",
        ),
        ("deployments: [", "training: {l2: [0]}\ndeployments: [", "line 9: training.l2.0 is 0"),
        ("[x, y]", "[x, x]", "line 4: groups label 'x' is in group 'a' and again in group 'a'"),
        ("[z]", "[x]", "line 4: groups label 'x' is in group 'a' and again in group 'b'"),
        ("[z]", "[other]", "line 4: groups label 'other' in group 'b' is reserved"),
        ("[z]", "[]", "line 4: groups group 'b' has no labels"),
        ("[z]", "['']", "line 6: groups.b.0 is ''"),
        ("  b:", "  combined:", "line 4: groups group name 'combined' is taken"),
        ("  b:", "  images:", "line 4: groups group name 'images' is taken"),
        ("  b:", "  overall:", "line 4: groups group name 'overall' is taken"),
        ("  b:", "  one-vs-rest:", "line 4: groups group name 'one-vs-rest' is taken"),
        ("  b:", "  1:", "line 6: groups.1 is 1: input should be a valid string"),
        ("  b:", "  ../b:", "line 6: groups.../b is used in file names"),
        ("  a: [x, y]\n  b: [z]", "  {}", "line 4: groups no group is named"),
        ("edgetl/nano", "edgetl/mini", "line 8: backbone.name 'edgetl/mini' is unknown"),
        ("edgetl/nano", "resnet18", "line 8: backbone.name 'resnet18' is not LIBRARY/MODEL"),
        ("edgetl/nano", "timm/", "line 8: backbone.name 'timm/' is not LIBRARY/MODEL"),
        ("edgetl/nano", "edgetl/nano\n  image_size: 8", "line 9: backbone.image_size is 8"),
        ("format: digits", "format: digits\n  val: 1.0", "line 4: data.val is 1.0, expected a path or a fraction"),
        ("format: digits", "format: digits\n  val: true", "line 4: data.val is True, expected a path or a fraction"),
        (
            "format: digits",
            "format: digits\n  val: 0.5\n  test: 0.5",
            "line 2: data val 0.5 and test 0.5 leave nothing",
        ),
        ("format: digits", "format: digits\n  root: here", "line 2: data format digits makes its own images"),
        ("format: digits", "format: image-folder", "line 2: data format image-folder needs root"),
        ("format: digits", "format: csv\n  root: here", "line 2: data format csv needs train"),
        ("format: digits", "format: digit", "line 3: data.format is 'digit', expected 'image-folder'"),
        ("format: digits", "format: digit", "(did you mean digits?)"),
        ("data:\n  format: digits", "data: [1]", "line 2: data is (1,)"),
        ("edgetl/nano", "edgetl/nano\n  cut: 0", "line 9: backbone.cut is 0, expected a layer's name, a list of names"),
        ("edgetl/nano", "edgetl/nano\n  cut: yes", "line 9: backbone.cut is True, expected a layer's name"),
        ("edgetl/nano", "edgetl/nano\n  cut: []", "line 9: backbone.cut is (), expected a layer's name"),
        ("edgetl/nano", "edgetl/nano\n  cut: [a, 1]", "line 9: backbone.cut is ('a', 1), expected a layer's name"),
        ("edgetl/nano", "edgetl/nano\n  truncate: true", "line 7: backbone truncate drops the layers above a cut"),
        (
            "[combined]",
            "[branched]",
            "line 1: the file branched needs backbone.cut: the layer where its branches begin",
        ),
        (
            "edgetl/nano\ndeployments: [combined]",
            "edgetl/nano\n  cut: sweep\ndeployments: [shared, one-vs-rest]",
            "line 1: the file backbone.cut has no use for shared and one-vs-rest",
        ),
        ("  b:", "  b@c:", "line 4: groups group name 'b@c' holds an @"),
        ("deployments: [", "search: {trees: 0}\ndeployments: [", "line 9: search.trees is 0"),
        (
            "deployments: [",
            "training: {finetune: {epoch: 3}}\ndeployments: [",
            "line 9: training.finetune.epoch is not a known key (did you mean epochs?)",
        ),
    ],
)
def test_each_fault_is_told_with_its_line_and_key(study_file: Path, old: str, new: str, fault: str) -> None:
    (found,) = faults(study_file, edited(old, new))
    assert fault in found


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ("{format: yolo, root: r, train: images}", "format yolo needs names: the file with its class names"),
        ("{format: yolo, root: r, names: x.names}", "format yolo needs train: the folder of images, or the file"),
        ("{format: yolo, train: images, names: x.names}", "format yolo needs root"),
        ("{format: yolo, root: r, train: a, names: n, images: i}", "images is for formats coco and voc; yolo says"),
        ("{format: coco, root: r}", "format coco needs train: the JSON file with the annotations"),
        ("{format: coco, root: r, train: a.json, names: n}", "names is for format yolo; coco names its classes itself"),
        ("{format: voc, root: r}", "format voc needs train: the file that lists the names of the images"),
        ("{format: synthetic, scenes: 5}", "scenes is 5: input should be greater than or equal to 10"),
        ("{format: synthetic, root: r}", "format synthetic makes its own images"),
        ("{format: csv, root: r, train: a.csv}", "data.format csv, which task detect does not read; expected one of"),
    ],
)
def test_each_fault_of_data_with_boxes_is_told(study_file: Path, data: str, fault: str) -> None:
    content = GOOD.replace("data:\n  format: digits", f"task: detect\ndata: {data}")
    (found,) = faults(study_file, content)
    assert fault in found


@pytest.mark.parametrize(
    "data",
    [
        "{format: coco, root: r, train: a.json, images: pictures, val: b.json, test: 0.1}",
        "{format: yolo, root: r, train: images/train, names: data.yaml}",
        "{format: voc, root: r, train: ImageSets/Main/train.txt, images: JPEGImages}",
        "{format: synthetic, scenes: 50}",
    ],
)
def test_data_with_boxes_loads_for_detection_alone(study_file: Path, data: str) -> None:
    study_file.write_text(GOOD.replace("data:\n  format: digits", f"task: detect\ndata: {data}"))
    assert load_study(study_file).task == "detect"
    if "synthetic" not in data:
        (fault,) = faults(study_file, GOOD.replace("data:\n  format: digits", f"data: {data}"))
        assert "which task classify does not read" in fault


BOXES = GOOD.replace("data:\n  format: digits", "task: detect\ndata: {format: synthetic}")


def test_a_short_detection_study_gets_the_documented_defaults(study_file: Path) -> None:
    study_file.write_text(BOXES)
    found = load_study(study_file).detection
    assert (found.anchors, found.loss, found.unfreeze, found.learning_rate) == (None, "yolo", None, None)
    assert (found.epochs, found.patience, found.batch_size, found.cache_gb) == (60, 12, 16, 20.0)
    assert found.nms.model_dump() == {"score_threshold": 0.01, "iou_threshold": 0.45, "max_detections": 100}
    assert (found.augmentation.views, found.augmentation.mosaic) == (0, False), "mosaics are off unless asked for"


@pytest.mark.parametrize(
    ("detection", "fault"),
    [
        ("{epoch: 3}", "detection.epoch is not a known key (did you mean epochs?)"),
        ("{epochs: 0}", "detection.epochs is 0: input should be greater than or equal to 1"),
        ("{learning_rate: 0}", "detection.learning_rate is 0: input should be greater than 0"),
        ("{anchors: kmeans}", "detection.anchors is 'kmeans', expected 'keep' or 'fit'"),
        ("{loss: giou}", "detection.loss is 'giou', expected 'yolo' or 'ciou'"),
        ("{unfreeze: 20}", "detection.unfreeze is 20, expected a fraction such as 20% or 0.2"),
        ("{unfreeze: 100%}", "detection.unfreeze is '100%': input should be less than 1"),
        ("{unfreeze: 0%}", "detection.unfreeze is '0%': input should be greater than 0"),
        ("{unfreeze: most%}", "detection.unfreeze is 'most%', expected a fraction such as 20% or 0.2"),
        ("{cache_gb: -1}", "detection.cache_gb is -1"),
        ("{pyramid_channels: 4}", "detection.pyramid_channels is 4: input should be greater than or equal to 8"),
        ("{nms: {iou_threshold: 0}}", "detection.nms.iou_threshold is 0: input should be greater than 0"),
        ("{nms: {score_threshold: 1}}", "detection.nms.score_threshold is 1: input should be less than 1"),
        ("{nms: {max_detections: 5000}}", "detection.nms.max_detections is 5000"),
        ("{augmentation: {views: 65}}", "detection.augmentation.views is 65"),
        ("{augmentation: {scale: 0.95}}", "detection.augmentation.scale is 0.95: input should be less than 0.9"),
        ("{finetune: {epochs: many}}", "detection.finetune.epochs is 'many'"),
    ],
)
def test_each_fault_of_the_section_detection_is_told(study_file: Path, detection: str, fault: str) -> None:
    (found,) = faults(study_file, BOXES + f"detection: {detection}\n")
    assert found.startswith("line 10: ")
    assert fault in found


@pytest.mark.parametrize(("written", "share"), [("20%", 0.2), ("0.2", 0.2), ("'7.5%'", 0.075)])
def test_a_share_is_a_percentage_or_a_fraction(study_file: Path, written: str, share: float) -> None:
    study_file.write_text(BOXES + f"detection: {{unfreeze: {written}}}\n")
    assert load_study(study_file).detection.unfreeze == pytest.approx(share)


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("training: {views: 2}\n", "has training, which is for task classify; the section detection says how"),
        ("search: {trees: 2}\n", "has search, which is for task classify"),
        ("deployments: [combined, branched]\n", "has deployment branched, which task detect has not; it has"),
        ("deployments: [one-vs-rest, branched]\n", "has deployment one-vs-rest and branched, which task"),
    ],
)  # fmt: skip
def test_what_is_for_classification_is_refused_in_a_detection_study(study_file: Path, more: str, fault: str) -> None:
    content = BOXES.replace("deployments: [combined]\n", "") if more.startswith("deployments") else BOXES
    (found,) = faults(study_file, content + more)
    assert fault in found


@pytest.mark.parametrize(
    ("backbone", "fault"),
    [
        ("{name: edgetl/nano, cut: features.3}", "has backbone.cut or truncate, which are for task classify"),
        ("{name: edgetl/nano, labels: coco.names}", "labels is for a Darknet detector; edgetl/nano has no pretrained"),
        ("{name: darknet/yolo.cfg}", "a Darknet cfg needs weights: its .weights file, or null for random ones"),
        ("{name: edgetl/nano, fit: crop}", "backbone.fit is 'crop', expected 'letterbox' or 'stretch'"),
        ("{name: edgetl/nano, image_size: [64, 8]}", "backbone.image_size is (64, 8), expected a number of pixels"),
    ],
)
def test_each_fault_of_a_detectors_backbone_is_told(study_file: Path, backbone: str, fault: str) -> None:
    (found,) = faults(study_file, BOXES.replace("backbone:\n  name: edgetl/nano", f"backbone: {backbone}"))
    assert fault in found


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("deployments: [", "detection: {epochs: 3}\ndeployments: [", "has detection, which is for task detect; leave"),
        ("edgetl/nano", "edgetl/nano\n  fit: stretch", "has backbone.fit or labels, which are for task detect"),
        ("edgetl/nano", "edgetl/nano\n  image_size: [64, 48]", "has a pair for backbone.image_size; a classification"),
    ],
)  # fmt: skip
def test_keys_of_detection_are_refused_in_classification(study_file: Path, old: str, new: str, fault: str) -> None:
    (found,) = faults(study_file, edited(old, new))
    assert fault in found


def test_all_that_does_not_belong_to_a_task_is_told_at_once(study_file: Path) -> None:
    (found,) = faults(study_file, BOXES + "training: {views: 2}\nsearch: {trees: 1}\n")
    assert "has training" in found and "has search" in found


def test_a_specialist_needs_a_second_group(study_file: Path) -> None:
    one_group = edited("  b: [z]\n", "")
    study_file.write_text(one_group)
    assert load_study(study_file).deployments == ("combined",)
    (fault,) = faults(study_file, one_group.replace("[combined]", "[combined, shared]"))
    assert "shared needs at least two groups" in fault


def test_engines_are_built_and_run_as_the_study_says(study_file: Path) -> None:
    study_file.write_text(
        edited("deployments: [", "runtime: tensorrt\nengine: {optimization_level: 3, cuda_graph: true}\ndeployments: [")
    )
    study = load_study(study_file)
    assert (study.runtime, study.engine.optimization_level, study.engine.cuda_graph, study.engine.sparse) == (
        "tensorrt",
        3,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("engine", "precisions", "reason"),
    [
        ("optimization_level: 9", "[fp32]", "less than or equal to 5"),
        ("workspace_mb: 0", "[fp32]", "greater than or equal to 1"),
        ("hardware_compatible: all", "[fp32]", "expected 'ampere-plus' or 'same-compute-capability'"),
        ("optimization_levels: 3", "[fp32]", "did you mean optimization_level?"),
        ("dla_core: 0", "[fp16, int8]", "a DLA core takes INT8 from a calibration cache"),
    ],
)
def test_what_makes_no_sense_of_engines_is_a_fault(study_file: Path, engine: str, precisions: str, reason: str) -> None:
    text = f"engine: {{{engine}}}\nprecisions: {precisions}\ndeployments: ["
    (fault,) = faults(study_file, edited("deployments: [", text))
    assert reason in fault


def test_all_faults_of_a_file_are_told_at_once(study_file: Path) -> None:
    content = """\
name: a/b
name: signs
data: {format: digit, per_label: 1}
groups:
  a: [x]
  b: [x, other]
backbone: {name: resnet}
depoyments: [combined]
"""
    found = faults(study_file, content)
    lines = [fault.split(":")[0] for fault in found]
    assert sorted(lines) == ["line 2", "line 3", "line 3", "line 4", "line 7", "line 8"]
    assert "line 8: depoyments is not a known key (did you mean deployments?)" in found


def test_a_key_given_twice_is_a_fault_even_where_all_else_is_right(study_file: Path) -> None:
    assert faults(study_file, GOOD + "name: other\n") == ("line 10: name is given twice",)
    assert faults(study_file, edited("  b: [z]", "  b: [z]\n  b: [q]")) == ("line 7: groups.b is given twice",)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "true", "False"])
def test_a_bare_yes_or_no_as_a_label_is_refused_and_says_to_quote_it(study_file: Path, word: str) -> None:
    (fault,) = faults(study_file, edited("[x, y]", f"[x, {word}]"))
    assert fault.startswith("line 5: groups.a.1 is the YAML truth value")
    assert fault.endswith("quote the label")
    study_file.write_text(edited("[x, y]", f"[x, '{word}']"))
    assert load_study(study_file).groups["a"] == ("x", word)


def test_numbers_are_labels_and_equal_their_quoted_selves(study_file: Path) -> None:
    study_file.write_text(edited("[x, y]", "[0, 1998]"))
    assert load_study(study_file).groups["a"] == ("0", "1998")
    (fault,) = faults(study_file, edited("[x, y]", "[0, '0']"))
    assert "label '0' is in group 'a' and again in group 'a'" in fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds NoneType, expected a mapping"),
        ("# nothing but a comment\n", "holds NoneType, expected a mapping"),
        ("- name: x\n", "holds list, expected a mapping"),
        ("just words\n", "holds str, expected a mapping"),
        ("name: [1\n", "is not valid YAML"),
        ("name: x\n---\nname: y\n", "is not valid YAML"),
        ("name: !!python/object/apply:os.system [ls]\n", "is not valid YAML"),
        ("name: &a [*a]\n", "is not valid YAML"),
        ("name: 2020-13-45\n", "is not valid YAML"),
        ("name: !!timestamp soon\n", "is not valid YAML"),
        ("name: !!bool maybe\n", "is not valid YAML"),
        ("name: !!int ''\n", "is not valid YAML"),
        ("x: " + "[" * 5000, "is not valid YAML"),
        ('name: "a\\x1b[31mb"\n', "line 1: 'a\\x1b[31mb' holds a control character"),
        ('"x\\u2028y": 1\n', "line 1: 'x\\u2028y' holds a control character"),
        ('"x\\ny": 1\n', "line 1: 'x\\ny' holds a control character"),
        ('name: "\\ud800"\n', "line 1: '\\ud800' holds a control character"),
        ("seed: 0x" + "F" * 6000, "line 1: a value has 6002 characters"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (b"name: a\0b\n", "is not valid YAML"),
    ],
)
def test_what_is_no_study_is_refused_in_one_line(study_file: Path, content: str | bytes, reason: str) -> None:
    message = refusal(study_file, content)
    assert message.startswith(str(study_file))
    assert reason in message


def test_aliases_that_unfold_without_end_are_refused(study_file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "unfolds to more than" in refusal(study_file, "\n".join(lines))


def test_aliases_and_merge_keys_of_a_sensible_file_work(study_file: Path) -> None:
    study_file.write_text(GOOD + "budget: {max_latency_ms: &most 3, max_memory_mb: *most}\n")
    assert load_study(study_file).budget.max_memory_mb == 3.0


def test_a_file_from_windows_reads_like_any_other(study_file: Path) -> None:
    study_file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_study(study_file).name == "signs"


def test_a_missing_file_a_folder_and_a_dangling_link_are_told_apart(tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "nowhere")
    for path, reason in (
        (tmp_path / "no.yaml", "does not exist"),
        (tmp_path, "cannot be read"),
        (link, "does not exist"),
    ):
        with pytest.raises(EdgetlError, match=reason):
            load_study(path)


def test_a_study_cannot_be_changed_once_it_is_loaded(study_file: Path) -> None:
    study_file.write_text(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        load_study(study_file).seed = 3  # type: ignore[misc]


def test_the_default_recipe_is_the_one_in_the_calibration_folder(tmp_path: Path) -> None:
    written = yaml.safe_load((PROJECT / "calibration" / "default.yaml").read_text())
    assert CalibrationRecipe().model_dump() == written
    assert load_recipe("default", PROJECT) == CalibrationRecipe()


def test_default_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("default", tmp_path) == CalibrationRecipe()


def test_a_recipe_beside_the_study_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, elsewhere = tmp_path / "studies", tmp_path / "elsewhere"
    for folder, images in ((beside, 7), (elsewhere, 9)):
        (folder / "calibration").mkdir(parents=True)
        (folder / "calibration" / "few.yaml").write_text(f"images: {images}\n")
    (elsewhere / "calibration" / "only_here.yaml").write_text("method: max\n")
    (beside / "mine.yaml").write_text("seed: 3\n")
    monkeypatch.chdir(elsewhere)
    assert load_recipe("few", beside).images == 7
    assert load_recipe("only_here", beside).method == "max"
    assert load_recipe("mine.yaml", beside).seed == 3


def test_a_recipe_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError) as caught:
        load_recipe("careful", tmp_path)
    assert "calibration recipe 'careful' was not found" in str(caught.value)
    assert str(tmp_path / "calibration" / "careful.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("method: kl\n", "line 1: method is 'kl', expected 'max', 'percentile', 'entropy', 'mse' or 'auto'"),
        ("images: 0\n", "line 1: images is 0"),
        ("seed: 1\npercentile: 101\n", "line 2: percentile is 101"),
        ("seed: -1\n", "line 1: seed is -1"),
        ("image: 5\n", "line 1: image is not a known key (did you mean images?)"),
    ],
)
def test_a_faulty_recipe_is_told_like_a_faulty_study(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(StudyError) as caught:
        load_recipe("mine.yaml", tmp_path)
    assert fault in str(caught.value)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
_KEYS = st.sampled_from([*Study.model_fields, "format", "val", "cut", "image_size", "a", 1, True, None]) | _SCALARS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)


def loads_or_refuses(study_file: Path, content: bytes) -> None:
    study_file.write_bytes(content)
    try:
        assert isinstance(load_study(study_file), Study)
    except EdgetlError as error:
        assert len(str(error).splitlines()) == 1
        str(error).encode()


@settings(max_examples=150)
@given(st.binary(max_size=60) | st.text(alphabet=st.sampled_from("&*!|>%@:-?[]{},#'\"~\\ \n\tax1.")).map(str.encode))
@example(b"? [a]\n: b")
@example(b"!!set {a, b}")
@example(b"<<: 3")
@example(b"= : 1")
def test_any_bytes_give_a_study_or_one_clear_line(study_file: Path, content: bytes) -> None:
    loads_or_refuses(study_file, content)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([*Study.model_fields]), _VALUES, max_size=6), st.booleans())
def test_any_values_give_a_study_or_one_clear_line(study_file: Path, values: dict[str, object], flow: bool) -> None:
    content = {**yaml.safe_load(GOOD), **values}
    loads_or_refuses(study_file, yaml.safe_dump(content, allow_unicode=True, default_flow_style=flow).encode())


def test_a_guard_without_int8_has_nothing_to_guard(study_file: Path) -> None:
    content = GOOD + "accuracy_control: {max_accuracy_drop: 0.005}\n"
    study_file.write_text(content)
    guard = load_study(study_file).accuracy_control
    assert guard is not None and guard.max_accuracy_drop == 0.005
    (fault,) = faults(study_file, content + "precisions: [fp32, fp16]\n")
    assert "has accuracy_control, which keeps the accuracy of int8; add int8 to precisions, or leave it out" in fault
    assert faults(study_file, GOOD + "accuracy_control: {}\n") == (
        "line 10: accuracy_control.max_accuracy_drop is missing",
    )


def test_detectors_are_not_trained_for_int8(study_file: Path) -> None:
    study_file.write_text(GOOD.replace("format: digits", "format: synthetic") + "task: detect\n")
    study = load_study(study_file)
    with pytest.raises(EdgetlError, match="is for task classify: a detector's convolutions are quantised themselves"):
        study.quantization_aware()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("guard: {max_accuracy_drop: 0.005}", ("guard is now called accuracy_control",)),
        (
            "training: {regularisation: [0.1], finetune: {rate: 0.1}}",
            (
                "training.finetune.rate is now called learning_rate",
                "training.regularisation is now called l2",
            ),
        ),
        (
            "detection: {rate: 0.1, suppression: {score: 0.1}}",
            (
                "detection.rate is now called learning_rate",
                "detection.suppression is now called nms",
            ),
        ),
        ("detection: {nms: {overlap: 0.5}}", ("detection.nms.overlap is now called iou_threshold",)),
    ],
)
def test_a_key_of_an_older_file_is_told_by_its_new_name(study_file: Path, written: str, told: tuple[str, ...]) -> None:
    assert sorted(faults(study_file, f"{GOOD}{written}\n")) == [f"line 10: {one}" for one in told]
