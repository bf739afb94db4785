"""What commands print: a comparison, estimates, a machine's health, hosts, an inspected file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.engine_manifest import EngineTensor
from edgetl.artifacts.hosts import HostProfile, HostProfiles
from edgetl.artifacts.inspection import DoctorReport, Inspection
from edgetl.artifacts.measurements import DeviceEstimate
from edgetl.artifacts.prepared import GraphComparison
from edgetl.artifacts.results import DeploymentResult, Profile
from edgetl.report.deployment_names import folded
from edgetl.report.profile_lines import device_of, title
from edgetl.report.table import UNKNOWN
from edgetl.report.wording import printable, significant

_SHOWN = 10


def comparison_lines(found: GraphComparison) -> Iterator[str]:
    """What the outputs come to, then the layers and the images that differ most."""
    yield f"{printable(found.b)} against {printable(found.a)}, {found.images} images"
    for output in found.outputs:
        parts = [f"output {printable(output.output)}:"]
        if output.snr_db is not None:
            parts.append(f"{output.snr_db:.1f} dB")
        if output.max_abs_difference is not None:
            parts.append(f"at most {output.max_abs_difference:.3g} apart")
        if output.top1_agreement is not None:
            parts.append(f"the same class for {output.top1_agreement:.1%} of images")
        yield " ".join(parts) if len(parts) > 1 else f"{parts[0]} its size depends on values"
    if found.layers:
        yield f"layers with the most noise, of {len(found.layers)}, and what each adds to the one before it:"
        drops = _drops(found)
        for position in sorted(range(len(found.layers)), key=lambda number: found.layers[number].snr_db)[:_SHOWN]:
            layer = found.layers[position]
            yield f"  {layer.snr_db:7.1f} dB ({drops[position]:+.1f})  {layer.op} {printable(layer.layer)}"
    yield "images with the most noise:"
    for image in found.worst_images:
        yield f"  {image.snr_db:7.1f} dB  {printable(image.image)}"


def _drops(found: GraphComparison) -> list[float]:
    noise = [layer.snr_db for layer in found.layers]
    return [0.0, *(now - before for before, now in pairwise(noise))]


_CAPTION = (
    "ESTIMATE: nothing was measured. Latency: ms for one image, batch 1, TensorRT; in nine cases of ten a network that "
    "the model had not seen lay within the interval (docs/measuring.md). MB: weights and activations, without the "
    "system and the runtime."
)


def estimate_table(estimates: Sequence[DeviceEstimate]) -> Table:
    """One row for each deployment, precision and device. Every cell is a `Text`: names are never read as markup."""
    unsure = any(row.unverified for row in estimates)
    caption = _CAPTION + (" *: figures of the device from memory, not read from their source." if unsure else "")
    if left_out := sorted({name for row in estimates for name in row.left_out}):
        caption += f" Not counted, because it depends on the image: {', '.join(left_out)} and what follows."
    table = Table(title="ESTIMATE", box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(caption), caption_justify="left")
    for header in ("", "", "device"):
        table.add_column(header, overflow="fold")
    for header in ("ms", "from - to", "MB"):
        table.add_column(header, justify="right")
    for row in estimates:
        table.add_row(*map(Text, _estimate_cells(row)))
    return table


def _estimate_cells(row: DeviceEstimate) -> tuple[str, ...]:
    device = f"{row.device}@{row.mode}{'*' if row.unverified else ''}"
    interval = f"{significant(row.low)} - {significant(row.high)}"
    memory = significant(row.memory_mb) + ("" if row.fits else "\ndoes not fit")
    return printable(row.name), row.precision, device, significant(row.middle), interval, memory


def health_lines(health: DoctorReport) -> Iterator[str]:
    """Facts in groups, what nobody knows left out; then what can be done and what cannot."""
    for group, facts in health.facts.items():
        yield f"{group}: {_told(facts) or 'nothing found'}"
    for need in health.capabilities:
        if need.missing is None:
            yield f"ok       {need.what}"
        else:
            yield f"missing  {need.what}: {printable(need.missing)}"
            yield f"         mend it with: {need.fix}"


def _told(facts: Mapping[str, Any]) -> str:
    known = ((name, value) for name, value in facts.items() if value is not None and value != [])
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in known)


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else printable(str(value))


# Of names, which rich would break anywhere.
_NAME_WIDTH = 20


def host_table(profiles: HostProfiles, source: str = "host") -> Table:
    """One row for each candidate on each machine, those of one name together.

    Every cell is a `Text`: names are never read as markup.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.caption, table.caption_justify = "ms for one image", "left"
    for header in ("", source, "device", "runtime"):
        table.add_column(header, overflow="fold", no_wrap=header != "device")
    table.add_column("p50", justify="right", no_wrap=True)
    table.add_column("from - to", justify="right", min_width=13)  # or why there are no figures
    table.add_column("p99", justify="right", no_wrap=True)
    measured = [(row, one) for one in profiles.hosts if one.profile for row in one.profile.deployments]
    order = list(dict.fromkeys(row.title for row, _ in measured))
    for row, one in sorted(measured, key=lambda pair: order.index(pair[0].title)):
        table.add_row(*map(Text, _host_cells(row, one)))
    return table


def loaded_table(profiles: Mapping[str, Profile]) -> Table:
    """The same of profiles that were measured elsewhere before, by the names of their files."""
    hosts = (HostProfile(host=name, device=device_of(one), profile=one) for name, one in profiles.items())
    return host_table(HostProfiles(hosts=tuple(hosts)), "file")


def failures(profiles: HostProfiles) -> Iterator[str]:
    """A line for each machine that has no figures."""
    for one in profiles.failed:
        yield printable(f"{one.host}: {one.error}")


def _host_cells(row: DeploymentResult, one: HostProfile) -> tuple[str, ...]:
    cells = (_name(title(row)), _name(printable(one.host)), printable(one.device or UNKNOWN), row.runtime)
    latency = row.latency_ms
    if latency is None:
        return (*cells, UNKNOWN, printable(row.unsupported or "not measured"), UNKNOWN)
    mark = "" if latency.stable else "\nUNSTABLE"
    interval = f"{significant(latency.low)} - {significant(latency.high)}"
    return (*cells, significant(latency.p50) + mark, interval, significant(latency.p99))


def _name(text: str) -> str:
    return "\n".join(folded(text, _NAME_WIDTH))


_LONGEST = 160


def inspection_lines(found: Inspection) -> Iterator[str]:
    """One line for each thing that is known; layers are counted by operator and precision."""
    yield f"{found.kind}: {printable(found.path)}"
    yield from (f"input: {_tensor(tensor)}" for tensor in found.inputs)
    yield from (f"output: {_tensor(tensor)}" for tensor in found.outputs)
    kinds = Counter((layer.operator, layer.precision) for layer in found.layers)
    for (operator, precision), count in kinds.most_common():
        yield f"layers: {count} x {printable(operator)} in {precision}"
    for heading, values in (("figures", found.figures), ("notes", found.notes), ("lineage", found.lineage)):
        yield from (
            f"{heading}: {printable(name)} {_shown(value)}" for name, value in values.items() if value is not None
        )


def _tensor(tensor: EngineTensor) -> str:
    return printable(f"{tensor.name} {tensor.type} {' x '.join(map(str, tensor.shape))}")


def _shown(value: Any) -> str:
    text = printable(f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (all of it with --json)"
