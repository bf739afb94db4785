"""A graph run layer by layer on all images, so that a layer's weights can be fitted to its inputs before it runs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper, numpy_helper

from edgetl.arrays import AnyArray, Float32Array
from edgetl.graph.external_data import add_initializers, envelope
from edgetl.graph.model import FreshNames, image_input, needed, tensors_read, varying_tensors
from edgetl.graph.parity import Outputs, Session


class Walk:
    """Runs a graph on all images up to one tensor after another; every node runs once per image.

    Between stops it holds, for every image, the tensors that the rest of the graph needs. Images run one at a time, on
    one thread and without fused nodes, so that the same images give the same bits.

    Args:
        stops: the tensors to stop at, in the order of the graph.
        images: float32 [n,3,H,W] in [0,1].
    """

    def __init__(self, model: onnx.ModelProto, stops: Sequence[str], images: Float32Array) -> None:
        graph = model.graph
        self._envelope = envelope(model)
        self._nodes = list(graph.node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._names = FreshNames(graph)
        self._varying = varying_tensors(graph)
        self._left = needed(self._nodes, stops)
        start = image_input(model)
        self._held: list[Outputs] = [{start: images[position : position + 1]} for position in range(len(images))]

    def to(self, stop: str) -> list[AnyArray]:
        """The tensor's value on every image.

        Raises:
            EdgetlError: ONNX Runtime does not take a part of the graph, or the images do not fit it.
        """
        if stop in self._held[0]:
            return [held[stop] for held in self._held]
        now = needed(self._nodes, [stop], given=self._held[0])
        nodes = [self._nodes[position] for position in now]
        # What depends on no image is computed again wherever it is read: holding it for every image costs more.
        run = {position for position in now if not self._varying.isdisjoint(self._nodes[position].output)}
        self._left = [position for position in self._left if position not in run]
        read = {name for position in self._left for name in tensors_read(self._nodes[position])} | {stop}
        made = [name for node in nodes for name in node.output if name in self._varying & read]
        part = Session(self._part(nodes, made), optimised=False, threads=1)
        for position, one in enumerate(self._held):
            found = part.run({name: one[name] for name in part.inputs})
            self._held[position] = {name: value for name, value in (one | found).items() if name in read}
        return [held[stop] for held in self._held]

    def replace(self, output: str, inputs: Sequence[Float32Array | None]) -> None:
        """Give constants to the node that makes ``output``, behind its first input; None leaves one as it is."""
        position = next(p for p, node in enumerate(self._nodes) if output in node.output)
        node = onnx.NodeProto()
        node.CopyFrom(self._nodes[position])
        # Another node may read the old constants, so new ones are added beside them.
        for slot, value in enumerate(inputs, start=1):
            if value is not None:
                name = self._names.fresh(f"{output}_{slot}")
                self._constants[name] = numpy_helper.from_array(value, name)
                node.input.extend([""] * (slot + 1 - len(node.input)))
                node.input[slot] = name
        self._nodes[position] = node

    def _part(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
        read = {name for node in nodes for name in tensors_read(node)}
        part = onnx.ModelProto()
        part.CopyFrom(self._envelope)
        part.graph.name = "part"
        part.graph.node.extend(nodes)
        for name in (name for name in self._held[0] if name in read):
            kind = helper.np_dtype_to_tensor_dtype(self._held[0][name].dtype)
            part.graph.input.append(helper.make_tensor_value_info(name, kind, None))
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        add_initializers(part, (tensor for name, tensor in self._constants.items() if name in read))
        return part
