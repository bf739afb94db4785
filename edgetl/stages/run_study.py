"""Runs the stages of a study in order, each only where something that it depends on has changed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from edgetl.artifacts.run_directory import StageRecord
from edgetl.config import Study, load_recipe
from edgetl.errors import EdgetlError, MissingExtraError
from edgetl.stages.stage import Context, Stage, StageSettings, Worker
from edgetl.stages.tasks import task_of


def _keys(*keys: str) -> StageSettings:
    def settings(study: Study, base_dir: Path) -> dict[str, Any]:
        del base_dir
        content = study.model_dump(mode="json")
        return {key: content[key] for key in keys}

    return settings


def index_settings(study: Study, base_dir: Path) -> dict[str, Any]:
    """The settings that the data index depends on."""
    # The root is a place, not content: on another machine the same data may lie elsewhere.
    data = study.data.model_dump(mode="json", exclude={"root", "max_broken_fraction"})
    return {"data": data, **_keys("groups", "seed")(study, base_dir)}


def finetune_settings(study: Study, base_dir: Path) -> dict[str, Any]:
    """The settings that trained heads depend on."""
    settings = _keys("backbone", "deployments", "seed")(study, base_dir)
    return settings | {"training": task_of(study).training_settings(study)}


def export_settings(study: Study, base_dir: Path) -> dict[str, Any]:
    """The settings that prepared graphs depend on."""
    settings = _keys("deployments", "precisions", "accuracy_control")(study, base_dir)
    # The recipe's content, not its name: its file may change.
    settings["calibration"] = load_recipe(study.calibration, base_dir).model_dump(mode="json")
    return settings | task_of(study).export_settings(study)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("index", "finetune", (), index_settings),
        Stage("finetune", "finetune", ("index",), finetune_settings),
        Stage("search", "finetune", ("finetune",), _keys("search")),
        Stage("export", "export", ("index", "finetune", "search"), export_settings),
        Stage(
            "build-engine",
            "build-engine",
            ("search", "export"),
            _keys("runtime", "engine"),
            "edgetl.stages.build_engine",
        ),
        Stage(
            "evaluate",
            "evaluate",
            ("index", "finetune", "search", "build-engine"),
            _keys(),
            "edgetl.stages.evaluate",
        ),
        Stage("profile", "profile", ("finetune", "search", "build-engine"), _keys("engine"), "edgetl.stages.profile"),
        Stage(
            "report",
            "report",
            ("index", "finetune", "search", "build-engine", "evaluate", "profile"),
            _keys("name", "budget"),
            "edgetl.stages.report",
        ),
    )
}


def run_stages(context: Context, names: Sequence[str]) -> None:
    """Run stages in order, each unless its result is there already. No other process may use the run directory
    meanwhile.

    Raises:
        EdgetlError: as the stages do; what was finished before stays and is not done again.
    """
    with context.run.locked():
        for name in names:
            stage = STAGES[name]
            worker = _worker(stage, context.study)
            planned = StageRecord(
                stage=name,
                settings=stage.settings(context.study, context.base_dir),
                parents={parent: _finished(STAGES[parent], context).digest for parent in stage.parents},
                inputs=worker.inputs(context),
                outputs={},
            )
            record = context.run.record(name)
            same = record is not None and record.replaced(outputs={}) == planned
            if record is not None and same and not context.run.damaged(record):
                context.reporter.message(f"{name}: up to date")
                continue
            # Removed first: a stage that breaks off has not been done.
            context.run.record_path(name).unlink(missing_ok=True)
            context.run.finish(planned, worker.work(context))


def _worker(stage: Stage, study: Study) -> Worker:
    """The module that does a stage's work, imported only now: some need packages that a device lacks."""
    try:
        if stage.module is None:
            return task_of(study).worker(stage.name)
        return cast(Worker, importlib.import_module(stage.module))
    except ModuleNotFoundError as error:
        # A module of ours that is missing is a fault of ours, no missing extra.
        if (error.name or "").startswith("edgetl"):
            raise
        raise MissingExtraError(f"edgetl {stage.command}", "train", error) from error


def _finished(stage: Stage, context: Context) -> StageRecord:
    """The record of a finished stage that another one builds on.

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
