"""A network as a graph of steps, traced symbolically (Reed et al. 2021, torch.fx).

A module that only holds blocks is traced into; a block is one step, so that control flow inside blocks does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from edgetl.errors import EdgetlError
from edgetl.train.backbones import Backbone, Trunk

# The attribute of a trunk that is the library's network; paths of layers are relative to it.
_BACKBONE = "backbone"


@dataclass(frozen=True)
class TraceCut:
    """A step at whose value the network can be cut: it is all that the features need of the images.

    ``paths`` are the modules whose output it is, from the innermost outward; ``frozen`` are the names of the parameters
    up to it.
    """

    step: fx.Node
    paths: tuple[str, ...]
    frozen: frozenset[str]


@dataclass(frozen=True)
class Traced:
    """A trunk's graph; ``paths`` are the modules whose output a step's value is."""

    trunk: Trunk
    graph: fx.Graph
    paths: dict[fx.Node, list[str]]

    @property
    def images(self) -> fx.Node:
        images: fx.Node = next(iter(self.graph.nodes))
        return images

    @property
    def features(self) -> fx.Node:
        output: fx.Node = next(iter(reversed(self.graph.nodes)))
        return output.all_input_nodes[0]

    def cuts(self) -> Iterator[TraceCut]:
        """The steps where the network can be cut, in order of execution.

        Some parameters are below such a cut, some above, none on both sides.
        """
        for step, paths in self.paths.items():
            above = needed(self.features, step)
            # Exported graphs hold a convolution and its batch normalisation as one: no cut lies between them.
            parts = isinstance(_module(self.trunk, step), _ConvNd) and any(
                isinstance(_module(self.trunk, user), _BatchNorm) for user in step.users
            )
            if self.images in above or parts:
                continue
            frozen, tuned = self._parameters(needed(step, self.images)), self._parameters(above)
            if frozen and tuned and not frozen & tuned:
                yield TraceCut(step, tuple(paths), frozen)

    def part(self, start: fx.Node, end: fx.Node) -> fx.GraphModule:
        """The network from the value of one step to that of another; its tensors keep their names in the trunk."""
        graph, copies = self._copied([start], [end])
        graph.output(copies[end])
        return fx.GraphModule(self.trunk, graph).eval()

    def between(self, starts: Sequence[fx.Node], ends: Sequence[fx.Node]) -> fx.GraphModule:
        """The network from the values of several steps, one tensor each, to a tuple of those of others."""
        graph, copies = self._copied(starts, ends)
        graph.output(tuple(copies[end] for end in ends))
        return fx.GraphModule(self.trunk, graph).eval()

    def _copied(self, starts: Sequence[fx.Node], ends: Sequence[fx.Node]) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
        graph = fx.Graph()
        steps = set().union(*(needed(end, *starts) for end in ends))
        copies = {start: graph.placeholder(start.name) for start in starts}
        for step in self.graph.nodes:
            if step in steps:
                copies[step] = graph.node_copy(step, copies.__getitem__)
        return graph, copies

    def _parameters(self, steps: Iterable[fx.Node]) -> frozenset[str]:
        return frozenset(name for step in steps for name, _ in named_parameters(self.trunk, step))


def trace(backbone: Backbone) -> Traced:
    """The trunk's graph.

    Raises:
        EdgetlError: torch.fx cannot trace it.
    """
    return trace_trunk(backbone.trunk, backbone.reference.name)


def trace_trunk(trunk: Trunk, name: str) -> Traced:
    """The graph of the trunk of a backbone that is called ``name``.

    Raises:
        EdgetlError: torch.fx cannot trace it.
    """
    one_step: tuple[Callable[..., Any], ...] = ()
    if name.startswith("timm/"):
        # timm lists its functions that branch on shapes, which a tensor without values does not have.
        from timm.models import get_notrace_functions

        one_step = tuple(get_notrace_functions())  # type: ignore[no-untyped-call]
    reason = ""
    # A stage whose own code branches cannot be traced into; then it is one step, with fewer cuts.
    for looks_into in (_holds_blocks, _is_chain):
        tracer = _Tracer(looks_into, one_step)
        try:
            return Traced(trunk, tracer.trace(trunk), tracer.paths)
        except Exception as error:  # whatever a network's own code throws at a tensor without values
            reason = str(error).strip().splitlines()[0].partition(". ")[0]
    raise EdgetlError(
        f"{name} cannot be cut below its head: torch.fx cannot trace it ({reason}); "
        "leave backbone.cut out, or choose another backbone"
    )


def needed(end: fx.Node, *starts: fx.Node) -> set[fx.Node]:
    """The steps that compute the value of ``end``, itself included, from those of ``starts``, which are not."""
    steps: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        step = waiting.pop()
        if step not in starts and step not in steps:
            steps.add(step)
            waiting += step.all_input_nodes
    return steps


def named_parameters(root: nn.Module, step: fx.Node) -> list[tuple[str, nn.Parameter]]:
    """The parameters that a step of a traced network uses, with their names in the network."""
    path = str(step.target)
    if step.op == "call_module":
        return [(f"{path}.{name}", parameter) for name, parameter in root.get_submodule(path).named_parameters()]
    if step.op == "get_attr":
        owner, _, name = path.rpartition(".")
        value = getattr(root.get_submodule(owner), name)
        return [(path, value)] if isinstance(value, nn.Parameter) else []
    return []


def _module(root: nn.Module, step: fx.Node) -> nn.Module | None:
    return root.get_submodule(str(step.target)) if step.op == "call_module" else None


class FlopCounter(fx.Interpreter):
    """An interpreter that runs a trunk on one image and keeps the shape and the FLOPs of every step's value."""

    def __init__(self, traced: Traced, shape: tuple[int, int, int]) -> None:
        super().__init__(traced.trunk, graph=traced.graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self._flops: dict[fx.Node, int] = {}
        self._counter = FlopCounterMode(display=False)
        image = torch.zeros(1, *shape, device=traced.trunk.mean.device)
        # With gradients PyTorch does not compute attention by its fused kernel, which the counter does not know.
        with self._counter:
            self.run(image.requires_grad_())

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        value = super().run_node(n)
        self._flops[n] = self._counter.get_total_flops() - before
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape[1:])
        return value

    def flops(self, steps: Iterable[fx.Node]) -> int:
        return sum(self._flops[step] for step in steps)


class _Tracer(fx.Tracer):
    """A tracer that records the modules whose output a step's value is, from the innermost outward."""

    def __init__(self, looks_into: Callable[[nn.Module], bool], one_step: tuple[Callable[..., Any], ...]) -> None:
        super().__init__(autowrap_functions=one_step)
        self._looks_into = looks_into
        self.paths: dict[fx.Node, list[str]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name != _BACKBONE and not self._looks_into(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if isinstance(output, fx.Proxy) and path != _BACKBONE:
            self.paths.setdefault(output.node, []).append(path.removeprefix(f"{_BACKBONE}."))
        return output


def _is_chain(module: nn.Module) -> bool:
    return type(module) is nn.Sequential


def _holds_blocks(module: nn.Module) -> bool:
    """Whether a module is a chain, or a stage: a list of blocks of one kind (timm's stages, torchvision's encoder)."""
    lists = [module, *(child for child in module.children() if isinstance(child, nn.Sequential | nn.ModuleList))]
    for part in map(nn.Module.children, lists):
        blocks = list(part)
        # A block is a class of its own that has layers: neither a chain nor a layer.
        no_block = any(isinstance(one, nn.Sequential) or next(one.children(), None) is None for one in blocks)
        if len(set(map(type, blocks))) == 1 and not no_block:
            return True
    return _is_chain(module)
