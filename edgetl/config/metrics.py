"""The metrics that a study can be decided by: the name and the words of each. `measure/metrics.py` computes them.

Each is a fraction of which more is better; a rate of errors is given as what is left of one. It stands under the key
``accuracy`` in `results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgetl.errors import EdgetlError, did_you_mean

TaskName = Literal["classify", "detect"]


@dataclass(frozen=True)
class TaskWords:
    """Words in which the reports of the two tasks differ, whatever the metric.

    Attributes:
        paired: how two candidates are compared.
        masked: whether a group has a second figure, of its own labels alone.
        competing: how the other figure is taken, where there are two.
        caption: of the groups, below the terminal's table.
        by_group: of the figures that show the groups.
        in_group: of the page's table.
        fires: where a cascade's first level hands a group on, with the ``{threshold}``.
        fired_on: the images of which a fraction fires.
        timed_on: the images that a cascade's latency is of.
    """

    paired: str
    masked: bool
    competing: str
    caption: str
    by_group: str
    in_group: str
    fires: str
    fired_on: str
    timed_on: str


_TASK_WORDS: Mapping[TaskName, TaskWords] = {
    "classify": TaskWords(
        paired="image by image",
        masked=True,
        competing="all labels compete",
        caption="By group: all labels compete/masked to the group's own labels.",
        by_group="Filled: all labels compete, as on the device. Hollow: masked, only the group's own labels compete.",
        in_group="In a group: all labels compete, then masked to the group's own.",
        fires="gives the group's labels at least {threshold} together",
        fired_on="the images",
        timed_on="images that fire at these rates",
    ),
    "detect": TaskWords(
        paired="on the same images",
        masked=False,
        competing="mean over its labels",
        caption="By group: the mean over the group's labels.",
        by_group="The mean over the labels of each group. Whiskers are 95\u00a0% intervals.",
        in_group="In a group: the mean over its labels.",
        fires="finds an object of the group with a score of at least {threshold}",
        fired_on="the validation images",
        timed_on="some of these images, one after another",
    ),
}


@dataclass(frozen=True)
class MetricWords:
    """Words for a metric.

    Attributes:
        name: within a sentence; ``title`` where an axis or a heading begins with it.
        caption: of the terminal's table.
        measured: how, on so many images (``{images}``).
        adjective: of a candidate that has much of it; without one, sentences use the name.
    """

    name: str
    title: str
    caption: str
    measured: str
    adjective: str | None = None

    @property
    def unit(self) -> str:
        """What follows a figure in percent."""
        return self.adjective or f"in {self.name}"

    @property
    def higher(self) -> str:
        """What follows a number of points, as `lower` does."""
        return f"more {self.adjective}" if self.adjective else f"higher in {self.name}"

    @property
    def lower(self) -> str:
        return f"less {self.adjective}" if self.adjective else f"lower in {self.name}"

    @property
    def highest(self) -> str:
        """What follows "the", of some candidates."""
        return f"most {self.adjective}" if self.adjective else f"highest in {self.name}"

    @property
    def best(self) -> str:
        """The one candidate that has the highest."""
        return f"the {self.highest} candidate" if self.adjective else f"the candidate with the highest {self.name}"

    @property
    def alike(self) -> str:
        """What follows "about" or "exactly"."""
        return f"as {self.adjective}" if self.adjective else f"as high in {self.name}"


@dataclass(frozen=True)
class Metric:
    """A metric: its name in study files and in `results.json`, the task that it is for, and its words."""

    name: str
    task: TaskName
    words: MetricWords

    @property
    def task_words(self) -> TaskWords:
        return _TASK_WORDS[self.task]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "top-1",
            "classify",
            MetricWords(
                name="accuracy",
                title="Accuracy",
                caption="Accuracy: % of the test images, below it the 95 % interval.",
                measured="Accuracy is top-1 on {images} test images that no training saw; its intervals are 95\u00a0% "
                "bootstrap intervals over images. Two candidates are compared on the same images, so a difference can "
                "be proven where their single intervals overlap.",
                adjective="accurate",
            ),
        ),
        Metric(
            "balanced-accuracy",
            "classify",
            MetricWords(
                name="balanced accuracy",
                title="Balanced accuracy",
                caption="Balanced accuracy: the mean over the labels of the % of a label's test images that are right; "
                "below it the 95 % interval.",
                measured="Balanced accuracy is the mean over labels of the fraction of a label's test images that are "
                "right, so that rare labels count as much as frequent ones, on {images} test images that no training "
                "saw; its intervals are 95\u00a0% bootstrap intervals over images. Two candidates are compared on the "
                "same images, so a difference can be proven where their single intervals overlap.",
            ),
        ),
        Metric(
            "mAP@0.5",
            "detect",
            MetricWords(
                name="mAP@0.5",
                title="mAP@0.5",
                caption="mAP@0.5: the mean over the labels in %, on the test images; below it the 95 % interval.",
                measured="mAP@0.5 is the mean over labels of average precision as COCO computes it, at an intersection "
                "over union of 0.5, on {images} test images that no training saw; mAP@[.5:.95] is the mean over ten "
                "such thresholds from 0.5 to 0.95. Intervals are 95\u00a0% bootstrap intervals over images. Average "
                "precision takes the best precision beyond each recall: from few objects it comes out too high, "
                "whatever its interval, and figures of test sets that differ much in size are not to be compared. "
                "Differences between two candidates are sounder: both are evaluated on the same images, and may "
                "differ provably where their single intervals overlap.",
            ),
        ),
    )
}


def metric_named(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        EdgetlError: there is none of that name.
    """
    try:
        return METRICS[known_metric(name)]
    except ValueError as fault:
        raise EdgetlError(f"the metric {fault}; register it with edgetl.measure.metrics first") from None


def known_metric(name: str) -> str:
    """Return the name of a metric, unchanged.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METRICS:
        *others, last = map(repr, METRICS)
        raise ValueError(f"is {name!r}, expected {', '.join(others)} or {last}{did_you_mean(name, METRICS)}")
    return name


def metric_of_task(task: TaskName) -> Metric:
    """Return the metric of a study that names none: the first of its task."""
    return next(metric for metric in METRICS.values() if metric.task == task)
