"""Options of `edgetl build-engine` for the engine of a single graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.study_command import PATH, with_options

if TYPE_CHECKING:
    from edgetl.engine.options import BuildOptions

engine_options = with_options(
    click.option("--batches", metavar="N|MIN,OPT,MAX", help="Range of a dynamic batch.", show_default="1,1,16"),
    click.option("--workspace-mb", type=click.IntRange(1), help="Scratch memory of a layer.", show_default="a quarter"),
    click.option("--optimization-level", type=click.IntRange(0, 5), help="How long the builder searches."),
    click.option("--dla-core", type=click.IntRange(0), help="Run on this DLA core (tensorrt)."),
    click.option("--gpu-fallback", is_flag=True, help="Let the GPU run what the DLA cannot."),
    click.option("--calibration-cache", type=PATH, help="INT8 scales for a DLA core, up to TensorRT 10."),
    click.option("--sparse", is_flag=True, help="Allow kernels for weights of 2:4 sparsity."),
    click.option("--version-compatible", is_flag=True, help="Let newer versions run it too (tensorrt)."),
    click.option(
        "--hardware-compatible",
        type=click.Choice(["ampere-plus", "same-compute-capability"]),
        help="Let other devices run it too (tensorrt).",
    ),
    click.option("--timing-cache", type=PATH, help="Folder of kernels' times.", show_default="~/.cache/edgetl"),
    click.option("--print-trtexec", metavar="VERSION", help="Build nothing; print the command for this TensorRT."),
)


def given(values: dict[str, Any]) -> str | None:
    """The first of these options that the user gave, such as ``--dla-core``."""
    return next((f"--{name.replace('_', '-')}" for name, value in values.items() if value), None)


def build_options(values: dict[str, Any], compute_capability: str | None) -> BuildOptions:
    """The build options that these options state."""
    from edgetl.engine.options import BuildOptions

    text = values["batches"] or "1,1,16"
    parts = text.split(",")
    if len(parts) not in {1, 3} or not all(part.strip().isdecimal() for part in parts):
        raise click.UsageError(f"--batches takes N or MIN,OPT,MAX, not {text!r}")
    # One number is a fixed batch.
    least, usual, most = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    names = ["workspace_mb", "optimization_level", "dla_core", "gpu_fallback"]
    names += ["sparse", "version_compatible", "hardware_compatible"]
    return BuildOptions(compute_capability, least, usual, most, **{name: values[name] for name in names})


def timing_caches(values: dict[str, Any]) -> Path:
    from edgetl.engine.nvidia.timing_cache import cache_folder

    chosen: Path | None = values["timing_cache"]
    return chosen or cache_folder()
