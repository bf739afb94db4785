from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.artifacts.engine_manifest import EngineManifest, check_target, manifest_path, read_manifest
from edgetl.artifacts.files import sha256_bytes, write_json
from edgetl.errors import EdgetlError

TARGET = {"onnxruntime": "1.31.1", "processor": "x86_64 Some CPU [01234567]"}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "combined.fp32.onnx"
    path.write_bytes(b"engine")
    manifest = EngineManifest(
        runtime="onnxruntime",
        graph="combined.fp32.onnx",
        graph_sha256="0" * 64,
        engine_sha256=sha256_bytes(b"engine"),
        bytes=6,
        target=TARGET,
        built_on={},
        options={},
        built_at="2026-11-27T08:00:00.000000+00:00",
        build_seconds=0.1,
        build_peak_mb=None,
        inputs=(),
        outputs=(),
        layers_of="graph",
        layers=(),
    )
    write_json(manifest_path(path), manifest)
    return path


def test_the_manifest_lies_beside_the_engine(engine: Path) -> None:
    assert manifest_path(engine).name == "combined.fp32.onnx.json"
    assert read_manifest(engine).target == TARGET


def test_a_missing_engine_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="does not exist; build it with edgetl build-engine"):
        read_manifest(tmp_path / "none.onnx")


def test_an_engine_without_its_manifest_is_refused(engine: Path) -> None:
    manifest_path(engine).unlink()
    with pytest.raises(EdgetlError, match=r"combined\.fp32\.onnx\.json does not exist"):
        read_manifest(engine)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "has 0 bytes, its manifest says 6"),
        (b"engin", "has 5 bytes, its manifest says 6"),
        (b"engine2", "has 7 bytes, its manifest says 6"),
        (b"Engine", "its sha256 is not the one in its manifest; build it again, or take it with --trust"),
    ],
)
def test_a_damaged_engine_is_refused(engine: Path, content: bytes, fault: str) -> None:
    engine.write_bytes(content)
    with pytest.raises(EdgetlError, match=fault):
        read_manifest(engine)
    assert read_manifest(engine, trust=True).target == TARGET


@pytest.mark.parametrize(
    ("wanted", "here", "fits"),
    [
        ("10.3.0 or newer", "10.3.0", True),
        ("10.3.0 or newer", "10.13.3", True),
        ("10.13.3 or newer", "10.3.0", False),
        ("8.6.1 or newer", "10.3.0", True),
        ("SM80 or newer", "SM120", True),
        ("SM80 or newer", "SM75", False),
        ("10.3.0", "10.3.1", False),
    ],
)
def test_an_engine_may_be_for_a_version_and_what_is_newer(engine: Path, wanted: str, here: str, fits: bool) -> None:
    if fits:
        check_target(engine, {"version": wanted}, {"version": here})
    else:
        with pytest.raises(EdgetlError, match=f"was built for version {wanted}, this machine has version {here}"):
            check_target(engine, {"version": wanted}, {"version": here})


def test_what_an_engine_was_built_for_may_be_less_than_what_is_here(engine: Path) -> None:
    check_target(engine, TARGET, {**TARGET, "driver": "580"})


def test_an_engine_for_something_else_is_refused_naming_both_sides(engine: Path) -> None:
    here = {**TARGET, "onnxruntime": "1.18.0"}
    with pytest.raises(EdgetlError) as caught:
        check_target(engine, TARGET, here)
    assert str(caught.value) == (
        "combined.fp32.onnx was built for onnxruntime 1.31.1, this machine has onnxruntime 1.18.0; "
        "run edgetl build-engine here"
    )


def test_what_this_machine_lacks_altogether_is_called_unknown(engine: Path) -> None:
    with pytest.raises(EdgetlError, match="this machine has onnxruntime unknown, processor unknown"):
        check_target(engine, TARGET, {})
