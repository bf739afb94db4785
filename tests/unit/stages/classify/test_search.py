"""From heads to a shortlist: which trees there are, what each costs, and which are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra train is not installed")

from edgetl.artifacts.bundle import FEATURES, TOP, ClassificationHead
from edgetl.artifacts.deployment import GraphSpec, Shortlist, merge_probabilities
from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Tree
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Study
from edgetl.stages.classify import search
from edgetl.stages.classify.trees import MAX_ACCURACY_LOSS
from edgetl.stages.stage import Context, ProgressReporter

GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop", "yield", "left")}
LABELS = ("car", "bus", "stop", "yield", "left")
IMAGES = 400
EVERY = ("combined", "specialised", "shared", "branched", "cascade", "one-vs-rest")

# Of the fixture's convolutions, 2 x multiply-adds: 3 x 3 kernels without padding, on 8 x 8 and 6 x 6 pixels.
BELOW = 2 * 4 * 3 * 9 * 6 * 6
ABOVE = 2 * 6 * 4 * 9 * 4 * 4

Search = Callable[..., Shortlist]


@pytest.fixture
def shortlist(trained: Any, tmp_path: Path, listener: ProgressReporter) -> Search:
    """Search a study of some deployments, with a cut at layer1 or without, for so many trees of each."""

    def shortlist(*deployments: str, cut: str | None = "layer1", trees: int = 100) -> Shortlist:
        study = Study(
            name="signs",
            data={"format": "digits"},
            groups=GROUPS,
            backbone={"name": "edgetl/nano", "image_size": 16, "cut": cut},
            deployments=deployments,
            search={"trees": trees},
        )
        context = Context(study, tmp_path, RunDirectory(tmp_path / "run"), listener)
        kept = trained if cut else without_cuts(trained)
        rng = np.random.default_rng(0)
        said = {one.name: rng.dirichlet(np.ones(len(one.classes)), IMAGES).astype(np.float32) for one in heads(kept)}
        (tmp_path / "run" / "bundle").mkdir(parents=True, exist_ok=True)
        kept.write(tmp_path / "run" / "bundle", said, rng.choice(LABELS, IMAGES).tolist())
        assert search.work(context) == [context.run.shortlist]
        return read_json(context.run.shortlist, Shortlist)

    return shortlist


def heads(trained: Any) -> tuple[ClassificationHead, ...]:
    found: tuple[ClassificationHead, ...] = trained.bundle.heads
    return found


def without_cuts(trained: Any) -> Any:
    """What training leaves of a study without cuts: every head on the frozen trunk."""
    top = [one for one in heads(trained) if one.place == TOP and one.first_level is None]
    top += [one.model_copy(update={"cut": TOP, "features": FEATURES}) for one in heads(trained) if one.first_level]
    return replace(trained, bundle=trained.bundle.model_copy(update={"heads": tuple(top)}))


def test_a_study_without_cuts_builds_each_deployment_once(shortlist: Search, listener: Any) -> None:
    found = shortlist("combined", "specialised", "shared", "cascade", "one-vs-rest", cut=None)
    names = ["combined", "specialised", "shared", "cascade", "one-vs-rest"]
    assert [one.name for one in found.deployments] == [one.kind for one in found.deployments] == names
    assert found.trees == ()
    assert listener.lines == []
    cuts = [one.cuts for one in found.deployments]
    by_group = dict.fromkeys(GROUPS, TOP)
    assert cuts == [
        {"combined": TOP},
        by_group,
        by_group,
        {"combined": TOP, **by_group},
        {"one-vs-rest": TOP},
    ]
    flops = [one.flops for one in found.deployments]
    assert flops == [BELOW + ABOVE, 2 * (BELOW + ABOVE), BELOW + ABOVE, BELOW + ABOVE, BELOW + ABOVE]


def test_only_a_cascade_has_a_gate(shortlist: Search) -> None:
    assert shortlist("combined", "shared", cut=None).gate is None
    assert shortlist("combined", "cascade", cut=None).gate is not None


def test_every_mix_of_cuts_is_considered_and_none_where_the_trunk_stays_frozen(shortlist: Search) -> None:
    found = shortlist(*EVERY)
    count = {kind: sum(tree.deployment == kind for tree in found.trees) for kind in EVERY}
    # Three places for each of two groups; shared, the tree that branches at the top, is left to its own name.
    assert count == {"combined": 3, "specialised": 9, "shared": 1, "branched": 8, "cascade": 0, "one-vs-rest": 1}
    names = [tree.name for tree in found.trees]
    assert len(set(names)) == len(names)
    assert {"branched@layer1", "branched@layer1,top", "branched@truncated-layer1,layer1", "specialised"} <= set(names)
    assert "branched" not in names


def test_branches_at_the_top_are_built_where_shared_is_not_asked_for(shortlist: Search) -> None:
    found = shortlist("branched")
    assert sum(tree.deployment == "branched" for tree in found.trees) == 9
    assert "branched" in {one.name for one in found.deployments}


@pytest.mark.parametrize("kind", ["combined", "specialised", "branched"])
def test_built_is_what_no_other_tree_near_the_best_beats_and_what_is_all_frozen(shortlist: Search, kind: str) -> None:
    trees = shortlist(kind).trees

    def beaten(one: Tree) -> bool:
        return any(
            (other.relative_latency, other.val_accuracy) != (one.relative_latency, one.val_accuracy)
            and other.relative_latency <= one.relative_latency
            and other.val_accuracy >= one.val_accuracy
            for other in trees
        )

    best = max(tree.val_accuracy for tree in trees)
    deserving = [tree for tree in trees if not beaten(tree) and tree.val_accuracy >= best - MAX_ACCURACY_LOSS]
    built = [tree for tree in trees if tree.measured]
    figures = {(tree.relative_latency, tree.val_accuracy) for tree in deserving}
    assert {(tree.relative_latency, tree.val_accuracy) for tree in built if tree.name != kind} <= figures
    assert {(tree.relative_latency, tree.val_accuracy) for tree in built} >= figures, "of equal trees one is built"
    assert kind in {tree.name for tree in built}, "all frozen is what every cut is compared with"
    assert 1 < len(built) < len(trees)


def test_deployments_are_the_shortlisted_trees_in_the_studys_order(shortlist: Search, listener: Any) -> None:
    found = shortlist("branched", "cascade", "combined", "shared")
    built = [tree.name for tree in found.trees if tree.measured]
    names = [one.name for one in found.deployments]
    assert [name for name in names if name != "cascade"] == built
    assert [one.kind for one in found.deployments] == sorted(
        (one.kind for one in found.deployments), key=("branched", "cascade", "combined", "shared").index
    )
    assert listener.lines == [f"search: {len(found.trees)} trees, of which {len(built)} are built and measured"]


def test_a_smaller_search_builds_the_most_accurate_tree_and_the_baseline(shortlist: Search) -> None:
    trees = shortlist("specialised", trees=1).trees
    best = max(trees, key=lambda tree: (tree.val_accuracy, -tree.relative_latency))
    assert {tree.name for tree in trees if tree.measured} == {best.name, "specialised"}
    assert len(trees) == 9, "all of them are considered all the same"


def test_what_heads_share_is_paid_once_in_each_graph(shortlist: Search) -> None:
    flops = {tree.name: tree.flops for tree in shortlist(*EVERY).trees}
    assert flops["combined@layer1"] == flops["combined"] == flops["shared"] == BELOW + ABOVE
    assert flops["combined@truncated-layer1"] == flops["branched@truncated-layer1"] == BELOW
    assert flops["branched@layer1"] == flops["branched@layer1,top"] == BELOW + 2 * ABOVE
    assert flops["branched@layer1,truncated-layer1"] == BELOW + ABOVE
    assert flops["specialised@layer1"] == flops["specialised"] == 2 * (BELOW + ABOVE)
    assert flops["specialised@truncated-layer1,top"] == 2 * BELOW + ABOVE


def test_parameters_are_those_of_the_convolutions_as_often_as_they_are_there(shortlist: Search) -> None:
    parameters = {tree.name: tree.parameters for tree in shortlist("specialised", "branched").trees}
    below, above = 4 * 3 * 9, 6 * 4 * 9
    assert parameters["branched"] == below + above
    assert parameters["branched@layer1"] == below + 2 * above
    assert parameters["specialised@layer1"] == 2 * (below + above)
    assert parameters["specialised@truncated-layer1"] == 2 * below


def test_a_tree_is_worth_on_validation_what_its_merged_prediction_is(shortlist: Search, tmp_path: Path) -> None:
    found = shortlist("branched")
    bundle = search.read_json(tmp_path / "run" / "bundle" / "bundle.json", search.Bundle)
    validation = search.read_validation(tmp_path / "run" / "bundle", bundle)
    by_name = {one.name: one for one in bundle.heads}
    for tree in found.trees:
        names = [group if place == TOP else f"{group}@{place}" for group, place in tree.cuts.items()]
        merged = merge_probabilities({name: validation.probabilities[name] for name in names}, by_name, LABELS)
        right = [LABELS[best] == label for best, label in zip(merged.argmax(axis=1), validation.truth, strict=True)]
        assert tree.val_accuracy == pytest.approx(np.mean(right))


def test_a_cascades_second_level_starts_where_its_branch_leaves_the_trunk(shortlist: Search) -> None:
    (cascade,) = shortlist("cascade").deployments
    first, vehicles, signs = cascade.graphs
    assert first == GraphSpec(stem="cascade.combined", heads=("combined",), handed_on=("trunk/lower/relu", FEATURES))
    assert vehicles == GraphSpec(
        stem="cascade.vehicles", heads=("vehicles@cascade",), inputs=("trunk/lower/relu", "combined")
    )
    assert signs == GraphSpec(stem="cascade.signs", heads=("signs@cascade",), inputs=(FEATURES, "combined"))
    assert cascade.cuts == {"combined": TOP, "vehicles": "layer1", "signs": TOP}


def test_a_cascade_costs_what_it_ran_on_validation(shortlist: Search) -> None:
    found = shortlist("cascade")
    assert found.gate is not None
    share = sum(firing.fraction for firing in found.gate.firings if "vehicles" in firing.groups)
    assert 0.0 < share < 1.0
    # The second level of signs reads the trunk's own features: nothing but a head, which costs nothing here.
    assert found.deployments[0].flops == round(BELOW + ABOVE + share * ABOVE)


def test_the_same_bundle_gives_the_same_shortlist(shortlist: Search, tmp_path: Path) -> None:
    path = tmp_path / "run" / "bundle" / "shortlist.json"
    shortlist(*EVERY)
    once = path.read_bytes()
    shortlist(*EVERY)
    assert path.read_bytes() == once
