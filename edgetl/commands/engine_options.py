"""Options of `edgetl build-engine` for the engine of a single graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.options import CommandOptions, option, part

if TYPE_CHECKING:
    from edgetl.engine.options import BuildOptions


def _batches(text: str) -> tuple[int, ...]:
    """The least, usual and largest batch; one number is all three."""
    parts = text.split(",")
    if len(parts) not in {1, 3} or not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"it takes N or MIN,OPT,MAX, not {text!r}")
    return tuple(int(part) for part in (parts * 3 if len(parts) == 1 else parts))


class EngineOptions(CommandOptions):
    """How an engine is built; names as in `edgetl.engine.options.BuildOptions`."""

    batches: tuple[int, int, int] = option(
        "Range of a dynamic batch.", type=_batches, metavar="N|MIN,OPT,MAX", default="1,1,16"
    )
    workspace_mb: int | None = option("Scratch memory of a layer.", type=click.IntRange(1), show_default="a quarter")
    optimization_level: int | None = option("How long the builder searches.", type=click.IntRange(0, 5))
    dla_core: int | None = option("Run on this DLA core (tensorrt).", type=click.IntRange(0))
    gpu_fallback: bool = option("Let the GPU run what the DLA cannot.")
    calibration_cache: Path | None = option("INT8 scales for a DLA core, up to TensorRT 10.")
    sparse: bool = option("Allow kernels for weights of 2:4 sparsity.")
    version_compatible: bool = option("Let newer versions run it too (tensorrt).")
    hardware_compatible: str | None = option(
        "Let other devices run it too (tensorrt).", type=click.Choice(["ampere-plus", "same-compute-capability"])
    )
    timing_cache: Path | None = option("Folder of kernels' times.", show_default="~/.cache/edgetl")
    print_trtexec: str | None = option("Build nothing; print the command for this TensorRT.", metavar="VERSION")

    def build_options(self) -> BuildOptions:
        """The build options that these options state."""
        from edgetl.engine.options import BuildOptions

        least, usual, most = self.batches
        return BuildOptions(min_batch=least, opt_batch=usual, max_batch=most, **part(self, BuildOptions))
