"""The processor that an ONNX Runtime engine is tied to."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

# The keys of /proc/cpuinfo depend on the architecture: x86 has the first, ARM one of the others, or none.
_NAMES = ("model name", "Model", "Hardware", "CPU part")
_FEATURES = ("flags", "Features")


def processor() -> str:
    """Name and instruction set, such as ``x86_64 Intel Xeon [3f2a91c0]``.

    ONNX Runtime lays out weights for the instruction set that it finds, and processors of one name may differ in it:
    the brackets hold a digest of the features that the kernel lists.
    """
    fields = _cpuinfo()
    name = next((fields[key] for key in _NAMES if fields.get(key)), platform.processor() or "unknown")
    features = " ".join(sorted(_features(fields)))
    return f"{platform.machine()} {name} [{hashlib.sha256(features.encode()).hexdigest()[:8]}]"


def multiplies_bytes_exactly() -> bool:
    """Whether products of u8 and s8 are summed without overflow."""
    # x86 without VNNI sums pairs of products in 16 bits (pmaddubsw), which saturate.
    return platform.machine() not in {"x86_64", "AMD64"} or bool({"avx512_vnni", "avx_vnni"} & _features(_cpuinfo()))


def _features(fields: dict[str, str]) -> frozenset[str]:
    return frozenset(next((fields[key] for key in _FEATURES if fields.get(key)), "").split())


def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor that the kernel lists; none where it lists none."""
    fields: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields
