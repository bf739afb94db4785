"""Cached features: equal to a plain forward pass, whole or not there, in the memory of a few batches."""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("onnxsim", reason="needs the extra train")

from edgetl import config  # noqa: E402
from edgetl.artifacts.data_index import Sample  # noqa: E402
from edgetl.artifacts.files import sha256_bytes  # noqa: E402
from edgetl.data.images import decode, fit  # noqa: E402
from edgetl.data.stream import to_input  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.graph.simplify import simplify  # noqa: E402
from edgetl.train.backbones import Backbone, load_backbone  # noqa: E402
from edgetl.train.cuts import split  # noqa: E402
from edgetl.train.feature_cache import Extractor, FeatureMatrix, View, cached_features, make_extractor  # noqa: E402
from edgetl.train.onnx_export import export_trunk  # noqa: E402

Array = npt.NDArray[np.float32]

PLAIN = View()


@dataclass(frozen=True)
class Nano:
    """edgetl/nano at 32 pixels, and what extracts its features here."""

    backbone: Backbone
    extract: Extractor


@pytest.fixture(scope="module")
def nano() -> Nano:
    backbone = load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0)
    return Nano(backbone, make_extractor(backbone.trunk, simplify(export_trunk(backbone))))


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, tuple[Sample, ...]]:
    root = tmp_path / "images"
    return root, tuple(_write(root, number, _png(number)) for number in range(21))


def test_features_equal_a_plain_forward_pass(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    found = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    assert not found.was_cached and not found.broken
    assert found.matrix.dtype == np.float32 and found.matrix.shape == (21, 160)
    assert found.positions.tolist() == list(range(21))
    _assert_close(found.matrix, _plain(nano, root, samples))


def test_a_second_call_reads_the_cache_bit_for_bit(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    first = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    again = cached_features(nano.backbone, _must_not_run, samples, root, PLAIN, tmp_path / "cache")
    assert again.was_cached
    assert np.array_equal(first.matrix, again.matrix)
    assert np.array_equal(first.positions, again.positions)


def test_features_computed_twice_are_the_same_bits(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    one, two = (cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / c) for c in "ab")
    assert not two.was_cached
    assert np.array_equal(one.matrix, two.matrix)


def test_writing_to_the_matrix_does_not_touch_the_cache(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    first = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    kept = first.matrix.copy()
    torch.from_numpy(first.matrix).zero_()
    again = cached_features(nano.backbone, _must_not_run, samples, root, PLAIN, tmp_path / "cache")
    assert np.array_equal(again.matrix, kept)


def test_progress_counts_every_image_once_broken_ones_too(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    samples = (*samples, _write(root, 90, _png(90)[:60] + b"IEND"))
    counts: list[int] = []
    cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache", counts.append)
    assert sum(counts) == 22
    cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache", counts.append)
    assert sum(counts) == 22, "what is cached is not done again"


def test_maps_at_a_cut_are_cached_beside_the_features(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    lower, _ = split(nano.backbone, "features.3")
    extract = make_extractor(lower, export_trunk(nano.backbone, lower))

    def maps(extract: Extractor, cut: str = "features.3", shape: tuple[int, ...] = (64, 8, 8)) -> FeatureMatrix:
        return cached_features(nano.backbone, extract, samples, root, PLAIN, tmp_path / "cache", cut=cut, shape=shape)

    features = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    found = maps(extract)
    assert not found.was_cached and found.matrix.shape == (21, 64, 8, 8)
    _assert_close(found.matrix, _plain(nano, root, samples, lower))
    assert maps(_must_not_run).was_cached
    assert cached_features(nano.backbone, _must_not_run, samples, root, PLAIN, tmp_path / "cache").was_cached
    pixels = maps(to_input, "images", (3, 32, 32))
    assert not pixels.was_cached
    assert np.array_equal(pixels.matrix, _pixels(nano, root, samples))
    assert features.matrix.shape == (21, 160)


# What the cache is keyed on


def test_an_image_of_other_content_is_computed_anew(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    other = (*samples[:-1], _write(root, 77, _png(77)))
    first, second = _twice(nano, root, tmp_path, samples, other)
    assert not second.was_cached
    assert np.array_equal(first.matrix[:-1], second.matrix[:-1])
    assert not np.array_equal(first.matrix[-1], second.matrix[-1])


def test_images_in_another_order_are_computed_anew(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    first, second = _twice(nano, root, tmp_path, samples, samples[::-1])
    assert not second.was_cached
    _assert_close(first.matrix, second.matrix[::-1])


def test_names_and_labels_of_images_play_no_part(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    renamed = tuple(s.model_copy(update={"path": f"moved/{s.path}", "label": "dog"}) for s in samples)
    _, second = _twice(nano, root, tmp_path, samples, renamed)
    assert second.was_cached


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "0" * 64},
        {"name": "timm/with_other_padding"},
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.1, 0.2, 0.3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_network_is_computed_anew(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path, change: dict[str, object]
) -> None:
    """Two networks can have the same tensors and differ in normalisation or padding alone."""
    root, samples = images
    other = replace(nano.backbone, reference=nano.backbone.reference.model_copy(update=change))
    _, second = _twice(nano, root, tmp_path, samples, samples, other)
    assert not second.was_cached


@pytest.mark.parametrize(
    "change", [{"width": 48, "height": 48}, {"interpolation": "bicubic"}], ids=lambda c: next(iter(c))
)
def test_another_preprocessing_is_computed_anew(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path, change: dict[str, object]
) -> None:
    root, samples = images
    other = replace(nano.backbone, preprocessing=nano.backbone.preprocessing.model_copy(update=change))

    def any_size(pixels: npt.NDArray[np.uint8]) -> Array:
        return nano.extract(np.ascontiguousarray(pixels[:, :32, :32]))

    cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    assert not cached_features(other, any_size, samples, root, PLAIN, tmp_path / "cache").was_cached


def test_every_view_seed_and_flip_is_computed_anew_and_differs(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    views = [PLAIN, View(1), View(2), View(1, seed=5), View(1, flip=True)]
    found = [cached_features(nano.backbone, nano.extract, samples, root, v, tmp_path / "cache") for v in views]
    assert not any(features.was_cached for features in found)
    assert len({features.matrix.tobytes() for features in found}) == len(views)
    again = [cached_features(nano.backbone, _must_not_run, samples, root, v, tmp_path / "cache") for v in views]
    assert all(np.array_equal(a.matrix, b.matrix) for a, b in zip(found, again, strict=True))


def test_the_seed_plays_no_part_in_the_plain_view(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    cached_features(nano.backbone, nano.extract, samples, root, View(0, seed=1), tmp_path / "cache")
    assert cached_features(
        nano.backbone, _must_not_run, samples, root, View(0, seed=2, flip=True), tmp_path / "cache"
    ).was_cached


# Images that cannot be used


@pytest.mark.parametrize("broken", [{0}, {20}, {3, 11}, set(range(8)), set(range(8, 16)), set(range(1, 21))])
def test_broken_images_are_left_out_and_positions_stay_right(nano: Nano, tmp_path: Path, broken: set[int]) -> None:
    root = tmp_path / "images"
    samples = tuple(_write(root, n, _png(n)[:60] + b"IEND" if n in broken else _png(n)) for n in range(21))
    usable = [n for n in range(21) if n not in broken]
    for extract in (nano.extract, _must_not_run):
        found = cached_features(nano.backbone, extract, samples, root, PLAIN, tmp_path / "cache")
        assert found.positions.tolist() == usable
        assert [file.path for file in found.broken] == [samples[n].path for n in sorted(broken)]
        _assert_close(found.matrix, _plain(nano, root, [samples[n] for n in usable]))


def test_broken_images_only_are_one_clear_error(nano: Nano, tmp_path: Path) -> None:
    samples = tuple(_write(tmp_path / "images", n, b"no image") for n in range(9))
    with pytest.raises(EdgetlError, match=r"none of 9 images can be decoded; the first: 0\.png"):
        cached_features(nano.backbone, nano.extract, samples, tmp_path / "images", PLAIN, tmp_path / "cache")
    assert not _files(tmp_path / "cache")


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_an_image_that_changed_after_indexing_is_one_clear_error(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path, what: str
) -> None:
    root, samples = images
    victim = root / samples[13].path
    if what == "gone":
        victim.unlink()
    else:
        victim.write_bytes(_png(1000))
    with pytest.raises(EdgetlError, match=rf"13\.png .*{what}.*index the data anew"):
        cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    assert not _files(tmp_path / "cache")


# What was cut short


@pytest.mark.slow
def test_a_killed_extraction_leaves_nothing_whole(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    cache = tmp_path / "cache"
    with _child(root, samples, cache, "wait after the first batch") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "first batch\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert [name for name in _files(cache) if name.endswith(".partial")], "it was not killed while it wrote"
    assert not [name for name in _files(cache) if not name.endswith(".partial")]
    found = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, cache)
    assert not found.was_cached
    _assert_close(found.matrix, _plain(nano, root, samples))


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize("damage", ["removed", "cut short", "empty"])
def test_a_cache_that_lacks_a_part_is_made_anew(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path, suffix: str, damage: str
) -> None:
    root, samples = images
    first = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    kept = first.matrix.copy()
    (path,) = (tmp_path / "cache").glob(f"*.{suffix}")
    content = path.read_bytes()
    path.unlink()
    if damage != "removed":
        path.write_bytes(content[: len(content) // 2] if damage == "cut short" else b"")
    again = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    assert not again.was_cached
    assert np.array_equal(again.matrix, kept)


def test_an_extractor_that_fails_leaves_no_file(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], tmp_path: Path
) -> None:
    root, samples = images
    with pytest.raises(AssertionError):
        cached_features(nano.backbone, _must_not_run, samples, root, PLAIN, tmp_path / "cache")
    assert not _files(tmp_path / "cache")


# A full disk


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], small_disk: Path
) -> None:
    root, samples = images
    with pytest.raises(EdgetlError, match=r"the feature cache needs \d+ MB in .* MB are free") as error:
        cached_features(nano.backbone, _must_not_run, samples * 100, root, PLAIN, small_disk / "cache")
    assert "\n" not in str(error.value)
    assert not _files(small_disk)
    with pytest.raises(EdgetlError, match=r"cache at features\.2 needs 69 MB .*-o, or cut nearer to the top"):
        cached_features(
            nano.backbone,
            _must_not_run,
            samples * 100,
            root,
            PLAIN,
            small_disk / "cache",
            cut="features.2",
            shape=(32, 16, 16),
        )
    assert not _files(small_disk)


def test_a_disk_that_fills_up_is_one_clear_error(
    nano: Nano, images: tuple[Path, tuple[Sample, ...]], small_disk: Path
) -> None:
    root, samples = images
    cache = small_disk / "cache"

    def fill(_: int) -> None:
        with (small_disk / "filler").open("ab", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                return

    with pytest.raises(EdgetlError, match=r"cannot write .*\.npy: No space left on device; free space") as error:
        cached_features(nano.backbone, nano.extract, samples * 10, root, PLAIN, cache, fill)
    assert "\n" not in str(error.value)
    assert _files(small_disk) == ["filler"]
    (small_disk / "filler").unlink()
    found = cached_features(nano.backbone, nano.extract, samples * 10, root, PLAIN, cache)
    assert not found.was_cached and len(found.matrix) == 210


@pytest.mark.slow
def test_a_limit_on_file_sizes_is_one_clear_error(images: tuple[Path, tuple[Sample, ...]], tmp_path: Path) -> None:
    root, samples = images
    with _child(root, samples, tmp_path / "cache", "limit files to 8192 bytes") as child:
        said, _ = child.communicate()
    assert child.returncode == 0
    assert said.startswith("EdgetlError: cannot write ") and said.count("\n") == 1
    assert "File too large; free space or choose another directory" in said
    assert not _files(tmp_path / "cache")


# Memory


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_ten_times_the_images_take_no_more_memory(images: tuple[Path, tuple[Sample, ...]], tmp_path: Path) -> None:
    root, samples = images
    with _child(root, samples, tmp_path / "cache", "peaks of 24 and 240 times the images") as child:
        said, _ = child.communicate()
    assert child.returncode == 0
    some, more = json.loads(said)
    assert more <= 1.1 * some
    assert more - some < 12_000_000, "the pixels of the images that came in addition are 14 MB, as floats 56"


CHILD = """
import json, resource, sys, time
from pathlib import Path
from edgetl import config
from edgetl.artifacts.data_index import Sample
from edgetl.errors import EdgetlError
from edgetl.graph.simplify import simplify
from edgetl.train.backbones import load_backbone
from edgetl.train.onnx_export import export_trunk
from edgetl.train.feature_cache import View, cached_features, make_extractor

root, cache, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
samples = [Sample(**sample) for sample in json.loads(sys.stdin.read())]
backbone = load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=32), Path(), seed=0)
extract = make_extractor(backbone.trunk, simplify(export_trunk(backbone)))


def extracted(samples, watch=bool):
    cached_features(backbone, extract, samples, root, View(), cache, watch)


def wait(_):
    print("first batch", flush=True)
    time.sleep(60)


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if mode.startswith("wait"):
    extracted(samples, wait)
elif mode.startswith("limit"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    try:
        extracted(samples)
    except EdgetlError as error:
        print(f"EdgetlError: {error}")
else:
    sets = [samples * times for times in (3, 24, 240)]
    peaks = []
    for one in sets:
        extracted(one)
        peaks.append(peak())
    print(json.dumps(peaks[1:]))
"""


def _child(root: Path, samples: Sequence[Sample], cache: Path, mode: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(cache), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps([sample.model_dump() for sample in samples]))
    child.stdin.close()
    child.stdin = None
    return child


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 384 KiB."""
    point = tmp_path / "disk"
    point.mkdir()
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "mount") or library.mount(b"tmpfs", bytes(point), b"tmpfs", 0, b"size=384k") != 0:
        pytest.skip(f"a small file system cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield point
    assert library.umount2(bytes(point), 2) == 0  # MNT_DETACH: mapped files may still be open


def _png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write(root: Path, number: int, content: bytes) -> Sample:
    root.mkdir(exist_ok=True)
    path = root / f"{number}.png"
    path.write_bytes(content)
    return Sample(path=path.name, label="cat", sha256=sha256_bytes(content))


def _pixels(nano: Nano, root: Path, samples: Sequence[Sample]) -> Array:
    preprocessing = nano.backbone.preprocessing
    return to_input(np.stack([fit(decode((root / sample.path).read_bytes()), preprocessing) for sample in samples]))


def _plain(nano: Nano, root: Path, samples: Sequence[Sample], network: torch.nn.Module | None = None) -> Array:
    network = network or nano.backbone.trunk
    with torch.inference_mode():
        features: Array = network(torch.from_numpy(_pixels(nano, root, samples))).numpy()
    return features


def _twice(
    nano: Nano,
    root: Path,
    tmp_path: Path,
    samples: Sequence[Sample],
    others: Sequence[Sample],
    backbone: Backbone | None = None,
) -> tuple[FeatureMatrix, FeatureMatrix]:
    first = cached_features(nano.backbone, nano.extract, samples, root, PLAIN, tmp_path / "cache")
    second = cached_features(backbone or nano.backbone, nano.extract, others, root, PLAIN, tmp_path / "cache")
    return first, second


def _must_not_run(images: npt.NDArray[np.uint8]) -> Array:
    raise AssertionError("it was computed, not read from the cache")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def _assert_close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))
