"""Darknet .weights files: every header, and files that are too short, too long or damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra.numpy import arrays  # noqa: E402

from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.darknet.cfg import Cfg  # noqa: E402
from edgetl.train.darknet.network import build  # noqa: E402
from edgetl.train.darknet.weights import read_weights  # noqa: E402
from tests.darknet_weights import write_weights  # noqa: E402

Written = Callable[[str], Any]

CFG = """[net]
width=8
height=8
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
activation=leaky

[convolutional]
filters=4
size=1
groups=2
activation=relu

[convolutional]
filters=6
size=1
activation=linear

[yolo]
mask=0
anchors=2,3
num=1
classes=1
"""
FIRST, SECOND, THIRD = 4 * 4 + 4 * 27, 4 + 4 * 2, 6 + 6 * 4
TOTAL = FIRST + SECOND + THIRD


@pytest.fixture
def cfg(written: Written) -> Cfg:
    cfg: Cfg = written(CFG).read()
    return cfg


def test_values_stand_in_darknets_order(cfg: Cfg, tmp_path: Path) -> None:
    """Biases, scales, means, variances, kernels; without normalisation biases and kernels."""
    values = np.arange(TOTAL, dtype=np.float32)
    tensors = read_weights(_file(tmp_path, values), cfg)
    assert [(name, tuple(tensor.shape), int(tensor.flatten()[0])) for name, tensor in tensors.items()] == [
        ("layers.0.norm.bias", (4,), 0),
        ("layers.0.norm.weight", (4,), 4),
        ("layers.0.norm.running_mean", (4,), 8),
        ("layers.0.norm.running_var", (4,), 12),
        ("layers.0.conv.weight", (4, 3, 3, 3), 16),
        ("layers.1.conv.bias", (4,), FIRST),
        ("layers.1.conv.weight", (4, 2, 1, 1), FIRST + 4),
        ("layers.2.conv.bias", (6,), FIRST + SECOND),
        ("layers.2.conv.weight", (6, 4, 1, 1), FIRST + SECOND + 6),
    ]
    assert torch.equal(torch.cat([tensor.flatten() for tensor in tensors.values()]), torch.arange(float(TOTAL)))


@pytest.mark.parametrize(
    ("version", "seen"),
    [
        ((0, 1, 0), 4),
        ((0, 0, 7), 4),
        ((0, 2, 0), 8),
        ((0, 2, 5), 8),
        ((1, 0, 0), 8),
        ((1001, 0, 0), 4),
        ((0, 1000, 0), 4),
        ((-1, 2, 0), 4),
    ],
)
def test_the_number_of_images_seen_is_as_wide_as_the_version_says(
    version: tuple[int, int, int], seen: int, cfg: Cfg, tmp_path: Path
) -> None:
    values = np.arange(TOTAL, dtype=np.float32)
    path = tmp_path / "of.weights"
    path.write_bytes(struct.pack("<iii", *version) + b"\x07" * seen + values.tobytes())
    assert float(read_weights(path, cfg)["layers.2.conv.weight"].flatten()[-1]) == TOTAL - 1


def test_what_is_written_is_read_again(cfg: Cfg, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = build(cfg), tmp_path / "new.weights"
    network.layers[0].norm.running_mean.normal_()
    write_weights(path, network)
    tensors, state = read_weights(path, cfg), network.state_dict()
    assert set(state) - set(tensors) == {"layers.0.norm.num_batches_tracked"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in tensors.items())
    assert path.read_bytes()[:20] == struct.pack("<iiiQ", 0, 2, 5, 0)


@settings(max_examples=40)
@given(arrays(np.float32, TOTAL, elements=st.floats(width=32)))
def test_any_values_are_read_to_the_bit_or_refused(cfg: Cfg, tmp_path: Path, values: np.ndarray[Any, Any]) -> None:
    path, again = _file(tmp_path, values), tmp_path / "again.weights"
    sound = np.isfinite(values).all() and (values[12:16] >= 0).all()
    if not sound:
        assert "the file is damaged" in _refused(path, cfg)
        return
    network = build(cfg)
    network.load_state_dict(read_weights(path, cfg), strict=False)
    write_weights(again, network)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("held", "rest", "end"),
    [
        (0, 0, "they end inside layer 0 [convolutional] (line 6 of the .cfg)"),
        (1, 0, "they end inside layer 0 [convolutional] (line 6 of the .cfg)"),
        (
            FIRST,
            0,
            "they end after layer 0 [convolutional] (line 6 of the .cfg), as in a file that holds the lower part",
        ),
        (FIRST, 3, "they end inside layer 1 [convolutional] (line 13 of the .cfg)"),
        (FIRST + SECOND, 0, "they end after layer 1 [convolutional] (line 13 of the .cfg), as in a file"),
        (TOTAL - 1, 0, "they end inside layer 2 [convolutional] (line 19 of the .cfg)"),
        (TOTAL, 1, "give the whole file that belongs to this .cfg"),
        (TOTAL + 1, 0, "give the whole file that belongs to this .cfg"),
        (2 * TOTAL, 0, "give the whole file that belongs to this .cfg"),
    ],
)
def test_another_length_is_an_error_that_counts(held: int, rest: int, end: str, cfg: Cfg, tmp_path: Path) -> None:
    path = _file(tmp_path, np.ones(held, dtype=np.float32), rest)
    message = _refused(path, cfg)
    part = f" and {rest} bytes of another" if rest else ""
    assert f"hold {held} values{part}, expected {TOTAL} for {cfg.path}" in message
    assert end in message


@pytest.mark.parametrize("size", [0, 3, 12, 19])
def test_a_file_without_a_whole_header_is_refused(size: int, cfg: Cfg, tmp_path: Path) -> None:
    path = tmp_path / "short.weights"
    path.write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0)[:size])
    assert f"have {size} bytes, fewer than the header" in _refused(path, cfg)


@pytest.mark.parametrize(
    ("position", "value", "fault"),
    [
        (2, np.nan, "not finite as layers.0.norm.bias, in layer 0 [convolutional] (line 6 of the .cfg)"),
        (13, np.inf, "not finite as layers.0.norm.running_var, in layer 0"),
        (13, -0.5, "variances below zero as layers.0.norm.running_var, in layer 0"),
        (TOTAL - 1, -np.inf, "not finite as layers.2.conv.weight, in layer 2 [convolutional] (line 19 of the .cfg)"),
    ],
)
def test_impossible_values_name_their_layer(position: int, value: float, fault: str, cfg: Cfg, tmp_path: Path) -> None:
    values = np.ones(TOTAL, dtype=np.float32)
    values[position] = value
    assert fault in _refused(_file(tmp_path, values), cfg)


def test_missing_files_and_folders_are_refused(cfg: Cfg, tmp_path: Path) -> None:
    assert "do not exist" in _refused(tmp_path / "none.weights", cfg)
    assert "cannot be read" in _refused(tmp_path, cfg)


def _file(folder: Path, values: np.ndarray[Any, Any], rest: int = 0) -> Path:
    path = folder / "of.weights"
    path.write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0) + values.tobytes() + b"\x00" * rest)
    return path


def _refused(path: Path, cfg: Cfg) -> str:
    with pytest.raises(EdgetlError) as error:
        read_weights(path, cfg)
    assert "\n" not in str(error.value)
    return str(error.value)
