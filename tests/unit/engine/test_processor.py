from __future__ import annotations

import platform
import re
from pathlib import Path

from edgetl.engine.processor import multiplies_bytes_exactly, processor


def test_a_processor_is_its_name_architecture_and_digest_of_features() -> None:
    assert re.fullmatch(rf"{platform.machine()} .+ \[[0-9a-f]{{8}}\]", processor())
    assert "\n" not in processor()


def test_it_is_the_same_every_time() -> None:
    assert processor() == processor()


def test_the_slow_exact_int8_kernels_are_taken_only_on_x86_without_vnni() -> None:
    x86 = platform.machine() in {"x86_64", "AMD64"}
    vnni = re.search(r"\bavx(512)?_vnni\b", Path("/proc/cpuinfo").read_text()) is not None
    assert multiplies_bytes_exactly() == (vnni or not x86)
