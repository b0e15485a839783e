"""What the spins around every centre have, and the sum of what the centres give back to them.

Both go through tables of one number a slot. The positions of all components follow from it a part at a time, in the
cache: kept for good they would be most of the memory of a simulation.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.potential.gather import linear

_AT_ONCE = {"cpu": 512, "cuda": 1 << 17}
"""Spins whose sums are taken at once, by device type."""


class SlotGather:
    """Gather into the slots of all centres, and its transpose.

    What is missing is found at the end of what is gathered, as a zero that the caller provides.

    Parameters
    ----------
    table
        Row of the spin in each slot, `rows` where it is missing: int32, shape (slots, centres + 1), of which the last
        centre is empty.
    rows
        Number of spins.
    """

    def __init__(self, table: Tensor, rows: int) -> None:
        self._table, self._rows = table, rows

    @functools.cached_property
    def _inverse(self) -> Tensor:
        """As large as the table, and made for fields alone that add up what centres give back."""
        return slot_inverse(self._table[:, :-1], self._rows)

    def gather(self, x: Tensor, those: slice = slice(None)) -> Tensor:
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

    def slots_of(self, those: slice) -> Tensor:
        """Rows in the slots of some centres, shape (centres, slots)."""
        return self._table[:, those].T

    def own(self, x: Tensor, those: slice) -> Tensor:
        """What some centres themselves have: shape (k, rows + 1, width) to (k, centres, width)."""
        return x.index_select(1, self._table[0, those])

    def adjoint(self, x: Tensor) -> Tensor:
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

        Raises
        ------
        HpcspinError
            If a row is the same neighbour of two centres.
        """
        return linear(x, self._sums, lambda grad: self.gather(with_zero(grad)))

    def _sums(self, x: Tensor) -> Tensor:
        slots, width, centres = x.shape
        places, flat = torch.arange(slots * width, device=x.device).view(slots, width, 1) * centres, x.flatten()
        sums = []
        for centre in self._inverse.split(_AT_ONCE[x.device.type], 1):
            index = places + centre[:, None]
            total, *others = flat.index_select(0, index.flatten()).view(index.shape).unbind()
            for other in others:
                total += other
            sums.append(total)
        return torch.cat(sums, -1).T.contiguous()


def with_zero(x: Tensor) -> Tensor:
    """The rows of x and one of zeros."""
    return torch.cat([x, torch.zeros_like(x[:1])])


def slot_inverse(table: Tensor, rows: int) -> Tensor:
    """Inverse of a neighbour table, slot by slot.

    Parameters
    ----------
    table
        Type int32, shape (slots, centres), with the number of rows for a missing neighbour.
    rows
        Number of rows that the table points into.

    Returns
    -------
    Tensor
        The centre of which each row is the neighbour, shape (slots, rows), the number of centres where there is none.

    Raises
    ------
    HpcspinError
        If a row is the same neighbour of two centres.
    """
    slots, centres = table.shape
    # One more for what is missing.
    inverse = torch.full((slots, rows + 1), centres, dtype=torch.int32, device=table.device)
    numbers = torch.arange(centres, dtype=torch.int32, device=table.device)
    for slot, (found, places) in enumerate(zip(inverse, table.unbind(), strict=True)):
        index = places.long()
        found[index] = numbers
        if bool(((found[index] != numbers) & (places < rows)).any()):
            raise HpcspinError(f"neighbour table: a row is neighbour {slot} of two centres; list each centre once")
    return inverse[:, :-1]
