"""Branches are tuned once: what a killed run had tuned is there for the next one, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.stages.classify.tuned_cache import cached
from edgetl.train.tune import TunedBranch

FACTS = ["features.3", {"vehicles": "digest"}]


def made(changed: bool = True) -> dict[str, TunedBranch]:
    rng = np.random.default_rng(0)
    head = ClassificationHead(
        name="vehicles@features.3",
        classes=("car", "bus", "other"),
        activation="softmax",
        cut="features.3",
        features="vehicles@features.3/features",
        l2=1e-4,
        temperature=1.5,
        val_loss=0.25,
        val_accuracy=0.875,
        probe_val_loss=0.5,
        probe_val_accuracy=0.75,
        epochs=3,
    )
    state = {"backbone.features.4.weight": rng.random((2, 3, 3, 3), np.float32)} if changed else {}
    arrays = (rng.random((3, 4), np.float32), rng.random(3, np.float32), state, rng.random((5, 4), np.float32))
    return {"vehicles": TunedBranch(head, *arrays)}


def never() -> dict[str, TunedBranch]:
    raise AssertionError("it was tuned before")


@pytest.mark.parametrize("changed", [True, False], ids=["tuned", "as the trunk"])
def test_what_was_tuned_before_comes_back_to_the_last_bit(tmp_path: Path, changed: bool) -> None:
    first, was_cached = cached(tmp_path, FACTS, lambda: made(changed))
    assert not was_cached
    again, was_cached = cached(tmp_path, FACTS, never)
    assert was_cached
    one, other = first["vehicles"], again["vehicles"]
    assert one.head == other.head
    assert one.state.keys() == other.state.keys()
    for before, after in (
        (one.weight, other.weight),
        (one.bias, other.bias),
        (one.val_features, other.val_features),
        *((one.state[name], other.state[name]) for name in one.state),
    ):
        np.testing.assert_array_equal(before, after)


def test_other_facts_are_tuned_anew(tmp_path: Path) -> None:
    cached(tmp_path, FACTS, made)
    assert not cached(tmp_path, ["features.4", FACTS[1]], made)[1]


def test_a_file_that_a_faulty_disk_spoilt_is_tuned_anew(tmp_path: Path) -> None:
    cached(tmp_path, FACTS, made)
    (tensors,) = tmp_path.glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    assert not cached(tmp_path, FACTS, made)[1]
    assert cached(tmp_path, FACTS, never)[1]


def test_tensors_without_their_record_are_not_taken_for_whole(tmp_path: Path) -> None:
    cached(tmp_path, FACTS, made)
    next(tmp_path.glob("*.json")).unlink()
    assert not cached(tmp_path, FACTS, made)[1]
