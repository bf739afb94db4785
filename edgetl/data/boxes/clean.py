"""Annotated boxes to boxes that a detector can learn from, and the faults of the others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgetl.artifacts.box_index import Box, BoxedImage, BoxFault
from edgetl.data.boxes.box_listing import AnnotatedImage, Corners
from edgetl.data.examine import FileFacts
from edgetl.data.geometry import Size

_Fault = dict[str, Any]

_ROUNDING = 1.0
"""Pixels by which a box may leave its image and is clipped without a report: it was rounded, or counted from 0."""


def clean(
    image: AnnotatedImage, found: FileFacts, labels: Collection[str]
) -> tuple[BoxedImage | None, tuple[BoxFault, ...]]:
    """The objects of the labels in an image, in pixels of the upright image and inside it.

    Returns:
        The image, or None where its size is not the annotated one (nobody knows where its boxes belong), and the
        faults.
    """
    width, height = found.size
    if image.size is not None and image.size != found.size:
        detail = f"annotated as {image.size[0]:g} x {image.size[1]:g} pixels, {image.path} has {width} x {height}"
        return None, (BoxFault(where=image.where, kind="image size differs", detail=detail, done="left out"),)
    sides = float(width), float(height), float(width), float(height)
    boxes: list[Box] = []
    faults: list[BoxFault] = []
    first: dict[tuple[object, ...], str] = {}
    for mark in image.marks:
        if mark.label not in labels:
            continue
        scale = sides if image.relative else (1.0, 1.0, 1.0, 1.0)
        left, top, right, bottom = (edge * factor for edge, factor in zip(mark.corners, scale, strict=True))
        corners = left, top, right, bottom
        x1, y1, x2, y2 = (min(max(edge, 0.0), side) for edge, side in zip(corners, sides, strict=True))
        where = first.setdefault((mark.label, *corners), mark.where)
        fault = _geometry(corners, (x1, y1, x2, y2), found.size)
        # Annotation tools write an object twice; learnt twice, it would count twice.
        if where != mark.where:
            fault = {"kind": "duplicate id", "detail": f"the same box and label as {where}", "done": "left out"}
        if fault is not None:
            faults.append(BoxFault(where=mark.where, **fault))
        if fault is None or fault["done"] == "clipped":
            boxes.append(Box(label=mark.label, x1=x1, y1=y1, x2=x2, y2=y2, ignored=mark.ignored))
    boxed = BoxedImage(path=image.path, sha256=found.sha256, width=width, height=height, boxes=tuple(boxes))
    return boxed, tuple(faults)


def _geometry(corners: Corners, inside: Corners, size: Size) -> _Fault | None:
    """The fault of a box, given what of it is ``inside`` its image; None for a good one."""
    left, top, right, bottom = corners
    shown = f"{left:g}, {top:g} to {right:g}, {bottom:g}"
    if right <= left or bottom <= top:
        return {"kind": "no area", "detail": shown, "done": "left out"}
    detail = f"{shown} in an image of {size[0]} x {size[1]} pixels"
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return {"kind": "outside the image", "detail": detail, "done": "left out"}
    if max(abs(edge - clipped) for edge, clipped in zip(corners, inside, strict=True)) > _ROUNDING:
        return {"kind": "outside the image", "detail": detail, "done": "clipped"}
    return None
