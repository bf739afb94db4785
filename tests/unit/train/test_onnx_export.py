"""The trunk's graph against the trunk in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("onnxsim", reason="needs the extra train")

from edgetl import config  # noqa: E402
from edgetl.artifacts.bundle import FEATURES, IMAGES, ClassificationHead, Preprocessing  # noqa: E402
from edgetl.data.images import decode, fit  # noqa: E402
from edgetl.data.scenes.one_object import LABELS, render_scene, scene_seed  # noqa: E402
from edgetl.data.stream import to_input  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.graph import parity  # noqa: E402
from edgetl.graph.compose import compose  # noqa: E402
from edgetl.graph.fusion.fused_graph import fuse  # noqa: E402
from edgetl.graph.simplify import simplify  # noqa: E402
from edgetl.train.backbones import Backbone, fingerprint, load_backbone  # noqa: E402
from edgetl.train.onnx_export import export_trunk  # noqa: E402
from edgetl.train.reference import head_outputs, reference_features  # noqa: E402

Array = npt.NDArray[np.float32]

PHOTOGRAPHS = Path(__file__).parents[3] / ".." / "shared" / "material" / "backbones" / "images"
NETWORKS = {
    "edgetl/nano": 32,
    "torchvision/squeezenet1_1": 64,
    "torchvision/mobilenet_v3_small": 64,
    "timm/test_vit": 160,
}


@dataclass(frozen=True)
class Exported:
    backbone: Backbone
    raw: onnx.ModelProto
    simplified: onnx.ModelProto
    in_bundle: onnx.ModelProto

    def graphs(self) -> tuple[tuple[onnx.ModelProto, str], ...]:
        """Every form of the trunk, and what its output is called there."""
        return (self.raw, "features"), (self.simplified, "features"), (self.in_bundle, FEATURES)


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest) -> Exported:
    weights = "default" if request.param == "edgetl/nano" else None
    study = config.BackboneSettings(name=request.param, weights=weights, image_size=NETWORKS[request.param])
    backbone = load_backbone(study, Path(), seed=0)
    raw = export_trunk(backbone)
    simplified = simplify(raw)
    return Exported(backbone, raw, simplified, fuse({"trunk": simplified}).model)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_equals_pytorch_on_random_images(exported: Exported, batch: int) -> None:
    size = exported.backbone.preprocessing.width
    images = np.random.default_rng(batch).random((batch, 3, size, size), dtype=np.float32)
    _assert_equal_to_pytorch(exported, images)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_equals_pytorch_on_scenes(exported: Exported, batch: int) -> None:
    preprocessing = exported.backbone.preprocessing
    scenes = [render_scene(label, scene_seed("study", 0, 0), 96) for label in LABELS[:batch]]
    _assert_equal_to_pytorch(exported, to_input(np.stack([fit(scene, preprocessing) for scene in scenes])))


@pytest.mark.material
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the photographs do not lie beside the project")
def test_the_graph_equals_pytorch_on_photographs(exported: Exported) -> None:
    preprocessing = exported.backbone.preprocessing
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:3]
    assert len(files) == 3
    images = [fit(decode(file.read_bytes(), preprocessing.width), preprocessing) for file in files]
    _assert_equal_to_pytorch(exported, to_input(np.stack(images)))


def test_rows_of_a_batch_do_not_touch_each_other(exported: Exported) -> None:
    size = exported.backbone.preprocessing.width
    images = np.random.default_rng(0).random((3, 3, size, size), dtype=np.float32)
    together = parity.run(exported.simplified, images)["features"]
    alone = np.concatenate([parity.run(exported.simplified, image[None])["features"] for image in images])
    assert np.abs(together - alone).max() <= 1e-5 * np.abs(alone).max()


def test_the_input_is_images_and_the_output_is_the_features_with_any_batch_size(exported: Exported) -> None:
    size, width = exported.backbone.preprocessing.width, exported.backbone.reference.feature_dim
    for model, output in exported.graphs():
        onnx.checker.check_model(model, full_check=True)
        assert [value.name for value in model.graph.input] == [IMAGES]
        assert [value.name for value in model.graph.output] == [output]
        batch, *rest = model.graph.input[0].type.tensor_type.shape.dim
        assert batch.dim_param and not batch.dim_value
        assert [dim.dim_value for dim in rest] == [3, size, size]
        batch, features = model.graph.output[0].type.tensor_type.shape.dim
        assert batch.dim_param and not batch.dim_value
        assert features.dim_value == width


def test_every_inner_name_in_the_bundle_begins_with_the_trunks_prefix(exported: Exported) -> None:
    """No group's name can clash with it."""
    graph = exported.in_bundle.graph
    names = [node.name for node in graph.node] + [tensor.name for tensor in graph.initializer]
    names += [name for node in graph.node for name in (*node.input, *node.output)]
    names += [value.name for value in graph.value_info]
    assert {name for name in names if name and not name.startswith("trunk/")} == {IMAGES}


def test_the_opset_is_17_and_all_operators_are_onnx_own(exported: Exported) -> None:
    for model, _ in exported.graphs():
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_the_weights_are_in_the_graph_as_finite_float32(exported: Exported) -> None:
    tensors = [numpy_helper.to_array(tensor) for tensor in exported.in_bundle.graph.initializer]
    floating = [tensor for tensor in tensors if np.issubdtype(tensor.dtype, np.floating)]
    assert {tensor.dtype for tensor in floating} == {np.dtype(np.float32)}
    assert all(np.isfinite(tensor).all() for tensor in floating)
    # Batch normalisation is folded into its convolution, so a little less than all of them may be left.
    assert sum(tensor.size for tensor in floating) > 0.9 * exported.backbone.reference.parameters


def test_simplifying_folds_batch_normalisation_and_drops_what_does_nothing(exported: Exported) -> None:
    left = {node.op_type for node in exported.simplified.graph.node}
    assert not left & {"BatchNormalization", "Identity", "Dropout"}
    assert len(exported.simplified.graph.node) <= len(exported.raw.graph.node)


def test_exporting_leaves_the_trunk_as_it_was(exported: Exported) -> None:
    assert fingerprint(exported.backbone.trunk) == exported.backbone.reference.fingerprint
    assert not exported.backbone.trunk.training


def test_exporting_again_gives_the_same_bytes(exported: Exported) -> None:
    again = export_trunk(exported.backbone)
    assert again.SerializeToString(deterministic=True) == exported.raw.SerializeToString(deterministic=True)


def test_heads_on_the_graph_say_what_pytorch_says() -> None:
    backbone = load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0)
    rng = np.random.default_rng(0)
    heads = tuple(
        ClassificationHead(
            name=name,
            classes=classes,
            activation=activation,
            l2=0.01,
            temperature=1.0,
            val_loss=0.0,
            val_accuracy=1.0,
        )
        for name, classes, activation in (
            ("vehicles", ("car", "bus", "other"), "softmax"),
            ("one-vs-rest", ("car", "bus", "cat", "dog"), "sigmoid"),
        )
    )
    tensors = {f"{h.name}.weight": rng.normal(0, 1, (len(h.classes), 160)).astype(np.float32) for h in heads}
    tensors |= {f"{h.name}.bias": rng.normal(0, 1, len(h.classes)).astype(np.float32) for h in heads}
    images = rng.random((3, 3, 32, 32), dtype=np.float32)
    expected = head_outputs(heads, tensors, {FEATURES: reference_features(backbone, heads[0], {}, images)})
    model = compose(fuse({"trunk": simplify(export_trunk(backbone))}).model, heads, tensors, Preprocessing.square(32))
    found = parity.run(model, images)
    assert list(found) == ["vehicles", "one-vs-rest"]
    assert parity.max_difference(found, {name: expected[name] for name in found}) < 1e-5
    assert np.allclose(expected["vehicles"].sum(axis=1), 1.0, atol=1e-6)
    assert not np.allclose(expected["one-vs-rest"].sum(axis=1), 1.0, atol=1e-2)


def test_a_network_that_the_exporter_does_not_know_is_one_clear_error() -> None:
    backbone = load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0)
    backbone.trunk.backbone.pool = _Unexportable()
    with pytest.raises(EdgetlError, match="edgetl/nano cannot be exported to ONNX: ") as error:
        export_trunk(backbone)
    assert "\n" not in str(error.value)


class _Unexportable(torch.nn.Module):  # type: ignore[misc]
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(maps @ maps.transpose(2, 3)).real.mean(dim=2)


def _assert_equal_to_pytorch(exported: Exported, images: Array) -> None:
    with torch.inference_mode():
        expected = exported.backbone.trunk(torch.from_numpy(images)).numpy()
    assert expected.shape == (len(images), exported.backbone.reference.feature_dim)
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    for model, output in exported.graphs():
        assert parity.max_difference(parity.run(model, images), {output: expected}) <= tolerance
