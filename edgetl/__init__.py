"""edgetl: which vision models to ship to a small device, decided by measurement."""

import os

# A literal, not importlib.metadata: looking it up costs more than the whole of `edgetl --help`.
__version__ = "0.1.0"

# edgetl sends nothing, and what it rests on shall not either. They look here once, when they are imported. ONNX
# Runtime's wheels for Linux report usage from 1.31 on. A variable that the user has set stays.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
