"""A study that sweeps the cut: trees, branches, truncated heads and a cascade, from the study file to the report."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
WriteStudy = Callable[..., Path]
Snapshot = Callable[[Path], dict[str, str]]
Fault = Callable[[Done], str]

MEASURING = ("--threads", 1, "--seconds", 0.3)
GROUPS = ("round", "ángulo")
BACKBONE = {"name": "edgetl/nano", "image_size": 16}
# A probe that is held back so strongly leaves tuning something to gain.
SWEPT: dict[str, Any] = {
    "backbone": BACKBONE | {"cut": ["features.3"], "truncate": True},
    "deployments": ["shared", "branched", "cascade"],
    "training": {"l2": [1.0], "finetune": {"epochs": 2}},
    "search": {"trees": 1},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, edgetl: Command, write_study: WriteStudy) -> Path:
    """A folder with a swept study and its whole run directory ``run``. Not to be changed."""
    folder = tmp_path_factory.mktemp("swept")
    done = edgetl("run", write_study(folder, **SWEPT), "-o", folder / "run", *MEASURING)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied_sweep(swept: Path, tmp_path: Path) -> Path:
    """The swept study's folder, copied for a test that changes it."""
    return Path(shutil.copytree(swept, tmp_path / "copied"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def with_backbone(**keys: object) -> Mapping[str, Any]:
    return SWEPT | {"backbone": BACKBONE | keys}


def test_one_seed_gives_the_same_heads_and_the_same_trees_in_another_directory(
    call: Command, swept: Path, write_study: WriteStudy, snapshot: Snapshot, tmp_path: Path
) -> None:
    done = call("finetune", write_study(tmp_path, **SWEPT), "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "run" / "bundle") == snapshot(swept / "run" / "bundle")


def test_results_list_every_tree_and_measure_the_shortlist_in_every_precision(swept: Path) -> None:
    results = read(swept / "run" / "results.json")
    trees = named(results["trees"])
    count = {kind: sum(tree["deployment"] == kind for tree in trees.values()) for kind in SWEPT["deployments"]}
    # At the top, tuned above features.3 or truncated there, for each of two groups.
    assert count == {"shared": 1, "branched": 8, "cascade": 0}
    measured = {name for name, tree in trees.items() if tree["measured"]}
    assert "shared" in measured and measured < trees.keys()
    rows = results["deployments"]
    assert {row["name"] for row in rows} == measured | {"cascade"}
    assert len(rows) == 2 * len(measured | {"cascade"})
    for name in measured | {"cascade"}:
        pair = {row["precision"]: row for row in rows if row["name"] == name}
        assert pair.keys() == {"fp32", "int8"}
        assert all(row["accuracy"] and row["latency_ms"] and row["memory_mb"] is not None for row in pair.values())
    for row in rows:
        assert row["cuts"].keys() == ({"combined", *GROUPS} if row["name"] == "cascade" else set(GROUPS))
        assert row["flops"] > 0
        if row["name"] in trees:
            assert (row["cuts"], row["flops"]) == (trees[row["name"]]["cuts"], trees[row["name"]]["flops"])


def test_a_tree_is_called_after_the_cuts_that_results_tell_of_it(swept: Path) -> None:
    for tree in read(swept / "run" / "results.json")["trees"]:
        places = list(tree["cuts"].values())
        assert list(tree["cuts"]) == list(GROUPS)
        assert set(places) <= {"top", "features.3", "truncated-features.3"}
        shown = ",".join(places[:1] if len(set(places)) == 1 else places)
        assert tree["name"] == (tree["deployment"] if shown == "top" else f"{tree['deployment']}@{shown}")


def test_tuning_leaves_no_head_worse_on_validation_and_says_what_it_gained(swept: Path) -> None:
    heads = named(read(swept / "run" / "results.json")["training"]["heads"])
    for group in GROUPS:
        tuned, probe = heads[f"{group}@features.3"], heads[group]
        assert tuned["val_loss"] <= tuned["probe_val_loss"]
        assert tuned["probe_val_accuracy"] == pytest.approx(probe["val_accuracy"])
        assert probe["epochs"] is None
    assert any(0 < heads[f"{group}@features.3"]["epochs"] <= 2 for group in GROUPS), "some tuning was worth it"


def test_the_report_draws_what_was_swept(swept: Path) -> None:
    page = (swept / "run" / "report.html").read_text(encoding="utf-8")
    assert "features.3" in page and "truncated" in page


def test_a_finished_sweep_is_not_done_again(call: Command, swept: Path, snapshot: Snapshot) -> None:
    before = snapshot(swept / "run")
    done = call("run", swept / "study.yaml", "-o", swept / "run", *MEASURING)
    assert done.returncode == 0, done.stderr
    stages = ["index", "finetune", "search", "export", "build-engine", "evaluate", "profile", "report"]
    lines = done.stderr.splitlines()
    assert [line.removesuffix(": up to date") for line in lines if line.endswith(": up to date")] == stages
    assert snapshot(swept / "run") == before


def test_more_trees_are_searched_without_training_anything_again(
    call: Command, swept: Path, write_study: WriteStudy, copied_sweep: Path
) -> None:
    study = write_study(copied_sweep, **SWEPT | {"search": {"trees": 4}})
    done = call("finetune", study, "-o", copied_sweep / "run")
    assert done.returncode == 0, done.stderr
    assert "finetune: up to date" in done.stderr
    assert "finetune: head" not in done.stderr
    more, fewer = (read(folder / "run" / "bundle" / "shortlist.json") for folder in (copied_sweep, swept))
    names, before = ([one["name"] for one in shortlist["deployments"]] for shortlist in (more, fewer))
    assert set(before) <= set(names)
    assert [tree["name"] for tree in more["trees"]] == [tree["name"] for tree in fewer["trees"]]


def test_a_run_killed_while_it_tuned_leaves_nothing_taken_for_whole(
    start: Start, call: Command, swept: Path, write_study: WriteStudy, snapshot: Snapshot, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    endless = SWEPT["training"] | {"finetune": {"epochs": 100_000, "patience": 100_000}}
    process = start("finetune", write_study(tmp_path, **SWEPT | {"training": endless}), "-o", run)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("finetune: head ángulo@truncated-features.3"))
    time.sleep(0.3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (run / "stages" / "finetune.json").exists()
    done = call("finetune", write_study(tmp_path, **SWEPT), "-o", run)
    assert done.returncode == 0, done.stderr
    assert "features of train at features.3 from the cache" in done.stderr
    assert snapshot(run / "bundle") == snapshot(swept / "run" / "bundle")
    assert not list(run.rglob("*.partial"))


def test_a_lost_branch_is_trained_again_and_says_so_to_whom_it_is_missing(
    call: Command, fault: Fault, copied_sweep: Path, swept: Path, snapshot: Snapshot
) -> None:
    run = copied_sweep / "run"
    (run / "bundle" / "branches.safetensors").unlink()
    line = fault(call("export", copied_sweep / "study.yaml", "-o", run))
    assert line == f"{run} has no finished finetune stage; run edgetl finetune first"
    assert call("finetune", copied_sweep / "study.yaml", "-o", run).returncode == 0
    assert snapshot(run / "bundle") == snapshot(swept / "run" / "bundle")


def test_a_shortlist_changed_by_hand_is_refused(call: Command, fault: Fault, copied_sweep: Path) -> None:
    run = copied_sweep / "run"
    path = run / "bundle" / "shortlist.json"
    path.write_bytes(path.read_bytes() + b"\n")
    line = fault(call("export", copied_sweep / "study.yaml", "-o", run))
    assert line == f"{path} is not the file that the search stage wrote; run edgetl finetune again"


def test_images_as_the_cut_is_tuning_from_end_to_end(call: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    changes = with_backbone(cut="images") | {"deployments": ["combined", "branched"], "precisions": ["fp32"]}
    study = write_study(tmp_path, **changes)
    for command in ("finetune", "export"):
        done = call(command, study, "-o", tmp_path / "run")
        assert done.returncode == 0, done.stderr
    shortlist = read(tmp_path / "run" / "bundle" / "shortlist.json")
    trees = named(shortlist["trees"])
    assert {"combined", "combined@images", "branched", "branched@images", "branched@images,top"} <= trees.keys()
    assert trees["branched@images"]["flops"] == 2 * trees["branched"]["flops"], "nothing is shared"
    assert trees["combined@images"]["flops"] == trees["combined"]["flops"]


@pytest.mark.parametrize("cut", [1, "sweep"])
def test_a_number_of_cuts_and_a_sweep_name_the_layers_that_they_chose(
    cut: object, call: Command, write_study: WriteStudy, tmp_path: Path
) -> None:
    changes = with_backbone(cut=cut) | {"deployments": ["combined"], "training": {"finetune": {"epochs": 1}}}
    done = call("finetune", write_study(tmp_path, **changes), "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("finetune: cuts, with the share"))
    layers = [one.partition(" ")[0] for one in line.partition("below them: ")[2].split(", ")]
    cuts = [head["cut"] for head in read(tmp_path / "run" / "bundle" / "bundle.json")["heads"]]
    assert cuts == ["top", *layers], "one head for all labels at every cut"
    assert len(layers) == 1 if cut == 1 else len(layers) > 1


def test_top_as_the_cut_is_a_study_without_one(call: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    changes = with_backbone(cut="top") | {"deployments": ["combined", "branched"]}
    done = call("finetune", write_study(tmp_path, **changes), "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    names = [one["name"] for one in read(tmp_path / "run" / "bundle" / "shortlist.json")["deployments"]]
    assert names == ["combined", "branched"]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("nonsense", "backbone.cut names 'nonsense', where the network cannot be cut; it can be at features."),
        ("features.33", "backbone.cut names 'features.33', where the network cannot be cut (did you mean features.3?)"),
        (["features.3", "feature.4"], "names 'feature.4', where the network cannot be cut (did you mean features.4?)"),
        ("features.3.body", "backbone.cut names 'features.3.body', where the network cannot be cut"),
        (99, "backbone.cut asks for 99 layer cuts, this network can be cut at "),
    ],
)
def test_a_cut_that_the_network_does_not_have(
    cut: object, said: str, call: Command, fault: Fault, write_study: WriteStudy, tmp_path: Path
) -> None:
    line = fault(call("run", write_study(tmp_path, **with_backbone(cut=cut)), "-o", tmp_path / "run"))
    assert said in line
    assert not (tmp_path / "run" / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (with_backbone(cut=[]), "expected a layer's name, a list of names, a number of points, or sweep"),
        (with_backbone(cut=0), "expected a layer's name, a list of names, a number of points, or sweep"),
        (with_backbone(cut=True), "expected a layer's name, a list of names, a number of points, or sweep"),
        (with_backbone(cut=2.5), "expected a layer's name, a list of names, a number of points, or sweep"),
        (with_backbone(truncate=True), "truncate drops the layers above a cut: name one, or cut: sweep"),
        (with_backbone(), "branched needs backbone.cut: the layer where its branches begin, or sweep"),
        (SWEPT | {"deployments": ["shared"]}, "backbone.cut has no use for shared, whose trunks stay frozen"),
        (SWEPT | {"groups": {"all": [0, 1]}}, "branched and cascade need at least two groups"),
        (SWEPT | {"search": {"trees": 0}}, "search.trees"),
        (SWEPT | {"training": {"finetune": {"epochs": 0}}}, "training.finetune.epochs"),
        (SWEPT | {"training": {"finetune": {"learning_rate": -1.0}}}, "training.finetune.learning_rate"),
        (SWEPT | {"training": {"finetune": {"layer_decay": 2}}}, "training.finetune.layer_decay"),
        (SWEPT | {"training": {"finetune": {"epoch": 3}}}, "training.finetune.epoch is not a known key"),
    ],
)
def test_a_study_that_asks_for_no_tree_at_all_is_one_clear_line(
    changes: Mapping[str, Any], said: str, call: Command, fault: Fault, write_study: WriteStudy, tmp_path: Path
) -> None:
    line = fault(call("run", write_study(tmp_path, **changes), "-o", tmp_path / "run"))
    assert said in line
    assert not (tmp_path / "run").exists()
