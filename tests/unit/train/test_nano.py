"""edgetl/nano: its packaged weights, and the recorded command that made them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from edgetl.artifacts.files import sha256_file
from edgetl.data.scenes.one_object import LABELS, render_scene, scene_seed

torch = pytest.importorskip("torch", reason="needs the extra train")
from safetensors.torch import load_file  # noqa: E402

from edgetl.train.nano import MEAN, STD, WEIGHTS, Nano, pretrained  # noqa: E402

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "pretrain_nano.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("benchmarks/ is not part of the source distribution")
    spec = importlib.util.spec_from_file_location("pretrain_nano", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread_and_default_determinism():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_packaged_weights_are_float32_and_under_one_megabyte() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    floating = [t for t in load_file(WEIGHTS).values() if t.is_floating_point()]
    assert {t.dtype for t in floating} == {torch.float32}
    assert all(torch.isfinite(t).all() for t in floating)


def test_the_record_names_these_weights_and_how_they_were_made() -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["sha256"] == sha256_file(WEIGHTS)
    assert record["command"].startswith("python benchmarks/pretrain_nano.py")
    assert record["labels"] == list(LABELS)


@pytest.mark.parametrize("size", [16, 32, 50, 64, 96])
def test_features_are_finite_and_of_the_stated_width_at_any_size(size: int) -> None:
    with torch.inference_mode():
        features = pretrained()(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (2, Nano.feature_dim)
    assert torch.isfinite(features).all()


def test_a_classifier_is_added_only_where_asked_for() -> None:
    images = torch.zeros(3, 3, 32, 32)
    assert Nano(num_classes=7).eval()(images).shape == (3, 7)
    assert not [name for name in pretrained().state_dict() if name.startswith("classifier")]


def test_the_pretrained_network_is_in_evaluation_mode() -> None:
    model = pretrained()
    assert not any(module.training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize(("size", "bar"), [(32, 0.75), (64, 0.85)])
def test_a_linear_probe_on_fresh_scenes_beats_the_bar(size: int, bar: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    per_label, train = 60, 40
    features = _features(
        [render_scene(label, scene_seed("study", 11, i), size) for label in LABELS for i in range(per_label)]
    )
    targets = np.repeat(np.arange(len(LABELS)), per_label)
    fitting = np.tile(np.arange(per_label) < train, len(LABELS))
    probe = linear_model.RidgeClassifier(alpha=1.0).fit(features[fitting], targets[fitting])
    assert probe.score(features[~fitting], targets[~fitting]) > bar


def test_a_linear_probe_on_handwritten_digits_beats_the_bar() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    linear_model = pytest.importorskip("sklearn.linear_model")
    from PIL import Image

    digits = datasets.load_digits()
    features = _features(
        [
            Image.fromarray((image * 15).astype(np.uint8)).resize((32, 32), Image.Resampling.BILINEAR).convert("RGB")
            for image in digits.images
        ]
    )
    fitting = np.arange(len(features)) % 5 != 0
    features = (features - features[fitting].mean(axis=0)) / features[fitting].std(axis=0)
    probe = linear_model.LogisticRegression(max_iter=500).fit(features[fitting], digits.target[fitting])
    assert probe.score(features[~fitting], digits.target[~fitting]) > 0.94


def test_pretraining_twice_gives_the_same_weights(
    script: ModuleType, tmp_path: Path, one_thread_and_default_determinism: None
) -> None:
    digests = set()
    for run in ("first", "second"):
        path = tmp_path / run / "nano.safetensors"
        script.write_weights(script.pretrain(steps=4, seed=1), path)
        digests.add(sha256_file(path))
        Nano().load_state_dict(load_file(path), strict=True)
    assert len(digests) == 1


def _features(images: list) -> npt.NDArray[np.float32]:
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images]) / 255
    batch = torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
    model = pretrained()
    with torch.inference_mode():
        return torch.cat([model(part) for part in batch.split(100)]).numpy()
