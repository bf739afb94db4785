"""A deployment as a device serves it: real engines, and numpy on the outputs of one whole graph as the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetl.artifacts.bundle import FEATURES
from edgetl.artifacts.deployment import Deployment, Gate, GateFiring, GraphSpec, layout
from edgetl.engine.runtime import BuildOptions, Engine, RunOptions, build_engine, get_runtime
from edgetl.errors import EdgetlError
from edgetl.graph.extract import extract, frontier
from edgetl.graph.model import save_model
from edgetl.graph.parity import run
from edgetl.stages.classify.serving import ClassifierService, workload
from edgetl.stages.serving import Loaded, load

Array = NDArray[np.float32]
Serve = Callable[[Deployment], tuple[Loaded, ...]]

_RANDOM = np.random.default_rng(7)
# Each image in a colour of its own, far beyond what colours are: so untrained heads see them as different labels.
PIXELS: Array = (_RANDOM.normal(0.0, 2.0, (24, 3, 1, 1)) + _RANDOM.random((24, 3, 8, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def serve(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Build and load the engines of a deployment."""
    folder, whole, runtime = tmp_path_factory.mktemp("engines"), trained.whole(), get_runtime("onnxruntime")

    def serve(deployment: Deployment) -> tuple[Loaded, ...]:
        for spec in deployment.graphs:
            graph = folder / f"{spec.stem}.graph"
            save_model(extract(whole, (*spec.heads, *spec.handed_on), spec.inputs), graph)
            build_engine(runtime, graph, folder / spec.stem, BuildOptions())
        paths = [folder / spec.stem for spec in deployment.graphs]
        return load({"it": (deployment, paths)}, RunOptions(threads=1))["it"]

    return serve


@pytest.fixture(scope="module")
def said(trained: Any) -> dict[str, Array]:
    """What every head says of the images, from one graph that holds them all."""
    return run(trained.whole(), PIXELS)


def deployment(kind: str, graphs: Sequence[GraphSpec]) -> Deployment:
    return Deployment(name=kind, kind=kind, graphs=tuple(graphs), cuts={}, flops=1)


def cascade(trained: Any) -> Deployment:
    starts = {
        g: frontier(trained.trunk, [trained.head(f"{g}@cascade").features], [FEATURES]) for g in trained.bundle.groups
    }
    handed_on = tuple(name for names in starts.values() for name in names)
    first = GraphSpec(stem="cascade.combined", heads=("combined",), handed_on=handed_on)
    second = [
        GraphSpec(stem=f"cascade.{group}", heads=(f"{group}@cascade",), inputs=(*names, "combined"))
        for group, names in starts.items()
    ]
    return deployment("cascade", [first, *second])


def gate(threshold: float, **shares: float) -> Gate:
    """Shares by the groups that fire, joined by ``_and_``; ``nothing`` for none."""
    firings = [
        GateFiring(groups=() if groups == "nothing" else tuple(groups.split("_and_")), fraction=share)
        for groups, share in shares.items()
    ]
    return Gate(threshold=threshold, firings=tuple(firings))


def between(values: Array) -> float:
    """A threshold far from every value: the middle of the widest gap among those in the middle."""
    middle = np.sort(values)[len(values) // 4 : -len(values) // 4]
    widest = int(np.diff(middle).argmax())
    return float(middle[widest] + middle[widest + 1]) / 2


class Counting:
    """An engine that remembers how many images it was shown, call by call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows: list[int] = []

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self._engine.shapes

    def infer(self, *inputs: Array) -> dict[str, Array]:
        assert len({len(value) for value in inputs}) == 1, "all inputs are of the same images"
        self.rows.append(len(inputs[0]))
        return self._engine.infer(*inputs)


def counted(loaded: Sequence[Loaded]) -> tuple[tuple[Loaded, ...], list[Counting]]:
    counters = [Counting(one.engine) for one in loaded]
    return tuple(replace(one, engine=counter) for one, counter in zip(loaded, counters, strict=True)), counters


def test_a_cascade_says_what_its_heads_say_by_hand(trained: Any, serve: Serve, said: dict[str, Array]) -> None:
    labels, groups, combined = trained.bundle.labels, trained.bundle.groups, said["combined"].astype(np.float64)
    together = {g: combined[:, [labels.index(one) for one in members]].sum(axis=1) for g, members in groups.items()}
    threshold = between(np.concatenate(list(together.values())))
    expected = combined.copy()
    for group, members in groups.items():
        fired = together[group] >= threshold
        assert 0 < fired.sum() < len(PIXELS), "a gate that is always open or shut would prove little"
        for column, label in enumerate(members):
            expected[fired, labels.index(label)] = said[f"{group}@cascade"][fired, column]
    expected /= expected.sum(axis=1, keepdims=True)
    found = ClassifierService(trained.bundle, threshold).predictor(cascade(trained), serve(cascade(trained)))(PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.argmax(axis=1) != combined.argmax(axis=1)).any(), "the second level changes some predictions"


def test_the_second_level_runs_only_where_it_fired(trained: Any, serve: Serve, said: dict[str, Array]) -> None:
    labels = trained.bundle.labels
    loaded, (first, vehicles, signs) = counted(serve(cascade(trained)))
    on_vehicles = said["combined"][:, [labels.index("car"), labels.index("bus")]].sum(axis=1)
    threshold = between(on_vehicles)
    ClassifierService(trained.bundle, threshold).predictor(cascade(trained), loaded)(PIXELS)
    assert first.rows == [len(PIXELS)]
    assert vehicles.rows == [int((on_vehicles >= threshold).sum())]
    assert signs.rows == [int((1.0 - on_vehicles >= threshold).sum())]


def test_a_second_level_that_nothing_fires_is_not_run(trained: Any, serve: Serve, said: dict[str, Array]) -> None:
    loaded, (first, *second) = counted(serve(cascade(trained)))
    found = ClassifierService(trained.bundle, 1.5).predictor(cascade(trained), loaded)(PIXELS)
    np.testing.assert_allclose(found, said["combined"], atol=1e-5)
    assert first.rows == [len(PIXELS)]
    assert [one.rows for one in second] == [[], []]


def test_one_image_alone_gets_what_it_gets_in_a_batch(trained: Any, serve: Serve, said: dict[str, Array]) -> None:
    threshold = between(said["combined"][:, :2].sum(axis=1))
    predict = ClassifierService(trained.bundle, threshold).predictor(cascade(trained), serve(cascade(trained)))
    alone = np.concatenate([predict(PIXELS[row : row + 1]) for row in range(len(PIXELS))])
    np.testing.assert_allclose(alone, predict(PIXELS), atol=1e-5)


@pytest.mark.parametrize("kind", ["specialised", "shared", "branched"])
@pytest.mark.parametrize("place", ["", "@layer1", "@truncated-layer1"])
def test_specialists_together_say_what_their_heads_say_by_hand(
    trained: Any, serve: Serve, said: dict[str, Array], kind: str, place: str
) -> None:
    heads = [trained.head(f"{group}{place}") for group in trained.bundle.groups]
    served = deployment(kind, layout(kind, heads))
    found = ClassifierService(trained.bundle, None).predictor(served, serve(served))(PIXELS)
    expected = np.concatenate([said[head.name][:, :-1] for head in heads], axis=1).astype(np.float64)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_every_engine_of_a_deployment_takes_an_image_on_every_call(trained: Any, serve: Serve) -> None:
    specialised = deployment("specialised", layout("specialised", [trained.head(g) for g in trained.bundle.groups]))
    loaded, counters = counted(serve(specialised))
    call = workload(specialised, loaded, None, seed=0)
    for _ in range(3):
        call()
    assert [counter.rows for counter in counters] == [[1, 1, 1], [1, 1, 1]]


def test_a_cascade_is_measured_at_its_firing_rate_on_validation(trained: Any, serve: Serve) -> None:
    shares = gate(0.5, vehicles=0.5, nothing=0.3, vehicles_and_signs=0.2)
    loaded, (first, vehicles, signs) = counted(serve(cascade(trained)))
    call = workload(cascade(trained), loaded, shares, seed=0)
    seen: Counter[tuple[int, int]] = Counter()
    for _ in range(2000):
        before = len(vehicles.rows), len(signs.rows)
        call()
        seen[(len(vehicles.rows) - before[0], len(signs.rows) - before[1])] += 1
    assert first.rows == [1] * 2000, "batch 1, and the first level always"
    assert set(vehicles.rows) == set(signs.rows) == {1}
    assert seen.keys() == {(1, 0), (0, 0), (1, 1)}
    # Three standard deviations of a thousand draws, which then repeat.
    for fired, share in (((1, 0), 0.5), ((0, 0), 0.3), ((1, 1), 0.2)):
        assert seen[fired] / 2000 == pytest.approx(share, abs=3 * (share * (1 - share) / 1000) ** 0.5)


def test_of_a_batch_a_cascade_s_second_level_takes_as_many_images_as_fire(trained: Any, serve: Serve) -> None:
    shares = gate(0.5, vehicles=0.5, nothing=0.3, vehicles_and_signs=0.2)
    rows: dict[int, list[int]] = {}
    for batch in (1, 4):
        loaded, counters = counted(serve(cascade(trained)))
        call = workload(cascade(trained), loaded, shares, seed=0, batch=batch)
        for _ in range(100 // batch):
            call()
        rows[batch] = [sum(counter.rows) for counter in counters]
        assert set(counters[0].rows) == {batch}
    assert rows[1] == rows[4], "in all, the same images fire"


def test_a_group_that_never_fired_is_never_run(trained: Any, serve: Serve) -> None:
    loaded, (first, vehicles, signs) = counted(serve(cascade(trained)))
    call = workload(cascade(trained), loaded, gate(0.99, signs=1.0), seed=0)
    for _ in range(50):
        call()
    assert (len(first.rows), len(vehicles.rows), len(signs.rows)) == (50, 0, 50)


def test_the_same_seed_fires_in_the_same_order(trained: Any, serve: Serve) -> None:
    def order(seed: int) -> list[int]:
        loaded, (_, vehicles, _) = counted(serve(cascade(trained)))
        call = workload(cascade(trained), loaded, gate(0.5, vehicles=0.5, nothing=0.5), seed=seed)
        lengths = []
        for _ in range(100):
            call()
            lengths.append(len(vehicles.rows))
        return lengths

    assert order(1) == order(1) != order(2)


def test_a_missing_engine_is_one_clear_line(trained: Any, tmp_path: Path) -> None:
    shared = deployment("shared", layout("shared", [trained.head(group) for group in trained.bundle.groups]))
    with pytest.raises(EdgetlError, match="does not exist"):
        load({"shared": (shared, [tmp_path / "none.onnx"])}, RunOptions(threads=1))


def test_an_engine_that_two_trees_have_in_common_is_in_memory_once(trained: Any, tmp_path: Path) -> None:
    heads = [trained.head(group) for group in trained.bundle.groups]
    paths = []
    for spec in layout("specialised", heads):
        graph = tmp_path / f"{spec.stem}.graph"
        save_model(extract(trained.whole(), spec.heads), graph)
        build_engine(get_runtime("onnxruntime"), graph, tmp_path / spec.stem, BuildOptions())
        paths.append(tmp_path / spec.stem)
    tree = deployment("specialised", layout("specialised", heads))
    loaded = load({"fp32": (tree, paths), "again": (tree, paths[::-1])}, RunOptions(threads=1))
    assert [one.engine for one in loaded["fp32"]] == [one.engine for one in loaded["again"]][::-1]
    assert len({id(one.engine) for title in loaded for one in loaded[title]}) == len(paths)
