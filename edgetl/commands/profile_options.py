"""Options of `edgetl profile` on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.study_command import PATH, provider_option, seconds_option, threads_option, with_options

if TYPE_CHECKING:
    from pathlib import Path

    from edgetl.engine.options import RunOptions
    from edgetl.stages.profile_files import ProfileRequest
    from edgetl.stages.scenario_request import ScenarioRequest


class FractionParam(click.ParamType):  # type: ignore[type-arg]  # in some versions of click it takes none
    """The type of an option such as ``5%`` or ``0.05``: a fraction."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):  # the default
            return value
        text = str(value).strip()
        try:
            fraction = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
        except ValueError:
            fraction = -1.0
        if not 0.0 < fraction < 1.0:  # nan is refused too
            self.fail(f"{value!r} is no fraction above 0 % and below 100 %; write it as 5% or 0.05", param, ctx)
        return fraction


profile_options = with_options(
    click.option("-o", "--output", type=PATH, help="A study's run directory; a folder for the figures of files."),
    click.option("--against", type=PATH, help="One more model, to compare with."),
    click.option(
        "--fail-if-slower", type=FractionParam(), help="Exit with 4 if a model is proven slower than --against."
    ),
    provider_option,
    threads_option,
    seconds_option,
    click.option(
        "--width",
        type=FractionParam(),
        default=0.01,
        show_default="1%",
        help="End early when intervals are narrower.",
    ),
    click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images of one inference."),
    click.option(
        "--scenario",
        "scenarios",
        type=click.Choice(["single-stream", "multi-stream", "offline", "cadence", "concurrent"]),
        multiple=True,
        help="Measure under a load too. Repeatable.",
    ),
    click.option(
        "--rate",
        "rates",
        metavar="NAME=HZ",
        multiple=True,
        help="For cadence: how many times a second a group's engine, or a file, runs. Repeatable.",
    ),
    click.option(
        "--query-size", type=click.IntRange(1), default=8, show_default=True, help="Images of a query of multi-stream."
    ),
    click.option(
        "--streams", type=click.IntRange(1), default=1, show_default=True, help="Batches at once, of offline."
    ),
    click.option("--cuda-graph", is_flag=True, help="Run FILE.engine as a CUDA graph, checked against the plain run."),
    click.option("--spin-wait", is_flag=True, help="Wait for FILE.engine without sleeping."),
    click.option("--no-transfers", is_flag=True, help="Leave FILE.engine's inputs and outputs on the device."),
    click.option("--share-scratch", is_flag=True, help="Let FILE.engines share their scratch memory."),
    click.option(
        "--runtime-cache", type=PATH, help="Folder of what TensorRT-RTX compiles.", show_default="~/.cache/edgetl"
    ),
    click.option("--layers", is_flag=True, help="Time every layer."),
    click.option("--images", type=PATH, help="Folder: time every step from its images to MODEL.onnx's results."),
    click.option("--no-energy", is_flag=True, help="Leave out energy, which takes as long again as latency."),
    click.option("--trust", is_flag=True, help="Load a FILE.engine that is not the file that its manifest describes."),
    click.option(
        "--load", type=PATH, multiple=True, help="Measure nothing: recompute from a results.json. Repeatable."
    ),
    click.option("--strict", is_flag=True, help="Exit with 4 if a result is UNSTABLE or undecided."),
    click.option("--json", "as_json", is_flag=True, help="Print the figures in the shape of results.json."),
)

_OF_FILES = (
    "against",
    "fail_if_slower",
    "cuda_graph",
    "spin_wait",
    "no_transfers",
    "share_scratch",
    "runtime_cache",
    "images",
    "trust",
)


def refuse_in_study(values: dict[str, Any]) -> None:
    """Refuse options that are only for models."""
    given = next((name for name in _OF_FILES if values[name]), None)
    if given is None and values["batch"] > 1 and "offline" not in values["scenarios"]:
        given = "batch"
    if given is not None:
        raise click.UsageError(f"--{given.replace('_', '-')} is for models, MODEL.onnx or FILE.engine")


def profile_request(files: tuple[Path, ...], values: dict[str, Any]) -> ProfileRequest:
    """The request that the options make for models."""
    from edgetl.stages.measuring import StoppingRule
    from edgetl.stages.profile_files import ProfileRequest, by_path

    if values["provider"] != "cpu":
        raise click.UsageError("--provider is for a study; ONNX files are measured on the CPU")
    against, limit = values["against"], values["fail_if_slower"]
    if limit is not None and against is None:
        raise click.UsageError("--fail-if-slower needs --against MODEL")
    return ProfileRequest(
        files=by_path((*files, *([against] if against else []))),
        until=StoppingRule(values["seconds"], values["width"], None if limit is None else 1.0 + limit),
        run=_run_options(values),
        batch=values["batch"],
        scenarios=scenario_request(values),
        trust=values["trust"],
        output=values["output"],
        energy=not values["no_energy"],
        layers=values["layers"],
        images=values["images"],
    )


def scenario_request(values: dict[str, Any]) -> ScenarioRequest:
    """The scenarios that the options ask for."""
    from edgetl.stages.scenario_request import ScenarioRequest, read_rates

    scenarios = tuple(dict.fromkeys(values["scenarios"]))  # each once, in the order in which they were given
    if values["rates"] and "cadence" not in scenarios:
        raise click.UsageError("--rate is for --scenario cadence")
    return ScenarioRequest(
        scenarios, read_rates(values["rates"]), values["query_size"], values["batch"], values["streams"]
    )


def _run_options(values: dict[str, Any]) -> RunOptions:
    from edgetl.engine.nvidia.timing_cache import cache_folder
    from edgetl.engine.options import RunOptions

    return RunOptions(
        threads=values["threads"],
        cuda_graph=values["cuda_graph"],
        spin_wait=values["spin_wait"],
        transfers=not values["no_transfers"],
        scratch="profile" if values["share_scratch"] else None,  # any name: all files get the same
        runtime_caches=values["runtime_cache"] or cache_folder(),
    )
