"""Products with fixed matrices whose bits do not depend on the batch, nor on the number of threads.

A matrix product may add in another order when the number of its rows changes,
or, if its sums are long, when it is given more threads. The field on a site
would then depend on how the lattice is cut into domains. Products are therefore
made in tiles of a fixed number of centres and short sums when a model drives
spins, and at once when it is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TILE = {"cpu": 48, "cuda": 2048}
"""Centres in a tile, by device type: small lattices do not drown in padding, large ones keep the device busy."""

WHOLE = 1
"""The tile that stands for no tiling."""

_SUM = 128
"""Terms of a sum that are left to one call: MKL divides sums of more than 256 terms among threads (measured)."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    """Affine map x Wᵀ + b of the last axis, in tiles of ``rows`` rows; `WHOLE` for all rows at once.

    Tiled, it is differentiable in x alone, and once.
    """
    if rows == WHOLE:
        return functional.linear(x, weight, bias)
    product: Tensor = _TiledProduct.apply(x, weight, rows)
    return product if bias is None else product + bias


def _product(x: Tensor, matrix: Tensor, rows: int) -> Tensor:
    x = x.contiguous()
    result = x.new_empty((len(x), matrix.shape[1]))
    for start in range(0, len(x), rows):
        tile, out = x[start : start + rows], result[start : start + rows]
        torch.mm(tile[:, :_SUM], matrix[:_SUM], out=out)
        for first in range(_SUM, len(matrix), _SUM):
            out.addmm_(tile[:, first : first + _SUM], matrix[first : first + _SUM])
    return result


class _TiledProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.rows = rows
        return _product(x, weight.T, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(grad, weight, ctx.rows), None, None
