"""INT8 and FP16 on real weights and images: what accuracy they cost against the alternatives, what `auto` costs in time
and memory, what TensorRT's parser makes of the graphs, and how fast the other spelling is on a CPU.

Peers: ONNX Runtime's static quantisation as it comes and tuned for TensorRT, and NVIDIA ModelOpt, which needs an
environment of its own (``--modelopt PYTHON``: it pins another ONNX Runtime). The same images judge all graphs, on
ONNX Runtime's exact kernels. Guard and calibration never see those images.
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
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from record import MATERIAL, save

CALIBRATED_ON = 512
STUDY = """
name: {name}
data: {{format: image-folder, root: {data}, train: train, val: 0.1, test: test}}
groups: {{all: [{labels}]}}
backbone: {{name: {backbone}, weights: {weights}, image_size: {size}}}
deployments: [combined]
precisions: [fp32]
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
MODELS = [*BACKBONES, "tiny_darknet", "resnet"]
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
    parser.add_argument("--detector", type=Path, help="A YOLO graph of `edgetl export`: mAP too.")
    parser.add_argument("--images", type=int, default=2000, help="Judge on so many.")
    parser.add_argument("--work", type=Path, help="Keep graphs here, and take those that are there.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        figures: dict[str, Any] = {"calibrated_on": CALIBRATED_ON, "judged_on": options.images, "models": {}}
        figures["resnet18_at_224_on_one_thread"] = speed(work, options.data)
        for name in options.models:
            figures["models"][name] = model_figures(name, work, options)
            save(options.output, "precision", figures, threads=1)  # what follows may take an hour
        if options.detector is not None:
            figures["detector"] = detector(options.detector, options.data.parent / "coco128", work)
        save(options.output, "precision", figures, threads=1)


def model_figures(name: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of every graph against FP32, image by image; what making them took; what TensorRT makes of ours."""
    folder = work / name
    folder.mkdir(exist_ok=True)
    graph = folder / "fp32.onnx"
    if not graph.exists():
        {"resnet": resnet, "tiny_darknet": tiny_darknet}.get(name, pretrained)(name, graph, options.data)
    judged, guarded = split(options.data / "test", folder, options.images)
    made, costs = {}, {}
    for title, make in recipes(graph, folder, options, guarded).items():
        path = folder / f"{title}.onnx"
        begin = time.perf_counter()
        peak = make(path)
        if peak is not None:
            costs[title] = {"seconds": round(time.perf_counter() - begin, 1), "peak_mb": round(peak)}
            made[title] = path
    exact = hits(graph, judged)
    figures = {"fp32": float(exact.mean()), "costs": costs, "drop_points": {}, "tensorrt": {}}
    for title, path in made.items():
        figures["drop_points"][title] = drop(exact, path, judged)
        if "onnxruntime" not in title or title.startswith("ort"):
            figures["tensorrt"][title] = parsed(path)
    note = folder / "int8_guarded.onnx.json"
    if note.exists():
        figures["guard"] = json.loads(note.read_text())["guard"]
        figures["returned_to_fp16"] = json.loads(note.read_text())["kept"]
    return figures


def recipes(graph: Path, folder: Path, options: argparse.Namespace, guarded: Path) -> dict[str, Any]:
    """By the title of each graph a function that writes it and tells its peak of memory, None where it cannot."""
    images = ["--calibration-images", drawn(options.data / "train", folder), "--recipe", recipe(folder)]
    budget = ["--max-accuracy-drop", 0.005, "--eval-images", guarded]

    def ours(*arguments: object) -> Any:
        return lambda path: measured(sys.executable, "-m", "edgetl", "prepare", graph, *arguments, "-o", path)

    def peer(kind: str) -> Any:
        return lambda path: measured(sys.executable, __file__, "--peer", kind, graph, calibration(graph, folder), path)

    def modelopt(path: Path) -> float | None:
        if options.modelopt is None:
            return None
        data, copy = calibration(graph, folder), folder / "for_modelopt.onnx"
        copy.write_bytes(graph.read_bytes())  # it writes names into the file that it is given
        return measured(options.modelopt, "-c", MODELOPT, copy, data, path, onnx.load(graph).graph.input[0].name)

    return {
        "fp16": ours("--precision", "fp16", *images[:2]),
        "int8": ours("--precision", "int8", *images),
        "int8_onnxruntime": ours("--precision", "int8", *images, "--target", "onnxruntime"),
        "int8_guarded": ours("--precision", "int8", *images, *budget),
        "ort_default": peer("default"),
        "ort_for_tensorrt": peer("tensorrt"),
        "modelopt": modelopt,
    }


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
    backbone, weights, size = BACKBONES[name]
    study, run = graph.with_name("study.yaml"), graph.with_name("run")
    labels = ", ".join(sorted(path.name for path in (data / "train").iterdir()))
    text = STUDY.format(
        name=name,
        data=data.resolve(),
        labels=labels,
        backbone=backbone,
        weights=(MATERIAL / weights).resolve(),
        size=size,
    )
    study.write_text(text)
    for command in ("finetune", "export"):
        subprocess.run([sys.executable, "-m", "edgetl", command, study, "-o", run], check=True)
    graph.write_bytes((run / "graphs" / "combined.fp32.onnx").read_bytes())


def tiny_darknet(name: str, graph: Path, data: Path) -> None:
    """Tiny Darknet's ImageNet weights, frozen, with a logistic regression by scikit-learn as head."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from torch import nn

    from edgetl.artifacts.bundle import Preprocessing
    from edgetl.graph.metadata import describe
    from edgetl.train.darknet.cfg import read_cfg
    from edgetl.train.darknet.network import build, take_classifier_off
    from edgetl.train.darknet.weights import read_weights
    from edgetl.train.export import export_network

    folder, size = MATERIAL / "darknet" / "tiny-classifier", 128
    cfg = read_cfg(folder / "tiny.cfg", size)
    trunk = build(cfg)
    trunk.load_state_dict(read_weights(folder / "tiny.weights", cfg))
    take_classifier_off(trunk)
    labels = sorted(path.name for path in (data / "train").iterdir())
    shape = graph.with_name("shape.onnx")
    model = export_network(trunk, (3, size, size), ["features"], name)
    describe(model, {}, {}, Preprocessing.square(size))
    onnx.save(model, shape)
    files = [file for label in labels for file in sorted((data / "train" / label).iterdir())]
    with torch.inference_mode():
        features = [trunk(torch.from_numpy(images)) for images in batches(shape, files, data)]
    scaler = StandardScaler()
    found = scaler.fit_transform(torch.cat(features).numpy())
    fitted = LogisticRegression(C=0.1, max_iter=300).fit(found, [labels.index(file.parent.name) for file in files])
    head = nn.Linear(found.shape[1], len(labels))
    weight = fitted.coef_ / scaler.scale_
    head.weight.data = torch.from_numpy(weight).float()
    head.bias.data = torch.from_numpy(fitted.intercept_ - weight @ scaler.mean_).float()
    whole = nn.Sequential(trunk, head, nn.Softmax(1)).eval()
    model = export_network(whole, (3, size, size), ["classes"], name)
    describe(model, {"classes": tuple(labels)}, {}, Preprocessing.square(size))
    onnx.save(model, graph)


def resnet(name: str, graph: Path, data: Path) -> None:
    """A ResNet of eight layers, trained here from nothing at 32 x 32."""
    import torch
    from torch import nn

    from edgetl.artifacts.bundle import Preprocessing
    from edgetl.graph.metadata import describe
    from edgetl.train.export import export_network

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


def split(test: Path, folder: Path, count: int) -> tuple[Path, Path]:
    """The test images in two folders of links: those to judge by, and as many others for the guard."""
    files = sorted(file for file in test.rglob("*") if file.is_file())
    order = np.random.default_rng(0).permutation(len(files))
    parts = {"judged": order[:count], "guarded": order[count : 2 * count]}
    for name, rows in parts.items():
        for row in rows:
            link = folder / name / files[row].parent.name / files[row].name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(files[row].resolve())
    return folder / "judged", folder / "guarded"


def batches(graph: Path, files: list[Path], root: Path) -> Iterator[np.ndarray]:
    from edgetl.artifacts.files import sha256_file
    from edgetl.artifacts.index import Sample
    from edgetl.data.stream import stream, to_input
    from edgetl.data.views import renderer
    from edgetl.graph.model import load_model
    from edgetl.stages.prepare import input_preprocessing

    samples = [Sample(path=str(file.relative_to(root)), label="", sha256=sha256_file(file)) for file in files]
    for batch in stream(samples, root, renderer(input_preprocessing(load_model(graph))), to_input):
        yield batch.result


def drawn(train: Path, folder: Path) -> Path:
    """A list of the images that all quantisers calibrate on."""
    from edgetl.config import Recipe
    from edgetl.data.calibration_images import draw, folder_samples

    path = folder / "calibration.txt"
    if not path.exists():
        chosen = draw(folder_samples(train), Recipe(images=CALIBRATED_ON))
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
    from edgetl.graph.parity import Session

    session = Session(graph)
    fp32 = graph.with_name("fp32.onnx")
    files = sorted(file for file in judged.rglob("*") if file.is_file())
    labels = sorted(path.name for path in judged.iterdir())
    found = []
    for images in batches(fp32, files, judged):
        for position in range(len(images)):
            (answer,) = session.run({session.inputs[0]: images[position : position + 1]}).values()
            found.append(int(answer.argmax()))
    return np.array(found) == [labels.index(file.parent.name) for file in files]


def drop(exact: np.ndarray, graph: Path, judged: Path) -> dict[str, Any]:
    """Points of top-1 accuracy lost against FP32, with the 95 % interval over the same images."""
    from edgetl.measure.bootstrap import paired_difference

    try:
        value, low, high = paired_difference(exact, hits(graph, judged))
    except Exception as error:
        return {"failed": str(error)[:300]}
    return {"drop": round(100 * value, 2), "low": round(100 * low, 2), "high": round(100 * high, 2)}


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

    from edgetl.train.export import export_network

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


def detector(graph: Path, data: Path, work: Path) -> dict[str, Any]:
    """A YOLO graph (of ``edgetl export --nms operator``): its mAP in each precision, on COCO's validation images."""
    figures: dict[str, Any] = {"fp32": average_precision(graph, data)}
    few = work / "detector.yaml"
    few.write_text("method: auto\nimages: 128\n")
    for precision in ("fp16", "int8"):
        path = work / f"detector.{precision}.onnx"
        options = ["--precision", precision, "--calibration-images", data / "images" / "train2017"]
        options += ["--recipe", few.resolve()] if precision == "int8" else []
        measured(sys.executable, "-m", "edgetl", "prepare", graph, *options, "-o", path)
        figures[precision] = average_precision(path, data)
    return figures


def average_precision(graph: Path, data: Path) -> dict[str, float]:
    """mAP@0.5 with its interval over images."""
    from PIL import Image

    from edgetl.artifacts.boxes import Box, BoxedImage
    from edgetl.artifacts.files import sha256_file
    from edgetl.data.stream import stream, to_input
    from edgetl.data.views import renderer
    from edgetl.graph.metadata import labels_of
    from edgetl.graph.model import load_model
    from edgetl.graph.parity import Reference
    from edgetl.measure.average_precision import score
    from edgetl.measure.matching import match
    from edgetl.stages.detect.validation import Validation
    from edgetl.stages.prepare import input_preprocessing

    model = load_model(graph)
    ((output, labels),) = labels_of(model).items()
    truth, root = [], data / "images" / "val2017"
    for file in sorted(root.iterdir()):
        note = data / "labels" / "val2017" / f"{file.stem}.txt"
        width, height = Image.open(file).size
        boxes = []
        for line in note.read_text().splitlines() if note.exists() else []:
            label, x, y, w, h = (float(part) for part in line.split())
            ends = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            boxes.append(Box(label=labels[int(label)], **dict(zip(("x1", "y1", "x2", "y2"), ends, strict=True))))
        sides = {"width": width, "height": height}
        truth.append(BoxedImage(path=file.name, sha256=sha256_file(file), boxes=tuple(boxes), **sides))
    reference, preprocessing, found = Reference(model), input_preprocessing(model), []
    for batch in stream(truth, root, renderer(preprocessing), to_input):
        each = [reference.run(batch.result[number : number + 1])[output][0] for number in range(len(batch.rows))]
        found += Validation([truth[row] for row in batch.rows], preprocessing).on_images([e[e[:, 4] > 0] for e in each])
    value = score(match(truth, found, labels), {"all": labels}).overall.ap50
    return {"map50": value.value, "low": value.low, "high": value.high}


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
