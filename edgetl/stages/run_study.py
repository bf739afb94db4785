"""The stages of a study in order, and when each of them has to be done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetl.artifacts.run_directory import StageRecord
from edgetl.config import Study, load_recipe
from edgetl.errors import EdgetlError
from edgetl.stages.stage import Context, Stage, StageSettings


def _keys(*keys: str) -> StageSettings:
    def settings(study: Study, base_dir: Path) -> dict[str, Any]:
        del base_dir
        content = study.model_dump(mode="json")
        return {key: content[key] for key in keys}

    return settings


def _data(study: Study, base_dir: Path) -> dict[str, Any]:
    # The root is a place, not content: on another machine the same data may lie elsewhere.
    data = study.data.model_dump(mode="json", exclude={"root", "max_broken_fraction"})
    return {"data": data, **_keys("groups", "seed")(study, base_dir)}


def _precisions(study: Study, base_dir: Path) -> dict[str, Any]:
    recipe = load_recipe(study.calibration, base_dir).model_dump(mode="json")
    return {**_keys("deployments", "precisions", "accuracy_control")(study, base_dir), "calibration": recipe}


def _trained(study: Study, base_dir: Path) -> dict[str, Any]:
    settings = _keys("backbone", "training", "deployments", "seed")(study, base_dir)
    # A flag can ask for it too: the bundle says whether it was so, and what builds on it reads that.
    settings["training"].pop("quantization_aware")
    if study.task == "detect":
        # What becomes of overlapping boxes is decided when graphs are written.
        settings["training"] = study.detection.model_dump(mode="json", exclude={"nms"})
    return settings


def _written(study: Study, base_dir: Path) -> dict[str, Any]:
    boxes = {"nms": study.detection.nms.model_dump(mode="json")} if study.task == "detect" else {}
    return {**_precisions(study, base_dir), **boxes}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("index", "finetune", (), _data),
        Stage("finetune", "finetune", ("index",), _trained),
        Stage("search", "finetune", ("finetune",), _keys("search")),
        Stage("export", "export", ("index", "finetune", "search"), _written),
        Stage("build-engine", "build-engine", ("search", "export"), _keys("runtime", "engine"), of_task=False),
        Stage("evaluate", "evaluate", ("index", "finetune", "search", "build-engine"), _keys()),
        Stage("profile", "profile", ("finetune", "search", "build-engine"), _keys("engine"), of_task=False),
        Stage(
            "report",
            "report",
            ("index", "finetune", "search", "build-engine", "evaluate", "profile"),
            _keys("name", "budget"),
            of_task=False,
        ),
    )
}


def run_stages(context: Context, names: Sequence[str]) -> None:
    """Run stages in order, alone in the run directory.

    Raises:
        EdgetlError: as the stages do; what was finished before stays and is not done again.
    """
    with context.run.locked():
        for name in names:
            _run(STAGES[name], context)


def _run(stage: Stage, context: Context) -> None:
    """Do a stage, unless what it would make is there already."""
    worker = stage.worker(context.study.task)
    wanted = StageRecord(
        stage=stage.name,
        settings=stage.settings(context.study, context.base_dir),
        parents={name: _finished(STAGES[name], context).digest for name in stage.parents},
        inputs=worker.inputs(context),
        outputs={},
    )
    record = context.run.record(stage.name)
    if record is not None and record.model_copy(update={"outputs": {}}) == wanted and not context.run.damaged(record):
        context.reporter.message(f"{stage.name}: up to date")
        return
    context.run.record_path(stage.name).unlink(missing_ok=True)
    context.run.finish(wanted, worker.work(context))


def _finished(stage: Stage, context: Context) -> StageRecord:
    """The record of a stage that another one builds on.

    Raises:
        EdgetlError: it is missing, belongs to another study, or its files are damaged.
    """
    again = f"run edgetl {stage.command} again"
    record = context.run.record(stage.name)
    if record is None:
        raise EdgetlError(f"{context.run.path} has no finished {stage.name} stage; run edgetl {stage.command} first")
    settings = stage.settings(context.study, context.base_dir)
    changed = [key for key in settings if settings[key] != record.settings.get(key)]
    if changed:
        raise EdgetlError(
            f"the {stage.name} stage in {context.run.path} was made with another {changed[0]} than the study file "
            f"has now; {again}"
        )
    damaged = context.run.damaged(record)
    if damaged is not None:
        raise EdgetlError(f"{context.run.path / damaged} is not the file that the {stage.name} stage wrote; {again}")
    return record
