"""Gathers through static tables whose derivative is a gather too.

The neighbours of a lattice never change. Both the table (who stands in which
slot) and its inverse (in which slots one stands) are therefore known beforehand,
and the derivative of a gather, usually a scatter with atomic additions in no
fixed order, becomes a gather through the inverse and a sum in a fixed order:
deterministic on every device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class StaticGather(nn.Module):
    """Gather along the first axis at fixed positions, differentiable to any order.

    Parameters
    ----------
    index
        Positions, shape (m,); -1 gathers zero.
    inverse
        For each position of the axis the places in `index` at which it stands,
        shape (length, width), -1 for none: see `packed_inverse`.
    """

    index: Tensor
    inverse: Tensor

    def __init__(self, index: NDArray[np.int64], inverse: NDArray[np.int64]) -> None:
        super().__init__()
        self.width = inverse.shape[1]
        # The zero that stands for -1 is appended to the axis.
        self.register_buffer("index", torch.from_numpy(np.where(index >= 0, index, len(inverse))), persistent=False)
        places = np.where(inverse >= 0, inverse, len(index)).T.ravel()
        self.register_buffer("inverse", torch.from_numpy(places), persistent=False)
        self._complete = bool((index >= 0).all()), bool((inverse >= 0).all())

    def forward(self, x: Tensor) -> Tensor:
        """Entries of x at the positions: the axis of ``length`` becomes one of m."""
        result: Tensor = _Gather.apply(x, self)
        return result

    def transpose(self, x: Tensor) -> Tensor:
        """For each position, the sum of x over the places at which it stands."""
        result: Tensor = _Transpose.apply(x, self)
        return result

    def _pull(self, x: Tensor) -> Tensor:
        return _padded(x, self._complete[0]).index_select(0, self.index)

    def _push(self, x: Tensor) -> Tensor:
        x = _padded(x, self._complete[1])
        # One place of all positions at a time, in the order of the table: torch.sum would add in one that depends on
        # the place in memory, and all places at once do not fit the cache.
        first, *others = self.inverse.unflatten(0, (self.width, -1))
        total = x.index_select(0, first)
        for places in others:
            total += x.index_select(0, places)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gather: StaticGather) -> Tensor:
        ctx.gather = gather
        return gather._pull(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Transpose.apply(grad, ctx.gather), None


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gather: StaticGather) -> Tensor:
        ctx.gather = gather
        return gather._push(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grad, ctx.gather), None


def packed_inverse(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Inverse of a list of positions, as narrow as it can be, shape (length, most repetitions)."""
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    positions = index[order]
    rank = np.arange(len(order)) - np.searchsorted(positions, positions)
    inverse = np.full((length, int(rank.max(initial=0)) + 1), -1, dtype=np.int64)
    inverse[positions, rank] = order
    return inverse


def _padded(x: Tensor, complete: bool) -> Tensor:
    return x if complete else torch.cat([x, torch.zeros_like(x[:1])])
