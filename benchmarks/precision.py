"""INT8 and FP16 on real weights and images: what accuracy they cost against the alternatives, what `auto` costs in time
and memory, what TensorRT's parser makes of the graphs, and how fast the other spelling is on a CPU.

Peers: ONNX Runtime's static quantisation as it comes and tuned for TensorRT, and NVIDIA ModelOpt, which needs an
environment of its own (``--modelopt PYTHON``: it pins another ONNX Runtime). All test images judge all graphs, on ONNX
Runtime's exact kernels; a drop is paired with FP32 image by image. Of the training images a fifth is put aside for
validation: no head learns from it, and the guard judges by it. Calibration draws from the rest.

A ``--work`` folder keeps graphs and answers, so that a run can go on. Runs of single ``--models`` add up in one result
file where commit, machine and images are the same; else it begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from record import MATERIAL, save

from edgetl.engine.processor import processor
from edgetl.measure.bootstrap import paired_difference
from edgetl.measure.environment import describe

CALIBRATED_ON = 512
VALIDATION = 0.2
BUDGET = 0.005
STUDY = """
name: {name}
data: {{format: image-folder, root: {data}, train: train, val: val, test: test, overlap: drop}}
groups: {{all: [{labels}]}}
backbone: {{name: {backbone}, weights: {weights}, image_size: {size}}}
deployments: [combined]
precisions: [{precision}]
{more}
"""
BACKBONES = {
    "mobilenet_v2": ("torchvision/mobilenet_v2", "backbones/mobilenet_v2/mobilenet_v2.torchvision.safetensors", 128),
    "squeezenet1_0": ("torchvision/squeezenet1_0", "backbones/squeezenet1_0/squeezenet1_0.safetensors", 128),
    "tiny_darknet": (
        "darknet/{material}/darknet/tiny-classifier/tiny.cfg",
        "darknet/tiny-classifier/tiny.weights",
        128,
    ),
}
MODELS = [*BACKBONES, "resnet"]
DETECTOR = "darknet/mobilenetv2-yolov3-nano-coco/MobileNetV2-YOLOv3-Nano-coco.cfg"
PEERS = ("ort_default", "ort_for_tensorrt", "modelopt")
AWARE = "mobilenet_v2"
"""Whose head is trained on what INT8 hands it, too."""
FOR_INT8 = """
training: {{quantization_aware: true}}
runtime: tensorrt-rtx
calibration: {recipe}
"""
MODELOPT = """
import sys, numpy as np
from modelopt.onnx.quantization import quantize
quantize(sys.argv[1], quantize_mode="int8", calibration_data={sys.argv[4]: np.load(sys.argv[2])},
         calibration_eps=["cpu"], output_path=sys.argv[3], log_level="ERROR", high_precision_dtype="fp32")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=MATERIAL / "datasets" / "cifar10")
    parser.add_argument("--modelopt", type=Path, help="The Python of an environment with nvidia-modelopt[onnx].")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--images", type=int, help="Judge on so many test images, and the guard on as many; else all.")
    parser.add_argument("--work", type=Path, help="Keep graphs here, and take those that are there.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        data = splits(options.data, work / f"data-{options.images or 'all'}", options.images)
        sizes = {part: sum(1 for _ in (data / part).glob("*/*")) for part in ("train", "val", "test")}
        facts = {"commit": commit(), "calibrated_on": CALIBRATED_ON, "budget": BUDGET, "images": sizes}
        figures = facts | {"models": earlier(options.output / "precision.json", facts)}
        figures["resnet18_at_224_on_one_thread"] = speed(work, options.data)
        for name in options.models:
            figures["models"][name] = model_figures(name, work, data, options.modelopt)
            save(options.output, "precision", figures, threads=1)  # what follows may take an hour
        figures["detector"] = detector_figures(options.data.parent / "coco128", work / "detector", options.modelopt)
        save(options.output, "precision", figures, threads=1)


def commit() -> str:
    """Which edgetl it was; what is not committed has no name."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


def earlier(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Models of an earlier run of the same commit, on the same machine and images."""
    if not path.exists() or facts["commit"].endswith("-dirty"):
        return {}
    found = json.loads(path.read_text())
    now = facts | {"environment": describe(processor(), 1)}
    changed = [key for key, value in now.items() if found.get(key) != value]
    if changed:
        print(f"{path} was made with another {changed[0]}: it begins anew", file=sys.stderr)
    return {} if changed else dict(found["models"])


def splits(data: Path, folder: Path, count: int | None) -> Path:
    """Links to the images: ``train``, a part of it put aside as ``val``, and ``test``; of these two so many alone."""
    rng = np.random.default_rng(0)
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for label in sorted(data.glob("train/*")):
        ordered = sorted(label.iterdir())
        files = [ordered[row] for row in rng.permutation(len(ordered))]
        aside = round(VALIDATION * len(files))
        parts["val"] += files[:aside]
        parts["train"] += files[aside:]
    parts["test"] = sorted(data.glob("test/*/*"))
    for name, files in parts.items():
        chosen = files if count is None or name == "train" else [files[row] for row in rng.permutation(len(files))]
        for file in chosen[: None if name == "train" else count]:
            link = folder / name / file.parent.name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(file.resolve())
    return folder


def model_figures(name: str, work: Path, data: Path, modelopt: Path | None) -> dict[str, Any]:
    """Accuracy of every graph against FP32, image by image; what making them took; what TensorRT makes of ours."""
    folder = work / name
    folder.mkdir(exist_ok=True)
    graph = folder / "fp32.onnx"
    if not graph.exists():
        (resnet if name == "resnet" else pretrained)(name, graph, data)
    images = drawn(data / "train", folder)
    made = recipes(graph, images, data / "val", modelopt)
    if name == AWARE:
        made["int8_aware"] = lambda path: aware(name, path, data)
    return {"fp32": float(hits(graph, data / "test").mean())} | graphs(
        folder, made, lambda a, b: paired_difference(hits(a, data / "test"), hits(b, data / "test"))
    )


def graphs(folder: Path, made: dict[str, Any], difference: Any) -> dict[str, Any]:
    """What making every graph took, what it loses, what TensorRT makes of it, and what edgetl decided.

    ``difference``: of two graphs, by how much the second is below the first, and the ends of its 95 % interval.
    """
    paths = {title: folder / f"{title}.onnx" for title in made}
    costs = {title: found for title, make in made.items() if (found := cost(paths[title], make)) is not None}
    figures: dict[str, Any] = {"costs": costs, "drop_points": {}, "tensorrt": {}}
    figures["not_made"] = [title for title in made if title not in costs]
    for title in costs:
        figures["drop_points"][title] = points(difference, folder / "fp32.onnx", paths[title])
        if "onnxruntime" not in title or title.startswith("ort"):
            figures["tensorrt"][title] = parsed(paths[title])
    peers = [title for title in costs if title in PEERS]
    figures["int8_below"] = {title: points(difference, paths[title], paths["int8"]) for title in peers}
    figures["decided"] = {title: decided(path) for title, path in paths.items() if title.startswith("int8")}
    return figures


def decided(graph: Path) -> dict[str, Any]:
    """From a graph's record: the method, the first and the last layer, what the guard tried, what left INT8."""
    path = graph.with_name(graph.name + ".json")
    if not path.exists():
        return {}
    note = json.loads(path.read_text())
    table = {key: note["calibration"][key] for key in ("method", "trials", "first", "last")}
    return table | {"accuracy_control": note["accuracy_control"], "excluded": note["excluded"]}


def cost(path: Path, make: Any) -> dict[str, float] | None:
    """Seconds and peak memory of making a graph; what the same commit has made before is not made again."""
    note, version = path.with_suffix(".cost.json"), commit()
    if note.exists() and path.exists() and not version.endswith("-dirty"):
        known = json.loads(note.read_text())
        if known.pop("commit") == version:
            return dict(known)
    begin = time.perf_counter()
    peak = make(path)
    if peak is None:
        return None
    found = {"seconds": round(time.perf_counter() - begin, 1), "peak_mb": round(peak)}
    note.write_text(json.dumps(found | {"commit": version}))
    return found


def recipes(
    graph: Path, calibrated_on: Path, guarded_by: Path, modelopt_python: Path | None, for_ort: Path | None = None
) -> dict[str, Any]:
    """By the title of each graph a function that writes it and tells its peak of memory, None where it cannot.

    ``for_ort``: what ONNX Runtime's own quantiser gets, where that is another file.
    """
    folder = graph.parent
    images = ["--calibration-images", calibrated_on, "--recipe", recipe(folder)]
    budget = ["--max-accuracy-drop", BUDGET, "--eval-images", guarded_by]

    def ours(*arguments: object) -> Any:
        return lambda path: measured(sys.executable, "-m", "edgetl", "prepare", graph, *arguments, "-o", path)

    def peer(kind: str) -> Any:
        source = for_ort or graph
        return lambda path: measured(sys.executable, __file__, "--peer", kind, source, calibration(graph, folder), path)

    def modelopt(path: Path) -> float | None:
        if modelopt_python is None:
            return None
        array, copy = calibration(graph, folder), folder / "for_modelopt.onnx"
        copy.write_bytes(graph.read_bytes())  # it writes names into the file that it is given
        return measured(modelopt_python, "-c", MODELOPT, copy, array, path, onnx.load(graph).graph.input[0].name)

    return {
        "fp16": ours("--precision", "fp16", *images[:2]),
        "int8": ours("--precision", "int8", *images),
        "int8_onnxruntime": ours("--precision", "int8", *images, "--target", "onnxruntime"),
        "int8_guarded": ours("--precision", "int8", *images, *budget),
        "ort_default": peer("default"),
        "ort_for_tensorrt": peer("tensorrt"),
        "modelopt": modelopt,
    }


def aware(name: str, graph: Path, data: Path) -> float | None:
    """The same backbone with a head that was trained on what it hands on in INT8."""
    folder = graph.parent
    study, run = folder / "aware.yaml", folder / "aware"
    study.write_text(study_text(name, data, "int8", FOR_INT8.format(recipe=recipe(folder))))
    peaks = [measured(sys.executable, "-m", "edgetl", command, study, "-o", run) for command in ("finetune", "export")]
    if any(peak is None for peak in peaks):
        return None
    graph.write_bytes((run / "graphs" / "combined.int8.tensorrt.onnx").read_bytes())
    return max(peak for peak in peaks if peak is not None)


def recipe(folder: Path) -> Path:
    path = folder / "auto.yaml"
    path.write_text(f"method: auto\nimages: {CALIBRATED_ON}\n")
    return path.resolve()


LAUNCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measured(*command: object) -> float | None:
    """Run a program; the most memory that it had, in MB. A failure is printed and told as None.

    A small program starts it: the kernel counts what a process had before it became another one, too.
    """
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    words = [sys.executable, "-c", LAUNCH, *map(str, command)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return int(done.stdout) / 1024


def pretrained(name: str, graph: Path, data: Path) -> None:
    """A frozen ImageNet backbone with a head for the data set, by edgetl itself."""
    study, run = graph.with_name("study.yaml"), graph.with_name("run")
    study.write_text(study_text(name, data, "fp32"))
    for command in ("finetune", "export"):
        subprocess.run([sys.executable, "-m", "edgetl", command, study, "-o", run], check=True)
    graph.write_bytes((run / "graphs" / "combined.fp32.onnx").read_bytes())


def study_text(name: str, data: Path, precision: str, more: str = "") -> str:
    backbone, weights, size = BACKBONES[name]
    return STUDY.format(
        name=name,
        data=data.resolve(),
        labels=", ".join(sorted(path.name for path in (data / "train").iterdir())),
        backbone=backbone.format(material=MATERIAL.resolve()),
        weights=(MATERIAL / weights).resolve(),
        size=size,
        precision=precision,
        more=more,
    )


def resnet(name: str, graph: Path, data: Path) -> None:
    """A ResNet of eight layers, trained here from nothing at 32 x 32."""
    import torch
    from torch import nn

    from edgetl.artifacts.bundle import Preprocessing
    from edgetl.graph.metadata import describe
    from edgetl.train.onnx_export import export_network

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            stride = 1 if inputs == outputs else 2
            self.a = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
            self.b = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
            short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            self.short = short if stride == 2 else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.b(torch.relu(self.a(x))) + self.short(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stem = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
            self.trunk = nn.Sequential(*stem, Block(32, 32), Block(32, 64), Block(64, 128))
            self.head = nn.Linear(128, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.logits(x), 1)

        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.trunk((x - 0.47) / 0.25).mean((2, 3)))

    torch.manual_seed(0)
    labels = sorted(path.name for path in (data / "train").iterdir())
    files = [
        (file, number) for number, label in enumerate(labels) for file in sorted((data / "train" / label).iterdir())
    ]
    images = torch.from_numpy(np.stack([pixels(file) for file, _ in files]))
    truth = torch.tensor([number for _, number in files])
    network, epochs, size = Network(), 8, 64
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, epochs * (len(files) // size))
    for _ in range(epochs):
        for rows in torch.randperm(len(files))[: len(files) // size * size].split(size):
            shift = torch.randint(-4, 5, (2,)).tolist()
            batch = torch.roll(images[rows], shift, (2, 3))
            batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.cross_entropy(network.logits(batch), truth[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model = export_network(network.eval(), (3, 32, 32), ["classes"], name)
    describe(model, {"classes": tuple(labels)}, {}, Preprocessing.square(32))
    onnx.save(model, graph)


def pixels(file: Path) -> np.ndarray:
    from PIL import Image

    return (np.asarray(Image.open(file).convert("RGB"), np.float32) / np.float32(255)).transpose(2, 0, 1)


def batches(graph: Path, files: list[Path], root: Path) -> Iterator[np.ndarray]:
    from edgetl.artifacts.data_index import Sample
    from edgetl.artifacts.files import sha256_file
    from edgetl.config import InputContract
    from edgetl.data.stream import stream, to_input
    from edgetl.data.views import renderer
    from edgetl.graph.metadata import recorded_preprocessing
    from edgetl.graph.model import load_model
    from edgetl.stages.input_contract import input_preprocessing

    model = load_model(graph)
    # Peers drop the metadata; all networks here normalise by themselves.
    preprocessing = recorded_preprocessing(model) or input_preprocessing(model, InputContract())
    samples = [Sample(path=str(file.relative_to(root)), label="", sha256=sha256_file(file)) for file in files]
    for batch in stream(samples, root, renderer(preprocessing), to_input):
        yield batch.result


def drawn(train: Path, folder: Path) -> Path:
    """A list of the images that all quantisers calibrate on."""
    from edgetl.config import CalibrationRecipe
    from edgetl.data.calibration_images import draw, folder_samples

    path = folder / "calibration.txt"
    if not path.exists():
        chosen = draw(folder_samples(train), CalibrationRecipe(images=CALIBRATED_ON))
        path.write_text("".join(f"{(train / sample.path).resolve()}\n" for sample in chosen))
    return path


def calibration(graph: Path, folder: Path) -> Path:
    """The same images as an array, for the peers."""
    path = folder / "calibration.npy"
    if not path.exists():
        files = [Path(line) for line in (folder / "calibration.txt").read_text().splitlines()]
        np.save(path, np.concatenate(list(batches(graph, files, Path("/")))))
    return path


def hits(graph: Path, judged: Path) -> np.ndarray:
    """Which images a graph gets right, in the order of their names; kept beside it."""
    from edgetl.artifacts.files import sha256_file
    from edgetl.graph.parity import Session

    files = sorted(file for file in judged.rglob("*") if file.is_file())
    kept = graph.with_name(f"{graph.stem}.{sha256_file(graph)[:16]}.{len(files)}.npy")
    if kept.exists():
        return np.load(kept)
    session, labels = Session(graph), sorted(path.name for path in judged.iterdir())
    found = []
    for images in batches(graph.with_name("fp32.onnx"), files, judged):
        for position in range(len(images)):
            (answer,) = session.run({session.inputs[0]: images[position : position + 1]}).values()
            found.append(int(answer.argmax()))
    right = np.array(found) == [labels.index(file.parent.name) for file in files]
    np.save(kept, right)
    return right


def points(difference: Any, a: Path, b: Path) -> dict[str, Any]:
    """A paired difference and its ends in points; of a graph that does not run, why."""
    try:
        value, low, high = (round(100 * end, 2) for end in difference(a, b))
    except Exception as error:
        return {"failed": str(error)[:300]}
    return {"drop": value, "low": low, "high": high}


def parsed(graph: Path) -> dict[str, Any]:
    """What TensorRT-RTX makes of a graph: layers in INT8, at one input, in float; lone quantisers; if it builds."""
    from rtx_walk import walk

    from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime
    from edgetl.errors import EdgetlError

    try:
        found = walk(graph)
        with tempfile.TemporaryDirectory() as scratch:
            build_engine(get_runtime("tensorrt-rtx"), graph, Path(scratch) / "engine", BuildOptions())
    except (ValueError, EdgetlError) as error:
        return {"builds": False, "reason": str(error)[:300]}
    return {
        "builds": True,
        "int8": len(found.int8),
        "one_input": len(found.half_done),
        "float": list(found.floating) if found.int8 else len(found.floating),
        "orphans": len(found.orphans),
    }


def speed(work: Path, data: Path) -> dict[str, Any]:
    """ResNet-18 in FP32 and in ONNX Runtime's spelling of INT8, in interleaved rounds."""
    import torchvision

    from edgetl.train.onnx_export import export_network

    graph, int8 = work / "resnet18.onnx", work / "resnet18.int8.onnx"
    if not graph.exists():
        network = torchvision.models.resnet18(weights=None).eval()
        onnx.save(export_network(network, (3, 224, 224), ["logits"], "resnet18"), graph)
    recipe_path = work / "few.yaml"
    recipe_path.write_text("method: mse\nimages: 32\n")
    options = ["--precision", "int8", "--target", "onnxruntime", "--recipe", recipe_path.resolve()]
    measured(
        sys.executable, "-m", "edgetl", "prepare", graph, *options, "--calibration-images", data / "test", "-o", int8
    )
    command = [sys.executable, "-m", "edgetl", "profile", int8, "--against", graph, "--threads", "1", "--seconds", "20"]
    found = json.loads(
        subprocess.run([*map(str, command), "--json"], check=True, capture_output=True, text=True).stdout
    )
    pair = found["comparisons"][0]
    faster = {"times_as_fast": 1 / pair["ratio"], "low": 1 / pair["high"], "high": 1 / pair["low"]}
    return faster | {"p50_ms": {row["name"].split("/")[-1]: row["latency_ms"]["p50"] for row in found["deployments"]}}


def detector_figures(data: Path, folder: Path, modelopt: Path | None) -> dict[str, Any]:
    """The same of a YOLO graph, by mAP@0.5 on COCO's validation images.

    There are 128 images to calibrate on, and the guard judges by them, too. Suppression is a loop, as TensorRT-RTX
    needs it; what ONNX Runtime's quantiser makes of that does not run, so it gets the same graph with ONNX's operator.
    """
    from edgetl.measure.average_precision import map50_drop, map50_estimate

    folder.mkdir(exist_ok=True)
    copy, images = exported(folder, data, "loop", "fp32"), folder / "calibration.txt"
    files = sorted((data / "images" / "train2017").iterdir())
    images.write_text("".join(f"{file.resolve()}\n" for file in files))
    boxes, operator = data / "annotations" / "instances_train2017.json", exported(folder, data, "operator", "operator")
    made = recipes(copy, images, boxes, modelopt, operator)
    value = map50_estimate(detections(copy, data))

    def difference(a: Path, b: Path) -> tuple[float, float, float]:
        value, _, low, high = map50_drop(detections(a, data), detections(b, data))
        return value, low, high

    facts = {"calibrated_on": len(files), "judged_on": len(list((data / "images" / "val2017").iterdir()))}
    return (
        facts
        | {"fp32": {"map50": value.value, "low": value.low, "high": value.high}}
        | graphs(folder, made, difference)
    )


def exported(folder: Path, data: Path, suppression: str, name: str) -> Path:
    """The network with one form of suppression, by edgetl itself, under the names that the data has for its labels."""
    import yaml

    names, graph = folder / "coco.names", folder / f"{name}.onnx"
    known = yaml.safe_load((data / "config.yaml").read_text())["names"]
    names.write_text("".join(f"{known[number]}\n" for number in sorted(known)))
    cfg = (MATERIAL / DETECTOR).resolve()
    words = [
        "export",
        cfg,
        "--weights",
        cfg.with_suffix(".weights"),
        "--labels",
        names,
        "--nms",
        suppression,
        "-o",
        graph,
    ]
    subprocess.run([sys.executable, "-m", "edgetl", *map(str, words)], check=True)
    return graph


@lru_cache
def detections(graph: Path, data: Path) -> Any:
    """What a graph finds in COCO's validation images, against what is there."""
    from edgetl.data.stream import stream, to_input
    from edgetl.data.views import renderer
    from edgetl.graph.metadata import labels_of
    from edgetl.graph.model import load_model
    from edgetl.graph.parity import Reference
    from edgetl.measure.matching import match
    from edgetl.stages.detect.validation import ValidationImages
    from edgetl.stages.input_contract import input_preprocessing

    model = load_model(graph)
    plain = load_model(graph.with_name("fp32.onnx"))  # peers drop the metadata
    ((output, labels),) = labels_of(plain).items()
    truth, root = annotated(data, labels), data / "images" / "val2017"
    reference, preprocessing, images, found = Reference(model), input_preprocessing(plain), [], []
    for batch in stream(truth, root, renderer(preprocessing), to_input):
        here = [truth[row] for row in batch.rows]
        each = [reference.run(batch.result[number : number + 1])[output][0] for number in range(len(here))]
        found += ValidationImages(here, preprocessing).on_images([one[one[:, 4] > 0] for one in each])
        images += here
    return match(images, found, labels)


def annotated(data: Path, labels: tuple[str, ...]) -> list[Any]:
    """COCO's validation images with their boxes, in YOLO's format of labels."""
    from PIL import Image

    from edgetl.artifacts.box_index import Box, BoxedImage
    from edgetl.artifacts.files import sha256_file

    truth = []
    for file in sorted((data / "images" / "val2017").iterdir()):
        note = data / "labels" / "val2017" / f"{file.stem}.txt"
        width, height = Image.open(file).size
        boxes = []
        for line in note.read_text().splitlines() if note.exists() else []:
            label, x, y, w, h = (float(part) for part in line.split())
            ends = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            boxes.append(Box(label=labels[int(label)], **dict(zip(("x1", "y1", "x2", "y2"), ends, strict=True))))
        sides = {"width": width, "height": height}
        truth.append(BoxedImage(path=file.name, sha256=sha256_file(file), boxes=tuple(boxes), **sides))
    return truth


def peer(kind: str, graph: Path, data: Path, output: Path) -> None:
    """ONNX Runtime's own quantiser, in a process of its own so that its memory can be told."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            images, name = np.load(data, mmap_mode="r"), onnx.load(graph).graph.input[0].name
            self._each = iter({name: np.array(images[row : row + 1])} for row in range(len(images)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._each, None)

    tuned: dict[str, Any] = {
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "op_types_to_quantize": ["Conv", "Gemm", "MatMul"],
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "MatMul", "Add", "Relu"],
        },
    }
    quantize_static(str(graph), str(output), Reader(), **(tuned if kind == "tensorrt" else {}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer(sys.argv[2], *map(Path, sys.argv[3:6]))
    else:
        main()
