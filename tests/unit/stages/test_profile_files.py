from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgetl.engine.options import RunOptions
from edgetl.errors import EdgetlError
from edgetl.stages.measuring import StoppingRule
from edgetl.stages.profile_files import ProfileRequest, by_path, profile_files
from edgetl.stages.reload import reload
from edgetl.stages.stage import ProgressReporter
from tests.unit.stages.test_build_file import plain_model, saved

QUICK = StoppingRule(seconds=0.1)
ONE_THREAD = RunOptions(threads=1)


def order(*files: Path, **more: object) -> ProfileRequest:
    return ProfileRequest(by_path(files), QUICK, **{"run": ONE_THREAD, **more})  # type: ignore[arg-type]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return saved(plain_model(), tmp_path / "plain.onnx")


@pytest.mark.slow
def test_plain_graphs_are_profiled_side_by_side(graph: Path, tmp_path: Path, listener: ProgressReporter) -> None:
    other = saved(plain_model(batch=1), tmp_path / "other.onnx")
    profile = profile_files(order(graph, other), listener)
    assert [row.name for row in profile.deployments] == [str(graph), str(other)]
    latencies = [row.latency_ms for row in profile.deployments]
    assert all(one is not None and 0.0 < one.p50 <= one.p90 <= one.p99 for one in latencies)
    assert all(one is not None and one.device is None and one.raw is None for one in latencies)
    (comparison,) = profile.comparisons
    assert (comparison.a, comparison.b, comparison.metric) == (str(graph), str(other), "latency")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.onnx", "plain.onnx"]


def test_a_batch_counts_its_images(graph: Path, listener: ProgressReporter) -> None:
    (row,) = profile_files(order(graph, batch=8), listener).deployments
    assert row.latency_ms is not None
    assert row.throughput_ips == pytest.approx(8e3 / row.latency_ms.mean)


def test_a_file_that_is_named_twice_is_refused(graph: Path) -> None:
    with pytest.raises(EdgetlError, match="a file is named twice"):
        by_path((graph, graph))


def test_what_cannot_be_profiled_is_one_line(graph: Path, tmp_path: Path, listener: ProgressReporter) -> None:
    fixed = saved(plain_model(batch=4), tmp_path / "four.onnx")
    cases = [
        (order(graph, tmp_path / "none.onnx"), "does not exist"),
        (order(saved(plain_model(height="H"), tmp_path / "open.onnx")), "expected N x 3 x H x W with fixed sides"),
        (order(fixed, batch=8), "cannot run on inputs of [8, 3, 16, 16]"),
        (order(graph, run=RunOptions(cuda_graph=True)), "runs on the CPU, where there is no --cuda-graph"),
        (order(graph, run=RunOptions(spin_wait=True)), "runs on the CPU, where there is no --spin-wait"),
        (order(graph, run=RunOptions(transfers=False)), "leave --no-transfers out"),
    ]
    for wanted, reason in cases:
        with pytest.raises(EdgetlError) as caught:
            profile_files(wanted, listener)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, module_listener: ProgressReporter) -> Path:
    """The folder of a finished measurement of two files. Not to be changed."""
    folder = tmp_path_factory.mktemp("measured")
    files = (saved(plain_model(), folder / "plain.onnx"), saved(plain_model(batch=1), folder / "other.onnx"))
    profile_files(order(*files, output=folder / "kept"), module_listener)
    return folder / "kept"


@pytest.fixture
def kept(measured: Path, tmp_path: Path) -> Path:
    """The same in a copy for a test that changes it."""
    return Path(shutil.copytree(measured, tmp_path / "kept"))


@pytest.mark.slow
def test_figures_are_recomputed_from_the_samples_that_were_kept(kept: Path, tmp_path: Path) -> None:
    first = reload(kept / "profile.json")
    assert first == reload(kept / "profile.json")
    moved = kept.rename(tmp_path / "elsewhere")
    again = reload(moved / "profile.json")
    assert again == first
    row = again.deployments[0]
    assert row.latency_ms is not None and row.latency_ms.raw is not None
    times = np.load(moved / row.latency_ms.raw)
    assert row.latency_ms.p50 == np.median(times)
    assert row.latency_ms.rounds == len(times)


def test_a_figure_that_was_changed_by_hand_is_not_believed(kept: Path) -> None:
    honest = reload(kept / "profile.json")
    written = kept / "profile.json"
    latency = honest.deployments[0].latency_ms
    assert latency is not None
    text = written.read_text()
    assert f'"p50": {latency.p50!r}' in text
    written.write_text(text.replace(f'"p50": {latency.p50!r}', '"p50": 0.001'))
    assert reload(written) == honest


def spoil_samples(kept: Path, content: bytes) -> None:
    next((kept / "latency").iterdir()).write_bytes(content)


def saved_array(tmp_path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    np.save(tmp_path / "array.npy", array)
    return (tmp_path / "array.npy").read_bytes()


def test_damaged_samples_are_one_line(kept: Path, tmp_path: Path) -> None:
    cases = [
        (b"", "is no npy file"),
        (b"\x93NUMPY", "is no npy file"),
        (saved_array(tmp_path, np.array([object()])), "is no npy file"),
        (saved_array(tmp_path, np.ones(4)), "no rounds x repeats"),
        (saved_array(tmp_path, np.ones((4, 1), np.float32)), "no rounds x repeats"),
        (saved_array(tmp_path, np.ones((0, 4))), "no rounds x repeats"),
        (saved_array(tmp_path, np.full((4, 1), np.nan)), "no positive numbers"),
        (saved_array(tmp_path, np.zeros((4, 1))), "no positive numbers"),
    ]
    for content, reason in cases:
        spoil_samples(kept, content)
        with pytest.raises(EdgetlError) as caught:
            reload(kept / "profile.json")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_samples_outside_of_the_folder_are_refused(kept: Path) -> None:
    written = kept / "profile.json"
    name = next((kept / "latency").iterdir()).name
    for place in ("/etc/passwd", "../latency"):
        written.write_text(written.read_text().replace(f'"latency/{name}"', f'"{place}"'))
        with pytest.raises(EdgetlError, match="outside of its folder"):
            reload(written)
        written.write_text(written.read_text().replace(f'"{place}"', f'"latency/{name}"'))


def test_what_is_no_profile_is_one_line(kept: Path, tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"verdict": 1}', "no json"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(EdgetlError, match="is not a valid"):
            reload(tmp_path / "x.json")
    for path in (kept / "latency").iterdir():
        path.unlink()
    with pytest.raises(EdgetlError, match="do not exist; copy them along"):
        reload(kept / "profile.json")


def test_memory_energy_and_layers_stand_beside_latency(graph: Path, listener: ProgressReporter) -> None:
    (row,) = profile_files(order(graph, layers=True), listener).deployments
    assert row.memory is not None and row.memory_mb == row.memory.process_mb
    assert row.energy is not None and row.energy_mj == row.energy.mj
    assert (row.energy.mj is None) == (row.energy.reason is not None)
    (layers,) = row.layers
    assert row.latency_ms is not None and layers.latency_ms == row.latency_ms.p50
    assert layers.sum_ms == pytest.approx(sum(layer.ms for layer in layers.layers), abs=1e-4)
    assert len(layers.layers) > 1


def test_what_nobody_asks_for_is_left_out(graph: Path, listener: ProgressReporter) -> None:
    (row,) = profile_files(order(graph, energy=False), listener).deployments
    assert row.energy is None and row.layers == () and row.waterfall is None
