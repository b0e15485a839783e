"""Positions of the centres of a block of a lattice and of the spins around them.

Centres form a rectangle, so that everything follows from the neighbours' coordinates along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice

_EDGE = 1e-9


class Block(NamedTuple):
    """A rectangle of the sites of a lattice."""

    shape: tuple[int, int]
    """Sites (nx, ny) of the block."""
    whole: tuple[bool, bool]
    """Whether the block spans the lattice along x and y."""
    periodic: tuple[bool, bool]
    """Whether the lattice is periodic along x and y."""
    columns: tuple[int, int] | None = None
    """First column of the block, and number of columns of the lattice; needed by models that see the electrodes."""


def offsets_within(lattice: Lattice, radius: float) -> NDArray[np.int64]:
    """Lattice offsets, (1 + neighbours, 2), no longer than a radius, sorted by length, the zero offset first."""
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
class Window:
    """The spins of a block inside a halo of foreign ones, and the centres among them."""

    extended: tuple[int, int]
    """Size, along x and y, of the rectangle that the rows of spins form."""
    block: tuple[slice, slice]
    """The sites in this rectangle whose field is computed."""
    axes: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]
    """For each dilation of a layer along x: the coordinates, in the rectangle, of the spins around the centres, along x
    and along y, shapes (centres along x, 1 + neighbours) and (centres along y, 1 + neighbours); the centre itself comes
    first, -1 is a missing site."""
    order: NDArray[np.int64] | None = None
    """Centre at each place, counted with y running fastest; None if the centres are in this order."""
    reaches: tuple[float, float] = (math.inf, math.inf)
    """Width of the halo along x and y in reaches, to compare with `ForceField.reaches`; infinite along an axis that the
    block spans."""
    distances: NDArray[np.int64] | None = None
    """Steps along x from the centres of each column to the first and the last column of the lattice, where the
    electrodes are, shape (2, centres along x); None if there are no such columns."""
    inner: int = 0
    """Number of centres, the first ones, that see only spins of the block; the others also see its halo."""
    stages: tuple[int, ...] = ()
    """Number of centres, the first ones, that each layer of the field evaluates."""

    @classmethod
    def around(cls, block: Block, halo: Halo, offsets: NDArray[np.int64], layers: Sequence[int] = (1,)) -> Window:
        """A block of a lattice inside a halo, in multiples of the reach, for layers with given dilations along x.

        In a halo of one reach, only the centres of the block have complete neighbourhoods. Each further reach completes
        those of the centres one reach farther outside. These are needed because a layer depends on the output of the
        layers before it in its neighbourhood, and derivatives of global potentials depend on all centres that see a
        spin, unless their terms are exchanged across the borders. Each layer evaluates fewer centres than the one
        before it, by what it sees itself: one reach along y and its dilation along x. Along an axis that the block
        spans, no halo is needed and none is read. Raises HpcspinError if the halo is narrower than what the layers see.
        """
        reach = reach_of(offsets)
        x, y = (math.inf if spans else width // reach for width, spans in zip(halo, block.whole, strict=True))
        # Distance from the block, in reaches along both axes, of the farthest centres that each layer needs.
        around = [(x - sum(layers[: number + 1]), y - number - 1) for number in range(len(layers))]
        if min(around[-1]) < 0:
            raise HpcspinError(
                f"window: a halo of {halo[0]} x {halo[1]} sites for a reach of {reach}; give it ForceField.halo"
            )
        shape = block.shape

        def along(axis: int, steps: NDArray[np.int64]) -> NDArray[np.int64]:
            margin = None if block.whole[axis] else int(around[0][axis]) * reach
            return _window_axis(shape[axis], halo[axis], margin, block.periodic[axis], steps)

        across = along(1, offsets[:, 1])
        axes = {number: (along(0, number * offsets[:, 0]), across) for number in {*layers, 1}}
        places = [axis[:, 0] - width for axis, width in zip(axes[1], halo, strict=True)]
        away = [_reaches_away(place, length, reach) for place, length in zip(places, shape, strict=True)]
        inside = _sees_block_alone(axes[1], shape, halo)
        order = None if all(block.whole) else _most_needed_first(away, around, inside)
        return cls(
            (shape[0] + 2 * halo[0], shape[1] + 2 * halo[1]),
            (slice(halo[0], halo[0] + shape[0]), slice(halo[1], halo[1] + shape[1])),
            axes,
            order,
            (x, y),
            _distances(places[0], block),
            int(inside.sum()),
            tuple(int((away[0] <= x).sum() * (away[1] <= y).sum()) for x, y in around),
        )


def _sees_block_alone(
    axes: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int], halo: Halo
) -> NDArray[np.bool_]:
    """Whether all neighbours of a centre are in the block or missing, shape (centres along x, along y)."""
    there = [axis >= 0 for axis in axes]
    mine = [(axis >= width) & (axis < width + length) for axis, width, length in zip(axes, halo, shape, strict=True)]
    inside = np.ones((len(axes[0]), len(axes[1])), dtype=bool)
    for x, y, own_x, own_y in zip(*(part.T for part in (*there, *mine)), strict=True):
        inside &= ~(np.logical_and.outer(x, y) & ~np.logical_and.outer(own_x, own_y))
    return inside


def _most_needed_first(
    away: list[NDArray[np.int64]], around: list[tuple[float, float]], inside: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Order of the centres: those that most layers need come first, and of these the ones that see the block alone."""
    needed = sum(np.logical_and.outer(away[0] <= x, away[1] <= y).astype(np.int16) for x, y in around)
    return np.argsort((-2 * needed - inside).ravel(), kind="stable")


def _distances(place: NDArray[np.int64], block: Block) -> NDArray[np.int64] | None:
    if block.columns is None or block.periodic[0]:
        return None
    column = place + block.columns[0]
    return np.stack([column, block.columns[1] - 1 - column]).clip(min=0)


def _reaches_away(place: NDArray[np.int64], length: int, reach: int) -> NDArray[np.int64]:
    """Distance of each place from 0..length-1 in reaches, rounded up."""
    return -(-np.maximum(-place, place - length + 1).clip(min=0) // reach)


def _window_axis(
    length: int, halo: int, margin: int | None, periodic: bool, steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Coordinates, in the window, of the neighbours of the centres along one axis; -1 if missing.

    Centres are the sites of the block and of a margin around it; without a margin the block spans the lattice.
    In a dilated layer those far outside the block have neighbours outside the window, which are never used.
    """
    if margin is not None:
        found = halo + np.arange(-margin, length + margin)[:, None] + steps
        return np.where((found >= 0) & (found < length + 2 * halo), found, -1)
    coordinate = np.arange(length)[:, None] + steps
    if periodic:
        return halo + coordinate % length
    return np.where((coordinate >= 0) & (coordinate < length), halo + coordinate, -1)
