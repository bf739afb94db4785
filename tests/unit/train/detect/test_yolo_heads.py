"""Heads before they are trained: what the pretrained ending knows is still there, value for value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.train.detect.decode_boxes import InputSize, corners, scores, values
from edgetl.train.detect.yolo_heads import YoloHead, pretrained_head, pyramid_head, second_level_head

KNOWN = ("person", "car", "dog", "bus")
FRAME = InputSize(96, 64)
CHANNELS = (24, 16)
CELLS = ((2, 3), (4, 6))
ANCHORS = (((40.0, 30.0), (70.0, 50.0)), ((6.0, 8.0), (14.0, 12.0), (20.0, 30.0)))
OTHERS = (((33.0, 44.0), (80.0, 20.0)), ((5.0, 9.0), (10.0, 10.0), (31.0, 12.0)))
"""Anchors that were fitted."""

KINDS: list[dict[str, Any]] = [{}, {"scale_xy": 1.1}, {"softmax": True}, {"activated": True, "scale_xy": 2.0}]


def scales(anchors: Sequence[Any] = ANCHORS, **how: Any) -> tuple[YoloScale, ...]:
    return tuple(YoloScale(anchors=own, **how) for own in anchors)


def endings(size: int = 1) -> list[nn.Conv2d]:
    """Pretrained ones for `KNOWN`."""
    generator = torch.Generator().manual_seed(1)
    convolutions = []
    for channels, own in zip(CHANNELS, ANCHORS, strict=True):
        one = nn.Conv2d(channels, len(own) * (5 + len(KNOWN)), size, padding=size // 2)
        with torch.no_grad():
            one.weight.normal_(std=0.5, generator=generator)
            one.bias.normal_(generator=generator)  # type: ignore[union-attr]
        convolutions.append(one.requires_grad_(False))
    return convolutions


def maps_of(seed: int = 0, batch: int = 2, cells: Sequence[tuple[int, int]] = CELLS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, *size, generator=generator) for c, size in zip(CHANNELS, cells, strict=True)]


def before(how: dict[str, Any], size: int = 1) -> list[Tensor]:
    """Raw outputs of the pretrained endings."""
    raws = [ending(one) for ending, one in zip(endings(size), maps_of(), strict=True)]
    return [raw.sigmoid() for raw in raws] if how.get("activated") else raws


def read(raws: Sequence[Tensor], own: Sequence[YoloScale]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, values and scores of every scale."""
    found = [values(raw, scale) for raw, scale in zip(raws, own, strict=True)]
    return [(corners(one, s, FRAME), one, scores(one, s)) for one, s in zip(found, own, strict=True)]


@pytest.mark.parametrize("how", KINDS, ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_boxes_objectness_and_known_labels_are_kept_exactly(how: dict[str, Any], size: int) -> None:
    classes = ("bus", "tram", "car")
    head = pretrained_head(endings(size), KNOWN, scales(**how), scales(**how), classes)
    with torch.no_grad():
        after = head(maps_of())
    for (boxes, old, _), (new_boxes, new, _) in zip(
        read(before(how, size), scales(**how)), read(after, scales(**how)), strict=True
    ):
        # Convolutions of another width may add in another order.
        torch.testing.assert_close(new_boxes, boxes, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(new[..., 4], old[..., 4], rtol=1e-5, atol=1e-5)
        for position, label in enumerate(classes):
            if label in KNOWN:
                torch.testing.assert_close(
                    new[..., 5 + position], old[..., 5 + KNOWN.index(label)], rtol=1e-5, atol=1e-5
                )


def test_the_weights_of_a_known_label_are_the_very_bytes() -> None:
    own = scales()
    head = pretrained_head(endings(), KNOWN, own, own, ("dog",))
    for ending, output, scale in zip(endings(), head.outputs, own, strict=True):
        anchors = len(scale.anchors)
        old, new = ending.weight.view(anchors, -1, ending.in_channels), output.weight.view(anchors, 6, -1)
        assert torch.equal(new[:, :5], old[:, :5])
        assert torch.equal(new[:, 5], old[:, 5 + KNOWN.index("dog")])


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_an_unknown_label_begins_as_likely_as_every_other(how: dict[str, Any]) -> None:
    head = pretrained_head(endings(), (), scales(**how), scales(**how), ("a", "b", "c", "d"))
    with torch.no_grad():
        for _, found, every in read(head(maps_of()), scales(**how)):
            objectness = found[..., 4] if how.get("activated") else found[..., 4].sigmoid()
            torch.testing.assert_close(every, objectness[..., None].expand_as(every) / 4)


def test_one_label_alone_begins_at_one_half() -> None:
    head = pretrained_head(endings(), (), scales(), scales(), ("a",))
    with torch.no_grad():
        assert all(
            (values(raw, scale)[..., 5] == 0).all() for raw, scale in zip(head(maps_of()), scales(), strict=True)
        )


@pytest.mark.parametrize("how", KINDS[:3], ids=str)
def test_boxes_stay_where_they_are_when_anchors_change(how: dict[str, Any]) -> None:
    fitted = scales(OTHERS, **how)
    head = pretrained_head(endings(), KNOWN, scales(**how), fitted, ("car",))
    with torch.no_grad():
        after = read(head(maps_of()), fitted)
    for (boxes, _, _), (moved, _, _) in zip(read(before(how), scales(**how)), after, strict=True):
        torch.testing.assert_close(moved, boxes, rtol=1e-4, atol=1e-3)


def test_an_ending_is_trained_and_the_pretrained_one_stays_as_it_is() -> None:
    originals = endings()
    head = pretrained_head(originals, KNOWN, scales(), scales(OTHERS), ("car", "tram"))
    assert all(parameter.requires_grad for parameter in head.parameters())
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    for one, other in zip(originals, endings(), strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias, other.bias)  # type: ignore[arg-type]


def pyramid(cells: Sequence[tuple[int, int]] = CELLS[::-1], classes: int = 2, seed: int = 3) -> YoloHead:
    return pyramid_head(CHANNELS, 12, scales(ANCHORS[::-1]), classes, seed)


@pytest.mark.parametrize("cells", [((4, 6), (2, 3)), ((35, 35), (17, 17)), ((7, 5), (3, 2)), ((5, 5), (5, 5))], ids=str)
def test_a_pyramid_gives_a_raw_output_of_every_maps_size_odd_ones_too(cells: Sequence[tuple[int, int]]) -> None:
    with torch.no_grad():
        raws = pyramid()(maps_of(cells=cells))
    assert [tuple(raw.shape) for raw in raws] == [(2, 3 * 7, *cells[0]), (2, 2 * 7, *cells[1])]


def test_every_level_of_a_pyramid_knows_of_the_coarser_ones() -> None:
    fine, coarse = maps_of(cells=CELLS[::-1])
    with torch.no_grad():
        before, after = (pyramid()([fine, one]) for one in (coarse, coarse + 1.0))
    assert not torch.equal(before[0], after[0])


def test_an_untrained_pyramid_holds_every_place_to_be_background() -> None:
    with torch.no_grad():
        for raw, scale in zip(pyramid()(maps_of(cells=CELLS[::-1])), scales(ANCHORS[::-1]), strict=True):
            objectness = values(raw, scale)[..., 4].sigmoid()
            assert float((objectness - 0.01).abs().max()) < 0.005


def test_one_seed_gives_one_pyramid() -> None:
    same, other = ([*pyramid(seed=seed).parameters()] for seed in (3, 4))
    assert all(torch.equal(one, two) for one, two in zip(pyramid().parameters(), same, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(pyramid().parameters(), other, strict=True))


@pytest.mark.parametrize("kind", ["ending", "pyramid"])
def test_a_second_level_begins_as_the_head_it_comes_from(kind: str) -> None:
    cells = CELLS if kind == "ending" else CELLS[::-1]
    head = pretrained_head(endings(), KNOWN, scales(), scales(), ("car", "tram")) if kind == "ending" else pyramid()
    head.requires_grad_(False)  # as trained heads are
    channels = [18, 27]
    second = second_level_head(head, channels)
    said = [torch.randn(2, c, *size) for c, size in zip(channels, cells, strict=True)]
    with torch.no_grad():
        for one, two in zip(second(maps_of(cells=cells), said), head(maps_of(cells=cells)), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    sum(raw.sum() for raw in second(maps_of(cells=cells), said)).backward()  # type: ignore[union-attr]
    for output in second.outputs:
        assert output.weight.grad is not None and output.weight.grad[:, -18:].abs().sum() > 0
    assert all(parameter.grad is None for parameter in head.parameters())


def test_a_logistic_function_stands_behind_activated_endings_alone() -> None:
    plain = pretrained_head(endings(), KNOWN, scales(), scales(), ("car",))
    activated = pretrained_head(endings(), KNOWN, scales(activated=True), scales(activated=True), ("car",))
    with torch.no_grad():
        for one, two in zip(plain(maps_of()), activated(maps_of()), strict=True):
            torch.testing.assert_close(two, one.sigmoid())
