"""Boxes as they are annotated to boxes that can be learnt from, and what was wrong with the others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgetl.artifacts.box_index import Box, BoxedImage, BoxFault
from edgetl.data.boxes.box_listing import AnnotatedImage, Corners
from edgetl.data.examine import FileFacts
from edgetl.data.geometry import Size

_Fault = dict[str, Any]

_ROUNDING = 1.0
"""Pixels: a box that leaves its image by no more was rounded, or counted from 0. It is clipped without a word."""


def clean(
    image: AnnotatedImage, found: FileFacts, labels: Collection[str]
) -> tuple[BoxedImage | None, tuple[BoxFault, ...]]:
    """The objects of the labels in an image, in pixels of the upright image and inside it.

    Returns:
        The image, or None where its size is not the one that was annotated: nobody knows where its boxes belong.
        And what was wrong.
    """
    width, height = found.size
    if image.size is not None and image.size != found.size:
        detail = f"annotated as {image.size[0]:g} x {image.size[1]:g} pixels, {image.path} has {width} x {height}"
        return None, (BoxFault(where=image.where, kind="image size differs", detail=detail, done="left out"),)
    boxes: list[Box] = []
    faults: list[BoxFault] = []
    first: dict[tuple[object, ...], str] = {}
    for mark in image.marks:
        if mark.label not in labels:
            continue
        corners = _in_pixels(mark.corners, found.size) if image.relative else mark.corners
        inside = _clipped(corners, found.size)
        where = first.setdefault((mark.label, *corners), mark.where)
        fault = _copy(where) if where != mark.where else _geometry(corners, inside, found.size)
        if fault is not None:
            faults.append(BoxFault(where=mark.where, **fault))
        if fault is None or fault["done"] == "clipped":
            x1, y1, x2, y2 = inside
            boxes.append(Box(label=mark.label, x1=x1, y1=y1, x2=x2, y2=y2, ignored=mark.ignored))
    boxed = BoxedImage(path=image.path, sha256=found.sha256, width=width, height=height, boxes=tuple(boxes))
    return boxed, tuple(faults)


def _in_pixels(shares: Corners, size: Size) -> Corners:
    (left, top, right, bottom), (width, height) = shares, size
    return left * width, top * height, right * width, bottom * height


def _clipped(corners: Corners, size: Size) -> Corners:
    (left, top, right, bottom), (width, height) = corners, size
    return _between(left, width), _between(top, height), _between(right, width), _between(bottom, height)


def _between(value: float, limit: int) -> float:
    return min(max(value, 0.0), float(limit))


def _copy(where: str) -> _Fault:
    return {"kind": "duplicate id", "detail": f"the same box and label as {where}", "done": "left out"}


def _geometry(corners: Corners, inside: Corners, size: Size) -> _Fault | None:
    """What is wrong with a box, given what of it is inside its image."""
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
