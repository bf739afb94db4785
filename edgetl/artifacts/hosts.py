"""Profiles of the same files from several machines."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.results import Profile


class HostProfile(Artifact):
    """One machine's profile, or the error that prevented it. ``device`` is its board, where it is known."""

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
