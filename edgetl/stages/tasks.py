"""The table of tasks."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.config import Study
from edgetl.stages.classify.task import CLASSIFY
from edgetl.stages.detect.task import DETECT
from edgetl.stages.task import Task

TASKS: Mapping[str, Task] = {task.name: task for task in (CLASSIFY, DETECT)}


def task_of(study: Study) -> Task:
    """The task of a study."""
    return TASKS[study.task]
