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
_FLOAT = np.dtype("<f4")  # by name: files are little-endian whatever the machine is


def read_weights(path: Path, cfg: Cfg) -> dict[str, Tensor]:
    """The tensors of a .weights file, by their names in the network that `build` makes of ``cfg``.

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
            # A file of another network of the same size shows here: its kernels are taken for variances.
            finite = np.isfinite(own).all()
            if not finite or (name.endswith("running_var") and (own < 0).any()):
                raise EdgetlError(
                    f"weights {path} hold {'variances below zero' if finite else 'values that are not finite'} as "
                    f"{name}, in {_named(layer)}; the file is damaged or belongs to another .cfg"
                )
            tensors[name] = torch.from_numpy(own.reshape(shape))
            position += own.size
    return tensors


def _values(path: Path) -> tuple[Float32Array, int]:
    """The values after the header, memory-mapped, and the number of bytes of an unfinished value after them."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = stream.read(_VERSIONS.size)
    except FileNotFoundError:
        raise EdgetlError(f"weights {path} do not exist; give the .weights file that belongs to the .cfg") from None
    except OSError as error:
        raise EdgetlError(f"weights {path} cannot be read: {error.strerror}") from error
    major, minor, _ = _VERSIONS.unpack(header.ljust(_VERSIONS.size, b"\0"))
    # The condition is Darknet's own (``load_weights_upto``): the number of images seen was 32 bits wide until 0.2.
    start = _VERSIONS.size + (8 if major * 10 + minor >= 2 and major < 1000 and minor < 1000 else 4)
    if size < start:
        raise EdgetlError(f"weights {path} have {size} bytes, fewer than the header of a Darknet .weights file")
    held, rest = divmod(size - start, _FLOAT.itemsize)
    if held == 0:  # memmap refuses an empty file
        return np.zeros(0, dtype=_FLOAT), rest
    return np.memmap(path, dtype=_FLOAT, mode="r", offset=start, shape=(held,)), rest


def _tensors(layer: ConvolutionalSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes of a layer's tensors, in the order of the file."""
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
    """The place in the network where a file that is too short ends."""
    below = None
    for layer in cfg.convolutions:
        if held < _size(layer):
            break
        held, below = held - _size(layer), layer
    # A whole number of layers is what Darknet's own ``partial`` writes, on purpose.
    if below is None or held or rest:
        return f"inside {_named(layer)}"
    return f"after {_named(below)}, as in a file that holds the lower part of a network alone"


def _named(layer: ConvolutionalSpec) -> str:
    return f"layer {layer.section.number} [convolutional] (line {layer.section.line} of the .cfg)"
