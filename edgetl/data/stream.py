"""Decoded images in batches, at the speed of all cores and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.files import sha256_bytes
from edgetl.artifacts.index import BrokenFile, Sample
from edgetl.data.images import BrokenImageError, Pixels, augment, decode, fit, read
from edgetl.errors import EdgetlError

T = TypeVar("T")
Job = TypeVar("Job")

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Batch(Generic[T]):
    """What came of some consecutive samples.

    ``rows`` are the positions in the samples of the images that decoded, ascending and never empty; ``result`` is
    what ``apply`` made of them. ``broken`` are the files that gave no pixels.
    """

    rows: npt.NDArray[np.int64]
    result: T
    broken: tuple[BrokenFile, ...]


def stream(
    samples: Sequence[Sample],
    root: Path,
    preprocessing: Preprocessing,
    apply: Callable[[Pixels], T],
    *,
    batch_size: int = 8,
    workers: int = CORES,
    view: int = 0,
    seed: int = 0,
    flip: bool = False,
) -> Iterator[Batch[T]]:
    """Read, verify, decode and ``apply``, in order, with at most ``2 * workers`` batches in flight.

    Threads do it all, ``apply`` too: Pillow, numpy and the runtimes let go of the interpreter where they work. Where
    no image of a batch decodes, ``apply`` is not called, and a neighbouring batch reports the broken files.

    Args:
        samples: what to stream.
        root: what the samples' paths are relative to.
        preprocessing: size and interpolation.
        apply: takes n x S x S x 3 uint8, n from 1 to ``batch_size``; called by several threads at once.
        batch_size: samples per batch.
        workers: threads.
        view: 0 for the image as it is; from 1 on, augmented views that differ by their number.
        seed: of the augmentation.
        flip: views may be mirrored.

    Raises:
        EdgetlError: a file has changed or vanished since it was indexed, or no image at all decodes.
    """

    def pixels(sample: Sample) -> Pixels | BrokenFile:
        try:
            image = decode(_verified(root, sample), preprocessing.width)
            if view == 0:
                return fit(image, preprocessing)
            return augment(image, preprocessing, f"{seed}:{view}:{sample.sha256}", flip)
        except BrokenImageError as error:
            return BrokenFile(path=sample.path, reason=error.reason)

    def work(start: int) -> Batch[T] | tuple[BrokenFile, ...]:
        chosen = samples[start : start + batch_size]
        images = np.empty((len(chosen), preprocessing.height, preprocessing.width, 3), np.uint8)
        rows: list[int] = []
        broken: list[BrokenFile] = []
        for row, sample in enumerate(chosen, start):
            found = pixels(sample)
            if isinstance(found, BrokenFile):
                broken.append(found)
            else:
                images[len(rows)] = found
                rows.append(row)
        if not rows:
            return tuple(broken)
        return Batch(np.array(rows, np.int64), apply(images[: len(rows)]), tuple(broken))

    with closing(_in_order(work, range(0, len(samples), batch_size), workers)) as done:
        yield from _with_stray_broken(done)


def to_input(images: Pixels) -> npt.NDArray[np.float32]:
    """The input of every graph: n x S x S x 3 uint8 to n x 3 x S x S float32 in [0, 1], contiguous."""
    count, height, width, channels = images.shape
    result = np.empty((count, channels, height, width), np.float32)
    np.divide(images.transpose(0, 3, 1, 2), np.float32(255), out=result, dtype=np.float32)
    return result


def _verified(root: Path, sample: Sample) -> bytes:
    try:
        content = read(root / sample.path)
    except FileNotFoundError:
        raise EdgetlError(
            f"{root / sample.path} was there when the data was indexed and is gone; put it back, or run again from "
            "edgetl finetune on, to index the data anew"
        ) from None
    except OSError as error:
        raise EdgetlError(f"cannot read {root / sample.path}: {error.strerror}") from error
    if sha256_bytes(content) != sample.sha256:
        raise EdgetlError(
            f"{root / sample.path} has changed since the data was indexed; run again from edgetl finetune on, to "
            "index the data anew"
        )
    return content


def _in_order(work: Callable[[Job], T], jobs: Iterable[Job], workers: int) -> Generator[T, None, None]:
    """Results in the order of the jobs. Closing the generator drops what has not begun and waits for what has."""
    waiting = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgetl-stream")
    # One less than twice the workers: the batch held back by `_with_stray_broken` counts too.
    flying: deque[Future[T]] = deque(pool.submit(work, job) for job in islice(waiting, 2 * workers - 1))
    try:
        while flying:
            done = flying.popleft().result()
            flying.extend(pool.submit(work, job) for job in islice(waiting, 1))
            yield done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _with_stray_broken(done: Iterable[Batch[T] | tuple[BrokenFile, ...]]) -> Iterator[Batch[T]]:
    """Hand the broken files of batches without a result to a neighbour: one batch is held back for that."""
    held: Batch[T] | None = None
    stray: tuple[BrokenFile, ...] = ()
    for batch in done:
        if not isinstance(batch, Batch):
            stray += batch
            continue
        if held is not None:
            yield held
        held, stray = replace(batch, broken=stray + batch.broken), ()
    if held is not None:
        yield replace(held, broken=held.broken + stray)
    elif stray:
        raise EdgetlError(
            f"none of {len(stray)} images can be decoded; the first: {stray[0].path} ({stray[0].reason}); mend the data"
        )
