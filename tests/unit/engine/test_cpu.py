from __future__ import annotations

import platform
import re

from edgetl.engine.cpu import processor


def test_a_processor_is_named_with_its_architecture_and_a_digest_of_its_features() -> None:
    assert re.fullmatch(rf"{platform.machine()} .+ \[[0-9a-f]{{8}}\]", processor())
    assert "\n" not in processor()


def test_it_is_the_same_every_time() -> None:
    assert processor() == processor()
