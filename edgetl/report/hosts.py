"""What several machines measured, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.hosts import HostProfile, HostProfiles
from edgetl.artifacts.results import Measured, Profile
from edgetl.report.names import folded
from edgetl.report.profiled import device_of, title
from edgetl.report.table import UNKNOWN
from edgetl.report.wording import printable, significant

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
        table.add_row(*map(Text, _cells(row, one)))
    return table


def loaded_table(profiles: Mapping[str, Profile]) -> Table:
    """The same of profiles that were measured elsewhere before, by the names of their files."""
    hosts = (HostProfile(host=name, device=device_of(one), profile=one) for name, one in profiles.items())
    return host_table(HostProfiles(hosts=tuple(hosts)), "file")


def failures(profiles: HostProfiles) -> Iterator[str]:
    """A line for each machine that has no figures."""
    for one in profiles.failed:
        yield printable(f"{one.host}: {one.error}")


def _cells(row: Measured, one: HostProfile) -> tuple[str, ...]:
    cells = (_name(title(row)), _name(printable(one.host)), printable(one.device or UNKNOWN), row.runtime)
    latency = row.latency_ms
    if latency is None:
        return (*cells, UNKNOWN, printable(row.unsupported or "not measured"), UNKNOWN)
    mark = "" if latency.stable else "\nUNSTABLE"
    interval = f"{significant(latency.low)} - {significant(latency.high)}"
    return (*cells, significant(latency.p50) + mark, interval, significant(latency.p99))


def _name(text: str) -> str:
    return "\n".join(folded(text, _NAME_WIDTH))
