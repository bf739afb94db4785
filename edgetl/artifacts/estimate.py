"""A share or a mean that was measured on images, with its interval."""

from __future__ import annotations

from edgetl.artifacts.files import Artifact


class Estimate(Artifact):
    """A share, or a mean average precision, of ``n`` images with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int
