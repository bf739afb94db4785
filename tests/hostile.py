"""Modules that lie in a folder of data under the names of modules that edgetl imports."""

from __future__ import annotations

from pathlib import Path

NAMES = (
    "json", "numpy", "onnx", "onnxruntime", "click", "pydantic", "subprocess", "tempfile", "tarfile", "base64", "venv",
    "pip", "tensorrt", "pycuda", "sitecustomize", "usercustomize", "edgetl",
)  # fmt: skip


def hostile_modules(mark: Path) -> dict[str, bytes]:
    """Their files by name. Each writes down that it was run, and where, and then breaks the process."""
    code = f"open({str(mark)!r}, 'a').write(__file__ + chr(10)); import os; os._exit(66)\n".encode()
    return {f"{name}.py": code for name in NAMES} | {"edgetl/__init__.py": code, "edgetl/__main__.py": code}
