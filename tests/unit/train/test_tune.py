"""Tuning above a cut: never worse than the probe, the same every time, and what is below the cut stays as it is."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("onnxsim", reason="needs the extra train")
from torch import Tensor, nn  # noqa: E402

from edgetl import config  # noqa: E402
from edgetl.config import FinetuneSettings  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.graph import parity  # noqa: E402
from edgetl.graph.simplify import simplify  # noqa: E402
from edgetl.train.backbones import Backbone, fingerprint, load_backbone  # noqa: E402
from edgetl.train.branch import Branch  # noqa: E402
from edgetl.train.cuts import split  # noqa: E402
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures, train_heads  # noqa: E402
from edgetl.train.onnx_export import export_trunk  # noqa: E402
from edgetl.train.tune import TunedBranch, branch_features, tune, with_state  # noqa: E402

Array = npt.NDArray[np.float32]
Start = dict[str, tuple[HeadPlan, Array, Array]]

LABELS = ("car", "bus", "cat", "dog")
PLANS = {
    "combined": HeadPlan("combined", LABELS, "softmax"),
    "vehicles": HeadPlan("vehicles", ("car", "bus", "other"), "softmax"),
    "one-vs-rest": HeadPlan("one-vs-rest", LABELS, "sigmoid"),
}
CUT = "features.3"
SETTINGS = FinetuneSettings(epochs=3, patience=3, learning_rate=3e-3, batch_size=16)


@dataclass(frozen=True)
class Problem:
    """Noisy images of three patterns, their maps at a cut, and heads that were fitted to the frozen features."""

    backbone: Backbone
    start: Start
    train: LabelledFeatures
    val: LabelledFeatures
    val_images: Array

    def at(self, cut: str) -> Problem:
        return _problem(self.backbone, cut)

    def tuned(self, cut: str = CUT, settings: FinetuneSettings = SETTINGS, seed: int = 0) -> dict[str, TunedBranch]:
        return tune(self.backbone, cut, self.start, self.train, self.val, settings, seed)


@pytest.fixture(scope="module")
def problem() -> Problem:
    backbone = load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0)
    return _problem(backbone, CUT)


@pytest.fixture(scope="module")
def tuned(problem: Problem) -> dict[str, TunedBranch]:
    return problem.tuned()


@pytest.fixture
def one_core() -> Iterator[None]:
    """Fewer heads have more cores each, and sums of several threads are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_tuning_lowers_the_validation_loss_of_every_head(tuned: dict[str, TunedBranch]) -> None:
    for key, one in tuned.items():
        assert one.head.probe_val_loss is not None
        assert one.head.val_loss < 0.9 * one.head.probe_val_loss, key
        assert one.head.epochs in {1, 2, 3}
        assert one.state


def test_a_head_says_where_it_stands_and_what_it_was_before(problem: Problem, tuned: dict[str, TunedBranch]) -> None:
    assert tuned.keys() == PLANS.keys()
    for key, one in tuned.items():
        head, plan = one.head, PLANS[key]
        assert (head.name, head.cut, head.features) == (f"{key}@{CUT}", CUT, f"{key}@{CUT}/features")
        assert (head.classes, head.activation) == (plan.classes, plan.activation)
        assert head.l2 == SETTINGS.weight_decay
        assert (head.role, head.place) == (key, CUT)
        _, weight, bias = problem.start[key]
        features = _features(problem.backbone, problem.val_images)
        truth = plan.targets(problem.val.labels).numpy()
        assert head.probe_val_accuracy == pytest.approx(((features @ weight.T + bias).argmax(1) == truth).mean())


def test_the_recorded_loss_and_accuracy_are_those_of_the_tensors(
    problem: Problem, tuned: dict[str, TunedBranch]
) -> None:
    """Temperature included: logits of the returned weights on the returned features."""
    for key, one in tuned.items():
        logits = torch.from_numpy(one.val_features @ one.weight.T + one.bias)
        truth = PLANS[key].targets(problem.val.labels)
        if one.head.activation == "softmax":
            loss = nn.functional.cross_entropy(logits, truth)
        else:
            ones = nn.functional.one_hot(truth, len(one.head.classes)).float()
            loss = nn.functional.binary_cross_entropy_with_logits(logits, ones) * len(one.head.classes)
        assert one.head.val_loss == pytest.approx(float(loss), rel=1e-4)
        assert one.head.val_accuracy == pytest.approx(float((logits.argmax(1) == truth).float().mean()))
        assert (one.weight.dtype, one.bias.dtype, one.val_features.dtype) == (np.float32,) * 3


def test_the_whole_network_gives_the_branchs_features(problem: Problem, tuned: dict[str, TunedBranch]) -> None:
    for one in tuned.values():
        by_maps = branch_features(problem.backbone, CUT, one.state, problem.val.views[0])
        assert np.array_equal(by_maps, one.val_features)
        whole = with_state(problem.backbone, one.state)
        np.testing.assert_allclose(_features(whole, problem.val_images), by_maps, rtol=1e-4, atol=1e-5)


def test_the_exported_network_says_the_same(problem: Problem, tuned: dict[str, TunedBranch]) -> None:
    whole = with_state(problem.backbone, tuned["vehicles"].state)
    (found,) = parity.run(simplify(export_trunk(whole)), problem.val_images).values()
    np.testing.assert_allclose(found, tuned["vehicles"].val_features, rtol=1e-4, atol=1e-4)


def test_only_parameters_above_the_cut_change_and_no_statistic(problem: Problem, tuned: dict[str, TunedBranch]) -> None:
    above = {f"backbone.{name}" for name, _ in problem.backbone.trunk.backbone.named_parameters() if _above(name)}
    own = problem.backbone.trunk.state_dict()
    for one in tuned.values():
        assert set(one.state) == above
        assert all(not np.array_equal(tensor, own[name].numpy()) for name, tensor in one.state.items())
        after = with_state(problem.backbone, one.state).trunk.state_dict()
        assert all(torch.equal(after[name], own[name]) for name in own.keys() - above)


def test_the_backbone_stays_as_it_was(problem: Problem, tuned: dict[str, TunedBranch]) -> None:
    trunk = problem.backbone.trunk
    assert fingerprint(trunk) == problem.backbone.reference.fingerprint
    assert not trunk.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in trunk.parameters())


def test_heads_start_from_their_own_copies_of_the_layers(tuned: dict[str, TunedBranch]) -> None:
    states = [one.state for one in tuned.values()]
    name = next(iter(states[0]))
    assert not any(np.array_equal(states[0][name], other[name]) for other in states[1:])


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["images", "features.1", "features.4"])
def test_any_cut_can_be_tuned_above(problem: Problem, cut: str) -> None:
    here = problem.at(cut)
    one = replace(here, start={"combined": here.start["combined"]}).tuned(cut)["combined"]
    assert one.head.name == f"combined@{cut}" and one.head.val_loss < one.head.probe_val_loss
    whole = with_state(here.backbone, one.state)
    np.testing.assert_allclose(_features(whole, here.val_images), one.val_features, rtol=1e-4, atol=1e-4)


# Never worse than the probe


def test_where_no_epoch_is_better_the_branch_is_the_trunk(problem: Problem) -> None:
    wild = SETTINGS.model_copy(update={"learning_rate": 10.0, "epochs": 2})
    for key, one in problem.tuned(settings=wild).items():
        assert one.state == {}
        assert one.head.epochs == 0
        assert one.head.val_loss == one.head.probe_val_loss
        assert one.head.val_accuracy == one.head.probe_val_accuracy
        _, weight, bias = problem.start[key]
        np.testing.assert_allclose(one.weight * one.head.temperature, weight, rtol=1e-5)
        np.testing.assert_allclose(one.bias * one.head.temperature, bias, rtol=1e-5, atol=1e-7)
        assert one.head.temperature == pytest.approx(1.0, abs=0.01), "the probe was calibrated already"
        assert with_state(problem.backbone, one.state) is problem.backbone


def test_the_best_epoch_is_kept_and_not_the_last(problem: Problem) -> None:
    _, upper = split(problem.backbone, CUT)
    branch = Branch(upper, *problem.start["combined"], problem.train.labels, SETTINGS.model_copy(update={"epochs": 20}))
    maps, rows = problem.train.views[0], np.arange(len(problem.train.labels))
    for epoch in range(6):
        branch.assess(epoch, problem.val.views[0], problem.val.labels)
        branch.step(torch.from_numpy(maps), rows)
    good = branch.best
    assert good.epoch > 0
    for _ in range(12):
        branch.step(torch.from_numpy(maps), np.roll(rows, 1))  # every image with the label of its neighbour
    branch.assess(6, problem.val.views[0], problem.val.labels)
    assert branch.best is good
    state = {name: tensor.numpy() for name, tensor in good.state.items()}
    features = branch_features(problem.backbone, CUT, state, problem.val.views[0])
    assert np.array_equal(features, good.features.numpy()), "its tensors moved after it was kept"


def test_a_loss_that_climbs_at_first_is_given_time(problem: Problem) -> None:
    _, upper = split(problem.backbone, CUT)
    branch = Branch(upper, *problem.start["combined"], problem.train.labels, SETTINGS)
    rows = np.arange(len(problem.train.labels))
    branch.assess(0, problem.val.views[0], problem.val.labels)
    for _ in range(4):
        branch.step(torch.from_numpy(problem.train.views[0]), np.roll(rows, 1))
    waited = []
    for epoch in (1, 2):
        branch.assess(epoch, problem.val.views[0], problem.val.labels)
        waited.append(branch.waited)
    assert branch.best.epoch == 0, "it did not climb, so this proves nothing"
    assert waited == [0, 1]


def test_tuning_ends_when_no_head_gets_better(problem: Problem) -> None:
    told: list[float] = []
    still = SETTINGS.model_copy(update={"learning_rate": 1e-30, "epochs": 9, "patience": 2})
    tune(problem.backbone, CUT, problem.start, problem.train, problem.val, still, 0, told.append)
    assert sum(told) == pytest.approx(1.0 + 2.0)


def test_progress_is_told_in_epochs(problem: Problem) -> None:
    told: list[float] = []
    tune(problem.backbone, CUT, problem.start, problem.train, problem.val, SETTINGS, 0, told.append)
    assert sum(told) == pytest.approx(3.0) and len(told) == 3 * -(-len(problem.train.labels) // 16)


# The same every time


def test_one_seed_gives_the_same_bytes_and_another_seed_others(problem: Problem, tuned: dict[str, TunedBranch]) -> None:
    again, other = problem.tuned(), problem.tuned(seed=1)
    for key, one in tuned.items():
        assert _bytes(again[key]) == _bytes(one)
        assert again[key].head == one.head
        assert _bytes(other[key]) != _bytes(one)


CHILD = """
import runpy, sys
from hashlib import sha256
from pathlib import Path

here = runpy.run_path(sys.argv[1])
study = here["config"].BackboneSettings(name="edgetl/nano", image_size=32)
tuned = here["_problem"](here["load_backbone"](study, Path(), seed=0), here["CUT"]).tuned()
print(*(f"{key} {sha256(here['_bytes'](one)).hexdigest()}" for key, one in tuned.items()), sep="\\n")
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tuned: dict[str, TunedBranch]) -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(root)}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, __file__], env=environment, capture_output=True, text=True, check=True
    )
    assert child.stdout.splitlines() == [f"{key} {sha256(_bytes(one)).hexdigest()}" for key, one in tuned.items()]


def test_a_head_is_tuned_the_same_whatever_is_tuned_beside_it(problem: Problem, one_core: None) -> None:
    alone = replace(problem, start={"vehicles": problem.start["vehicles"]}).tuned()
    assert _bytes(alone["vehicles"]) == _bytes(problem.tuned()["vehicles"])


def test_the_number_of_threads_is_put_back(problem: Problem) -> None:
    before = torch.get_num_threads()
    problem.tuned(settings=SETTINGS.model_copy(update={"epochs": 1}))
    assert torch.get_num_threads() == before


def test_layers_that_work_in_place_spoil_neither_the_cache_nor_each_other(problem: Problem, one_core: None) -> None:
    """The first thing that this block does is to overwrite its input."""
    backbone = replace(problem.backbone, trunk=copy.deepcopy(problem.backbone.trunk))
    layers = backbone.trunk.backbone.features
    layers[4] = _Overwriting(layers[4])
    here = _problem(backbone, CUT)
    before = [view.copy() for view in (*here.train.views, *here.val.views)]
    together = here.tuned()
    alone = replace(here, start={"vehicles": here.start["vehicles"]}).tuned()
    assert _bytes(together["vehicles"]) == _bytes(alone["vehicles"])
    after = (*here.train.views, *here.val.views)
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


class _Overwriting(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.block(maps.mul_(0.5).add_(0.1))
        return result


# How it is tuned


def test_layers_far_from_the_head_move_less(problem: Problem) -> None:
    here = problem.at("images")
    settings = SETTINGS.model_copy(update={"layer_decay": 0.5, "weight_decay": 0.0})
    one = replace(here, start={"combined": here.start["combined"]}).tuned("images", settings)["combined"]
    own = here.backbone.trunk.state_dict()
    moved = [
        np.abs(one.state[name] - own[name].numpy()).mean()
        for name in (f"backbone.features.{layer}.weight" for layer in ("0.0", "3.body.0.0", "5.0"))
    ]
    # Steps of AdamW are about as large as the rate: 2 ** -4 between the first and the third, 2 ** -3 to the last.
    assert moved[0] < 0.3 * moved[1] and moved[1] < 0.6 * moved[2]


def test_layers_that_get_no_rate_leave_the_head_to_be_tuned_alone(problem: Problem) -> None:
    settings = SETTINGS.model_copy(update={"layer_decay": 1e-12, "weight_decay": 0.0})
    for one in problem.tuned(settings=settings).values():
        assert one.state == {}
        np.testing.assert_array_equal(one.val_features, _upper_features(problem))


def test_every_view_takes_part(problem: Problem) -> None:
    """Views that contradict the labels spoil what the first view teaches."""
    misleading = LabelledFeatures((problem.train.views[0], problem.train.views[0][::-1].copy()), problem.train.labels)
    good = problem.tuned()["combined"]
    spoilt = replace(problem, train=misleading).tuned()["combined"]
    assert spoilt.head.val_loss > good.head.val_loss
    same = LabelledFeatures((problem.train.views[0],) * 2, problem.train.labels)
    assert replace(problem, train=same).tuned()["combined"].head.val_loss == pytest.approx(good.head.val_loss, rel=0.5)


# Tuned tensors put back


def test_a_network_with_tuned_tensors_has_a_fingerprint_of_its_own(
    problem: Problem, tuned: dict[str, TunedBranch]
) -> None:
    whole = with_state(problem.backbone, tuned["combined"].state)
    assert whole.reference.fingerprint == fingerprint(whole.trunk) != problem.backbone.reference.fingerprint
    assert whole.trunk is not problem.backbone.trunk
    assert not any(parameter.requires_grad for parameter in whole.trunk.parameters())


@pytest.mark.parametrize(
    ("name", "shape"), [("backbone.features.9.weight", (3,)), ("backbone.features.5.0.weight", (160, 96))]
)
def test_tensors_that_are_not_of_this_network_are_refused(problem: Problem, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgetlError, match=rf"the tuned tensor {name} .* does not fit edgetl/nano; run edgetl finetune"):
        with_state(problem.backbone, {name: np.zeros(shape, np.float32)})


def _problem(backbone: Backbone, cut: str) -> Problem:
    images, labels = zip(*(_images(20, seed) for seed in (0, 1)), strict=True)
    features = [
        LabelledFeatures((_features(backbone, each),), names) for each, names in zip(images, labels, strict=True)
    ]
    _, tensors = train_heads(list(PLANS.values()), *features, [1.0])
    start = {key: (plan, tensors[f"{key}.weight"], tensors[f"{key}.bias"]) for key, plan in PLANS.items()}
    lower, _ = split(backbone, cut)
    with torch.no_grad():
        maps = [lower(torch.from_numpy(each)).numpy() for each in images]
    train, val = (LabelledFeatures((each,), names) for each, names in zip(maps, labels, strict=True))
    return Problem(backbone, start, train, val, images[1])


def _images(of_each: int, seed: int) -> tuple[Array, tuple[str, ...]]:
    """``of_each`` images of every label: its pattern, which is faint, under noise."""
    patterns = np.random.default_rng(99).random((len(LABELS), 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
    rng = np.random.default_rng(seed)
    truth = np.arange(of_each * len(LABELS)) % len(LABELS)
    images = 0.3 * patterns[truth] + 0.7 * rng.random((len(truth), 3, 32, 32))
    return images.astype(np.float32), tuple(LABELS[position] for position in truth)


def _features(backbone: Backbone, images: Array) -> Array:
    with torch.no_grad():
        features: Array = backbone.trunk(torch.from_numpy(images)).numpy()
    return features


def _upper_features(problem: Problem) -> Array:
    return branch_features(problem.backbone, CUT, {}, problem.val.views[0])


def _above(name: str) -> bool:
    """Whether a tensor of edgetl/nano lies above the third block."""
    return int(name.split(".")[1]) > 3


def _bytes(one: TunedBranch) -> bytes:
    arrays = [one.weight, one.bias, one.val_features, *(one.state[name] for name in sorted(one.state))]
    return b"".join(array.tobytes() for array in arrays)
