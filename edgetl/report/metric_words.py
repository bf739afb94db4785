"""Words for a classifier's accuracy and for a detector's: every word that differs between their reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetl.artifacts.results import Metric


@dataclass(frozen=True)
class MetricWords:
    """Words for what `results.json` holds as ``accuracy``.

    Attributes:
        name: within a sentence; ``title`` where an axis or a heading begins with it.
        unit: what follows a figure in percent.
        higher: to follow a number of points, as ``lower`` does.
        highest: to follow "the", of some candidates.
        best: the one candidate that has the highest.
        alike: to follow "about" or "exactly".
        paired: how two candidates are compared.
        masked: whether a group has a second figure, of its own labels alone.
        competing: how the other figure is taken, where there are two.
        caption: of the terminal's table.
        by_group: of the figures that show the groups.
        in_group: of the page's table.
        measured: how, on so many images (``{images}``).
        fires: where a cascade's first level hands a group on, with the ``{threshold}``.
        fired_on: the images of which a fraction fires.
        timed_on: the images that a cascade's latency is of.
    """

    name: str
    title: str
    unit: str
    higher: str
    lower: str
    highest: str
    best: str
    alike: str
    paired: str
    masked: bool
    competing: str
    caption: str
    by_group: str
    in_group: str
    measured: str
    fires: str
    fired_on: str
    timed_on: str


_TERMS: Mapping[Metric, MetricWords] = {
    "top-1": MetricWords(
        name="accuracy",
        title="Accuracy",
        unit="accurate",
        higher="more accurate",
        lower="less accurate",
        highest="most accurate",
        best="the most accurate candidate",
        alike="as accurate",
        paired="image by image",
        masked=True,
        competing="all labels compete",
        caption="Accuracy: % of the test images, below it the 95 % interval. By group: all labels compete/masked to "
        "the group's own labels.",
        by_group="Filled: all labels compete, as on the device. Hollow: masked, only the group's own labels compete.",
        in_group="In a group: all labels compete, then masked to the group's own.",
        measured="Accuracy is top-1 on {images} test images that no training saw; its intervals are 95\u00a0% "
        "bootstrap intervals over images. Two candidates are compared on the same images, so a difference can be "
        "proven where their single intervals overlap.",
        fires="gives the group's labels at least {threshold} together",
        fired_on="the images",
        timed_on="images that fire at these rates",
    ),
    "mAP@0.5": MetricWords(
        name="mAP@0.5",
        title="mAP@0.5",
        unit="in mAP@0.5",
        higher="higher in mAP@0.5",
        lower="lower in mAP@0.5",
        highest="highest in mAP@0.5",
        best="the candidate with the highest mAP@0.5",
        alike="as high in mAP@0.5",
        paired="on the same images",
        masked=False,
        competing="mean over its labels",
        caption="mAP@0.5: the mean over the labels in %, on the test images; below it the 95 % interval. By group: "
        "the mean over the group's labels.",
        by_group="The mean over the labels of each group. Whiskers are 95\u00a0% intervals.",
        in_group="In a group: the mean over its labels.",
        measured="mAP@0.5 is the mean over labels of average precision as COCO computes it, at an intersection over "
        "union of 0.5, on {images} test images that no training saw; mAP@[.5:.95] is the mean over ten such thresholds "
        "from 0.5 to 0.95. Intervals are 95\u00a0% bootstrap intervals over images. Average precision takes the best "
        "precision beyond each recall: from few objects it comes out too high, whatever its interval, and figures of "
        "test sets that differ much in size are not to be compared. Differences between two candidates are sounder: "
        "both are judged on the same images, and may differ provably where their single intervals overlap.",
        fires="finds an object of the group with a score of at least {threshold}",
        fired_on="the validation images",
        timed_on="some of these images, one after another",
    ),
}


def terms(metric: Metric) -> MetricWords:
    """Return the words for a study's metric."""
    return _TERMS[metric]
