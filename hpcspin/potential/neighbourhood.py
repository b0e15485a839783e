"""Which spins stand around which centre, as a static table.

A potential is a sum over centres, each of which sees the spins within the
cutoff radius. The same model serves a whole lattice and a block of it with a
halo: only the table differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice
from hpcspin.potential.borders import Borders
from hpcspin.potential.slots import SlotGather
from hpcspin.potential.surroundings import Grid

_EDGE = 1e-9
_Places = tuple[torch.Tensor, torch.Tensor]


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
    # No offset within the radius has a larger component: both lattices' cells are at least sqrt(3)/2 high.
    reach = int(np.ceil(radius * 2 / np.sqrt(3)))
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
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
    table : ndarray
        Rows of the spins around each centre, shape (centres, 1 + neighbours);
        the centre itself comes first, -1 is a missing site.
    rows : int
        Number of spins that the table points into.
    outputs : ndarray
        Rows on which the field is asked for, shape (sites,).
    reaches : tuple of float
        How many reaches away along x and y the spins that decide on these fields may be: see `ForceField.reaches`;
        infinite along an axis where all are there.
    distances : ndarray or None
        Steps along x from each centre to the first and the last column of the
        lattice, where the electrodes are, shape (2, centres); None if there are no such columns.
    inner : int
        How many centres, the first ones, see only spins of the block of a window: the others wait for its halo.
    stages : tuple of int
        How many centres of a window, the first ones, each layer of the field needs; empty for a whole lattice.
    stretched : dict
        Tables of the neighbourhoods that are stretched along x, by how many times.
    grid : Grid or None
        Of a whole lattice: what its table comes from.
    borders : Borders or None
        Of a window whose centres act on spins of other blocks, and the other way round.
    """

    table: NDArray[np.int64]
    rows: int
    outputs: NDArray[np.int64]
    reaches: tuple[float, float] = (math.inf, math.inf)
    distances: NDArray[np.int64] | None = None
    inner: int = 0
    stages: tuple[int, ...] = ()
    stretched: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    grid: Grid | None = None
    borders: Borders | None = None
    _gathers: dict[tuple[int, int, torch.device, int], SlotGather] = field(default_factory=dict, repr=False)
    _padded: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict, repr=False)
    _outputs: dict[tuple[int, torch.device], _Places] = field(default_factory=dict, repr=False)
    _nearness: dict[tuple[int, int, float, torch.dtype, torch.device], torch.Tensor] = field(
        default_factory=dict, repr=False
    )

    @classmethod
    def of_lattice(cls, lattice: Lattice, offsets: NDArray[np.int64], layers: Sequence[int] = (1,)) -> Neighbourhood:
        """All sites of a lattice; `layers` as of `of_window`."""
        everything = np.arange(lattice.num_sites)
        distances = None if lattice.periodic[0] else _distances(everything // lattice.size[1], lattice.size[0])
        stretched = {number: lattice.shift(offsets * [number, 1]) for number in {*layers} - {1}}
        grid = Grid(lattice.size, lattice.periodic, tuple((int(x), int(y)) for x, y in offsets))
        table = lattice.shift(offsets)
        return cls(table, lattice.num_sites, everything, distances=distances, stretched=stretched, grid=grid)

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

        axes = [along(axis, offsets[:, axis]) for axis in (0, 1)]
        table = _joined(axes[0], axes[1], extended[1])
        rows = np.arange(extended[0] * extended[1]).reshape(extended)
        outputs = rows[halo[0] : halo[0] + shape[0], halo[1] : halo[1] + shape[1]].ravel()
        mine = np.zeros(rows.size + 1, dtype=bool)
        mine[outputs] = mine[-1] = True  # The last for what is missing.
        inner = mine[table].all(1)
        places = [axis[:, 0] - width for axis, width in zip(axes, halo, strict=True)]
        needed = _needed(places, shape, reach, around)
        # A layer needs no centre that the one before it does not: those that most layers need come first.
        order = np.lexsort((~inner, -needed.sum(0)))
        stretched = {
            number: _joined(along(0, number * offsets[:, 0]), axes[1], extended[1])[order] for number in {*layers} - {1}
        }
        distances = _of_block(places, periodic, columns)
        distances = None if distances is None else distances[:, order]
        stages = tuple(needed.sum(1).tolist())
        return cls(table[order], rows.size, outputs, (x, y), distances, int(inner.sum()), stages, stretched)

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
        key = (batch, tile, device, stretch)
        if key not in self._gathers:
            shifts = self.rows * np.arange(batch)[:, None, None]
            near = self.table if stretch == 1 else self.stretched[stretch]
            table = np.where(near >= 0, near + shifts, -1).reshape(-1, near.shape[1])
            table = np.pad(table, ((0, -len(table) % tile), (0, 0)), constant_values=-1)
            if self.borders is not None:
                table = np.concatenate([table, self.borders.table])
            self._gathers[key] = SlotGather(table, batch * self.rows, device)
        return self._gathers[key]

    def padded(self, stretch: int, centres: int) -> torch.Tensor:
        """Rows in the slots of all centres, and of so many empty ones after them; what is missing is the row after all.

        Parameters
        ----------
        stretch
            Of which neighbourhoods.
        centres
            How many empty ones.
        """
        key = (stretch, centres)
        if key not in self._padded:
            near = self.table if stretch == 1 else self.stretched[stretch]
            table = np.pad(near, ((0, centres), (0, 0)), constant_values=-1)
            self._padded[key] = torch.from_numpy(np.where(table >= 0, table, self.rows).astype(np.int32))
        return self._padded[key]

    def centres_of(self, layer: int) -> int:
        """Number of centres, the first ones, that a layer needs; all of a whole lattice."""
        return self.stages[layer] if self.stages else len(self.table)

    def centre_rows(self, batch: int, device: torch.device) -> torch.Tensor:
        """Rows of all centres of a batch laid end to end, shape (batch * centres,)."""
        rows = self.table[:, 0] + self.rows * np.arange(batch)[:, None]
        return torch.from_numpy(rows.ravel()).to(device)

    def outputs_of(self, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and centres, of a batch laid end to end, on which the field is asked for."""
        key = (batch, device)
        if key not in self._outputs:
            number = np.arange(batch)[:, None]
            centre = np.full(self.rows, -1)
            centre[self.table[:, 0]] = np.arange(len(self.table))
            places = self.outputs + self.rows * number, centre[self.outputs] + len(self.table) * number
            rows, centres = (torch.from_numpy(part.ravel()).to(device) for part in places)
            self._outputs[key] = rows, centres
        return self._outputs[key]

    def nearness_of(
        self, batch: int, tile: int, length: float, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """exp(-distance / length) of all centres of a batch laid end to end, rounded up as in `gather`.

        Shape (2, centres), of the left and of the right end of x.

        Raises
        ------
        HpcspinError
            If they are not known.
        """
        if self.distances is None:
            raise HpcspinError("electrode_range: the model sees electrodes at both ends of x, and here are none")
        key = (batch, tile, length, dtype, device)
        if key not in self._nearness:
            repeated = np.tile(self.distances, batch)
            padded = np.pad(repeated, ((0, 0), (0, -repeated.shape[1] % tile)))
            self._nearness[key] = torch.from_numpy(np.exp(-padded / length)).to(device, dtype)
        return self._nearness[key]


def _joined(x: NDArray[np.int64], y: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Table of the neighbours whose coordinates along both axes are known, in a window so wide along y."""
    x, y = x[:, None], y[None]
    return np.where((x >= 0) & (y >= 0), x * width + y, -1).reshape(-1, x.shape[-1])


def _distances(column: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    return np.stack([column, columns - 1 - column]).clip(min=0)


def _of_block(
    places: list[NDArray[np.int64]], periodic: tuple[bool, bool], columns: tuple[int, int] | None
) -> NDArray[np.int64] | None:
    """Distances of the centres of a block; `places` are their coordinates along both axes, counted in the block."""
    if columns is None or periodic[0]:
        return None
    return _distances(np.repeat(places[0] + columns[0], len(places[1])), columns[1])


def _needed(
    places: list[NDArray[np.int64]], shape: tuple[int, int], reach: int, around: list[tuple[float, float]]
) -> NDArray[np.bool_]:
    """Which centres stand at most so many reaches away from the block along both axes, shape (layers, centres)."""
    away = [_reaches_away(place, length, reach) for place, length in zip(places, shape, strict=True)]
    return np.stack([np.logical_and.outer(away[0] <= x, away[1] <= y).ravel() for x, y in around])


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
