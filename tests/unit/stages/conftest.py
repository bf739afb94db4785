"""A watcher that remembers what it was told, and a tiny bundle with branches, truncated heads and a second level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.bundle import FEATURES, TOP, BackboneReference, Bundle, ClassificationHead, Preprocessing
from edgetl.artifacts.files import write_json
from edgetl.graph.compose import compose
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.model import save_model

Array = NDArray[np.float32]

SIZE = 8
GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop", "yield", "left")}
LABELS = ("car", "bus", "stop", "yield", "left")
LOWER, UPPER = 4, 6
"""Channels of the convolution below the cut ``layer1``, and of the one above it."""


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator[Callable[[float], object]]:
        yield bool


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def module_listener() -> Listener:
    return Listener()


@dataclass(frozen=True)
class Trained:
    """What training leaves behind: a graph of all networks, heads and their tensors."""

    trunk: onnx.ModelProto
    bundle: Bundle
    tensors: dict[str, Array]

    def head(self, name: str) -> ClassificationHead:
        return next(head for head in self.bundle.heads if head.name == name)

    def whole(self) -> onnx.ModelProto:
        """All heads in one graph."""
        return compose(self.trunk, self.bundle.heads, self.tensors, self.bundle.preprocessing)

    def write(self, folder: Path, probabilities: dict[str, Array], truth: Sequence[str]) -> None:
        """A bundle directory, with what the heads say of validation images of some true labels."""
        from safetensors.numpy import save_file  # of the extra train

        said = {f"head/{name}": values for name, values in probabilities.items()}
        write_json(folder / "bundle.json", self.bundle)
        save_model(self.trunk, folder / "trunk.onnx")
        save_file(self.tensors, folder / "heads.safetensors")
        save_file({"truth": np.array([LABELS.index(one) for one in truth]), **said}, folder / "validation.safetensors")


@pytest.fixture(scope="session")
def trained() -> Trained:
    """Heads at the top, tuned above ``layer1`` and truncated there; a second level on a branch and on the trunk.

    In every network one convolution, a relu, one more of each, and pooling.
    """
    roles = ("combined", *GROUPS)
    networks = {"trunk": _network(1), **{f"{role}@layer1": _network(2 + n) for n, role in enumerate(roles)}}
    networks["truncated-layer1"] = _network(None)
    heads = [
        *(_head(role) for role in (*roles, "one-vs-rest")),
        *(_head(role, "layer1") for role in roles),
        *(_head(role, "layer1", truncated=True) for role in roles),
    ]
    for group, features, cut in (("vehicles", "vehicles@layer1/features", "layer1"), ("signs", FEATURES, TOP)):
        place = {"name": f"{group}@cascade", "features": features, "cut": cut, "first_level": "combined"}
        heads.append(_head(group).model_copy(update=place))
    random = np.random.default_rng(0)
    tensors = {}
    for head in heads:
        width = (LOWER if head.truncated else UPPER) + (len(LABELS) if head.first_level else 0)
        tensors[f"{head.name}.weight"] = random.normal(0.0, 3.0, (len(head.classes), width)).astype(np.float32)
        tensors[f"{head.name}.bias"] = random.normal(0.0, 0.5, len(head.classes)).astype(np.float32)
    bundle = Bundle(
        backbone=BackboneReference(
            name="edgetl/nano",
            weights=None,
            fingerprint="0" * 64,
            feature_dim=UPPER,
            parameters=1,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        preprocessing=Preprocessing.square(SIZE),
        groups=GROUPS,
        heads=tuple(heads),
        data_digest="0" * 64,
    )
    return Trained(fuse(networks).model, bundle, tensors)


def _head(role: str, cut: str = TOP, *, truncated: bool = False) -> ClassificationHead:
    place = f"truncated-{cut}" if truncated else cut
    name = role if place == TOP else f"{role}@{place}"
    network = "trunk" if place == TOP else place if truncated else name
    return ClassificationHead(
        name=name,
        classes=(*GROUPS[role], "other") if role in GROUPS else LABELS,
        activation="sigmoid" if role == "one-vs-rest" else "softmax",
        cut=cut,
        truncated=truncated,
        features=f"{network}/features",
        l2=0.01,
        temperature=1.0,
        val_loss=0.5,
        val_accuracy=0.8,
    )


def _network(upper: int | None) -> onnx.ModelProto:
    """From images to ``features``; ``upper`` is the seed of the weights above ``layer1``, None where it ends there."""
    shapes = {"lower": (0, (LOWER, 3, 3, 3))} | ({} if upper is None else {"upper": (upper, (UPPER, LOWER, 3, 3))})
    nodes, tensor = [], "images"
    for name in shapes:
        nodes.append(helper.make_node("Conv", [tensor, name], [f"{name}/conv"], kernel_shape=[3, 3], name=name))
        nodes.append(helper.make_node("Relu", [f"{name}/conv"], [f"{name}/relu"], name=f"{name}/relu"))
        tensor = f"{name}/relu"
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", LOWER if upper is None else UPPER])],
        [
            numpy_helper.from_array(np.random.default_rng(seed).normal(0.0, 0.5, shape).astype(np.float32), name)
            for name, (seed, shape) in shapes.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
