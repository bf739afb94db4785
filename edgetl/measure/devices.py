"""Jetsons by name: their peaks, each with its source, and the fraction of a peak that inference was seen to reach."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib import resources

from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, model_validator

from edgetl.artifacts.files import Artifact
from edgetl.config import Precision
from edgetl.errors import EdgetlError


class Citation(Artifact):
    """Where a figure is from. ``verified`` is whether that page was read; else the figure is from memory."""

    text: str = Field(min_length=1)
    verified: bool


class GpuArchitecture(Artifact):
    """Operations (two for a multiply-add, dense) that one SM does in a clock; without INT8 where it has none."""

    operations_per_sm_clock: dict[Precision, PositiveInt]
    source: str


class Mode(Artifact):
    """A power mode of nvpmodel: the highest GPU clock, the SMs that are on, and the memory bandwidth in 1e9 B/s."""

    name: str
    gpu_mhz: PositiveFloat
    sms: PositiveInt
    bandwidth_gbs: PositiveFloat
    source: str


class JetsonModule(Artifact):
    """A module. Its first mode is its fastest."""

    name: str
    architecture: str
    memory_gb: PositiveFloat
    modes: tuple[Mode, ...] = Field(min_length=1)
    source: str


class Efficiency(Artifact):
    """The fraction of each peak that an architecture reached in published runs (fit: ``benchmarks/estimate.py``).

    ``launch_us`` is what each kernel costs beside its work. A network that was left out of the fit took between
    1 / ``spread`` and ``spread`` times what was estimated, in nine cases of ten.
    """

    compute: dict[Precision, PositiveFloat]
    bandwidth: PositiveFloat
    launch_us: PositiveFloat
    spread: float = Field(ge=1)


class Catalogue(Artifact):
    """``devices.json``: every figure names a source that the file lists."""

    sources: dict[str, Citation]
    architectures: dict[str, GpuArchitecture]
    devices: tuple[JetsonModule, ...]

    @model_validator(mode="after")
    def _check_references(self) -> Catalogue:
        named = [one.source for one in self.architectures.values()]
        named += [device.source for device in self.devices]
        named += [mode.source for device in self.devices for mode in device.modes]
        if unknown := set(named) - self.sources.keys():
            raise ValueError(f"there is no source {min(unknown)!r}")
        for device in self.devices:
            if device.architecture not in self.architectures:
                raise ValueError(f"there is no architecture {device.architecture!r}")
        return self


class DevicePeaks(Artifact):
    """A device in a mode: peaks in operations and bytes per second."""

    device: str
    mode: str
    peaks: dict[Precision, float]
    bandwidth: float
    memory_mb: float
    efficiency: Efficiency
    unverified: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.device}@{self.mode}"


@cache
def catalogue() -> Catalogue:
    return Catalogue.model_validate_json(_packaged("devices.json"))


@cache
def efficiencies() -> dict[str, Efficiency]:
    """Return the efficiency of each architecture."""
    return TypeAdapter(dict[str, Efficiency]).validate_json(_packaged("efficiency.json"))


def _packaged(name: str) -> bytes:
    return (resources.files("edgetl.measure") / name).read_bytes()


def find_device_peaks(text: str) -> DevicePeaks:
    """Return the peaks of a device by its name, such as ``Orin Nano 8GB`` or ``AGX Orin 64GB@30W``.

    Without a mode it is in its fastest. Case, blanks and hyphens do not matter, nor does a leading "Jetson".

    Raises:
        EdgetlError: there is no such device or mode, or the name fits several.
    """
    name, _, mode_name = text.partition("@")
    device = _find_device(name)
    modes = {_key(mode.name): mode for mode in device.modes}
    mode = modes.get(_key(mode_name)) if mode_name else device.modes[0]
    if mode is None:
        known = ", ".join(mode.name for mode in device.modes)
        raise EdgetlError(f"{device.name} has no power mode {mode_name!r} here; it has {known}")
    architecture, sources = catalogue().architectures[device.architecture], catalogue().sources
    clocks = mode.sms * mode.gpu_mhz * 1e6
    figures = {"memory": device.source, "clock, SMs and bandwidth": mode.source, "peaks": architecture.source}
    return DevicePeaks(
        device=device.name,
        mode=mode.name,
        peaks={precision: clocks * each for precision, each in architecture.operations_per_sm_clock.items()},
        bandwidth=mode.bandwidth_gbs * 1e9,
        memory_mb=device.memory_gb * 1000.0,
        efficiency=efficiencies()[device.architecture],
        unverified=tuple(figure for figure, source in figures.items() if not sources[source].verified),
    )


def _find_device(name: str) -> JetsonModule:
    devices = {_key(device.name): device for device in catalogue().devices}
    key = _key(name).removeprefix("jetson")
    if key in devices:
        return devices[key]
    near = [device.name for known, device in devices.items() if key and key in known]
    near = near or [devices[known].name for known in difflib.get_close_matches(key, devices, n=3)]
    known = ", ".join(device.name for device in devices.values())
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise EdgetlError(f"no device is called {name!r}; {hint}there are {known}")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
