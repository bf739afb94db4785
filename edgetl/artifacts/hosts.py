"""What several machines measured of the same files."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.results import Profile


class HostProfile(Artifact):
    """One machine's figures, or the one line that says why there are none. ``device`` is its board, where it tells."""

    host: str
    device: str | None = None
    profile: Profile | None = None
    error: str | None = None


class HostProfiles(Artifact):
    """All machines, in the order in which they were named."""

    schema_version: Literal[2] = 2
    hosts: tuple[HostProfile, ...]

    @property
    def failed(self) -> tuple[HostProfile, ...]:
        return tuple(one for one in self.hosts if one.error is not None)
