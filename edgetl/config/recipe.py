"""A calibration recipe: a file in ``calibration/``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edgetl.config.fields import CalibrationMethod, Seed
from edgetl.errors import EdgetlError
from edgetl.yaml_file import Settings, load_yaml


class CalibrationRecipe(Settings):
    """How calibration finds INT8 ranges. The defaults are those of ``calibration/default.yaml``."""

    method: CalibrationMethod = "auto"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    images: int = Field(default=512, ge=1)
    seed: Seed = 0


def load_recipe(name: str, base_dir: Path) -> CalibrationRecipe:
    """Load the calibration recipe ``name``: a path, or a name in a ``calibration/`` folder.

    The folder is in the study file's directory, or else in the working directory. ``default`` needs no file.

    Raises:
        EdgetlError: the recipe was not found, or its file has faults.
    """
    candidates = (
        [base_dir / name]
        if name.endswith((".yaml", ".yml"))
        else [folder / "calibration" / f"{name}.yaml" for folder in (base_dir, Path())]
    )
    for candidate in candidates:
        if candidate.is_file():
            return load_yaml(candidate, CalibrationRecipe)
    if name == "default":
        return CalibrationRecipe()
    tried = " and ".join(str(candidate) for candidate in candidates)
    raise EdgetlError(f"calibration recipe {name!r} was not found; looked for {tried}")
