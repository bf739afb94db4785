"""Streams decoded images in batches, with all cores and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import sha256_bytes
from edgetl.config.preprocessing import UNIT_SCALE, PixelValues
from edgetl.data.images import BrokenImageError, Pixels, read
from edgetl.errors import EdgetlError

T = TypeVar("T")
_JobT = TypeVar("_JobT")

_UNIT = PixelValues()

CORES = len(os.sched_getaffinity(0))  # os.cpu_count would count those that a container may not use


class ImageFile(Protocol):
    """A file of an index: a path relative to the data root, and the sha256 of its content."""

    @property
    def path(self) -> str: ...

    @property
    def sha256(self) -> str: ...


ImageFileT = TypeVar("ImageFileT", bound=ImageFile)


@dataclass(frozen=True)
class BatchResult(Generic[T]):
    """The results of some consecutive files.

    ``rows`` are the positions among them of the images that decoded, ascending and never empty; ``result`` is
    what ``apply`` made of them. ``broken`` are the files that gave no pixels.
    """

    rows: Int64Array
    result: T
    broken: tuple[BrokenFile, ...]


def stream(
    files: Sequence[ImageFileT],
    root: Path,
    render: Callable[[bytes, ImageFileT], Pixels],
    apply: Callable[[Pixels], T],
    *,
    batch_size: int = 8,
    workers: int = CORES,
) -> Iterator[BatchResult[T]]:
    """The results of ``apply`` on rendered batches, in order, with at most ``2 * workers`` batches in flight.

    Threads do it all, ``apply`` too: Pillow, numpy and the runtimes let go of the interpreter where they work. Where
    no image of a batch decodes, ``apply`` is not called, and a neighbouring batch reports the broken files.

    Args:
        files: what to stream.
        root: what their paths are relative to.
        render: from the content of a file to its pixels, H x W x 3 uint8, the same size for all files; raises
            `BrokenImageError` where there are none. See `edgetl.data.views` and `edgetl.data.box_views`.
        apply: takes n x H x W x 3 uint8, n from 1 to ``batch_size``; called by several threads at once.
        batch_size: files per batch.
        workers: threads.

    Raises:
        EdgetlError: a file has changed or vanished since it was indexed, or no image at all decodes.
    """

    def pixels(file: ImageFileT) -> Pixels | BrokenFile:
        try:
            return render(verified(root, file), file)
        except BrokenImageError as error:
            return BrokenFile(path=file.path, reason=error.reason)

    def work(start: int) -> BatchResult[T] | tuple[BrokenFile, ...]:
        found = {row: pixels(file) for row, file in enumerate(files[start : start + batch_size], start)}
        # Pixels are stacked without gaps; the rows tell which images they are.
        images = {row: image for row, image in found.items() if not isinstance(image, BrokenFile)}
        broken = tuple(file for file in found.values() if isinstance(file, BrokenFile))
        if not images:
            return broken
        return BatchResult(np.array(list(images), np.int64), apply(np.stack(list(images.values()))), broken)

    with closing(_in_order(work, range(0, len(files), batch_size), workers)) as done:
        yield from _with_stray_broken(done)


def verified(root: Path, file: ImageFile) -> bytes:
    """The content of a file of an index, checked against its digest.

    Raises:
        BrokenImageError: as `edgetl.data.images.read` does.
        EdgetlError: the file has changed or vanished since it was indexed, or cannot be read.
    """
    try:
        content = read(root / file.path)
    except FileNotFoundError:
        raise EdgetlError(
            f"{root / file.path} was there when the data was indexed and is gone; put it back, or run again from "
            "edgetl finetune on, to index the data anew"
        ) from None
    except OSError as error:
        raise EdgetlError(f"cannot read {root / file.path}: {error.strerror}") from error
    if sha256_bytes(content) != file.sha256:
        raise EdgetlError(
            f"{root / file.path} has changed since the data was indexed; run again from edgetl finetune on, to "
            "index the data anew"
        )
    return content


def to_input(images: Pixels, values: PixelValues = _UNIT) -> Float32Array:
    """The input of a graph: n x H x W x 3 uint8 to n x 3 x H x W float32, contiguous; in [0, 1] without ``values``.

    RGB in [0, 1], and with a mean and a standard deviation, it is equal, bit for bit, to torchvision's ``ToTensor`` and
    ``Normalize``.
    """
    count, height, width, channels = images.shape
    result = np.empty((count, channels, height, width), np.float32)
    ordered = images[..., ::-1] if values.color == "bgr" else images
    if values.scale == UNIT_SCALE:
        # Divided, as torchvision does: a product with 1 / 255 differs in the last bit.
        np.divide(ordered.transpose(0, 3, 1, 2), np.float32(255), out=result, dtype=np.float32)
    else:
        np.multiply(ordered.transpose(0, 3, 1, 2), np.float32(values.scale), out=result, dtype=np.float32)
    # Each saves a pass over the batch where it would change nothing.
    if values.mean != _UNIT.mean:
        result -= np.array(values.mean, np.float32).reshape(-1, 1, 1)
    if values.std != _UNIT.std:
        result /= np.array(values.std, np.float32).reshape(-1, 1, 1)
    return result


def input_of(values: PixelValues) -> Callable[[Pixels], Float32Array]:
    """`to_input` with these values."""
    return partial(to_input, values=values)


def _in_order(work: Callable[[_JobT], T], jobs: Iterable[_JobT], workers: int) -> Generator[T, None, None]:
    """Yield results in the order of the jobs. Closing the generator drops jobs that have not begun and waits for
    others.
    """
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


def _with_stray_broken(done: Iterable[BatchResult[T] | tuple[BrokenFile, ...]]) -> Iterator[BatchResult[T]]:
    """Yield batches with the broken files of neighbours that have no result; one batch is held back for that."""
    held: BatchResult[T] | None = None
    stray: tuple[BrokenFile, ...] = ()
    for batch in done:
        if not isinstance(batch, BatchResult):
            stray += batch
            continue
        if held is not None:
            yield held
        held, stray = replace(batch, broken=stray + batch.broken), ()
    if held is not None:
        yield replace(held, broken=held.broken + stray)
    elif stray:
        first = f"{stray[0].path} ({stray[0].reason})"
        raise EdgetlError(f"none of {len(stray)} images can be decoded; the first: {first}; repair the files")
