"""From images to all heads trained, against one bare forward pass and against the usual loop.

The floor is one pass of the trunk over the images, decoding included: nothing that trains on them can do less. It is
taken by PyTorch eager and by ONNX Runtime, each with decoding in background threads, and by ONNX Runtime with one
thread for each decoding worker; the fastest counts.

The usual loop runs the frozen backbone in every epoch for every model (combined, and one per group), with one
regularisation strength, for as many epochs as our solver made passes over the features. It is run on fewer images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from record import MATERIAL, save, spread

from edgetl.artifacts.bundle import IMAGES
from edgetl.artifacts.data_index import DataIndex, Sample
from edgetl.config import BackboneSettings as BackboneConfig
from edgetl.config import DataSettings, Study
from edgetl.data.index_images import build_index
from edgetl.data.stream import CORES, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.simplify import simplify
from edgetl.train import solver
from edgetl.train.backbones import Backbone, load_backbone
from edgetl.train.feature_cache import View, cached_features, make_extractor
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures, plan_heads, train_heads
from edgetl.train.onnx_export import export_trunk

GROUPS = {
    "vehicles": ("airplane", "automobile", "ship", "truck"),
    "animals": ("bird", "cat", "deer", "dog", "frog", "horse"),
}
DEPLOYMENTS = ("combined", "specialised", "shared", "one-vs-rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=MATERIAL / "datasets" / "cifar10")
    weights = MATERIAL / "backbones" / "mobilenet_v2" / "mobilenet_v2.torchvision.safetensors"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop-images", type=int, default=400)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    study = Study(
        name="train-heads",
        data=DataSettings(format="image-folder", root=str(options.data.resolve()), train="train", test="test"),
        groups=GROUPS,
        backbone=BackboneConfig(
            name="torchvision/mobilenet_v2", weights=str(options.weights.resolve()), image_size=options.image_size
        ),
        deployments=DEPLOYMENTS,
    )
    bench = Bench(study, options.data.resolve())
    floor = bench.against_floor(options.repeats)
    loop = bench.against_loop(options.loop_images)
    save(options.output, "train_heads", {"images": len(bench.index.train), "floor": floor, "loop": loop}, CORES)


class Bench:
    def __init__(self, study: Study, root: Path) -> None:
        self.study, self.root = study, root
        with tempfile.TemporaryDirectory() as scratch:
            self.index: DataIndex = build_index(study, Path(), Path(scratch))
        self.backbone: Backbone = load_backbone(study.backbone, Path(), 0)
        self.plans = plan_heads(DEPLOYMENTS, GROUPS)

    def against_floor(self, repeats: int) -> dict[str, Any]:
        """Ours and both bare passes in turn, so that drift of the machine hits all alike."""
        session = _session(self.backbone)
        timers: dict[str, Callable[[], object]] = {
            "ours": lambda: self.images_to_heads(self.index.train, self.index.val),
            "torch": lambda: self.bare_pass(lambda x: self.backbone.trunk(torch.from_numpy(x))),
            "onnxruntime": lambda: self.bare_pass(lambda x: session.run(None, {IMAGES: x})),
            "onnxruntime, one thread for each worker": lambda: self.bare_pass_in_workers(),
        }
        seconds: dict[str, list[float]] = {name: [] for name in timers}
        for _ in range(repeats):
            for name, call in timers.items():
                begin = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - begin)
        best = min((name for name in timers if name != "ours"), key=lambda name: min(seconds[name]))
        ratios = [ours / bare for ours, bare in zip(seconds["ours"], seconds[best], strict=True)]
        return {"seconds": {n: spread(s) for n, s in seconds.items()}, "faster": best, "ours_over_bare": spread(ratios)}

    def bare_pass(self, forward: Callable[[Any], object]) -> None:
        """Train and validation images once through the trunk: decoded by threads, the model on all cores."""
        samples = (*self.index.train, *self.index.val)
        with torch.inference_mode():
            for batch in stream(samples, self.root, renderer(self.backbone.preprocessing), to_input, batch_size=32):
                forward(batch.result)

    def bare_pass_in_workers(self) -> None:
        """As ours, and nothing but the pass: the nearest to the floor that there is."""
        extract = make_extractor(self.backbone.trunk, export_trunk(self.backbone))
        for _ in stream(
            (*self.index.train, *self.index.val), self.root, renderer(self.backbone.preprocessing), extract
        ):
            pass

    def images_to_heads(
        self, train: tuple[Sample, ...], val: tuple[Sample, ...]
    ) -> tuple[dict[str, np.ndarray[Any, Any]], Callable[..., Any]]:
        """What `edgetl finetune` does after reading the index: trunk exported, features cached, all heads fitted."""
        extract = make_extractor(self.backbone.trunk, simplify(export_trunk(self.backbone)))
        with tempfile.TemporaryDirectory() as scratch:
            labelled = []
            for samples in (train, val):
                features = cached_features(self.backbone, extract, samples, self.root, View(), Path(scratch))
                labels = tuple(samples[position].label for position in features.positions)
                labelled.append(LabelledFeatures((features.matrix,), labels))
            _, tensors = train_heads(self.plans, *labelled, self.study.training.l2)
        return tensors, extract

    def against_loop(self, images: int) -> dict[str, Any]:
        """The usual loop on fewer images: at equal epochs, how long, and how good."""
        chosen = np.random.default_rng(0).permutation(len(self.index.train))[:images]
        train = tuple(self.index.train[position] for position in chosen)
        passes = _count_passes()
        begin = time.perf_counter()
        tensors, extract = self.images_to_heads(train, self.index.val[: images // 4])
        ours = time.perf_counter() - begin
        epochs = passes()
        models = [plan for plan in self.plans if plan.name != "one-vs-rest"]
        begin = time.perf_counter()
        looped = {plan.name: self.usual_loop(plan, train, epochs) for plan in models}
        loop = time.perf_counter() - begin
        accuracy = {name: self.accuracy(weight, extract) for name, weight in {
            "ours": (tensors["combined.weight"], tensors["combined.bias"]), "loop": looped["combined"]
        }.items()}  # fmt: skip
        figures = {"images": images, "epochs": epochs, "models_in_loop": len(models), "heads_in_ours": len(self.plans)}
        return {**figures, "seconds": {"ours": ours, "loop": loop}, "times_faster": loop / ours, "accuracy": accuracy}

    def usual_loop(self, plan: HeadPlan, train: tuple[Sample, ...], epochs: int) -> tuple[Any, Any]:
        """A linear head by Adam, the frozen backbone run for every batch of every epoch."""
        head = torch.nn.Linear(self.backbone.reference.feature_dim, len(plan.classes))
        optimiser = torch.optim.Adam(head.parameters(), lr=2e-3, weight_decay=1e-4)
        order = np.random.default_rng(0)
        for _ in range(epochs):
            shuffled = tuple(train[position] for position in order.permutation(len(train)))
            for batch in stream(shuffled, self.root, renderer(self.backbone.preprocessing), to_input, batch_size=32):
                targets = plan.targets([shuffled[row].label for row in batch.rows])
                with torch.no_grad():
                    features = self.backbone.trunk(torch.from_numpy(batch.result))
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(head(features), targets).backward()
                optimiser.step()
        return head.weight.detach().numpy(), head.bias.detach().numpy()

    def accuracy(self, head: tuple[Any, Any], extract: Callable[..., Any]) -> float:
        """Of the combined head, on the test images."""
        weight, bias = head
        plan = next(plan for plan in self.plans if plan.name == "combined")
        hits = 0
        for batch in stream(self.index.test, self.root, renderer(self.backbone.preprocessing), extract):
            truth = plan.targets([self.index.test[row].label for row in batch.rows]).numpy()
            hits += int(((batch.result @ weight.T + bias).argmax(axis=1) == truth).sum())
        return hits / len(self.index.test)


def _session(backbone: Backbone) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    return onnxruntime.InferenceSession(export_trunk(backbone).SerializeToString(), options)


def _count_passes() -> Callable[[], int]:
    """Count the solver's passes over the features from now on."""
    count, evaluate = 0, solver._evaluate

    def counting(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return evaluate(*arguments)

    def stop() -> int:
        solver._evaluate = evaluate
        return count

    solver._evaluate = counting
    return stop


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
