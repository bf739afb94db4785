"""Layers rounded to INT8 while they are tuned: ONNX Runtime's values, the straight-through gradient, nothing left."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("onnxsim", reason="needs the extra train")
from torch import Tensor, nn  # noqa: E402

from edgetl import config  # noqa: E402
from edgetl.config import FinetuneSettings  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.backbones import Backbone, fingerprint, load_backbone  # noqa: E402
from edgetl.train.branch import infer  # noqa: E402
from edgetl.train.cuts import split  # noqa: E402
from edgetl.train.fake_quantize import FakeQuantisation, Grid, nearest_weight  # noqa: E402
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures, train_heads  # noqa: E402
from edgetl.train.tune import TunedBranch, branch_features, tune  # noqa: E402

Array = npt.NDArray[np.float32]

SIGNED, UNSIGNED = (-128, 127), (0, 255)
CUT = "features.3"
LABELS = ("car", "bus", "cat", "dog")
PLAN = HeadPlan("combined", LABELS, "softmax")
SETTINGS = FinetuneSettings(epochs=4, patience=4, learning_rate=3e-3, batch_size=16)


class Largest:
    """A symmetric grid up to the largest magnitude seen, of so many steps on either side."""

    def __init__(self, steps: int = 127) -> None:
        self.steps, self.largest = steps, 0.0

    def add(self, values: Array) -> None:
        self.largest = max(self.largest, float(np.abs(values).max()))

    def grid(self) -> Grid:
        return Grid(self.largest / self.steps or 1.0, 0, -self.steps - 1, self.steps)


def layers() -> nn.Module:
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    nn.init.uniform_(chain[1].weight, 0.2, 3.0)
    nn.init.normal_(chain[1].bias)
    return chain.eval()


def maps(count: int = 6, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


# Values


@pytest.mark.parametrize(("scale", "zero_point", "ends"), [(0.037, 0, SIGNED), (0.011, 93, UNSIGNED)])
def test_a_grid_is_that_of_quantizelinear(scale: float, zero_point: int, ends: tuple[int, int]) -> None:
    values = np.random.default_rng(1).normal(0.0, 3.0, 4096).astype(np.float32)
    kind = TensorProto.INT8 if ends == SIGNED else TensorProto.UINT8
    parameters = [
        numpy_helper.from_array(np.array(scale, np.float32), "scale"),
        helper.make_tensor("zero", kind, [], [zero_point]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["values", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["found"]),
    ]
    tensors = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [None])] for name in ("values", "found")]
    model = helper.make_model(
        helper.make_graph(nodes, "grid", *tensors, parameters),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"values": values})
    found = Grid(scale, zero_point, *ends).nearest(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (7, 1, 3, 3), (4, 9)])
def test_weights_have_127_steps_to_the_largest_of_each_output(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    weight[1] = 0.0
    found = nearest_weight(torch.from_numpy(weight)).numpy()
    for row, before in zip(found, weight, strict=True):
        step = np.abs(before).max() / 127
        np.testing.assert_allclose(row, np.rint(before / (step or 1.0)) * step, rtol=1e-5, atol=1e-8)
    assert not np.array_equal(found, weight) and not found[1].any()


def test_rounding_commutes_with_folding_batch_normalisation() -> None:
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    factors = torch.tensor([0.1, 0.7, -3.0, 1e-3, 20.0, 1.0, -0.5, 2.0])[:, None, None, None]
    np.testing.assert_allclose(nearest_weight(weight) * factors, nearest_weight(weight * factors), rtol=1e-5, atol=1e-7)


def test_every_layer_is_computed_from_rounded_input_and_weight() -> None:
    """Against the same chain written out, each rounding in its place."""
    chain, images = layers(), torch.from_numpy(maps())
    with torch.no_grad():
        inner = chain[2](chain[1](chain[0](images.clone())))
        pooled = chain[6](chain[5](chain[4](chain[3](inner))))
        largest = [float(tensor.abs().max()) for tensor in (images, inner, pooled)]
        first, second, third = (Grid(one / 127, 0, -128, 127).nearest for one in largest)
        y = nn.functional.conv2d(first(images), nearest_weight(chain[0].weight), padding=1)
        y = nn.functional.conv2d(second(chain[2](chain[1](y))), nearest_weight(chain[3].weight), chain[3].bias)
        expected = nn.functional.linear(
            third(chain[6](chain[5](chain[4](y)))), nearest_weight(chain[7].weight), chain[7].bias
        )
    found = infer(chain, maps(), FakeQuantisation(maps(), Largest)(chain))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, infer(chain, maps()), atol=1e-4)


def test_ranges_follow_the_layers() -> None:
    chain, precision = layers(), FakeQuantisation(maps(), Largest)
    before = precision(chain)
    nn.init.constant_(chain[1].weight, 40.0)
    now = infer(chain, maps())
    old, new = (float((infer(chain, maps(), one) - now).abs().max()) for one in (before, precision(chain)))
    assert new < 0.1 * old, "the old ranges clip what is larger now"


# Gradients


def test_gradients_pass_as_if_nothing_was_rounded() -> None:
    """y = w_q x_q: dy/dw is x_q, dy/dx is w_q, and nothing passes where x lies beyond its grid."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    seen = np.random.default_rng(0).uniform(-1.0, 1.0, (32, 6)).astype(np.float32)
    given = torch.from_numpy(2.0 * seen).requires_grad_()
    weights = torch.randn(32, 4)
    computing = FakeQuantisation(seen, Largest)(layer)
    with computing():
        (layer(given) * weights).sum().backward()
    grid = Grid(float(np.abs(seen).max()) / 127, 0, -128, 127)
    inside = torch.from_numpy(np.abs(2.0 * seen) < 127.4 * grid.scale)
    assert given.grad is not None and layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, weights.T @ grid.nearest(given.detach()))
    expected = weights @ nearest_weight(layer.weight.detach())
    torch.testing.assert_close(given.grad[inside], expected[inside])
    assert not given.grad[(given.detach().abs() > 129.0 * grid.scale)].any()
    assert 0.3 < float(inside.float().mean()) < 0.7, "it must see both sides"


# Tuning


def tuned_for(problem: Problem, precision: FakeQuantisation | None) -> TunedBranch:
    more = {} if precision is None else {"precision": precision}
    (one,) = tune(
        problem.backbone, CUT, {"combined": problem.start}, problem.train, problem.val, SETTINGS, 0, **more
    ).values()
    return one


class Problem:
    """Noisy images of four patterns, their maps at a cut of edgetl/nano, and a head on the frozen features."""

    def __init__(self) -> None:
        self.backbone: Backbone = load_backbone(
            config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0
        )
        lower, _ = split(self.backbone, CUT)
        self.train, self.val = (self._split(seed, lower) for seed in (0, 1))
        features, val = (self._split(seed, self.backbone.trunk) for seed in (0, 1))
        _, tensors = train_heads([PLAN], features, val, [1.0])
        self.start = PLAN, tensors["combined.weight"], tensors["combined.bias"]

    def _split(self, seed: int, network: Callable[[Tensor], Tensor]) -> LabelledFeatures:
        patterns = np.random.default_rng(99).random((len(LABELS), 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
        rng, truth = np.random.default_rng(seed), np.arange(80) % len(LABELS)
        images = (0.3 * patterns[truth] + 0.7 * rng.random((80, 3, 32, 32))).astype(np.float32)
        with torch.no_grad():
            return LabelledFeatures((network(torch.from_numpy(images)).numpy(),), tuple(LABELS[one] for one in truth))

    def precision(self, steps: int = 127) -> FakeQuantisation:
        return FakeQuantisation(self.train.views[0][::5], partial(Largest, steps))

    def loss(self, tuned: TunedBranch, features: Array) -> float:
        logits = torch.from_numpy(features @ tuned.weight.T + tuned.bias)
        return float(nn.functional.cross_entropy(logits, PLAN.targets(self.val.labels)))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


@pytest.fixture(scope="module")
def tuned(problem: Problem) -> TunedBranch:
    return tuned_for(problem, problem.precision())


def test_it_is_judged_as_it_is_rounded(problem: Problem, tuned: TunedBranch) -> None:
    val = problem.val.views[0]
    rounded = branch_features(problem.backbone, CUT, tuned.state, val, problem.precision())
    plain = branch_features(problem.backbone, CUT, tuned.state, val)
    assert np.array_equal(rounded, tuned.val_features) and not np.array_equal(plain, tuned.val_features)
    assert tuned.head.val_loss == pytest.approx(problem.loss(tuned, rounded), rel=1e-4)
    assert tuned.head.probe_val_loss is not None and tuned.head.val_loss < 0.9 * tuned.head.probe_val_loss


def test_plain_weights_come_out_and_nothing_is_left_behind(problem: Problem, tuned: TunedBranch) -> None:
    trunk, own = problem.backbone.trunk, problem.backbone.trunk.state_dict()
    assert tuned.state.keys() == tuned_for(problem, None).state.keys() <= own.keys()
    assert fingerprint(trunk) == problem.backbone.reference.fingerprint
    for module in trunk.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not hasattr(module, "parametrizations")
    for name, tensor in tuned.state.items():
        steps = torch.from_numpy(tensor)
        assert tensor.ndim == 1 or not torch.equal(nearest_weight(steps), steps), f"{name} was rounded for good"
    chain = layers()
    expected = infer(chain, maps())
    precision = FakeQuantisation(maps(), Largest)(chain)
    infer(chain, maps(), precision)
    assert torch.equal(infer(chain, maps()), expected)


def test_one_seed_gives_the_same_bytes(problem: Problem, tuned: TunedBranch) -> None:
    again = tuned_for(problem, problem.precision())
    assert again.head == tuned.head
    assert all(np.array_equal(again.state[name], tensor) for name, tensor in tuned.state.items())


def test_layers_tuned_for_coarse_steps_bear_them_better(problem: Problem) -> None:
    coarse = problem.precision(steps=2)
    aware, plain = tuned_for(problem, coarse), tuned_for(problem, None)
    rounded = branch_features(problem.backbone, CUT, plain.state, problem.val.views[0], coarse)
    assert aware.head.val_loss < 0.9 * problem.loss(plain, rounded)


def test_attention_that_pytorch_computes_as_a_whole_is_refused() -> None:
    network = nn.Sequential(copy.deepcopy(layers()), nn.MultiheadAttention(4, 2))
    with pytest.raises(
        EdgetlError, match=r"hold nn\.MultiheadAttention, whose inner products cannot be tuned for INT8"
    ):
        FakeQuantisation(maps(), Largest)(network)
