"""What PyTorch says: heads against numpy, and their features against the exported graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("onnxsim", reason="needs the extra train")
from safetensors.numpy import save_file  # noqa: E402
from scipy.special import expit, softmax  # noqa: E402

from edgetl import config  # noqa: E402
from edgetl.artifacts.bundle import FEATURES, TOP, Activation, ClassificationHead, Preprocessing  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.graph import parity  # noqa: E402
from edgetl.graph.compose import compose  # noqa: E402
from edgetl.graph.fusion.fused_graph import fuse  # noqa: E402
from edgetl.graph.simplify import simplify  # noqa: E402
from edgetl.train.backbones import Backbone, fingerprint, load_backbone  # noqa: E402
from edgetl.train.cuts import split  # noqa: E402
from edgetl.train.onnx_export import export_trunk  # noqa: E402
from edgetl.train.reference import head_outputs, read_branches, reference_features, truncated  # noqa: E402
from edgetl.train.tune import with_state  # noqa: E402

Array = npt.NDArray[np.float32]

CUT = "features.3"
IMAGES = np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)


def head(name: str, activation: Activation = "softmax", **place: object) -> ClassificationHead:
    return ClassificationHead(
        name=name,
        classes=("car", "bus", "other"),
        activation=activation,
        l2=0.01,
        temperature=1.0,
        val_loss=0.5,
        val_accuracy=0.8,
        **place,  # type: ignore[arg-type]
    )


AT_THE_TOP = head("combined")
TUNED = head(f"vehicles@{CUT}", cut=CUT, features=f"vehicles@{CUT}/features")
TRUNCATED = head(f"vehicles@truncated-{CUT}", cut=CUT, truncated=True, features=f"truncated-{CUT}/features")
SECOND = head("vehicles@cascade", cut=CUT, features=TUNED.features, first_level="combined")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0)


@pytest.fixture(scope="module")
def states(backbone: Backbone) -> dict[str, dict[str, Array]]:
    """As if tuning had moved every parameter above the cut."""
    _, upper = split(backbone, CUT)
    own = backbone.trunk.state_dict()
    names = [name for name, _ in upper.named_parameters()]
    assert names and set(names) < own.keys()
    return {TUNED.name: {name: own[name].numpy() * np.float32(1.1) for name in names}}


def tensors_of(*heads: ClassificationHead, width: int) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    tensors = {f"{h.name}.bias": rng.normal(0.0, 1.0, len(h.classes)).astype(np.float32) for h in heads}
    for one in heads:
        columns = width + (len(AT_THE_TOP.classes) if one.first_level else 0)
        tensors[f"{one.name}.weight"] = rng.normal(0.0, 1.0, (len(one.classes), columns)).astype(np.float32)
    return tensors


def test_outputs_are_softmax_and_sigmoid_of_the_features_that_a_head_names() -> None:
    one, other = head("combined"), head("one-vs-rest", "sigmoid", features="elsewhere")
    rng = np.random.default_rng(0)
    features = {name: rng.normal(0.0, 1.0, (5, 4)).astype(np.float32) for name in (FEATURES, "elsewhere")}
    tensors = tensors_of(one, other, width=4)
    found = head_outputs([one, other], tensors, features)
    for each, squash in ((one, lambda logits: softmax(logits, axis=1)), (other, expit)):
        logits = features[each.features] @ tensors[f"{each.name}.weight"].T + tensors[f"{each.name}.bias"]
        np.testing.assert_allclose(found[each.name], squash(logits), atol=1e-6)


def test_a_second_level_reads_the_first_ones_probabilities_beside_its_features() -> None:
    second = SECOND.model_copy(update={"features": FEATURES})
    features = {FEATURES: np.random.default_rng(0).normal(0.0, 1.0, (5, 4)).astype(np.float32)}
    tensors = tensors_of(AT_THE_TOP, second, width=4)
    found = head_outputs([AT_THE_TOP, second], tensors, features)
    read = np.concatenate([features[FEATURES], found["combined"]], axis=1)
    logits = read @ tensors[f"{second.name}.weight"].T + tensors[f"{second.name}.bias"]
    np.testing.assert_allclose(found[second.name], softmax(logits, axis=1), atol=1e-6)


def test_features_at_the_top_are_the_frozen_trunks(backbone: Backbone, states: dict[str, dict[str, Array]]) -> None:
    with torch.inference_mode():
        expected = backbone.trunk(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_array_equal(reference_features(backbone, AT_THE_TOP, states, IMAGES), expected)


def test_a_branchs_features_come_from_its_own_tensors(backbone: Backbone, states: dict[str, dict[str, Array]]) -> None:
    found = reference_features(backbone, TUNED, states, IMAGES)
    lower, _ = split(backbone, CUT)
    _, upper = split(with_state(backbone, states[TUNED.name]), CUT)
    with torch.inference_mode():
        expected = upper(lower(torch.from_numpy(IMAGES))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(found - reference_features(backbone, AT_THE_TOP, states, IMAGES)).max() > 0.01
    np.testing.assert_array_equal(found, reference_features(backbone, SECOND, states, IMAGES))


def test_a_branch_that_tuning_left_as_it_was_has_the_trunks_features(backbone: Backbone) -> None:
    frozen = reference_features(backbone, AT_THE_TOP, {}, IMAGES)
    np.testing.assert_array_equal(reference_features(backbone, TUNED, {}, IMAGES), frozen)


def test_features_of_a_truncated_head_are_averages_of_the_map_at_its_cut(backbone: Backbone) -> None:
    lower, _ = split(backbone, CUT)
    with torch.inference_mode():
        maps = lower(torch.from_numpy(IMAGES)).numpy()
    assert maps.ndim == 4
    np.testing.assert_allclose(
        reference_features(backbone, TRUNCATED, {}, IMAGES), maps.mean(axis=(2, 3)), rtol=1e-5, atol=1e-5
    )


def test_the_reference_leaves_the_trunk_as_it_was(backbone: Backbone, states: dict[str, dict[str, Array]]) -> None:
    for one in (TUNED, TRUNCATED, SECOND):
        reference_features(backbone, one, states, IMAGES)
    assert fingerprint(backbone.trunk) == backbone.reference.fingerprint


def test_one_graph_of_all_heads_says_what_pytorch_says(backbone: Backbone, states: dict[str, dict[str, Array]]) -> None:
    networks = {
        "trunk": simplify(export_trunk(backbone)),
        TUNED.name: simplify(export_trunk(with_state(backbone, states[TUNED.name]))),
        f"truncated-{CUT}": simplify(export_trunk(backbone, truncated(backbone, CUT))),
    }
    heads = (AT_THE_TOP, TUNED, TRUNCATED, SECOND)
    features = {one.features: reference_features(backbone, one, states, IMAGES) for one in heads}
    tensors = {name: value for one in heads for name, value in _fitting(one, features).items()}
    expected = head_outputs(heads, tensors, features)
    model = compose(fuse(networks).model, heads, tensors, Preprocessing.square(32))
    assert parity.max_difference(parity.run(model, IMAGES), expected) < 1e-4
    assert {one.cut for one in heads} == {TOP, CUT}


def _fitting(one: ClassificationHead, features: dict[str, Array]) -> dict[str, Array]:
    """Weights that make no probability certain, whatever the size of the features."""
    values = features[one.features]
    scale = np.float32(1.0 / np.abs(values).max() / values.shape[1] ** 0.5)
    return {n: t * (scale if n.endswith("weight") else 1) for n, t in tensors_of(one, width=values.shape[1]).items()}


def test_branches_read_as_they_were_written(tmp_path: Path, states: dict[str, dict[str, Array]]) -> None:
    written = states | {"größer@images": {"backbone.odd/name": np.ones(2, np.float32)}}
    flat = {f"{one}/{name}": tensor for one, state in written.items() for name, tensor in state.items()}
    save_file(flat, tmp_path / "branches.safetensors")
    found = read_branches(tmp_path / "branches.safetensors")
    assert found.keys() == written.keys()
    for one, state in written.items():
        assert found[one].keys() == state.keys()
        assert all(np.array_equal(found[one][name], tensor) for name, tensor in state.items())


def test_no_branches_are_no_fault_and_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    assert read_branches(tmp_path / "none.safetensors") == {}
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\xff" * 100)
    for path in (damaged, tmp_path / "missing.safetensors"):
        with pytest.raises(EdgetlError, match=r"cannot be read: .*; run edgetl finetune again") as caught:
            read_branches(path)
        assert "\n" not in str(caught.value)


def test_tuned_tensors_of_another_backbone_are_refused(backbone: Backbone) -> None:
    for state in ({"backbone.other": np.ones(3, np.float32)}, {"mean": np.ones(7, np.float32)}):
        with pytest.raises(EdgetlError, match="does not fit edgetl/nano; run edgetl finetune again"):
            reference_features(backbone, TUNED, {TUNED.name: state}, IMAGES)
