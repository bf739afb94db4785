"""GPTQ: weights rounded together, so that their products with the inputs change least.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023.
"""

from __future__ import annotations

import numpy as np

from edgetl.arrays import Float64Array

_DAMPING = 0.01
# Errors within a block are passed on column by column, behind it in one matrix product: the same sums, but fast.
_BLOCK = 64


def round_together(values: Float64Array, moments: Float64Array, most: int) -> Float64Array:
    """Integers q of at most ``most`` either way, with (values - q) H (values - q)' small for every row of every group.

    Columns are rounded one by one, the heaviest first, and those still to come make up for the error. The largest
    value of every row is rounded by itself: where the row was scaled to it, it stays the largest.

    Args:
        values: groups x rows x columns.
        moments: H, groups x columns x columns: the second moments of the layer's inputs. A hundredth of its mean
            diagonal is added, so that inputs which few samples excited do not count as free.
    """
    diagonal = np.einsum("gii->gi", moments)
    damping = _DAMPING * diagonal.mean(axis=1)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    damped = moments + np.where(damping > 0, damping, 1.0)[:, None, None] * np.eye(moments.shape[1])
    damped = np.take_along_axis(np.take_along_axis(damped, order[:, :, None], 1), order[:, None, :], 2)
    # Row i: how the columns behind i make up for an error in i (the Cholesky form of GPTQ's inverses).
    shares = np.swapaxes(np.linalg.cholesky(np.linalg.inv(damped)), 1, 2)
    left = np.take_along_axis(values, order[:, None, :], 2)
    largest = np.abs(left) == np.abs(left).max(axis=2, keepdims=True, initial=0.0)
    own = np.where(largest, np.rint(left), 0.0)
    rounded = np.empty_like(left)
    columns = left.shape[2]
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        errors = np.empty((*left.shape[:2], end - begin))
        for column in range(begin, end):
            now = np.clip(np.rint(left[:, :, column]), -most, most)
            rounded[:, :, column] = np.where(largest[:, :, column], own[:, :, column], now)
            error = (left[:, :, column] - rounded[:, :, column]) / shares[:, None, column, column]
            left[:, :, column + 1 : end] -= error[:, :, None] * shares[:, None, column, column + 1 : end]
            errors[:, :, column - begin] = error
        left[:, :, end:] -= errors @ shares[:, begin:end, end:]
    result = np.empty_like(rounded)
    np.put_along_axis(result, order[:, None, :], rounded, 2)
    return result
