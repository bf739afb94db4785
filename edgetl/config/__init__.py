"""A study file: YAML in, a frozen and validated `Study` out, every fault reported at once."""

from edgetl.config.backbone import Backbone
from edgetl.config.data import FORMATS, GENERATED, Data
from edgetl.config.detection import Augmentation, Detection, JointTuning, Suppression
from edgetl.config.engine import EngineSettings
from edgetl.config.fields import (
    LARGEST_IMAGE,
    OTHER,
    CalibrationMethod,
    DataFormat,
    DeploymentName,
    Precision,
    RuntimeName,
    Task,
)
from edgetl.config.preprocessing import CONTRACTS, Fit, InputContract, Interpolation, PixelValues, load_contract
from edgetl.config.recipe import Recipe, load_recipe
from edgetl.config.study import Study, load_study
from edgetl.config.training import AccuracyGuard, Budget, Finetuning, Search, Training

__all__ = [
    "CONTRACTS",
    "FORMATS",
    "GENERATED",
    "LARGEST_IMAGE",
    "OTHER",
    "AccuracyGuard",
    "Augmentation",
    "Backbone",
    "Budget",
    "CalibrationMethod",
    "Data",
    "DataFormat",
    "DeploymentName",
    "Detection",
    "EngineSettings",
    "Finetuning",
    "Fit",
    "InputContract",
    "Interpolation",
    "JointTuning",
    "PixelValues",
    "Precision",
    "Recipe",
    "RuntimeName",
    "Search",
    "Study",
    "Suppression",
    "Task",
    "Training",
    "load_contract",
    "load_recipe",
    "load_study",
]
