"""Files beside a study that its result depends on."""

from __future__ import annotations

from typing import Any

from edgetl.artifacts.files import sha256_file
from edgetl.stages.stage import Context


def weights_and_cfg(context: Context) -> dict[str, Any]:
    """Digests of the backbone's files; None for one that is not there, or not asked for."""
    backbone = context.study.backbone
    files = {"weights": None if backbone.weights == "default" else backbone.weights}
    if backbone.name.startswith("darknet/"):
        files |= {"cfg": backbone.name.partition("/")[2], "labels": backbone.labels}
    return {
        key: sha256_file(path) if name and (path := context.beside / name).is_file() else None
        for key, name in files.items()
    }
