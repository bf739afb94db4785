"""A watcher that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator[Callable[[float], object]]:
        yield bool


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def module_listener() -> Listener:
    return Listener()
