"""A deployment as a device serves it: real engines, and each head's own list of boxes as the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetl.artifacts.deployment import Deployment, Gate, GraphSpec, Shortlist, layout
from edgetl.artifacts.files import write_json
from edgetl.artifacts.predictions import merge_detections
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import NmsSettings, Study
from edgetl.engine.runtime import BuildOptions, Engine, RunOptions, build_engine, get_runtime
from edgetl.graph.detection_postprocessing import with_detections
from edgetl.graph.extract import extract, frontier
from edgetl.graph.model import save_model
from edgetl.graph.parity import run
from edgetl.stages.detect.serving import DetectorService, workloads
from edgetl.stages.serving import Loaded, load
from edgetl.stages.stage import Context, ProgressReporter

Array = NDArray[np.float32]
Serve = Callable[[Deployment], tuple[Loaded, ...]]

SUPPRESSION = NmsSettings(score_threshold=0.1, iou_threshold=0.4, max_detections=16)
PIXELS: Array = np.random.default_rng(7).normal(0.4, 0.6, (9, 3, 32, 48)).astype(np.float32)
LABELS = ("car", "bus", "stop", "yield", "left")


@pytest.fixture(scope="module")
def serve(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Build and load the engines of a deployment, as the stages export and build do."""
    folder, runtime = tmp_path_factory.mktemp("engines"), get_runtime("onnxruntime")

    def serve(deployment: Deployment) -> tuple[Loaded, ...]:
        for spec in deployment.graphs:
            raws = [raw for name in spec.heads for raw in trained.head(name).raws]
            part = extract(trained.network, tuple(dict.fromkeys((*raws, *spec.handed_on))), spec.inputs)
            heads = [trained.raw_head(name) for name in spec.heads]
            whole = with_detections(part, heads, trained.bundle.preprocessing, SUPPRESSION, keep=spec.handed_on)
            save_model(whole, folder / f"{spec.stem}.graph")
            build_engine(runtime, folder / f"{spec.stem}.graph", folder / spec.stem, BuildOptions())
        paths = [folder / spec.stem for spec in deployment.graphs]
        return load({"it": (deployment, paths)}, RunOptions(threads=1))["it"]

    return serve


@pytest.fixture(scope="module")
def said(trained: Any) -> dict[str, list[Array]]:
    """What every head finds in every image, by the study's numbers of labels."""
    heads = [trained.raw_head(head.name) for head in trained.bundle.heads]
    outputs = run(with_detections(trained.network, heads, trained.bundle.preprocessing, SUPPRESSION), PIXELS)
    numbered = {}
    for head in trained.bundle.heads:
        numbers = np.array([LABELS.index(label) for label in head.classes])
        lists = [one[one[:, 4] > 0] for one in outputs[head.name]]
        numbered[head.name] = [
            np.column_stack([one[:, :5], numbers[one[:, 5].astype(int)]]).astype(np.float32) for one in lists
        ]
    return numbered


def deployment(kind: str, graphs: Sequence[GraphSpec]) -> Deployment:
    return Deployment(name=kind, kind=kind, graphs=tuple(graphs), cuts={}, flops=1)


def cascade(trained: Any) -> Deployment:
    second = [trained.head(f"{group}@cascade") for group in trained.bundle.groups]
    starts = {one.name: frontier(trained.network, one.raws, ["combined/raw0"]) for one in second}
    handed_on = tuple(dict.fromkeys(name for names in starts.values() for name in names))
    first = GraphSpec(stem="cascade.combined", heads=("combined",), handed_on=handed_on)
    return deployment(
        "cascade",
        [
            first,
            *(GraphSpec(stem=f"cascade.{one.role}", heads=(one.name,), inputs=starts[one.name]) for one in second),
        ],
    )


class Counting:
    """An engine that remembers how many images it was shown, call by call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows: list[int] = []

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self._engine.shapes

    def infer(self, *inputs: Array) -> dict[str, Array]:
        self.rows.append(len(inputs[0]))
        return self._engine.infer(*inputs)


def counted(loaded: Sequence[Loaded]) -> tuple[tuple[Loaded, ...], list[Counting]]:
    counters = [Counting(one.engine) for one in loaded]
    return tuple(replace(one, engine=counter) for one, counter in zip(loaded, counters, strict=True)), counters


def assert_same(found: Sequence[Array], expected: Sequence[Array]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours[:, 5], theirs[:, 5])
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def merged(parts: Sequence[Array]) -> Array:
    return merge_detections(parts, SUPPRESSION.iou_threshold, SUPPRESSION.max_detections)


def test_the_heads_of_the_fixture_say_different_things(said: dict[str, list[Array]]) -> None:
    counts = {name: sum(map(len, lists)) for name, lists in said.items()}
    assert all(count > 5 for count in counts.values()), counts
    assert any(len(one) < SUPPRESSION.max_detections for lists in said.values() for one in lists), "some are filled up"


@pytest.mark.parametrize("kind", ["combined", "specialised", "shared"])
def test_boxes_are_those_of_its_heads_by_the_studys_numbers(
    trained: Any, serve: Serve, said: dict[str, list[Array]], kind: str
) -> None:
    roles = ("combined",) if kind == "combined" else tuple(trained.bundle.groups)
    served = deployment(kind, layout(kind, [trained.head(role) for role in roles]))
    found = DetectorService(trained.bundle, SUPPRESSION, None).predictor(served, serve(served))(PIXELS)
    assert_same(found, [merged(parts) for parts in zip(*(said[role] for role in roles), strict=True)])
    assert all((one[:, 4] > 0).all() and len(one) <= SUPPRESSION.max_detections for one in found)
    labels = {LABELS[int(label)] for one in found for label in one[:, 5]}
    assert all(labels & set(members) for members in trained.bundle.groups.values())


def test_shared_says_exactly_what_specialised_says(trained: Any, serve: Serve) -> None:
    heads = [trained.head(group) for group in trained.bundle.groups]
    service, found = DetectorService(trained.bundle, SUPPRESSION, None), []
    for kind in ("shared", "specialised"):
        served = deployment(kind, layout(kind, heads))
        found.append(service.predictor(served, serve(served))(PIXELS))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def surest(said: dict[str, list[Array]], members: Sequence[str]) -> list[float]:
    """The best score of a group's labels in every image, by the first level."""
    own = [LABELS.index(label) for label in members]
    return [max((float(row[4]) for row in one if row[5] in own), default=0.0) for one in said["combined"]]


def threshold_in_the_middle(trained: Any, said: dict[str, list[Array]]) -> float:
    """Far from every score: the middle of the widest gap among those in the middle."""
    every = np.sort([score for members in trained.bundle.groups.values() for score in surest(said, members)])
    middle = every[len(every) // 4 : -len(every) // 4]
    widest = int(np.diff(middle).argmax())
    return float(middle[widest] + middle[widest + 1]) / 2


def test_a_cascade_replaces_boxes_of_fired_groups(trained: Any, serve: Serve, said: dict[str, list[Array]]) -> None:
    threshold = threshold_in_the_middle(trained, said)
    expected, kinds = [], set()
    for row, first in enumerate(said["combined"]):
        parts, fired = [first], []
        for group, members in trained.bundle.groups.items():
            own = [LABELS.index(label) for label in members]
            if surest(said, members)[row] >= threshold:
                parts = [*(part[~np.isin(part[:, 5], own)] for part in parts), said[f"{group}@cascade"][row]]
                fired.append(group)
        kinds.add(tuple(fired))
        expected.append(merged(parts))
    assert len(kinds) > 1, "a gate that is always open or shut would prove little"
    found = DetectorService(trained.bundle, SUPPRESSION, threshold).predictor(
        cascade(trained), serve(cascade(trained))
    )(PIXELS)
    assert_same(found, expected)


def test_the_second_level_runs_only_where_it_fired(trained: Any, serve: Serve, said: dict[str, list[Array]]) -> None:
    threshold = threshold_in_the_middle(trained, said)
    loaded, (first, *second) = counted(serve(cascade(trained)))
    DetectorService(trained.bundle, SUPPRESSION, threshold).predictor(cascade(trained), loaded)(PIXELS)
    assert first.rows == [len(PIXELS)]
    for counter, members in zip(second, trained.bundle.groups.values(), strict=True):
        fired = sum(score >= threshold for score in surest(said, members))
        assert counter.rows == ([fired] if fired else [])


def test_a_second_level_that_nothing_fires_is_not_run(trained: Any, serve: Serve, said: dict[str, list[Array]]) -> None:
    loaded, (_, *second) = counted(serve(cascade(trained)))
    found = DetectorService(trained.bundle, SUPPRESSION, 1.1).predictor(cascade(trained), loaded)(PIXELS)
    assert_same(found, [merged([one]) for one in said["combined"]])
    assert [counter.rows for counter in second] == [[], []]


def test_one_image_alone_gets_what_it_gets_in_a_batch(trained: Any, serve: Serve, said: dict[str, list[Array]]) -> None:
    threshold = threshold_in_the_middle(trained, said)
    predict = DetectorService(trained.bundle, SUPPRESSION, threshold).predictor(
        cascade(trained), serve(cascade(trained))
    )
    alone = [predict(PIXELS[row : row + 1])[0] for row in range(len(PIXELS))]
    assert_same(alone, predict(PIXELS))


ROWS = st.tuples(
    st.integers(0, 3), st.integers(0, 3), st.floats(0.0625, 1.0, width=32), st.integers(0, len(LABELS) - 1)
)
FOUND = st.lists(ROWS, max_size=5).map(
    lambda rows: np.array(
        [(9.0 * x, 9.0 * y, 9.0 * x + 8, 9.0 * y + 8, s, n) for x, y, s, n in rows], np.float32
    ).reshape(-1, 6)
)


@given(
    found=st.lists(FOUND, min_size=1, max_size=4), threshold=st.floats(0.0625, 1.0, width=16), sure=st.floats(0.1, 1.0)
)
def test_what_is_not_of_a_fired_group_stays(trained: Any, found: list[Array], threshold: float, sure: float) -> None:
    service = DetectorService(trained.bundle, NmsSettings(iou_threshold=1.0), threshold)
    mark = np.array([[1, 2, 3, 4, sure, 3]], np.float32)
    asked: dict[str, list[bool]] = {}

    def ask(name: str, fired: NDArray[np.bool_]) -> list[Array]:
        asked[name] = fired.tolist()
        return [mark] * int(fired.sum())

    after = service.in_turn(found, ["signs@cascade"], ask)
    for row, (before, one) in enumerate(zip(found, after, strict=True)):
        signs = np.isin(before[:, 5], [2, 3, 4])
        fired = bool((before[signs, 4] >= threshold).any())
        # A head whose group fires nowhere is not asked at all.
        assert asked.get("signs@cascade", [False] * len(found))[row] == fired
        expected = np.concatenate([before[~signs], mark]) if fired else before
        assert sorted(map(tuple, one.tolist())) == sorted(map(tuple, expected.tolist()))
        assert (np.diff(one[:, 4]) <= 0).all(), "best first"


@pytest.fixture
def context(trained: Any, tmp_path: Path, listener: ProgressReporter) -> Context:
    study = Study(
        name="signs",
        task="detect",
        data={"format": "synthetic"},
        groups=trained.bundle.groups,
        backbone={"name": "edgetl/nano", "image_size": (48, 32)},
        deployments=("combined", "cascade"),
        detection={"nms": SUPPRESSION.model_dump()},
    )
    found = Context(study, tmp_path, RunDirectory(tmp_path / "run"), listener)
    write_json(found.run.bundle / "bundle.json", trained.bundle)
    samples = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    np.save(found.run.bundle / "samples.npy", samples, allow_pickle=False)
    return found


def test_latency_is_measured_with_one_image_after_another(trained: Any, serve: Serve, context: Context) -> None:
    write_json(context.run.shortlist, Shortlist(deployments=(), trees=(), gate=Gate(threshold=0.05, firings=())))
    loaded, (first, *second) = counted(serve(cascade(trained)))
    (call,) = workloads(context, {"cascade fp32": (cascade(trained), loaded)}, 0).values()
    for _ in range(10):
        call()
    assert first.rows == [1] * 10
    for counter in second:
        assert len(counter.rows) % 2 == 0, "each image fires in both rounds, or in none"


def test_batches_hold_images_in_turn_and_begin_again(trained: Any, serve: Serve, context: Context) -> None:
    write_json(context.run.shortlist, Shortlist(deployments=(), trees=()))
    combined = deployment("combined", layout("combined", [trained.head("combined")]))
    loaded, (counter,) = counted(serve(combined))
    for batch in (2, 8):
        (call,) = workloads(context, {"combined fp32": (combined, loaded)}, 0, batch).values()
        for _ in range(4):
            call()
    assert counter.rows == [2] * 4 + [8] * 4, "of five samples"
