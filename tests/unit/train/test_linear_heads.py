"""Heads: which are planned, how strength and temperature are chosen, and what a bundle gets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
from safetensors.numpy import save, save_file  # noqa: E402
from scipy.special import log_softmax  # noqa: E402

from edgetl.artifacts.bundle import Activation  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures, plan_heads, read_tensors, train_heads  # noqa: E402

Array = npt.NDArray[np.float32]

GROUPS = {"vehicles": ("car", "bus"), "animals": ("cat", "dog", "horse")}
LABELS = ("car", "bus", "cat", "dog", "horse")
EVERY_DEPLOYMENT = ("combined", "specialised", "shared", "one-vs-rest")
STRENGTHS = (1e-4, 1e-2, 1.0, 100.0)


def test_combined_is_one_softmax_over_all_labels_in_the_studys_order() -> None:
    assert plan_heads(["combined"], GROUPS) == (HeadPlan("combined", LABELS, "softmax"),)


def test_specialised_and_shared_stand_on_the_same_heads() -> None:
    specialised = plan_heads(["specialised"], GROUPS)
    assert plan_heads(["shared"], GROUPS) == specialised == plan_heads(["shared", "specialised"], GROUPS)
    assert [plan.name for plan in specialised] == ["vehicles", "animals"]


def test_a_specialists_last_class_is_other() -> None:
    vehicles, animals = plan_heads(["shared"], GROUPS)
    assert vehicles.classes == ("car", "bus", "other")
    assert animals.classes == ("cat", "dog", "horse", "other")


def test_one_vs_rest_plans_one_sigmoid_for_each_label() -> None:
    assert plan_heads(["one-vs-rest"], GROUPS) == (HeadPlan("one-vs-rest", LABELS, "sigmoid"),)


def test_heads_come_once_and_in_the_order_of_the_deployments() -> None:
    names = [plan.name for plan in plan_heads(["shared", "one-vs-rest", "specialised", "combined"], GROUPS)]
    assert names == ["vehicles", "animals", "one-vs-rest", "combined"]


def test_labels_of_other_groups_are_targets_of_other() -> None:
    vehicles, animals = plan_heads(["shared"], GROUPS)
    assert vehicles.targets(["dog", "car", "bus", "cat"]).tolist() == [2, 0, 1, 2]
    assert animals.targets(["dog", "car", "bus", "cat"]).tolist() == [1, 3, 3, 0]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_chosen_strength_has_the_least_validation_loss(activation: Activation) -> None:
    train, val = _split(60, seed=0), _split(200, seed=1)
    plan = HeadPlan("combined", LABELS, activation)
    ((chosen,), _) = train_heads([plan], train, val, STRENGTHS)
    alone = {strength: train_heads([plan], train, val, [strength])[0][0].val_loss for strength in STRENGTHS}
    best = min(alone, key=lambda strength: alone[strength])
    assert chosen.l2 == best
    assert chosen.val_loss == pytest.approx(alone[best], rel=1e-3)
    assert best not in {STRENGTHS[0], STRENGTHS[-1]}, "a choice at the edge would prove little"


def test_the_recorded_loss_and_accuracy_are_those_of_the_written_tensors() -> None:
    train, val = _split(300, seed=0), _split(200, seed=1)
    heads, tensors = train_heads(plan_heads(["combined", "shared"], GROUPS), train, val, STRENGTHS)
    for head in heads:
        truth = HeadPlan(head.name, head.classes, head.activation).targets(val.labels).numpy()
        logits = _logits(head.name, tensors, val)
        assert head.val_loss == pytest.approx(_cross_entropy(logits, truth), rel=1e-4)
        assert head.val_accuracy == pytest.approx((logits.argmax(axis=1) == truth).mean(), abs=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 4.0])
def test_no_other_temperature_gives_a_smaller_validation_loss(scale: float) -> None:
    train, val = _split(60, seed=0), _split(400, seed=1)
    plan = HeadPlan("combined", LABELS, "softmax")
    ((head,), tensors) = train_heads([plan], train, val, [1e-5])
    truth, logits = plan.targets(val.labels).numpy(), _logits("combined", tensors, val)
    assert head.temperature > 1.5, "sixty images fitted with next to no penalty are too sure of themselves"
    assert _cross_entropy(logits, truth) < _cross_entropy(logits * scale, truth)
    assert _cross_entropy(logits, truth) < _cross_entropy(logits * head.temperature, truth)


@pytest.mark.parametrize("planted", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_a_planted_temperature_is_recovered(planted: float) -> None:
    plan = HeadPlan("combined", LABELS, "softmax")
    train, val = _drawn(8000, temperature=1.0, seed=0), _drawn(8000, temperature=planted, seed=1)
    ((head,), _) = train_heads([plan], train, val, [1e-4])
    assert head.temperature == pytest.approx(planted, rel=0.1)


def test_temperature_stays_finite_where_validation_is_without_error() -> None:
    train, val = _split(100, seed=0, spread=0.01), _split(50, seed=1, spread=0.01)
    for activation in ("softmax", "sigmoid"):
        ((head,), tensors) = train_heads([HeadPlan("combined", LABELS, activation)], train, val, [1e-4])
        assert head.val_accuracy == 1.0
        assert np.isfinite([head.temperature, head.val_loss]).all()
        assert np.isfinite(tensors["combined.weight"]).all() and np.isfinite(tensors["combined.bias"]).all()


def test_every_head_of_every_deployment_is_written_contiguous_float32() -> None:
    plans = plan_heads(EVERY_DEPLOYMENT, GROUPS)
    _, tensors = train_heads(plans, _split(200, seed=0), _split(100, seed=1), STRENGTHS)
    assert list(tensors) == [f"{plan.name}.{part}" for plan in plans for part in ("weight", "bias")]
    for plan in plans:
        assert tensors[f"{plan.name}.weight"].shape == (len(plan.classes), 8)
        assert tensors[f"{plan.name}.bias"].shape == (len(plan.classes),)
    assert all(tensor.flags["C_CONTIGUOUS"] and tensor.dtype == np.float32 for tensor in tensors.values())


def test_heads_come_back_from_their_file_unchanged(tmp_path: Path) -> None:
    """safetensors.numpy writes the buffer of a transposed array as it lies in memory."""
    _, tensors = train_heads(plan_heads(EVERY_DEPLOYMENT, GROUPS), _split(200, seed=0), _split(100, seed=1), STRENGTHS)
    path = tmp_path / "heads.safetensors"
    path.write_bytes(save(tensors))
    found = read_tensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(found[name], tensor), name


def test_heads_trained_on_views_differ_from_those_of_the_plain_images() -> None:
    train, val = _split(100, seed=0), _split(100, seed=1)
    shifted = LabelledFeatures((train.views[0], train.views[0] + np.float32(0.5)), train.labels)
    plan = [HeadPlan("combined", LABELS, "softmax")]
    _, plain = train_heads(plan, train, val, [1e-2])
    _, viewed = train_heads(plan, shifted, val, [1e-2])
    assert not np.allclose(plain["combined.weight"], viewed["combined.weight"])


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "huge header", "missing", "folder"])
def test_a_damaged_file_of_heads_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "heads.safetensors"
    save_file({"combined.weight": np.ones((5, 8), np.float32)}, path)
    whole = path.read_bytes()
    if damage in {"missing", "folder"}:
        path.unlink()
    if damage == "folder":
        path.mkdir()
    content = {"empty": b"", "cut": whole[:-7], "text": b"no tensors at all", "huge header": b"\xff" * 8 + whole[8:]}
    if damage in content:
        path.write_bytes(content[damage])
    with pytest.raises(EdgetlError, match=r"heads\.safetensors cannot be read: .*run edgetl finetune again") as error:
        read_tensors(path)
    assert "\n" not in str(error.value)


def _split(count: int, seed: int, spread: float = 1.0) -> LabelledFeatures:
    """``count`` images of five labels, as normal clouds of width ``spread`` around the same five centres in R^8."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (len(LABELS), 8))
    truth = np.arange(count) % len(LABELS)
    features = centres[truth] + rng.normal(0, spread, (count, 8))
    return LabelledFeatures((features.astype(np.float32),), tuple(LABELS[position] for position in truth))


def _drawn(count: int, temperature: float, seed: int) -> LabelledFeatures:
    """Images in R^8 whose labels are drawn from a softmax of fixed logits divided by ``temperature``."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (count, 8))
    logits = features @ np.random.default_rng(99).normal(0, 1, (8, len(LABELS)))
    gumbel = rng.gumbel(0, 1, logits.shape)  # the argmax of logits + Gumbel noise is a draw from their softmax
    truth = (logits / temperature + gumbel).argmax(axis=1)
    return LabelledFeatures((features.astype(np.float32),), tuple(LABELS[position] for position in truth))


def _logits(name: str, tensors: dict[str, Array], features: LabelledFeatures) -> npt.NDArray[np.float64]:
    weight, bias = (tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    return features.views[0].astype(np.float64) @ weight.T + bias


def _cross_entropy(logits: npt.NDArray[np.float64], truth: Sequence[int] | npt.NDArray[np.int64]) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(logits)), truth].mean())
