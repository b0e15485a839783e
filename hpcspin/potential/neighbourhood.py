"""Neighbour tables: which spins surround each centre.

A potential is a sum over centres, each of which depends on the spins within the cutoff radius. The same model serves a
whole lattice and a block of it with a halo; only the table differs. It is built on the device that uses it, and only if
it is used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice
from hpcspin.potential.borders import Borders, TermExchange
from hpcspin.potential.gather import SlotGather, slot_inverse
from hpcspin.potential.host_adjoint import HostTables
from hpcspin.potential.host_layers import EMPTY
from hpcspin.potential.surroundings import Grid, Tables
from hpcspin.potential.window import Block, Window

_MOST = (2**31 - 1) // 3
"""Most spins, of three components each, whose components an int32 can number."""
_P = ParamSpec("_P")
_Table = TypeVar("_Table")


def _cached(make: Callable[Concatenate[Neighbourhood, _P], _Table]) -> Callable[Concatenate[Neighbourhood, _P], _Table]:
    """Build each table once."""

    @functools.wraps(make)
    def kept(self: Neighbourhood, *args: _P.args, **kwargs: _P.kwargs) -> _Table:
        key = (make.__name__, args, *kwargs.items())
        if key not in self._tables:
            with torch.inference_mode(False):  # Training may use the tables that an evaluation has built.
                self._tables[key] = make(self, *args, **kwargs)
        return self._tables[key]

    return kept


class Neighbourhood:
    """Neighbour tables of a set of centres, in a window or on a whole lattice."""

    def __init__(self, window: Window, grid: Grid | None = None) -> None:
        self.window = window
        """Positions of the centres and of the spins around them."""
        self.grid = grid
        """A whole lattice as a grid for convolutions; None for a window."""
        self.beyond = (0, 0)
        """Number of columns of the rectangle before the first and after the last column of the lattice."""
        self.borders: Borders | None = None
        """Tables of the terms that cross the borders, for a window whose centres act on other blocks and vice versa."""
        self.exchange: TermExchange | None = None
        """Exchange of these terms between the blocks; without one a window needs a wider halo."""
        self._tables: dict[Any, Any] = {}

    @classmethod
    def of_lattice(
        cls, lattice: Lattice, offsets: NDArray[np.int64], layers: Sequence[int] = (1,), beyond: int = 0
    ) -> Neighbourhood:
        """All sites of a lattice, and empty columns beyond both ends of x; otherwise as for `Window.around`."""
        columns, rows = lattice.size
        size = (columns + 2 * beyond, rows)
        window = Window.around(Block(size, (True, True), lattice.periodic, (-beyond, columns)), (0, 0), offsets, layers)
        window.block = (slice(beyond, beyond + columns), slice(0, rows))
        found = cls(window, Grid(size, lattice.periodic, tuple((int(x), int(y)) for x, y in offsets)))
        found.beyond = (beyond, beyond)
        return found

    @classmethod
    def of_window(
        cls, block: Block, halo: Halo, offsets: NDArray[np.int64], layers: Sequence[int] = (1,)
    ) -> Neighbourhood:
        """A block of a lattice inside a halo of foreign spins; see `Window.around`."""
        found = cls(Window.around(block, halo, offsets, layers))
        if block.columns is not None and not block.periodic[0]:
            first, columns = block.columns
            found.beyond = (max(halo[0] - first, 0), max(first + block.shape[0] + halo[0] - columns, 0))
        return found

    @property
    def rows(self) -> int:
        """Number of spins that the table points into."""
        return self.window.extended[0] * self.window.extended[1]

    @property
    def centres(self) -> int:
        """Number of centres."""
        return math.prod(len(axis) for axis in self.window.axes[1])

    def table(self, device: torch.device, dilation: int = 1, batch: int = 1, empty: int = 0) -> Tensor:
        """Rows of the spins in the slots of all centres of a batch, one configuration after the other.

        Type int32, shape (1 + neighbours, batch * centres + ``empty``), with the number of all rows in place of a
        missing site and in the slots of the empty centres at the end. Raises HpcspinError if int32 cannot number the
        components of so many spins.
        """
        missing = batch * self.rows
        if missing > _MOST:
            raise HpcspinError(
                f"neighbour table: {missing} spins are more than it can number, which is {_MOST}; use more ranks, or "
                "smaller batches"
            )
        x, y = (torch.from_numpy(axis.T.copy()).to(device, torch.int32) for axis in self.window.axes[dilation])
        table = torch.full((len(x), batch * self.centres + empty), missing, dtype=torch.int32, device=device)
        shifts = (self.rows * torch.arange(batch, device=device))[:, None].to(torch.int32)
        for slot, along, across in zip(table, x[:, :, None], y, strict=True):
            rows = self._ordered(
                torch.where((along >= 0) & (across >= 0), along * self.window.extended[1] + across, -1).flatten()
            )
            slot[: batch * self.centres] = torch.where(rows >= 0, rows + shifts, missing).flatten()
        return table

    @_cached
    def table_of_slots(self, batch: int, tile: int, device: torch.device) -> SlotGather:
        """Gather from the spins around all centres of a batch, one configuration after the other.

        Empty neighbourhoods make the number of centres a multiple of the tile; the foreign centres of the `borders`
        follow.
        """
        padding = -batch * self.centres % tile
        foreign = None if self.borders is None else torch.from_numpy(self.borders.table.T).to(device, torch.int32)
        count = 0 if foreign is None else foreign.shape[1]
        table = self.table(device, 1, batch, padding + count + 1)
        if foreign is not None:
            table[:, -count - 1 : -1] = torch.where(foreign >= 0, foreign, batch * self.rows)
        return SlotGather(table, batch * self.rows)

    @_cached
    def tables(self, batch: int, tile: int, device: torch.device, dilation: int, layer: int) -> Tables:
        """Tables of the centres that a layer evaluates: the first ones of a window, or all of a batch."""
        table, rows = self.table(device, dilation, batch), self.centre_rows(batch, device)
        if batch == 1:
            table, rows = table[:, : self.window.stages[layer]], rows[: self.window.stages[layer]]
        missing = batch * self.rows
        return Tables(functional.pad(table, (0, -table.shape[1] % tile), value=missing), tile, rows, missing)

    @_cached
    def padded(self, dilation: int) -> Tensor:
        """Rows in the slots of all centres and of `EMPTY` ones after them; a missing site has the row after all."""
        return self.table(torch.device("cpu"), dilation, empty=EMPTY).T.contiguous()

    @_cached
    def host_tables(self, dilation: int, layer: int) -> HostTables:
        """Tables of the centres that a layer evaluates, and their inverse, for the kernels in C."""
        cpu, centres = torch.device("cpu"), self.window.stages[layer]
        inverse = slot_inverse(self.table(cpu, dilation)[:, :centres], self.rows)
        back = functional.pad(inverse, (0, EMPTY), value=centres).T.contiguous()
        return HostTables(centres, self.padded(dilation), back)

    @_cached
    def centre_rows(self, batch: int, device: torch.device) -> Tensor:
        """Rows of all centres of a batch, one configuration after the other, shape (batch * centres,)."""
        x, y = (torch.from_numpy(axis[:, 0].copy()).to(device) for axis in self.window.axes[1])
        rows = self._ordered((x[:, None] * self.window.extended[1] + y).flatten())
        return (rows + self.rows * torch.arange(batch, device=device)[:, None]).flatten()

    @_cached
    def outputs_of(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and centres of the sites whose field is computed, for a batch, one configuration after the other."""
        own = self.centre_rows(1, device)
        centre = torch.empty(self.rows, dtype=torch.int64, device=device)
        centre[own] = torch.arange(len(own), device=device)
        rows = torch.arange(self.rows, device=device).view(self.window.extended)[self.window.block].flatten()
        number = torch.arange(batch, device=device)[:, None]
        return (rows + self.rows * number).flatten(), (centre[rows] + self.centres * number).flatten()

    @_cached
    def nearness_of(self, batch: int, tile: int, length: float, dtype: torch.dtype, device: torch.device) -> Tensor:
        """exp(-distance / length) of all centres of a batch, rounded up as in `table_of_slots`.

        Shape (2, centres), with the distances to the left and to the right end of x. Raises HpcspinError if these are
        unknown.
        """
        if self.window.distances is None:
            raise HpcspinError("electrode_range: the model sees electrodes at both ends of x, and here are none")
        columns = torch.from_numpy(np.exp(-self.window.distances / length)).to(device, dtype)
        near = self._ordered(columns[:, :, None].expand(-1, -1, len(self.window.axes[1][1])).flatten(1))
        near = near.repeat(1, batch)
        return functional.pad(near, (0, -near.shape[1] % tile), value=1.0)

    def _ordered(self, x: Tensor) -> Tensor:
        """Sort the last axis, centres with y running fastest, into the order of the window."""
        return x if self.window.order is None else x[..., torch.from_numpy(self.window.order).to(x.device)]
