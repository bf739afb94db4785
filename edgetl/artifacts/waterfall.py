"""Where the time between an image file and its answer goes."""

from __future__ import annotations

from edgetl.artifacts.files import Artifact


class StepTime(Artifact):
    """A step of the way, in milliseconds for one image: the median, and its share of all the time that was taken."""

    name: str
    ms: float
    share: float


class Waterfall(Artifact):
    """The steps in their order, over ``samples`` passes of ``images`` different images.

    ``total_ms`` is the median of a whole pass; medians of steps need not add up to it, shares do add up to one.
    """

    images: int
    samples: int
    total_ms: float
    steps: tuple[StepTime, ...]

    @property
    def not_inference(self) -> float:
        """The share of all that is not inference."""
        return 1.0 - sum(step.share for step in self.steps if step.name == "inference")
