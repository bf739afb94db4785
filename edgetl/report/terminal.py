"""Lines and tables that commands print: a comparison, estimates, a machine's health, hosts, an inspected file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.engine_manifest import EngineTensor
from edgetl.artifacts.hosts import HostProfile, HostProfiles
from edgetl.artifacts.inspection import DoctorReport, Inspection
from edgetl.artifacts.measurements import DeviceEstimate
from edgetl.artifacts.prepared import GraphComparison
from edgetl.artifacts.results import Profile
from edgetl.report.deployment_names import folded
from edgetl.report.profile_lines import device_of, title
from edgetl.report.table import UNKNOWN
from edgetl.report.wording import printable, significant

_SHOWN, _LONGEST = 10, 160
# Names are broken here, because rich would break them anywhere.
_NAME_WIDTH = 20
_CAPTION = (
    "ESTIMATE: nothing was measured. Latency: ms for one image, batch 1, TensorRT; in nine cases of ten a network that "
    "the model had not seen lay within the interval (docs/measuring.md). MB: weights and activations, without the "
    "system and the runtime."
)


def comparison_lines(found: GraphComparison) -> Iterator[str]:
    """Yield how far the outputs differ, then the layers and the images that differ most."""
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
        noise = [layer.snr_db for layer in found.layers]
        drops = [0.0, *(now - before for before, now in pairwise(noise))]
        for position in sorted(range(len(found.layers)), key=lambda number: found.layers[number].snr_db)[:_SHOWN]:
            layer = found.layers[position]
            yield f"  {layer.snr_db:7.1f} dB ({drops[position]:+.1f})  {layer.op} {printable(layer.layer)}"
    yield "images with the most noise:"
    for image in found.worst_images:
        yield f"  {image.snr_db:7.1f} dB  {printable(image.image)}"


def estimate_table(estimates: Sequence[DeviceEstimate]) -> Table:
    """Return a table with a row for each deployment, precision and device."""
    unsure = any(row.unverified for row in estimates)
    caption = _CAPTION + (" *: figures of the device from memory, not read from their source." if unsure else "")
    if left_out := sorted({name for row in estimates for name in row.left_out}):
        caption += f" Not counted, because it depends on the image: {', '.join(left_out)} and what follows."
    # Every cell is a `Text`: rich would read a name in brackets as markup.
    table = Table(title="ESTIMATE", box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(caption), caption_justify="left")
    for header in ("", "", "device"):
        table.add_column(header, overflow="fold")
    for header in ("ms", "from - to", "MB"):
        table.add_column(header, justify="right")
    for row in estimates:
        device = f"{row.device}@{row.mode}{'*' if row.unverified else ''}"
        interval = f"{significant(row.low)} - {significant(row.high)}"
        memory = significant(row.memory_mb) + ("" if row.fits else "\ndoes not fit")
        cells = (printable(row.name), row.precision, device, significant(row.middle), interval, memory)
        table.add_row(*map(Text, cells))
    return table


def health_lines(health: DoctorReport) -> Iterator[str]:
    """Yield facts in groups, without those that are unknown; then what can be done and what cannot."""
    for group, facts in health.facts.items():
        known = []
        for name, value in facts.items():
            if value is not None and value != []:
                text = " ".join(map(str, value)) if isinstance(value, list) else printable(str(value))
                known.append(f"{name.replace('_', ' ')} {text}")
        yield f"{group}: {', '.join(known) or 'nothing found'}"
    for need in health.capabilities:
        if need.missing is None:
            yield f"ok       {need.what}"
        else:
            yield f"missing  {need.what}: {printable(need.missing)}"
            yield f"         to fix it: {need.fix}"


def host_table(profiles: HostProfiles, source: str = "host") -> Table:
    """Return a table with a row for each candidate on each machine, those of one name together."""
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
        cells = (_name(title(row)), _name(printable(one.host)), printable(one.device or UNKNOWN), row.runtime)
        figures, latency = (UNKNOWN, printable(row.unsupported or "not measured"), UNKNOWN), row.latency_ms
        if latency is not None:
            p50 = significant(latency.p50) + ("" if latency.stable else "\nUNSTABLE")
            interval = f"{significant(latency.low)} - {significant(latency.high)}"
            figures = (p50, interval, significant(latency.p99))
        table.add_row(*map(Text, (*cells, *figures)))
    return table


def loaded_table(profiles: Mapping[str, Profile]) -> Table:
    """Return such a table of profiles that were measured elsewhere before, by the names of their files."""
    hosts = (HostProfile(host=name, device=device_of(one), profile=one) for name, one in profiles.items())
    return host_table(HostProfiles(hosts=tuple(hosts)), "file")


def failures(profiles: HostProfiles) -> Iterator[str]:
    """Yield a line for each machine that has no figures."""
    for one in profiles.failed:
        yield printable(f"{one.host}: {one.error}")


def _name(text: str) -> str:
    return "\n".join(folded(text, _NAME_WIDTH))


def inspection_lines(found: Inspection) -> Iterator[str]:
    """Yield one line for each thing that is known; layers are counted by operator and precision."""
    yield f"{found.kind}: {printable(found.path)}"
    yield from (f"input: {_tensor(tensor)}" for tensor in found.inputs)
    yield from (f"output: {_tensor(tensor)}" for tensor in found.outputs)
    kinds = Counter((layer.operator, layer.precision) for layer in found.layers)
    for (operator, precision), count in kinds.most_common():
        yield f"layers: {count} x {printable(operator)} in {precision}"
    for heading, values in (("figures", found.figures), ("notes", found.notes), ("lineage", found.lineage)):
        for name, value in values.items():
            if value is None:
                continue
            text = printable(f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value))
            # A file's metadata may be of any length.
            text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (all of it with --json)"
            yield f"{heading}: {printable(name)} {text}"


def _tensor(tensor: EngineTensor) -> str:
    return printable(f"{tensor.name} {tensor.type} {' x '.join(map(str, tensor.shape))}")
