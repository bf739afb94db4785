"""From detectors to a shortlist: what is built, what it costs, and when a cascade's second level runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import TOP
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import read_json
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Study
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match
from edgetl.stages.detect import search
from edgetl.stages.detect.serving import DetectorService
from edgetl.stages.stage import Context, ProgressReporter

Array = NDArray[np.float32]
Search = Callable[..., Shortlist]
Place = Callable[..., BoxedImage]

GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop", "yield", "left")}
LABELS = ("car", "bus", "stop", "yield", "left")
HEADS = ("combined", "vehicles@cascade", "signs@cascade")

# Of the fixture's convolutions, 2 x multiply-adds on 4 x 6 cells.
CELLS = 4 * 6
TRUNK = 2 * 6 * 3 * 8 * 8 * CELLS


def raw(labels: int, channels: int = 6) -> int:
    return 2 * 2 * (5 + labels) * channels * CELLS


def nothing(images: int) -> dict[str, list[Array]]:
    return {name: [np.empty((0, 6), np.float32)] * images for name in HEADS}


@pytest.fixture
def shortlist(trained: Any, image: Place, tmp_path: Path, listener: ProgressReporter) -> Search:
    """Search a study of some deployments, of what heads found on validation images."""

    def shortlist(
        *deployments: str,
        val: Sequence[BoxedImage] = (),
        found: Mapping[str, Sequence[Array]] | None = None,
        tuned: bool = True,
    ) -> Shortlist:
        study = Study(
            name="signs",
            task="detect",
            data={"format": "synthetic"},
            groups=GROUPS,
            backbone={"name": "edgetl/nano"},
            deployments=deployments,
        )
        images = val or [image(n, ("car", 10, 10, 40, 40), ("stop", 50, 10, 70, 30)) for n in range(3)]
        kept = trained if tuned else without_tuned(trained)
        context = Context(study, tmp_path, RunDirectory(tmp_path / "run"), listener)
        kept.write(context.run.path, images, found or nothing(len(images)))
        assert search.work(context) == [context.run.shortlist]
        return read_json(context.run.shortlist, Shortlist)

    return shortlist


def without_tuned(trained: Any) -> Any:
    heads = tuple(head for head in trained.bundle.heads if head.cut == TOP)
    return replace(trained, bundle=trained.bundle.model_copy(update={"heads": heads}))


def test_every_deployment_is_built_once_in_the_order_of_the_study(shortlist: Search) -> None:
    found = shortlist("shared", "cascade", "combined", "specialised", tuned=False)
    assert [one.name for one in found.deployments] == ["shared", "cascade", "combined", "specialised"]
    assert found.trees == ()
    by_group = dict.fromkeys(GROUPS, TOP)
    cuts = [one.cuts for one in found.deployments]
    assert cuts == [by_group, {"combined": TOP, **by_group}, {"combined": TOP}, by_group]


def test_tuned_layers_stand_beside_the_frozen_ones_in_networks_of_their_own(shortlist: Search) -> None:
    found = shortlist("combined", "specialised", "shared", "cascade")
    names = [one.name for one in found.deployments]
    assert names == ["combined", "combined@layer1", "specialised", "specialised@layer1", "shared", "cascade"]
    tuned = found.deployments[3]
    assert tuned.cuts == dict.fromkeys(GROUPS, "layer1")
    assert [spec.heads for spec in tuned.graphs] == [("vehicles@layer1",), ("signs@layer1",)]


def test_files_of_detectors_differ_between_runtimes_in_every_precision(shortlist: Search) -> None:
    found = shortlist("combined", "specialised", "shared", "cascade")
    files = [
        spec.file(precision, target)
        for one in found.deployments
        for spec in one.graphs
        for precision in ("fp32", "int8")
        for target in ("onnxruntime", "tensorrt")
    ]
    assert len(set(files)) == len(files)


def test_what_heads_share_is_paid_once_in_each_graph(shortlist: Search) -> None:
    flops = {one.name: one.flops for one in shortlist("combined", "specialised", "shared").deployments}
    assert flops["combined"] == flops["combined@layer1"] == TRUNK + raw(5)
    assert flops["shared"] == TRUNK + raw(2) + raw(3)
    assert flops["specialised"] == 2 * TRUNK + raw(2) + raw(3)


def test_a_cascades_second_level_reads_the_trunk_and_the_first_level(shortlist: Search) -> None:
    (cascade,) = shortlist("cascade").deployments
    first, *second = cascade.graphs
    handed_on = ("trunk/relu", "combined/raw0")
    assert first == GraphSpec(
        stem="cascade.combined", heads=("combined",), handed_on=first.handed_on, runtime_specific=True
    )
    assert sorted(first.handed_on) == sorted(handed_on)
    for spec, group in zip(second, GROUPS, strict=True):
        assert (spec.stem, spec.heads) == (f"cascade.{group}", (f"{group}@cascade",))
        assert sorted(spec.inputs) == sorted(handed_on)


def test_only_a_cascade_has_a_gate(shortlist: Search) -> None:
    assert shortlist("combined", "specialised", "shared").gate is None
    assert shortlist("cascade").gate is not None


def row(x: float, y: float, score: float, label: int, side: float = 30.0) -> list[float]:
    return [x, y, x + side, y + side, score, label]


def planted(image: Place) -> tuple[list[BoxedImage], dict[str, list[Array]]]:
    """The first level sees vehicles where they are, badly placed; it sees some where there are none, less surely.

    The second level places vehicles well, and is certain of all that it sees.
    """
    val, found = [], nothing(8)
    found = {name: list(lists) for name, lists in found.items()}
    for n in range(8):
        real = n < 5
        val.append(image(n, *((("car", 10, 10, 40, 40),) if real else (("stop", 60, 40, 90, 70),))))
        first, second = (row(22, 10, 0.6, 0), row(10, 10, 0.97, 0)) if real else (row(5, 5, 0.3, 0), row(5, 5, 0.98, 0))
        stop = [] if real else [row(60, 40, 0.2, 2)]
        found["combined"][n] = np.array([first, *stop], np.float32)
        found["vehicles@cascade"][n] = np.array([second], np.float32)
        found["signs@cascade"][n] = np.array([] if real else [row(60, 40, 0.5, 0)], np.float32).reshape(-1, 6)
    return val, found


def test_the_gate_is_the_highest_of_the_best_thresholds(shortlist: Search, image: Place, trained: Any) -> None:
    val, found = planted(image)
    gate = shortlist("cascade", val=val, found=found).gate
    assert gate is not None
    # Below 0.3 the second level is asked for what is not there; above 0.6 it is not asked for what is.
    assert gate.threshold == pytest.approx(0.6)
    shares = {firing.groups: firing.fraction for firing in gate.firings}
    assert shares == {("vehicles",): 5 / 8, (): 3 / 8}


def test_no_other_threshold_serves_better(shortlist: Search, image: Place, trained: Any) -> None:
    random = np.random.default_rng(4)
    val = [image(n, ("car", 10, 10, 40, 40), ("stop", 60, 40, 90, 70)) for n in range(12)]
    found: dict[str, list[Array]] = {name: [] for name in HEADS}
    for _ in val:
        for name, labels in zip(HEADS, ((0, 2), (0,), (0,)), strict=True):
            places = {0: (60, 40) if name == "signs@cascade" else (10, 10), 2: (60, 40)}
            shift = random.integers(0, 14, size=2)
            rows = [row(x + shift[0], y, random.uniform(0.05, 1), n) for n, (x, y) in places.items() if n in labels]
            found[name].append(np.array(rows, np.float32))
    gate = shortlist("cascade", val=val, found=found).gate
    assert gate is not None
    second = ("vehicles@cascade", "signs@cascade")

    def worth(threshold: float) -> float:
        service = DetectorService(trained.bundle, Study.model_fields["detection"].default.nms, threshold)
        lists = {name: [service.numbered(name, one) for one in found[name]] for name in HEADS}

        def ask(name: str, fired: NDArray[np.bool_]) -> list[Array]:
            return [one for one, on in zip(lists[name], fired, strict=True) if on]

        return ap50(match(val, service.in_turn(lists["combined"], second, ask), LABELS))

    every = {percent / 100: worth(percent / 100) for percent in range(5, 100, 5)}
    best = [threshold for threshold, one in every.items() if one == max(every.values())]
    assert gate.threshold == pytest.approx(max(best))
    assert min(every.values()) < max(every.values())


def test_a_cascade_costs_what_it_ran_on_validation(shortlist: Search, image: Place) -> None:
    val, found = planted(image)
    (cascade,) = shortlist("cascade", val=val, found=found).deployments
    beside = 6 + 2 * (5 + 5)
    assert cascade.flops == TRUNK + raw(5) + round(5 / 8 * raw(2, channels=beside))


def test_a_first_level_that_finds_nothing_never_asks_for_the_second(shortlist: Search) -> None:
    gate = shortlist("cascade").gate
    assert gate is not None
    assert gate.threshold == pytest.approx(0.95)
    assert [(firing.groups, firing.fraction) for firing in gate.firings] == [((), 1.0)]


def test_the_same_bundle_gives_the_same_shortlist(shortlist: Search, image: Place, tmp_path: Path) -> None:
    val, found = planted(image)
    path = tmp_path / "run" / "bundle" / "shortlist.json"
    shortlist("combined", "cascade", val=val, found=found)
    once = path.read_bytes()
    shortlist("combined", "cascade", val=val, found=found)
    assert path.read_bytes() == once
