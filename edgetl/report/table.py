"""The rows of the result table as written figures, for the terminal and the HTML report."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import DeploymentResult, Results
from edgetl.report.wording import flops_unit, megabytes, percent, printable, significant

UNKNOWN = "-"


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy in a group, and where the study has it, masked to the group's own labels; with their intervals."""

    name: str
    figures: tuple[str, ...]
    intervals: tuple[str, ...]


@dataclass(frozen=True)
class ResultRow:
    """One deployment in one precision. Where ``unsupported`` says why it was not run, the figures are `UNKNOWN`."""

    name: str
    precision: str
    chosen: bool
    unsupported: str | None = None
    accuracy: str = UNKNOWN
    accuracy_interval: str = ""
    groups: tuple[GroupAccuracy, ...] = ()
    p50: str = UNKNOWN
    p50_interval: str = ""
    p90: str = UNKNOWN
    p99: str = UNKNOWN
    unstable: str | None = None
    images_per_second: str = UNKNOWN
    engines_mb: str = UNKNOWN
    memory_mb: str = UNKNOWN
    energy_mj: str = UNKNOWN
    flops: str = UNKNOWN


def rows(results: Results) -> tuple[ResultRow, ...]:
    """Return the rows in the order of the results."""
    chosen = (results.verdict.deployment, results.verdict.precision)
    _, size = _flops_unit(results)
    return tuple(
        _row(measured, (measured.name, measured.precision) == chosen, size) for measured in results.deployments
    )


def unit_of_flops(results: Results) -> str:
    """Return one unit for all rows, so that they can be compared."""
    return _flops_unit(results)[0]


def _flops_unit(results: Results) -> tuple[str, float]:
    return flops_unit(max((measured.flops or 0 for measured in results.deployments), default=0))


def _row(measured: DeploymentResult, chosen: bool, flops_size: float) -> ResultRow:
    name, precision = printable(measured.name), printable(measured.precision)
    accuracy, latency = measured.accuracy, measured.latency_ms
    if measured.unsupported is not None or accuracy is None or latency is None:
        return ResultRow(name, precision, chosen, printable(measured.unsupported or "not measured"))
    groups = []
    for group, unmasked in accuracy.groups.items():
        known = [one for one in (unmasked, accuracy.masked.get(group)) if one is not None]
        figures, intervals = tuple(percent(one.value) for one in known), tuple(map(interval, known))
        groups.append(GroupAccuracy(name=printable(group), figures=figures, intervals=intervals))
    return ResultRow(
        name=name,
        precision=precision,
        chosen=chosen,
        accuracy=percent(accuracy.overall.value),
        accuracy_interval=interval(accuracy.overall),
        groups=tuple(groups),
        p50=significant(latency.p50),
        p50_interval=f"{significant(latency.low)}-{significant(latency.high)}",
        p90=significant(latency.p90),
        p99=significant(latency.p99),
        unstable=None if latency.stable else printable(latency.why_unstable or "the rounds differ too much"),
        images_per_second=_figure(measured.throughput_ips),
        engines_mb=megabytes(sum(engine.bytes for engine in measured.engines)) if measured.engines else UNKNOWN,
        memory_mb=_figure(measured.memory_mb),
        energy_mj=_figure(measured.energy_mj),
        flops=UNKNOWN if measured.flops is None else significant(measured.flops / flops_size),
    )


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else significant(value)


def interval(estimate: AccuracyEstimate) -> str:
    """Return an interval in percent: ``92.0-94.2``."""
    return f"{percent(estimate.low)}-{percent(estimate.high)}"
