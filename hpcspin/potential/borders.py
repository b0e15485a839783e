"""Contributions of the centres of a block to the fields on spins of neighbouring blocks.

The field of global potentials on a spin is a sum over all centres that have it in their neighbourhood. If the lattice
is divided into blocks, some of these centres lie in another block, which sends their terms. The terms are sent one by
one and added in the order of the slots, as if their centres were local, so that a sum has the same bits however the
lattice is divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.potential.window import Block, reach_of

Side = tuple[int, int]
"""Side or corner of a block: -1, 0 or 1 along x and along y."""
_Places = dict[Side, tuple[Tensor, Tensor]]


class TermExchange(Protocol):
    """Exchange of terms between blocks."""

    def send(self, terms: Mapping[Side, Tensor]) -> None:
        """Send terms, shape (terms, numbers), to the block beyond each side; they are dropped if there is none."""
        ...

    def receive(self) -> Mapping[Side, Tensor]:
        """Receive as many terms from the block beyond each side that has one; valid until the next `send`."""
        ...


class Borders:
    """Tables of the terms that cross the sides of a block in both directions.

    Sender and receiver order the terms of a side by slot, then by position of the centre. ``offsets`` are the lattice
    offsets of the slots, shape (slots, 2); ``rows`` is the row of each site of the block in the array of spins, shape
    (nx, ny), ``centres`` its index among the centres, shape (nx * ny,), and ``numbers`` how many make up a term.
    ``table`` has the rows of the block's spins around each foreign centre, -1 for other spins, shape (foreign centres,
    slots).
    """

    def __init__(
        self,
        block: Block,
        offsets: NDArray[np.int64],
        rows: NDArray[np.int64],
        centres: NDArray[np.int64],
        numbers: int,
    ) -> None:
        shape = block.shape
        margins = [0 if spans else reach_of(offsets) for spans in block.whole]
        places = _around_the_sides(shape, margins)
        seen = places[:, None] + offsets
        for axis in (0, 1):
            if block.whole[axis] and block.periodic[axis]:
                seen[..., axis] %= shape[axis]
        stands, lands = _side(places, shape), _side(seen, shape)
        foreign, away = np.any(stands, axis=-1), np.any(lands, axis=-1)
        number = np.cumsum(foreign) - 1
        number[~foreign] = centres[np.ravel_multi_index(tuple(places[~foreign].T), shape)]
        comes, goes = foreign[:, None] & ~away, ~foreign[:, None] & away
        self.table = np.full(comes.shape, -1)
        self.table[comes] = rows[tuple(seen[comes].T)]
        self.table = self.table[foreign]
        self._incoming = _by_side(comes, np.broadcast_to(stands[:, None], lands.shape), number)
        self._outgoing = _by_side(goes, lands, number)
        self._shape = len(offsets), numbers

    def to(self, device: torch.device) -> Borders:
        """Move to the device of the terms."""
        for places in (self._incoming, self._outgoing):
            places.update({side: (slots.to(device), centres.to(device)) for side, (slots, centres) in places.items()})
        return self

    @property
    def shapes(self) -> dict[Side, tuple[int, int]]:
        """Shape (terms, numbers) of the terms that cross each side, the same in both directions."""
        return {side: (len(slots), self._shape[1]) for side, (slots, _) in self._outgoing.items()}

    def outgoing(self, partials: Tensor, first: int) -> dict[Side, Tensor]:
        """Terms for all sides, (terms, numbers), of the centres from ``first`` on, (slots, numbers, centres)."""
        return {side: partials[slots, :, centres - first] for side, (slots, centres) in self._outgoing.items()}

    def incoming(self, terms: Mapping[Side, Tensor], like: Tensor) -> Tensor:
        """Terms of the foreign centres by slot, shape (slots, numbers, foreign centres), with the type of `like`."""
        partials = like.new_zeros((*self._shape, len(self.table)))
        for side, received in terms.items():
            slots, centres = self._incoming[side]
            partials[slots, :, centres] = received.to(partials.device, non_blocking=True)
        return partials


def _around_the_sides(shape: tuple[int, int], margins: list[int]) -> NDArray[np.int64]:
    """Positions within the margin of a side of the block, inside and outside it, shape (places, 2)."""
    along = [np.arange(-margin, length + margin) for margin, length in zip(margins, shape, strict=True)]
    close = [(x < margin) | (x >= length - margin) for x, margin, length in zip(along, margins, shape, strict=True)]
    x, y = np.nonzero(np.logical_or.outer(*close))
    return np.stack([along[0][x], along[1][y]], -1)


def _side(places: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Side of the block on which each position lies, shape (..., 2)."""
    return (places >= np.array(shape)).astype(np.int64) - (places < 0)


def _by_side(which: NDArray[np.bool_], sides: NDArray[np.int64], number: NDArray[np.int64]) -> _Places:
    """Slots and centres of the selected terms, by side, ordered by slot and then by position."""
    slots, places = np.nonzero(which.T)
    found = sides[places, slots]
    return {
        (int(side[0]), int(side[1])): (torch.from_numpy(slots[mine]), torch.from_numpy(number[places[mine]]))
        for side in np.unique(found, axis=0)
        for mine in [(found == side).all(-1)]
    }
