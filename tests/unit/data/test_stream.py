from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import sha256_file
from edgetl.data.images import decode, fit
from edgetl.data.stream import BatchResult, stream, to_input
from edgetl.data.views import augment, renderer
from edgetl.errors import EdgetlError

PREPROCESSING = Preprocessing.square(16)
PLAIN = renderer(PREPROCESSING)
Pixels = npt.NDArray[np.uint8]


def sample(root: Path, path: str) -> Sample:
    return Sample(path=path, label="any", sha256=sha256_file(root / path))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """23 JPEG files of different sizes in ``tmp_path``."""
    random = np.random.default_rng(0)
    for number in range(23):
        pixels = random.integers(0, 256, (20 + number, 40 - number, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.jpg")
    return [sample(tmp_path, path.name) for path in sorted(tmp_path.glob("*.jpg"))]


def with_broken(root: Path, samples: Sequence[Sample], positions: Sequence[int]) -> list[Sample]:
    """The same samples with some files cut short, and indexed as such."""
    for position in positions:
        file = root / samples[position].path
        file.write_bytes(file.read_bytes()[:-30])
    return [sample(root, s.path) for s in samples]


def workers_alive() -> int:
    return sum(thread.name.startswith("edgetl-stream") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_worker_outlives_its_stream() -> Iterator[None]:
    yield
    assert workers_alive() == 0


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 2), (5, 3), (8, 1), (100, 2)])
def test_batches_come_in_order_with_the_pixels_of_each_file(
    tmp_path: Path, samples: list[Sample], batch_size: int, workers: int
) -> None:
    batches = list(stream(samples, tmp_path, PLAIN, np.copy, batch_size=batch_size, workers=workers))
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(23))
    assert all(batch.rows.dtype == np.int64 and len(batch.rows) <= batch_size for batch in batches)
    expected = [fit(decode((tmp_path / s.path).read_bytes(), 16), PREPROCESSING) for s in samples]
    np.testing.assert_array_equal(np.concatenate([batch.result for batch in batches]), expected)
    assert not any(batch.broken for batch in batches)


def test_no_samples_give_no_batch(tmp_path: Path) -> None:
    assert list(stream([], tmp_path, PLAIN, np.copy)) == []


def test_views_are_seeded_by_seed_number_and_content(tmp_path: Path, samples: list[Sample]) -> None:
    def views(view: int, seed: int, batch_size: int) -> Pixels:
        batches = stream(
            samples, tmp_path, renderer(PREPROCESSING, view=view, seed=seed, flip=True), np.copy, batch_size=batch_size
        )
        return np.concatenate([batch.result for batch in batches])

    content = (tmp_path / samples[7].path).read_bytes()
    expected = augment(decode(content, 16), PREPROCESSING, f"3:2:{samples[7].sha256}", flip=True)
    np.testing.assert_array_equal(views(2, 3, 4)[7], expected)
    np.testing.assert_array_equal(views(2, 3, 4), views(2, 3, 9))
    assert not np.array_equal(views(1, 3, 4), views(2, 3, 4))
    assert not np.array_equal(views(2, 4, 4), views(2, 3, 4))


def test_broken_files_are_reported_and_their_rows_left_out(tmp_path: Path, samples: list[Sample]) -> None:
    broken = with_broken(tmp_path, samples, [0, 6, 22])
    batches = list(stream(broken, tmp_path, PLAIN, np.copy, batch_size=5, workers=2))
    rows = np.concatenate([batch.rows for batch in batches]).tolist()
    assert rows == [row for row in range(23) if row not in (0, 6, 22)]
    assert [[file.path for file in batch.broken] for batch in batches] == [["00.jpg"], ["06.jpg"], [], [], ["22.jpg"]]
    assert all("truncated" in file.reason for batch in batches for file in batch.broken)
    assert all(len(batch.result) == len(batch.rows) for batch in batches)


def test_a_batch_without_a_whole_file_is_reported_by_its_neighbour(tmp_path: Path, samples: list[Sample]) -> None:
    gone = [*range(4), *range(8, 12), *range(20, 23)]
    broken = with_broken(tmp_path, samples, gone)
    batches = list(stream(broken, tmp_path, PLAIN, len, batch_size=4, workers=2))
    assert [batch.rows[0] for batch in batches] == [4, 12, 16]
    assert [batch.result for batch in batches] == [4, 4, 4]
    assert [file.path for batch in batches for file in batch.broken] == [f"{number:02d}.jpg" for number in gone]


def test_files_that_are_all_broken_are_an_error(tmp_path: Path, samples: list[Sample]) -> None:
    broken = with_broken(tmp_path, samples, range(23))
    with pytest.raises(EdgetlError, match=r"none of 23 images can be decoded; the first: 00\.jpg \("):
        list(stream(broken, tmp_path, PLAIN, len))


def test_a_changed_file_is_refused_even_where_it_is_a_fine_image(tmp_path: Path, samples: list[Sample]) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / samples[9].path)
    with pytest.raises(EdgetlError, match=r"09\.jpg has changed since the data was indexed; run again"):
        list(stream(samples, tmp_path, PLAIN, len))


def test_a_file_that_vanished_is_named(tmp_path: Path, samples: list[Sample]) -> None:
    (tmp_path / samples[9].path).unlink()
    with pytest.raises(EdgetlError, match=r"09\.jpg was there when the data was indexed and is gone"):
        list(stream(samples, tmp_path, PLAIN, len))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_slow_consumer_bounds_the_batches_in_flight(tmp_path: Path, samples: list[Sample], workers: int) -> None:
    lock = threading.Lock()
    started = taken = most = 0

    def apply(images: Pixels) -> None:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - taken)

    idle = threading.Event()
    for _ in stream(samples * 4, tmp_path, PLAIN, apply, batch_size=1, workers=workers):
        with lock:
            taken += 1
        idle.wait(0.005)  # ample time for the workers to run ahead
    assert taken == started == 92
    # Twice the workers, and the batch that is just being handed over.
    assert workers < most <= 2 * workers + 1


def test_workers_end_when_the_consumer_stops_early(tmp_path: Path, samples: list[Sample]) -> None:
    calls: list[int] = []
    batches = stream(samples * 10, tmp_path, PLAIN, lambda images: calls.append(1), batch_size=1, workers=2)
    next(batches)
    assert workers_alive() == 2
    batches.close()  # type: ignore[attr-defined]
    assert workers_alive() == 0
    assert len(calls) <= 6


def test_an_error_in_apply_reaches_the_consumer_and_ends_the_workers(tmp_path: Path, samples: list[Sample]) -> None:
    class BackboneError(Exception):
        pass

    def apply(images: Pixels) -> int:
        if len(calls) == 2:
            raise BackboneError
        calls.append(1)
        return len(images)

    calls: list[int] = []
    received: list[BatchResult[int]] = []
    with pytest.raises(BackboneError):
        received.extend(stream(samples * 10, tmp_path, PLAIN, apply, batch_size=1, workers=1))
    assert len(calls) == 2 and len(received) <= 2


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))),
)
def test_graph_input_is_the_exact_quotient_in_contiguous_planes(images: Pixels) -> None:
    found = to_input(images)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, (images.transpose(0, 3, 1, 2) / 255.0).astype(np.float32))


def test_graph_input_equals_torchvision(samples: list[Sample], tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason="the reference is torchvision")
    image = fit(decode((tmp_path / samples[0].path).read_bytes()), PREPROCESSING)
    np.testing.assert_array_equal(to_input(image[None])[0], transforms.ToTensor()(Image.fromarray(image)).numpy())
