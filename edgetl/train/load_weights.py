"""Weights of others: read without trusting them, and loaded with an exact message where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgetl.errors import EdgetlError

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SHOWN = 3  # names of tensors in a message


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch checkpoint, by name.

    Raises:
        EdgetlError: the file is missing, damaged, or holds something else than named tensors.
    """
    if not path.is_file():
        raise EdgetlError(
            f"weights {path} do not exist; give backbone.weights a safetensors file or a torch checkpoint"
        )
    try:
        content: Any
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            # A pickle that would run code is refused.
            content = torch.load(path, map_location="cpu", weights_only=True)
            for wrapper in _WRAPPERS:
                if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                    content = content[wrapper]
    except SafetensorError as error:
        raise EdgetlError(f"weights {path} are not a whole safetensors file: {error}") from error
    except Exception as error:  # torch.load raises half a dozen types for a damaged or hostile file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EdgetlError(f"weights {path} cannot be read as a torch checkpoint of plain tensors: {reason}") from error
    # A network that was trained on several GPUs (DataParallel) is called module in its checkpoint.
    tensors = {
        name.removeprefix("module."): value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise EdgetlError(f"weights {path} hold no tensors, expected a state dict of names and tensors")
    return tensors


def load_into(module: nn.Module, tensors: dict[str, Tensor], head: Sequence[str], what: str, source: str) -> None:
    """Load a trunk's tensors strictly, without those of the old head, whose names begin with one of ``head``.

    Raises:
        EdgetlError: tensors are missing, unexpected or of another shape, with the counts and the first names.
    """
    own = module.state_dict()
    # Counters of training steps play no part in evaluation, and older files lack them.
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    prefixes = tuple(prefix + "." for prefix in head)
    unexpected = [name for name in tensors if name not in own and not name.startswith(prefixes)]
    reshaped = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if faults:
        raise EdgetlError(
            f"weights {source} do not fit {what}, which has {len(own)} tensors: {'; '.join(faults)}; "
            "give the weights of this architecture, or name the backbone that they belong to"
        )
    module.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)
