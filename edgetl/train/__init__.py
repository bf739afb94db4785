"""The only room with torch: backbones, cached features, heads, the trunk's graph."""

from __future__ import annotations

import os

# Torch's OpenMP threads spin while they wait for each other. Beside another busy process they then wait for a core
# that a spinning one burns, and small operations take ten times as long; asleep they cost next to nothing. OpenMP
# reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# cuBLAS adds in the same order only with this, and only if it is set before CUDA starts: one seed, the same bytes.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
