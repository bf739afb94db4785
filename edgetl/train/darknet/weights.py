"""Darknet .weights files.

A header of three 32-bit integers (major and minor version, revision) and the number of images seen in training, 64 bits
wide from version 0.2 on, 32 before; then 32-bit floats, all little-endian. For each [convolutional] section in turn:
biases; with batch normalisation scales, means and variances; kernels as N x C x H x W (``load_convolutional_weights``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgetl.arrays import Float32Array
from edgetl.errors import EdgetlError
from edgetl.train.darknet.cfg import Cfg
from edgetl.train.darknet.sections import ConvolutionalSpec

_VERSIONS = struct.Struct("<iii")
_FLOAT = np.dtype("<f4")


def read_weights(path: Path, cfg: Cfg) -> dict[str, Tensor]:
    """The tensors of a .weights file, under the names they have in the network that `build` makes of ``cfg``.

    Raises:
        EdgetlError: the file is missing, holds more or fewer values than the network has, or values that are not
            finite or are variances below zero.
    """
    values, rest = _values(path)
    expected = sum(_size(layer) for layer in cfg.convolutions)
    if values.size != expected or rest:
        part = f" and {rest} bytes of another" if rest else ""
        end = f"; they end {_end(cfg, values.size, rest)}" if values.size < expected else ""
        raise EdgetlError(
            f"weights {path} hold {values.size} values{part}, expected {expected} for {cfg.path}{end}: "
            "give the whole file that belongs to this .cfg"
        )
    tensors, position = {}, 0
    for layer in cfg.convolutions:
        for name, shape in _tensors(layer):
            own = values[position : position + math.prod(shape)].astype(np.float32)
            _refuse_damage(path, layer, name, own)
            tensors[name] = torch.from_numpy(own.reshape(shape))
            position += own.size
    return tensors


def _values(path: Path) -> tuple[Float32Array, int]:
    """What follows the header, not yet in memory, and how many bytes of an unfinished value follow it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = stream.read(_VERSIONS.size)
    except FileNotFoundError:
        raise EdgetlError(f"weights {path} do not exist; give the .weights file that belongs to the .cfg") from None
    except OSError as error:
        raise EdgetlError(f"weights {path} cannot be read: {error.strerror}") from error
    start = _VERSIONS.size + (_seen(header) if len(header) == _VERSIONS.size else 0)
    if size < start or len(header) < _VERSIONS.size:
        raise EdgetlError(f"weights {path} have {size} bytes, fewer than the header of a Darknet .weights file")
    held, rest = divmod(size - start, _FLOAT.itemsize)
    if held == 0:
        return np.zeros(0, dtype=_FLOAT), rest
    return np.memmap(path, dtype=_FLOAT, mode="r", offset=start, shape=(held,)), rest


def _seen(header: bytes) -> int:
    """Bytes of the number of images seen."""
    major, minor, _ = _VERSIONS.unpack(header)
    return 8 if major * 10 + minor >= 2 and major < 1000 and minor < 1000 else 4


def _tensors(layer: ConvolutionalSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, in the order of the file."""
    path, each = f"layers.{layer.section.number}", (layer.shape.channels,)
    if layer.normalised:
        for name in ("bias", "weight", "running_mean", "running_var"):
            yield f"{path}.norm.{name}", each
    else:
        yield f"{path}.conv.bias", each
    yield f"{path}.conv.weight", layer.kernels


def _size(layer: ConvolutionalSpec) -> int:
    return sum(math.prod(shape) for _, shape in _tensors(layer))


def _end(cfg: Cfg, held: int, rest: int) -> str:
    """Where in the network a file ends that is too short. Darknet's own ``partial`` writes a whole number of layers."""
    below = None
    for layer in cfg.convolutions:
        if held < _size(layer):
            break
        held, below = held - _size(layer), layer
    if below is None or held or rest:
        return f"inside {_named(layer)}"
    return f"after {_named(below)}, as in a file that holds the lower part of a network alone"


def _named(layer: ConvolutionalSpec) -> str:
    return f"layer {layer.section.number} [convolutional] (line {layer.section.line} of the .cfg)"


def _refuse_damage(path: Path, layer: ConvolutionalSpec, name: str, values: Float32Array) -> None:
    if not np.isfinite(values).all():
        what = "values that are not finite"
    elif name.endswith("running_var") and (values < 0).any():
        what = "variances below zero"
    else:
        return
    raise EdgetlError(
        f"weights {path} hold {what} as {name}, in {_named(layer)}; the file is damaged or belongs to another .cfg"
    )
