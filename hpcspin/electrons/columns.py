"""Columns of sites divided over ranks, for lattices whose recursion does not fit on one device.

Each rank of a team holds a slab of neighbouring columns F ... L. With A = (H - i Gamma - z)/t and C its inverse on the
slab alone, the neighbours to the right act on the last column only, so that block elimination (the Schur complement of
the slab's interior) leaves the four corner blocks of C. With S = W u_next W† from the next slab,

    K = (1 - C_LL S)^-1,    r_LF = K C_LF,    r_LL = K C_LL,
    r_FF = C_FF + C_FL S r_LF,                r_FL = C_FL + C_FL S r_LL,

are the corners of the slab connected to everything on its right, and the slab
to its left needs u = r_FF. From the first slab on,

    Y_L = r_LF W† Y_prev,       U_L = r_LL + r_LF W† U_prev W r_FL

are the electrode's column and the diagonal at the last column of every slab. All ranks solve this reduced system from
gathered corners; then each runs the ordinary recursion of `recursion` inside its slab.

A slab cut out of the lattice may touch no reservoir and be nearly singular at a real energy. The self-energy -i t of a
lead at the centre of its band is therefore added to the last column, and S subtracts it again.

A slab costs one more inversion and three more products per column than the
undivided recursion: the division saves memory, and saves time only with many ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcspin.electrons.backend import Array, invert
from hpcspin.electrons.hamiltonian import Coupling
from hpcspin.electrons.recursion import (
    adjoint,
    diagonals,
    first_columns,
    lesser,
    partial_lesser,
    right_connected,
    shifted_layer,
)
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_OPEN = -1j
"""Self-energy, in hoppings, added to the last column of an isolated slab."""


@dataclass(frozen=True)
class Corners:
    """Corner blocks of the inverse of A on a slab, each of shape (batch, m, m)."""

    first: Array
    first_last: Array
    last_first: Array
    last: Array


@dataclass(frozen=True)
class Slab:
    """My columns, connected to the columns of all other ranks."""

    columns: ColumnTeam
    """The ranks that hold all columns."""
    connected: list[Array]
    """u_x of my columns, connected to all columns on their right."""
    reduced: list[Corners]
    """Corners of all slabs but the last one, connected to their right."""
    column: Array | None
    """W† Y at my first column, from the slab to the left; None on the first slab."""
    diagonal: Array | None
    """U of the column before mine; None on the first slab."""

    def first_columns(self, source: Array | None) -> Iterator[Array]:
        """-t G_{x,0} K of my columns; see `recursion.first_columns`."""
        return first_columns(self.connected, self.columns.coupling, source, self.column)

    def diagonals(self) -> Iterator[Array]:
        """-t G_xx of my columns; see `recursion.diagonals`."""
        return diagonals(self.connected, self.columns.coupling, self.diagonal)

    def lesser(self, sources: list[Array]) -> Iterator[tuple[Array, Array]]:
        """Diagonal blocks of t² G Q G† and of -t G on my columns; see `recursion.lesser`.

        A collective call. Both sweeps of the recursion are affine in what enters a slab: each sweep runs once with
        nothing entering, the results are gathered, and it runs again with the contributions of the other slabs.
        """
        coupling, place = self.columns.coupling, self.columns.place
        beyond, entering = None, None
        if self.columns.team.size > 1:
            firsts = self.columns.exchange(partial_lesser(self.connected, coupling, sources)[0])
            right = [slab.first_last for slab in self.reduced[:place:-1]]
            beyond = self._through(firsts[:place:-1], right, coupling.wrap_up)
            nothing = None if self.diagonal is None else (0 * self.diagonal, self.diagonal)
            *_, (last, _) = lesser(self.connected, coupling, sources, beyond, nothing)
            left = [slab.last_first for slab in self.reduced[1:place]]
            before = self._through(self.columns.exchange(last)[:place], left, coupling.wrap_down)
            entering = None if before is None else (before, self.diagonal)
        return lesser(self.connected, coupling, sources, beyond, entering)

    def _through(self, owns: list[Array], corners: list[Array], wrap: Callable[[Array], Array]) -> Array | None:
        """What leaves the last of several slabs: its own part, plus what the others send through its corner."""
        if not owns:
            return None
        found, *others = owns
        for own, corner in zip(others, corners, strict=True):
            found = own + corner @ wrap(found) @ adjoint(self.columns.coupling.backend.xp, corner)
        return found


class ColumnTeam:
    """Ranks that hold one lattice together: rank p of the team holds the p-th slab of its columns.

    A team that is `mirrored` counts columns from the right electrode. Its ``place`` is the index of my slab in the
    order of the sweep. Raises HpcspinError if there are more ranks than columns.
    """

    def __init__(self, team: World, columns: int, coupling: Coupling, is_mirrored: bool = False) -> None:
        if team.size > columns:
            raise HpcspinError(
                f"{columns} columns of sites cannot be divided over {team.size} ranks; use at most {columns}"
            )
        self.team = team
        self.columns = columns
        self.coupling = coupling
        self.is_mirrored = is_mirrored
        self.place = team.size - 1 - team.rank if is_mirrored else team.rank

    def mirrored(self) -> ColumnTeam:
        """The same team for the lattice with its columns in reverse order."""
        return ColumnTeam(self.team, self.columns, self.coupling.mirrored(), not self.is_mirrored)

    @property
    def own(self) -> slice:
        """My columns, in the order of the lattice."""
        edges = np.arange(self.team.size + 1) * self.columns // self.team.size
        return slice(int(edges[self.team.rank]), int(edges[self.team.rank + 1]))

    def connect(self, blocks: Array, energies: Array, snapshots: Array | None = None) -> Slab:
        """Connect my columns to those of all ranks; a collective call.

        ``blocks`` are those of my columns, in the order of this team's sweep (reversed where it is mirrored); otherwise
        as for `recursion.right_connected`.
        """
        size = self.team.size
        mine = self._corners(blocks, energies, snapshots) if self.place < size - 1 else None
        connected = [] if mine else right_connected(blocks, energies, self.coupling, snapshots)
        if size == 1:
            return Slab(self, connected, [], None, None)
        slabs = self._exchange(list(vars(mine).values()) if mine else connected[:1])
        reduced, inner = self._reduce([Corners(*parts) for parts in slabs[:-1]], slabs[-1][0])
        if mine:
            connected = right_connected(blocks, energies, self.coupling, snapshots, inner)
        return Slab(self, connected, reduced, *self._entering(reduced[: self.place]))

    def gather(self, sites: Array) -> Array:
        """Components of all columns from those of my columns, shape (batch, columns, ...), in the team's order."""
        return sites if self.team.size == 1 else self.coupling.backend.xp.concat(self.exchange(sites), axis=1)

    def exchange(self, part: Array) -> list[Array]:
        """The arrays of all slabs, from the first to the last."""
        return [parts[0] for parts in self._exchange([part])]

    def _exchange(self, parts: list[Array]) -> list[list[Array]]:
        backend = self.coupling.backend
        gathered = self.team.allgather([backend.to_numpy(part) for part in parts])
        slabs = [[backend.asarray(part) for part in sent] for sent in gathered]
        return slabs[::-1] if self.is_mirrored else slabs

    def _corners(self, blocks: Array, energies: Array, snapshots: Array | None) -> Corners:
        """Corners of the inverse on my slab, with `_OPEN` added to its last column."""
        xp, coupling = self.coupling.backend.xp, self.coupling
        last = invert(xp, shifted_layer(xp, blocks, -1, energies - _OPEN, snapshots))
        corners = Corners(last, last, last, last)
        for x in reversed(range(blocks.shape[1] - 1)):
            u = invert(xp, shifted_layer(xp, blocks, x, energies, snapshots, coupling.wrap_up(corners.first)))
            above = coupling.up(corners.first_last)
            last_first = corners.last_first @ coupling.down(u)
            corners = Corners(u, u @ above, last_first, corners.last + last_first @ above)
        return corners

    def _reduce(self, slabs: list[Corners], first: Array) -> tuple[list[Corners], Array | None]:
        """Corners of the slabs, connected to their right, and W u W† of the slab to the right of mine."""
        xp = self.coupling.backend.xp
        m = first.shape[-1]
        eye = xp.astype(self.coupling.backend.asarray(np.eye(m)), first.dtype)
        connected: list[Corners] = []
        mine = None
        for place in reversed(range(len(slabs))):
            inner = self.coupling.wrap_up(first)
            if place == self.place:
                mine = inner
            closed, slab = inner + _OPEN * eye, slabs[place]
            solver = invert(xp, eye - slab.last @ closed)
            last_first, last = solver @ slab.last_first, solver @ slab.last
            onward = slab.first_last @ closed
            corners = Corners(slab.first + onward @ last_first, slab.first_last + onward @ last, last_first, last)
            connected.append(corners)
            first = corners.first
        return connected[::-1], mine

    def _entering(self, before: list[Corners]) -> tuple[Array | None, Array | None]:
        """W† Y and U that enter from the slabs to the left of mine."""
        if not before:
            return None, None
        coupling = self.coupling
        column, diagonal = before[0].last_first, before[0].last
        for slab in before[1:]:
            column = slab.last_first @ coupling.down(column)
            diagonal = slab.last + slab.last_first @ coupling.wrap_down(diagonal) @ slab.first_last
        return coupling.down(column), diagonal


class _TeamLeaders(World):
    """Teams of consecutive ranks, each seen as one rank; the members of a team send the same values."""

    def __init__(self, world: World, team: World) -> None:
        super().__init__(world.rank // team.size, world.size // team.size, logs=world.logs)
        self._all, self._stride = world, team.size

    def allgather(self, value: Any) -> list[Any]:
        """The values of all teams."""
        return self._all.allgather(value)[:: self._stride]


def split_ranks(world: World, column_ranks: int) -> tuple[World, World]:
    """Divide the ranks into teams of ``column_ranks``, a divisor of their number.

    Returns the teams, each seen as one rank, which share the energies; and the ranks of my team, which share the
    columns of sites.
    """
    if column_ranks == 1:
        return world, World()
    _, team = world.split(world.size // column_ranks)
    return _TeamLeaders(world, team), team
