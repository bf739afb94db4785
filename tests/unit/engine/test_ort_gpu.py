"""ONNX Runtime's GPU providers. Where there is none, they say so; where there is one, tests/device runs them."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime
from edgetl.errors import EdgetlError

ABSENT = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has the provider"
)


@ABSENT
@pytest.mark.parametrize(
    ("name", "provider"),
    [("onnxruntime-cuda", "CUDAExecutionProvider"), ("onnxruntime-tensorrt", "TensorrtExecutionProvider")],
)
def test_a_missing_provider_is_told_with_what_mends_it(name: str, provider: str, graph: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=rf"has no {provider}; install one that has: .*onnxruntime-gpu"):
        build_engine(get_runtime(name), graph, tmp_path / "e.onnx", BuildOptions())


def test_int8_is_refused_where_it_would_not_be_int8() -> None:
    assert "no INT8 convolutions" in str(get_runtime("onnxruntime-cuda").unsupported("int8"))
    assert get_runtime("onnxruntime-cuda").unsupported("fp16") is None
    assert get_runtime("onnxruntime-tensorrt").unsupported("int8") is None
    assert get_runtime("onnxruntime-tensorrt").QDQ_FORMAT == "tensorrt"


def test_options_of_other_runtimes_are_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"onnxruntime-cuda takes no optimization level \(3 was given\)"):
        build_engine(get_runtime("onnxruntime-cuda"), graph, tmp_path / "e.onnx", BuildOptions(optimization_level=3))
