"""The signal-to-noise of each layer and output between two graphs of one network, on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from edgetl.arrays import AnyArray, Float32Array
from edgetl.artifacts.prepared import GraphComparison, ImageDifference, LayerDifference, OutputDifference
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import division_of
from edgetl.graph.model import Wiring, image_input, one_line, with_outputs
from edgetl.graph.parity import Outputs, Reference
from edgetl.graph.snr import MOST_DB, decibels, powers

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_HALF = "_half"  # what edgetl adds to the name of a tensor's FP16 form
_WORST = 10


def compare_layers(
    a: onnx.ModelProto, b: onnx.ModelProto, images: Iterable[tuple[str, Float32Array]], names: tuple[str, str]
) -> GraphComparison:
    """The signal-to-noise of every layer that both graphs have, how outputs agree, and the images that differ most.

    Layers are the same where the tensors they make have the same name, as in graphs that `edgetl prepare` wrote. Where
    it divided channels, they are multiplied again.

    Args:
        images: (name, float32 [1,3,H,W] in [0,1]).
        names: what to call the two graphs.

    Raises:
        EdgetlError: the graphs have different outputs, one cannot run on the images, or there are no images.
    """
    outputs, others = ([value.name for value in model.graph.output] for model in (a, b))
    if set(outputs) != set(others):
        raise EdgetlError(
            f"{names[0]} has the outputs {', '.join(outputs)}, {names[1]} has {', '.join(others)}; compare graphs of "
            "one network"
        )
    layers = _layers(a, b)
    ours = _ObservedGraph(a, outputs, [own for own, _ in layers])
    theirs = _ObservedGraph(b, outputs, [other for _, other in layers])
    tallies = {own: _Tally() for own, _ in layers} | {name: _Tally() for name in outputs}
    worst: list[ImageDifference] = []
    for name, image in images:
        exact, found = ours.run(image), theirs.run(image)
        pairs = [(own, exact[own], found[other]) for own, other in (*layers, *((name, name) for name in outputs))]
        noise = {own: tallies[own].add(x, y) for own, x, y in pairs}
        ends = [noise[end] for end in (*ours.ends, *outputs) if noise.get(end) is not None]
        worst.append(ImageDifference(image=name, snr_db=round(float(np.mean(ends or [MOST_DB])), 2)))
    if not worst:
        raise EdgetlError("there are no images to compare on; give at least one")
    ops = {name: node.op_type for node in a.graph.node for name in node.output}
    return GraphComparison(
        a=names[0],
        b=names[1],
        images=len(worst),
        layers=tuple(LayerDifference(layer=n, op=ops[n], snr_db=tallies[n].snr_db or 0.0) for n, _ in layers),
        outputs=tuple(tallies[name].of_output(name) for name in outputs),
        worst_images=tuple(sorted(worst, key=lambda one: one.snr_db)[:_WORST]),
    )


def _layers(a: onnx.ModelProto, b: onnx.ModelProto) -> list[tuple[str, str]]:
    """The tensors that layers of both graphs make: their names in a and in b."""
    there = {_plain(name): name for node in b.graph.node if node.op_type in _LAYERS for name in node.output}
    here = [name for node in a.graph.node if node.op_type in _LAYERS for name in node.output]
    outputs = {value.name for value in (*a.graph.output, *b.graph.output)}
    pairs = [(name, there[_plain(name)]) for name in here if _plain(name) in there]
    return [pair for pair in pairs if not outputs & set(pair)]


def _plain(name: str) -> str:
    return name.removesuffix(_HALF)


class _ObservedGraph:
    """A graph whose layers are outputs too. ``ends``: the layers that its tail reads."""

    def __init__(self, model: onnx.ModelProto, outputs: list[str], layers: list[str]) -> None:
        self.ends = [name for name in Wiring(model.graph).results() if name in layers]
        watched = with_outputs(model, layers)
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except onnx.shape_inference.InferenceError as error:
            raise EdgetlError(f"the types of a graph cannot be told: {one_line(error)}") from error
        halves = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
        for value in watched.graph.output:
            if value.name in halves:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        watched.graph.output.extend(value for value in model.graph.output if value.name in outputs)
        image_input(watched)
        self._reference = Reference(watched)
        octaves = division_of(model)
        self._factors = {name: np.exp2(octaves[_plain(name)]) for name in layers if _plain(name) in octaves}

    def run(self, image: Float32Array) -> Outputs:
        found = self._reference.run(image)
        for name, factors in self._factors.items():
            if found[name].ndim > 1 and found[name].shape[1] == len(factors):
                found[name] = found[name] * factors.reshape(1, -1, *[1] * (found[name].ndim - 2))
        return found


@dataclass
class _Tally:
    """A tensor's sums over all images: powers, the largest difference, and whether the best class agreed."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    comparable: bool = True
    agreed: list[bool] = field(default_factory=list)

    def add(self, x: AnyArray, y: AnyArray) -> float | None:
        """Count one image: its signal-to-noise in decibels, None where the tensors cannot be compared."""
        if x.shape != y.shape or not np.issubdtype(x.dtype, np.floating):
            self.comparable = False
            return None
        signal, noise = powers(x, y)
        self.signal, self.noise = self.signal + signal, self.noise + noise
        self.largest = max(self.largest, float(np.abs(x.astype(np.float64) - y).max(initial=0.0)))
        if x.ndim == 2 and x.shape[1] > 1:
            self.agreed.append(bool((x.argmax(axis=1) == y.argmax(axis=1)).all()))
        return decibels(signal, noise)

    @property
    def snr_db(self) -> float | None:
        return decibels(self.signal, self.noise) if self.comparable else None

    def of_output(self, name: str) -> OutputDifference:
        finite = self.comparable and np.isfinite(self.largest)
        return OutputDifference(
            output=name,
            snr_db=self.snr_db,
            max_abs_difference=self.largest if finite else None,
            top1_agreement=float(np.mean(self.agreed)) if self.agreed else None,
        )
