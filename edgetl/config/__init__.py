"""A study file: YAML in, a frozen and validated `Study` out, every fault reported at once."""

from edgetl.config.detection import AugmentationSettings, DetectionSettings, NmsSettings, TrunkFinetuneSettings
from edgetl.config.fields import (
    LARGEST_IMAGE,
    OTHER,
    CalibrationMethod,
    DataFormat,
    DeploymentName,
    Precision,
    QdqFormat,
    RuntimeName,
    TaskName,
)
from edgetl.config.preprocessing import CONTRACTS, Fit, InputContract, Interpolation, PixelValues, load_contract
from edgetl.config.recipe import CalibrationRecipe, load_recipe
from edgetl.config.sections import (
    FORMATS,
    GENERATED,
    AccuracyControl,
    BackboneSettings,
    BudgetSettings,
    DataSettings,
    EngineSettings,
    FinetuneSettings,
    SearchSettings,
    TrainingSettings,
)
from edgetl.config.study import Study, load_study

__all__ = [
    "CONTRACTS",
    "FORMATS",
    "GENERATED",
    "LARGEST_IMAGE",
    "OTHER",
    "AccuracyControl",
    "AugmentationSettings",
    "BackboneSettings",
    "BudgetSettings",
    "CalibrationMethod",
    "CalibrationRecipe",
    "DataFormat",
    "DataSettings",
    "DeploymentName",
    "DetectionSettings",
    "EngineSettings",
    "FinetuneSettings",
    "Fit",
    "InputContract",
    "Interpolation",
    "NmsSettings",
    "PixelValues",
    "Precision",
    "QdqFormat",
    "RuntimeName",
    "SearchSettings",
    "Study",
    "TaskName",
    "TrainingSettings",
    "TrunkFinetuneSettings",
    "load_contract",
    "load_recipe",
    "load_study",
]
