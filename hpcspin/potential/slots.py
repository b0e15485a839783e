"""Gather from the spins around every centre, and its transpose, a sum over the centres around every spin.

Both use tables of one number per slot. The positions of all components are computed from it part by part, in cache:
stored, they would take most of the memory of a simulation.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.potential.gather import linear

_AT_ONCE = {"cpu": 512, "cuda": 1 << 17}
"""Number of spins that are summed at once, by device type."""


class SlotGather:
    """Gather into the slots of all centres, and its transpose.

    ``table`` has the row of the spin in each slot, or the number of ``rows`` where it is missing: int32, shape (slots,
    centres + 1), of which the last centre is empty. Missing spins are read from the end of the gathered array, where
    the caller provides a row of zeros.
    """

    def __init__(self, table: Tensor, rows: int) -> None:
        self.table, self._rows = table, rows

    @functools.cached_property
    def _inverse(self) -> Tensor:
        """Inverse table, as large as the table; built only for fields that use `adjoint`."""
        return slot_inverse(self.table[:, :-1], self._rows)

    def gather(self, x: Tensor, those: slice = slice(None)) -> Tensor:
        """Numbers of the spins in the slots of some centres, from (rows + 1, width) to (slots, width, centres)."""
        width = x.shape[1]
        index = self.table[:, None, those] * width + torch.arange(width, device=x.device)[:, None]
        return x.flatten().index_select(0, index.flatten()).view(index.shape)

    def adjoint(self, x: Tensor) -> Tensor:
        """For each spin, the sum of x, (slots, width, centres + 1), over its slots; differentiable to any order.

        Terms are added in the order of the slots, whatever block of the lattice the table describes; x is zero at its
        end.
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
    """The rows of x, followed by a row of zeros."""
    return torch.cat([x, torch.zeros_like(x[:1])])


def slot_inverse(table: Tensor, rows: int) -> Tensor:
    """The centre that has each row in a slot, or the number of centres if there is none, shape (slots, rows).

    ``table`` is int32, of shape (slots, centres), with the number of rows in place of a missing neighbour. Raises
    HpcspinError if a row is the same neighbour of two centres.
    """
    slots, centres = table.shape
    # One more row, for missing neighbours.
    inverse = torch.full((slots, rows + 1), centres, dtype=torch.int32, device=table.device)
    numbers = torch.arange(centres, dtype=torch.int32, device=table.device)
    for slot, (found, places) in enumerate(zip(inverse, table.unbind(), strict=True)):
        index = places.long()
        found[index] = numbers
        if bool(((found[index] != numbers) & (places < rows)).any()):
            raise HpcspinError(f"neighbour table: a row is neighbour {slot} of two centres; list each centre once")
    return inverse[:, :-1]
