"""[yolo] and [region] sections: how the layer under them is read as boxes."""

from __future__ import annotations

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.train.darknet.previous_layers import PreviousLayers
from edgetl.train.darknet.sections import ConvolutionalSpec, DetectionSpec
from edgetl.train.darknet.syntax import Section

_MOST_CLASSES = 1 << 15
_MOST_ANCHORS = 1 << 8


def _anchors(section: Section) -> tuple[tuple[float, float], ...]:
    number = section.whole("num", 1, 1, _MOST_ANCHORS)
    sides = section.reals("anchors")
    if len(sides) != 2 * number or min(sides) <= 0:
        raise section.fault(
            f"has {len(sides)} numbers as anchors, expected {2 * number} above zero (num={number})", "anchors"
        )
    return tuple(zip(sides[::2], sides[1::2], strict=True))


def yolo(section: Section, below: PreviousLayers) -> DetectionSpec:
    anchors = _anchors(section)
    mask = section.wholes("mask") or tuple(range(len(anchors)))
    if not all(0 <= number < len(anchors) for number in mask):
        raise section.fault(f"has anchors 0 to {len(anchors) - 1}, and a mask that names others", "mask")
    scale_xy = section.real("scale_x_y", 1.0)
    if scale_xy <= 0:
        raise section.fault(f"has scale_x_y={scale_xy}, expected a number above zero", "scale_x_y")
    activated = bool(section.whole("new_coords", 0, 0, 1))
    masked = tuple(anchors[number] for number in mask)
    return _detection(section, below, YoloScale(anchors=masked, scale_xy=scale_xy, activated=activated))


def region(section: Section, below: PreviousLayers) -> DetectionSpec:
    """Its anchors are in cells."""
    if not section.whole("softmax", 0, 0, 1):
        # pjreddie's Darknet makes class scores logistic then, AlexeyAB's leaves them as they are.
        raise section.fault("has no softmax=1, without which Darknets do not agree on its scores", "softmax")
    cells = below.previous(section)
    across, down = below.width / cells.width, below.height / cells.height
    anchors = tuple((width * across, height * down) for width, height in _anchors(section))
    return _detection(section, below, YoloScale(anchors=anchors, softmax=True))


def _detection(section: Section, below: PreviousLayers, scale: YoloScale) -> DetectionSpec:
    shape, number = below.previous(section), section.number - 1
    classes = section.whole("classes", 20, 1, _MOST_CLASSES)
    if number < 0 or not isinstance(below.layers[number], ConvolutionalSpec):
        raise section.fault("does not follow a [convolutional] section, expected one that gives its boxes")
    anchors = len(scale.anchors)
    if shape.channels != anchors * (5 + classes):
        raise section.fault(
            f"has {anchors} anchors and {classes} classes, expected filters={anchors * (5 + classes)} in the layer "
            f"before it, found {shape.channels}",
            "classes",
        )
    return DetectionSpec(section, (number,), shape, classes, scale)
