"""Training of several heads or branches at a time on a CPU's cores, at one schedule, with the same bytes every time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


def device() -> torch.device:
    """The device on which layers and heads are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def each(trainees: Iterable[T], pool: Executor, do: Callable[..., None], *arguments: object) -> None:
    """Call ``do`` for every trainee, and wait for all."""
    for doing in [pool.submit(do, trainee, *arguments) for trainee in trainees]:
        doing.result()


@contextmanager
def threads(trainees: int) -> Iterator[Executor]:
    """A pool that trains as many trainees at a time as a CPU has cores, or one on a GPU."""
    # Networks for small devices hardly keep two cores busy: on two cores three branches of MobileNetV2 train 1.5 times
    # as fast this way as with two threads for every operation.
    cores = torch.get_num_threads()
    workers = 1 if torch.cuda.is_available() else max(1, min(trainees, cores))
    torch.set_num_threads(cores // workers)
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="edgetl-tune") as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)


@contextmanager
def deterministic() -> Iterator[None]:
    """Make a GPU take kernels that always add in the same order, where there are any."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(torch.cuda.is_available() or before[0], warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*determinis")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def learning_rate_factor(progress: float) -> float:
    """The fraction of the learning rate at a progress of 0 to 1 (Loshchilov & Hutter 2017, SGDR)."""
    # Up within a tenth of the steps, as AdamW's first ones are the roughest; then down to zero along a cosine, so that
    # the last epochs average out the noise of the batches.
    return min(1.0, 10.0 * progress) * 0.5 * (1.0 + math.cos(math.pi * progress))
