"""Loads the engines of deployments, and runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.deployment import Deployment, GraphSpec
from edgetl.engine.nvidia.timing_cache import cache_folder
from edgetl.engine.runtime import Engine, RunOptions, load_engine
from edgetl.stages.stage import Context


@dataclass(frozen=True)
class Loaded:
    """An engine and the graph that it was built from."""

    spec: GraphSpec
    engine: Engine

    def run(
        self, tensors: Mapping[str, Float32Array], rows: BoolArray | slice = slice(None)
    ) -> dict[str, Float32Array]:
        """The outputs by name, for the images of some rows."""
        return self.engine.infer(*(tensors[name][rows] for name in self.spec.inputs))


def run_options(context: Context, threads: int) -> RunOptions:
    """The options to run a study's engines with; what TensorRT-RTX compiles on the device is kept from run to run."""
    settings = context.study.engine
    return RunOptions(
        threads=threads,
        cuda_graph=settings.cuda_graph,
        scratch="study" if settings.share_scratch else None,
        runtime_caches=cache_folder(),
    )


def load(planned: Mapping[str, tuple[Deployment, Sequence[Path]]], run: RunOptions) -> dict[str, tuple[Loaded, ...]]:
    """All engines of deployments, by title, in the order of their graphs.

    Trees of ``specialised`` share engines: each is loaded once, because memory is scarce on a device.
    """
    paths = dict.fromkeys(path for _, engines in planned.values() for path in engines)
    loaded = {path: load_engine(path, run=run) for path in paths}
    return {
        title: tuple(Loaded(spec, loaded[path]) for spec, path in zip(deployment.graphs, engines, strict=True))
        for title, (deployment, engines) in planned.items()
    }
