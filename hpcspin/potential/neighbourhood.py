"""Which spins stand around which centre, as a static table.

A potential is a sum over centres, each of which sees the spins within the
cutoff radius. The same model serves a whole lattice and a block of it with a
halo: only the table differs. Centres form a rectangle, and so the table follows
from the neighbours' coordinates along each axis. It is made of them where it is
used, on a GPU or on the host, and only if it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice
from hpcspin.potential.borders import Borders
from hpcspin.potential.slots import SlotGather
from hpcspin.potential.surroundings import Grid

_EDGE = 1e-9
_MOST = (2**31 - 1) // 3
"""Spins of three components each whose places an int32 holds."""


def offsets_within(lattice: Lattice, radius: float) -> NDArray[np.int64]:
    """Lattice offsets no longer than a radius, sorted by length, the zero offset first.

    Parameters
    ----------
    lattice
        Whose geometry counts; its size does not.
    radius
        Cutoff radius in lattice constants.

    Returns
    -------
    ndarray
        Shape (1 + neighbours, 2).
    """
    x, y = lattice.reach(radius)
    grid = np.mgrid[-x : x + 1, -y : y + 1].reshape(2, -1).T
    length = np.linalg.norm(lattice.cartesian(grid), axis=-1)
    inside = length <= radius + _EDGE
    grid, length = grid[inside], length[inside].round(9)
    return grid[np.lexsort((grid[:, 1], grid[:, 0], length))]


def reach_of(offsets: NDArray[np.int64]) -> int:
    """Largest component of any offset: how many lattice steps the neighbourhood extends."""
    return int(np.abs(offsets).max(initial=0))


@dataclass(eq=False)
class Neighbourhood:
    """Neighbour table of a set of centres.

    Attributes
    ----------
    extended : tuple of int
        Rows of spins form a rectangle of so many along x and y.
    block : tuple of slice
        Where in this rectangle the sites are whose field is asked for.
    axes : dict
        For each number by which a layer stretches its neighbourhood along x: the coordinates, in the rectangle, of the
        spins around the centres, along x and along y, shapes (centres along x, 1 + neighbours) and (centres along y,
        1 + neighbours); the centre itself comes first, -1 is a missing site.
    order : ndarray or None
        Which centre, counted with y first, comes at each place; None if they stand in this order.
    reaches : tuple of float
        How many reaches away along x and y the spins that decide on these fields may be: see `ForceField.reaches`;
        infinite along an axis where all are there.
    distances : ndarray or None
        Steps along x from the centres of each column to the first and the last column of the lattice, where the
        electrodes are, shape (2, centres along x); None if there are no such columns.
    inner : int
        How many centres, the first ones, see only spins of the block of a window: the others wait for its halo.
    stages : tuple of int
        How many centres, the first ones, each layer of the field needs.
    grid : Grid or None
        Of a whole lattice: what its table comes from.
    borders : Borders or None
        Of a window whose centres act on spins of other blocks, and the other way round.
    """

    extended: tuple[int, int]
    block: tuple[slice, slice]
    axes: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]
    order: NDArray[np.int64] | None = None
    reaches: tuple[float, float] = (math.inf, math.inf)
    distances: NDArray[np.int64] | None = None
    inner: int = 0
    stages: tuple[int, ...] = ()
    grid: Grid | None = None
    borders: Borders | None = None
    _cached: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of_lattice(cls, lattice: Lattice, offsets: NDArray[np.int64], layers: Sequence[int] = (1,)) -> Neighbourhood:
        """All sites of a lattice; `layers` as of `of_window`."""
        columns = (0, lattice.size[0])
        whole = cls.of_window(lattice.size, (0, 0), offsets, (True, True), lattice.periodic, columns, layers)
        whole.grid = Grid(lattice.size, lattice.periodic, tuple((int(x), int(y)) for x, y in offsets))
        return whole

    @classmethod
    def of_window(
        cls,
        shape: tuple[int, int],
        halo: Halo,
        offsets: NDArray[np.int64],
        whole: tuple[bool, bool],
        periodic: tuple[bool, bool],
        columns: tuple[int, int] | None = None,
        layers: Sequence[int] = (1,),
    ) -> Neighbourhood:
        """A block of a lattice inside a halo of foreign spins.

        In a halo of one reach the centres of the block alone know all that they see. With each further reach those
        that far around the block do, too: layers of a network depend on what the ones before have made of their
        neighbourhoods, and global derivatives on all centres that see a spin, unless their terms are traded over
        the `borders`. Each layer needs fewer centres than the one before it, by what it sees itself: one reach
        along y and its stretch along x. Along an axis that the block spans wholly no halo is needed and none is
        read.

        Parameters
        ----------
        shape
            Sites (nx, ny) of the block.
        halo
            Widths of the halo: multiples of `reach_of` the offsets, at least `ForceField.halo`.
        offsets
            As from `offsets_within`.
        whole
            Whether the block spans the lattice along x and y.
        periodic
            Whether the lattice is periodic along x and y.
        columns
            Column of the lattice with which the block begins, and their number; needed by models
            that see the electrodes.
        layers
            By how many times each layer of the field stretches the offsets along x.

        Raises
        ------
        HpcspinError
            If the halo is narrower than what the layers see.
        """
        reach = reach_of(offsets)
        x, y = (math.inf if spans else width // reach for width, spans in zip(halo, whole, strict=True))
        # How many reaches away from the block along both axes the centres stand that each layer needs.
        around = [(x - sum(layers[: number + 1]), y - number - 1) for number in range(len(layers))]
        if min(around[-1]) < 0:
            raise HpcspinError(
                f"window: a halo of {halo[0]} x {halo[1]} sites for a reach of {reach}; give it ForceField.halo"
            )
        extended = (shape[0] + 2 * halo[0], shape[1] + 2 * halo[1])

        def along(axis: int, steps: NDArray[np.int64]) -> NDArray[np.int64]:
            margin = None if whole[axis] else int(around[0][axis]) * reach
            return _window_axis(shape[axis], halo[axis], margin, periodic[axis], steps)

        across = along(1, offsets[:, 1])
        axes = {number: (along(0, number * offsets[:, 0]), across) for number in {*layers, 1}}
        places = [axis[:, 0] - width for axis, width in zip(axes[1], halo, strict=True)]
        away = [_reaches_away(place, length, reach) for place, length in zip(places, shape, strict=True)]
        inside = _sees_block_alone(axes[1], shape, halo)
        order = None if all(whole) else _most_needed_first(away, around, inside)
        return cls(
            extended,
            (slice(halo[0], halo[0] + shape[0]), slice(halo[1], halo[1] + shape[1])),
            axes,
            order,
            (x, y),
            None if columns is None or periodic[0] else _distances(places[0] + columns[0], columns[1]),
            int(inside.sum()),
            tuple(int((away[0] <= x).sum() * (away[1] <= y).sum()) for x, y in around),
        )

    @property
    def rows(self) -> int:
        """Number of spins that the table points into."""
        return self.extended[0] * self.extended[1]

    @property
    def centres(self) -> int:
        """Number of centres."""
        return math.prod(len(axis) for axis in self.axes[1])

    def table(self, device: torch.device, stretch: int = 1, batch: int = 1) -> Tensor:
        """Rows of the spins in the slots of all centres of a batch laid end to end, as `SlotGather` takes them.

        Parameters
        ----------
        device
            Where.
        stretch
            Of which neighbourhoods.
        batch
            Number of configurations.

        Returns
        -------
        Tensor
            Type int32, shape (1 + neighbours, batch * centres), with the number of all rows for a missing site.
        """
        return self._filled(device, stretch, batch, batch * self.centres)

    def gather(self, batch: int, tile: int, device: torch.device, stretch: int = 1) -> SlotGather:
        """Gather of what the spins around all centres have, for a batch laid end to end.

        Parameters
        ----------
        batch
            Number of configurations.
        tile
            The number of centres is rounded up to a multiple of it by empty neighbourhoods; foreign centres, those of
            the `borders`, come after them.
        device
            Where.
        stretch
            Of which neighbourhoods.
        """
        key = ("gather", batch, tile, device, stretch)
        if key not in self._cached:
            centres = -(-batch * self.centres // tile) * tile
            foreign = None if self.borders is None else torch.from_numpy(self.borders.table.T).to(device, torch.int32)
            table = self._filled(device, stretch, batch, centres + (0 if foreign is None else foreign.shape[1]) + 1)
            if foreign is not None:
                table[:, centres:-1] = torch.where(foreign >= 0, foreign, batch * self.rows)
            self._cached[key] = SlotGather(table, batch * self.rows)
        return self._cached[key]

    def padded(self, stretch: int, centres: int) -> Tensor:
        """Rows in the slots of all centres, and of so many empty ones after them; what is missing is the row after all.

        Parameters
        ----------
        stretch
            Of which neighbourhoods.
        centres
            How many empty ones.
        """
        key = ("padded", stretch, centres)
        if key not in self._cached:
            table = self._filled(torch.device("cpu"), stretch, 1, self.centres + centres)
            self._cached[key] = table.T.contiguous()
        return self._cached[key]

    def centre_rows(self, batch: int, device: torch.device) -> Tensor:
        """Rows of all centres of a batch laid end to end, shape (batch * centres,)."""
        key = ("centres", batch, device)
        if key not in self._cached:
            x, y = (torch.from_numpy(axis[:, 0].copy()).to(device) for axis in self.axes[1])
            rows = self._ordered((x[:, None] * self.extended[1] + y).flatten())
            self._cached[key] = (rows + self.rows * torch.arange(batch, device=device)[:, None]).flatten()
        return self._cached[key]

    def outputs_of(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and centres, of a batch laid end to end, on which the field is asked for."""
        key = ("outputs", batch, device)
        if key not in self._cached:
            own = self.centre_rows(1, device)
            centre = torch.empty(self.rows, dtype=torch.int64, device=device)
            centre[own] = torch.arange(len(own), device=device)
            rows = torch.arange(self.rows, device=device).view(self.extended)[self.block].flatten()
            number = torch.arange(batch, device=device)[:, None]
            places = rows + self.rows * number, centre[rows] + self.centres * number
            self._cached[key] = places[0].flatten(), places[1].flatten()
        return self._cached[key]

    def nearness_of(self, batch: int, tile: int, length: float, dtype: torch.dtype, device: torch.device) -> Tensor:
        """exp(-distance / length) of all centres of a batch laid end to end, rounded up as in `gather`.

        Shape (2, centres), of the left and of the right end of x.

        Raises
        ------
        HpcspinError
            If they are not known.
        """
        if self.distances is None:
            raise HpcspinError("electrode_range: the model sees electrodes at both ends of x, and here are none")
        key = ("nearness", batch, tile, length, dtype, device)
        if key not in self._cached:
            columns = torch.from_numpy(np.exp(-self.distances / length)).to(device, dtype)
            near = self._ordered(columns[:, :, None].expand(-1, -1, len(self.axes[1][1])).flatten(1))
            near = near.repeat(1, batch)
            self._cached[key] = functional.pad(near, (0, -near.shape[1] % tile), value=1.0)
        return self._cached[key]

    def _filled(self, device: torch.device, stretch: int, batch: int, centres: int) -> Tensor:
        """`table` with so many centres, of which those after the batch are empty."""
        missing = batch * self.rows
        if missing > _MOST:
            raise HpcspinError(
                f"neighbour table: {missing} spins are more than it can number, which is {_MOST}; use more ranks, or "
                "smaller batches"
            )
        x, y = (torch.from_numpy(axis.T.copy()).to(device, torch.int32) for axis in self.axes[stretch])
        table = torch.full((len(x), centres), missing, dtype=torch.int32, device=device)
        shifts = (self.rows * torch.arange(batch, device=device))[:, None].to(torch.int32)
        for slot, along, across in zip(table, x[:, :, None], y, strict=True):
            rows = self._ordered(
                torch.where((along >= 0) & (across >= 0), along * self.extended[1] + across, -1).flatten()
            )
            slot[: batch * self.centres] = torch.where(rows >= 0, rows + shifts, missing).flatten()
        return table

    def _ordered(self, x: Tensor) -> Tensor:
        """Numbers of the centres, counted with y first along the last axis, at their places."""
        return x if self.order is None else x[..., torch.from_numpy(self.order).to(x.device)]


def _sees_block_alone(
    axes: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int], halo: Halo
) -> NDArray[np.bool_]:
    """Whether all that is around a centre stands in the block or is missing, shape (centres along x, along y)."""
    there = [axis >= 0 for axis in axes]
    mine = [(axis >= width) & (axis < width + length) for axis, width, length in zip(axes, halo, shape, strict=True)]
    inside = np.ones((len(axes[0]), len(axes[1])), dtype=bool)
    for x, y, own_x, own_y in zip(*(part.T for part in (*there, *mine)), strict=True):
        inside &= ~(np.logical_and.outer(x, y) & ~np.logical_and.outer(own_x, own_y))
    return inside


def _most_needed_first(
    away: list[NDArray[np.int64]], around: list[tuple[float, float]], inside: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Order of the centres: a layer needs none that the one before it does not, and those inside come first."""
    needed = sum(np.logical_and.outer(away[0] <= x, away[1] <= y).astype(np.int16) for x, y in around)
    return np.argsort((-2 * needed - inside).ravel(), kind="stable")


def _distances(column: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    return np.stack([column, columns - 1 - column]).clip(min=0)


def _reaches_away(place: NDArray[np.int64], length: int, reach: int) -> NDArray[np.int64]:
    """How many reaches away from 0..length-1 each place is, rounded up."""
    return -(-np.maximum(-place, place - length + 1).clip(min=0) // reach)


def _window_axis(
    length: int, halo: int, margin: int | None, periodic: bool, steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Coordinates, in the window, of the neighbours of the centres along one axis; -1 if missing.

    Centres stand on the block and in a margin around it; without a margin the block spans the lattice.
    Those far outside the block have stretched neighbours outside the window, which nothing asks for.
    """
    if margin is not None:
        found = halo + np.arange(-margin, length + margin)[:, None] + steps
        return np.where((found >= 0) & (found < length + 2 * halo), found, -1)
    coordinate = np.arange(length)[:, None] + steps
    if periodic:
        return halo + coordinate % length
    return np.where((coordinate >= 0) & (coordinate < length), halo + coordinate, -1)
