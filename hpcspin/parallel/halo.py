"""Exchange of halos between neighbouring blocks, all sides and corners at once.

Each block sends each of its neighbours, at most eight, the sites that it needs, once. Nothing is sent for sites beyond
an open edge, nor for images of the receiver's own sites or of sites that it receives anyway: those are copied in place.
The tag of a message is its direction, so that two ranks which are each other's neighbour on both sides do not mix them
up.

`HaloExchange.start` and `HaloExchange.finish` are separate calls, so that computation can overlap the exchange. So are
those of `BorderExchange`, for arrays on strips that are too large to be copied into the middle of a halo.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hpcspin.lattice import Halo
from hpcspin.parallel.messages import Direction, NeighbourMessages
from hpcspin.parallel.stopwatch import PACKING

if TYPE_CHECKING:
    from hpcspin.parallel.domain import Domain


class HaloExchange:
    """Surround blocks ``like`` a given one with a halo of fixed widths; buffers and requests are made once.

    All ranks make and call their exchanges of a ``domain`` in the same order. The widths (hx, hy) are, along an axis
    that is cut, at most that of the thinnest block.
    """

    def __init__(self, domain: Domain, halo: Halo, like: Tensor) -> None:
        self._domain, self._halo = domain, halo
        nx, ny, components = like.shape
        hx, hy = halo
        # It stays zero beyond open edges.
        self._extended = like.new_zeros((components, nx + 2 * hx, ny + 2 * hy))
        self._mine = self._extended[:, hx : hx + nx, hy : hy + ny]
        cut = (count > 1 and width > 0 for count, width in zip(domain.blocks, halo, strict=True))
        across, along = ((-1, 0, 1) if travels else (0,) for travels in cut)
        sides = [side for side in itertools.product(across, along) if any(side) and domain.neighbour(side) is not None]
        self._images = list(self._periodic_images())
        self._edges = {side: self._part(side, inside=True) for side in sides}
        self._strips = {side: self._part(side, inside=False) for side in sides}
        shapes = {side: strip.shape for side, strip in self._strips.items()}
        self.messages = NeighbourMessages(domain, shapes, like)

    @property
    def travels(self) -> bool:
        """Whether anything is received from another rank."""
        return bool(self._strips)

    def start(self, block: Tensor) -> Tensor:
        """Put a block, shape (nx, ny, components), in the middle of its halo and send its edges.

        The result is stored by components; what other ranks own is valid after `finish`, and all of it until the next
        `start`.
        """
        with self._domain.stopwatch.measure(PACKING):
            self._mine.copy_(block.permute(2, 0, 1))
            self._wrap()
        self.messages.send(self._edges)
        return self._extended.permute(1, 2, 0)

    def finish(self) -> None:
        """Wait for the halo."""
        if not self.travels:
            return
        received = self.messages.receive()
        with self._domain.stopwatch.measure(PACKING):
            for side, strip in self._strips.items():
                strip.copy_(received[side], non_blocking=True)
            self._wrap()

    def _part(self, side: Direction, *, inside: bool) -> Tensor:
        """My sites next to a side or corner, or the halo beyond it."""
        part = self._extended
        for dim, (step, width) in enumerate(zip(side, self._halo, strict=True), start=1):
            length = part.shape[dim] - 2 * width
            low, high = (width, length) if inside else (0, width + length)
            start, count = {-1: (low, width), 0: (width, length), 1: (high, width)}[step]
            part = part.narrow(dim, start, count)
        return part

    def _wrap(self) -> None:
        for halo, source in self._images:
            halo.copy_(source)

    def _periodic_images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts of the halo, and what they are copies of, along periodic axes that one block spans."""
        for dim, (count, periodic, width) in enumerate(
            zip(self._domain.blocks, self._domain.lattice.periodic, self._halo, strict=True), start=1
        ):
            if count > 1 or not periodic:
                continue
            length = self._extended.shape[dim] - 2 * width
            # The halo may be wider than the lattice: images of images, from the inside to the outside.
            for near in range(0, width, length):
                part = min(length, width - near)
                for start, step in ((width - near - part, length), (width + length + near, -length)):
                    yield self._extended.narrow(dim, start, part), self._extended.narrow(dim, start + step, part)


class BorderExchange:
    """Exchange of the border lines of several arrays at once, which stay where they are.

    The domain is cut into strips along an axis; all ranks make and call their exchanges in the same order. The rows of
    an array are my ``sites``, line after line, then the ``border`` lines of the rank before mine, then those of the
    rank after it; any further rows are left alone, and so is the border beyond an open edge. ``like`` are arrays like
    those that will be exchanged: as many, of the same shape (rows, numbers), type and device.
    """

    def __init__(self, domain: Domain, axis: int, sites: int, border: int, like: Sequence[Tensor]) -> None:
        sides = [((step, 0), (0, step))[axis] for step in (-1, 1)]
        edges = slice(0, border), slice(sites - border, sites)
        strips = slice(sites, sites + border), slice(sites + border, sites + 2 * border)
        self._rows = {
            side: (edge, strip)
            for side, edge, strip in zip(sides, edges, strips, strict=True)
            if domain.neighbour(side) is not None
        }
        shape = (len(like), border, like[0].shape[1])
        self._messages = NeighbourMessages(domain, dict.fromkeys(self._rows, shape), like[0])

    def start(self, arrays: Sequence[Tensor]) -> None:
        """Send the edges of the arrays."""
        self._messages.send({side: torch.stack([a[edge] for a in arrays]) for side, (edge, _) in self._rows.items()})

    def finish(self, arrays: Sequence[Tensor]) -> None:
        """Wait for the borders of the arrays."""
        received = self._messages.receive()
        for side, (_, strip) in self._rows.items():
            for array, rows in zip(arrays, received[side], strict=True):
                array[strip] = rows
