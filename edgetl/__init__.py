"""edgetl: which vision models to ship to a small device, decided by measurement."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# A literal, not importlib.metadata: looking it up costs more than the whole of `edgetl --help`.
__version__ = "0.1.0"

# edgetl sends nothing, and what it rests on shall not either. They look here once, when they are imported. ONNX
# Runtime's wheels for Linux report usage from 1.31 on. A variable that the user has set stays.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

if TYPE_CHECKING:
    from edgetl.api import *  # noqa: F403

# fmt: off
__all__ = [  # noqa: F405, RUF022 - they are imported when they are used first; in the order of the reference
    "Study", "StudyRun", "Options",
    "load", "Model", "load_engine", "LoadedEngine", "BuildOptions", "RunOptions", "InputContract",
    "profile", "ProfileResult", "fuse", "FusedModel", "predict",
    "register_deployment", "DeploymentKind", "register_metric", "Metric", "MetricWords", "Computation",
    "EdgetlError", "NotMetError", "StudyError",
]
# fmt: on


def __getattr__(name: str) -> Any:  # PEP 562
    # Only these: `from edgetl import config` asks here before it imports the module.
    if name not in __all__:
        raise AttributeError(f"module 'edgetl' has no attribute {name!r}")
    return getattr(importlib.import_module("edgetl.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
