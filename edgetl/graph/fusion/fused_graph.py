"""Several graphs fused to one, which computes their common nodes once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import ValueInfoProto, helper

from edgetl.errors import EdgetlError
from edgetl.graph.external_data import add_initializers
from edgetl.graph.fusion.inputs import JoinedInputs, join_inputs
from edgetl.graph.fusion.numbering import Numbered, number_all, quantises
from edgetl.graph.fusion.opsets import aligned
from edgetl.graph.metadata import merged_metadata
from edgetl.graph.model import FreshNames, needed, subgraphs, tensors_read


@dataclass(frozen=True)
class Fused:
    """Several graphs in one.

    ``owners``: for each node of ``model.graph.node``, the graphs that need it. ``tensors``: for each graph, the names
    of its tensors in ``model``, where a tensor that several graphs share has one name. ``outputs``: for each graph, its
    outputs in ``model``.
    """

    model: onnx.ModelProto
    owners: tuple[tuple[str, ...], ...]
    tensors: Mapping[str, Mapping[str, str]]
    outputs: Mapping[str, tuple[str, ...]]


def fuse(models: Mapping[str, onnx.ModelProto]) -> Fused:
    """Fuse graphs: nodes with equal operator, attributes, weights and inputs are kept once.

    Outputs are named ``PREFIX/OUTPUT``, the mapping's keys being the prefixes. Every other tensor and node is named
    ``PREFIX/old name`` with the prefix of the first graph that has it. Inputs that mean the same are joined under the
    first graph's name. Random nodes and control flow are never merged. Local functions are inlined, constants become
    initializers, and nodes that no output needs are dropped. The graphs need not share anything.

    Raises:
        EdgetlError: inputs or metadata contradict each other, opsets cannot be brought to one version, or a graph
            holds what cannot be merged (sparse initializers, quantisation annotations, training information).
    """
    if not models:
        raise EdgetlError("there are no graphs to fuse; give at least one")
    models = aligned(models)
    joined = join_inputs(models)
    return _Fusion(models, number_all(models, joined.names), joined).fused()


class _Fusion:
    """Fuses numbered graphs: gives every number a name, then takes every number's first node."""

    def __init__(
        self, models: Mapping[str, onnx.ModelProto], numbered: Mapping[str, Numbered], joined: JoinedInputs
    ) -> None:
        self._models = models
        self._numbered = numbered
        self._joined = joined
        self._fresh = FreshNames(onnx.GraphProto(input=joined.values))
        self._names: dict[int, str] = {}
        self._new_names: dict[str, dict[str, str]] = {}
        self._nodes: list[onnx.NodeProto] = []

    def fused(self) -> Fused:
        outputs = self._name_outputs()
        self._name_the_rest()
        self._merge_nodes()
        opsets = {item.domain: item for model in self._models.values() for item in model.opset_import}
        model = onnx.ModelProto(
            # Before version 4 every initializer had to be an input as well.
            ir_version=max(4, *(model.ir_version for model in self._models.values())),
            producer_name="edgetl",
            opset_import=[opsets[domain] for domain in sorted(opsets)],
        )
        helper.set_model_props(model, merged_metadata(self._models))
        model.graph.name = "fused"
        model.graph.input.extend(self._joined.values)
        model.graph.output.extend(outputs.values())
        model.graph.node.extend(self._nodes[position] for position in needed(self._nodes, outputs))
        self._add_initializers_and_types(model)
        return self._traced(model)

    def _traced(self, model: onnx.ModelProto) -> Fused:
        nodes = model.graph.node
        outputs = {prefix: tuple(f"{prefix}/{v.name}" for v in m.graph.output) for prefix, m in self._models.items()}
        behind = {prefix: set(needed(nodes, wanted)) for prefix, wanted in outputs.items()}
        owners = tuple(tuple(prefix for prefix in behind if place in behind[prefix]) for place in range(len(nodes)))
        present = {name for node in nodes for name in (*tensors_read(node), *node.output)}
        names = self._new_names
        tensors = {prefix: {old: new for old, new in names[prefix].items() if new in present} for prefix in names}
        return Fused(model, owners, tensors, outputs)

    def _name_outputs(self) -> dict[str, ValueInfoProto]:
        """Name inputs and outputs, and return the outputs. A tensor that is several outputs is named like the first."""
        for prefix, names in self._joined.names.items():
            self._names.update((self._numbered[prefix].tensors[old], new) for old, new in names.items())
        constants = {number for found in self._numbered.values() for number in found.constants}
        outputs: dict[str, ValueInfoProto] = {}
        for prefix, model in self._models.items():
            for value in model.graph.output:
                name = f"{prefix}/{value.name}"
                if self._fresh.fresh(name) != name:
                    raise EdgetlError(f"two tensors would be called {name!r}; give the models other names")
                outputs[name] = self._joined.adapted(value, prefix, name)
                number = self._numbered[prefix].tensors.get(value.name)
                if number is None:
                    raise EdgetlError(f"nothing makes the output {value.name!r} of {prefix}; export the model again")
                if number not in constants:
                    self._names.setdefault(number, name)
        return outputs

    def _name_the_rest(self) -> None:
        for prefix, found in self._numbered.items():
            names = self._new_names[prefix] = {}
            # Weights in integers, scales, zero points, and what is dequantised from them, each graph keeps for itself
            # where the layers that read them are two: ONNX Runtime 1.31 fails on graphs in which two layers have one
            # zero point, or one weight in integers.
            readers = [node for node in self._models[prefix].graph.node if quantises(node)]
            own = {name for node in readers for name in node.input if found.tensors.get(name) in found.constants}
            own |= {node.output[0] for node in readers if own.issuperset(filter(None, node.input))}
            for name, number in found.tensors.items():
                if name in own:
                    names[name] = self._fresh.fresh(f"{prefix}/{name}")
                    continue
                if number not in self._names:
                    self._names[number] = self._fresh.fresh(f"{prefix}/{name}")
                names[name] = self._names[number]

    def _merge_nodes(self) -> None:
        made: set[str] = set()
        for prefix, model in self._models.items():
            names = self._new_names[prefix]
            for node, number in zip(model.graph.node, self._numbered[prefix].nodes, strict=True):
                outputs = {names[name] for name in node.output if name}
                if number is not None and made.isdisjoint(outputs):
                    made |= outputs
                    self._nodes.append(self._renamed(node, prefix, names))
        # An output that is also an input, a constant or another output becomes a copy of it.
        for prefix, model in self._models.items():
            for value in model.graph.output:
                name, source = f"{prefix}/{value.name}", self._new_names[prefix][value.name]
                if source != name:
                    self._nodes.append(helper.make_node("Identity", [source], [name], name=name))

    def _renamed(self, node: onnx.NodeProto, prefix: str, names: Mapping[str, str]) -> onnx.NodeProto:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.name = node.name and f"{prefix}/{node.name}"
        renamed.input[:] = [name and names[name] for name in node.input]
        renamed.output[:] = [name and names[name] for name in node.output]
        for graph in subgraphs(renamed):  # their names from outside follow their tensors, their own get the prefix
            made = (name for inner in graph.node for name in inner.output if name)
            given = (*graph.input, *graph.initializer, *(sparse.values for sparse in graph.sparse_initializer))
            own = dict.fromkeys((*(value.name for value in given), *made))
            visible = {**names, **{name: self._fresh.fresh(f"{prefix}/{name}") for name in own}}
            del graph.value_info[:]
            for value in (*given, *graph.output):
                value.name = visible[value.name]
            nodes = [self._renamed(inner, prefix, visible) for inner in graph.node]
            del graph.node[:]
            graph.node.extend(nodes)
        return renamed

    def _add_initializers_and_types(self, fused: onnx.ModelProto) -> None:
        graph = fused.graph
        read = {name for node in graph.node for name in tensors_read(node)}
        made = {name for node in graph.node for name in node.output}.difference(value.name for value in graph.output)
        for prefix, model in self._models.items():
            found, names = self._numbered[prefix], self._new_names[prefix]
            for old, new in names.items():
                tensor = found.constants.get(found.tensors[old])
                if tensor is not None and new in read:
                    read.remove(new)
                    add_initializers(fused, [tensor])
                    graph.initializer[-1].name = new
            for value in model.graph.value_info:
                name = names.get(value.name, "")
                if name in made:
                    made.remove(name)
                    graph.value_info.append(self._joined.adapted(value, prefix, name))
