"""What the spins around every centre have, and the sum of what the centres give back to them.

Both go through tables of one number a slot. The positions of all components follow from it a part at a time, in the
cache: kept for good they would be most of the memory of a simulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError

_TOGETHER = {"cpu": 512, "cuda": 1 << 17}
"""Spins whose sums are taken together, by device type."""


class SlotGather:
    """Gather into the slots of all centres, and its transpose.

    What is missing is found at the end of what is gathered, as a zero that the caller provides.

    Parameters
    ----------
    table
        Row of the spin in each slot, shape (centres, slots), -1 where it is missing.
    rows
        Number of spins.
    device
        Where.

    Raises
    ------
    HpcspinError
        If a row is the same neighbour of two centres.
    """

    def __init__(self, table: NDArray[np.int64], rows: int, device: torch.device) -> None:
        centres = len(table)
        inverse = slot_inverse(table, rows)
        table = np.pad(table, ((0, 1), (0, 0)), constant_values=-1)
        self._table = torch.from_numpy(np.where(table >= 0, table, rows).T.astype(np.int32)).to(device)
        self._inverse = torch.from_numpy(np.where(inverse >= 0, inverse, centres).astype(np.int32)).to(device)

    def pull(self, x: Tensor, those: slice = slice(None)) -> Tensor:
        """Numbers of the spins in the slots of some centres.

        Parameters
        ----------
        x
            Numbers of each spin, and zeros after them: shape (rows + 1, width), see `with_zero`.
        those
            The centres; all of them have an empty one after them.

        Returns
        -------
        Tensor
            Shape (slots, width, centres), without derivative.
        """
        width = x.shape[1]
        index = self._table[:, None, those] * width + torch.arange(width, device=x.device)[:, None]
        return x.flatten().index_select(0, index.flatten()).view(index.shape)

    def rows(self, x: Tensor, those: slice) -> Tensor:
        """What the spins in the slots of some centres have.

        Parameters
        ----------
        x
            Shape (k, rows + 1, width), zero for the last row.
        those
            As in `pull`.

        Returns
        -------
        Tensor
            Shape (k, centres, slots, width), without derivative.
        """
        table = self._table[:, those].T
        return x.index_select(1, table.flatten()).unflatten(1, table.shape)

    def own(self, x: Tensor, those: slice) -> Tensor:
        """What some centres themselves have: shape (k, rows + 1, width) to (k, centres, width)."""
        return x.index_select(1, self._table[0, those])

    def push(self, x: Tensor) -> Tensor:
        """For each spin the sum over the places at which it stands, differentiable to any order.

        The order of a sum is that of the slots, whatever block of the lattice the table describes.

        Parameters
        ----------
        x
            Shape (slots, width, centres + 1), zero for the last centre.

        Returns
        -------
        Tensor
            Shape (rows, width).
        """
        result: Tensor = _Push.apply(x, self)
        return result

    def _sums(self, x: Tensor) -> Tensor:
        slots, width, centres = x.shape
        places, flat = torch.arange(slots * width, device=x.device).view(slots, width, 1) * centres, x.flatten()
        sums = []
        for centre in self._inverse.split(_TOGETHER[x.device.type], 1):
            index = places + centre[:, None]
            total, *others = flat.index_select(0, index.flatten()).view(index.shape).unbind()
            for other in others:
                total += other
            sums.append(total)
        return torch.cat(sums, -1).T.contiguous()


class _Push(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gather: SlotGather) -> Tensor:
        ctx.gather = gather
        return gather._sums(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Pull.apply(grad, ctx.gather), None


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gather: SlotGather) -> Tensor:
        ctx.gather = gather
        return gather.pull(with_zero(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Push.apply(grad, ctx.gather), None


def with_zero(x: Tensor) -> Tensor:
    """The rows of x and one of zeros."""
    return torch.cat([x, torch.zeros_like(x[:1])])


def slot_inverse(table: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Inverse of a neighbour table, slot by slot.

    Parameters
    ----------
    table
        Shape (centres, slots), -1 for a missing neighbour.
    length
        Number of rows that the table points into.

    Returns
    -------
    ndarray
        The centre of which each row is the neighbour, shape (slots, length), -1 where there is none.

    Raises
    ------
    HpcspinError
        If a row is the same neighbour of two centres.
    """
    inverse = np.full((table.shape[1], length), -1, dtype=np.int64)
    for slot, rows in enumerate(table.T):
        (centres,) = np.nonzero(rows >= 0)
        inverse[slot, rows[centres]] = centres
        if not np.array_equal(inverse[slot, rows[centres]], centres):
            raise HpcspinError(f"neighbour table: a row is neighbour {slot} of two centres; list each centre once")
    return inverse
