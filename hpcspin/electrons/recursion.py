"""Recursive Green's functions over the columns of sites, batched over energies.

With V = H_{x,x+1} = -t W the right-connected Green's function obeys g_x = [z - H_x - V g_{x+1} V†]^-1. In units of
the hopping and with u_x = -t g_x all signs and factors disappear,

    u_x = [(H_x - z)/t - W u_{x+1} W†]^-1,
    Y_0 = u_0,                  Y_x = u_x W† Y_{x-1}             (column, Y_x = -t G_{x,0}),
    U_0 = u_0,                  U_x = u_x + u_x W† U_{x-1} W u_x  (diagonal, U_x = -t G_xx),

and where W = 1, as on the square lattice, a column of sites costs one inversion and one
or two products. Every function here takes lists over x of (batch, m, m) arrays.

With W = 1, and columns that are chains, most of this cost can be saved. The block column obeys a three-term recursion,
A_x Y_x = Y_{x-1} + Y_{x+1} with A_x = (H_x - z)/t, and A_x has four elements in each row: the recursion crosses a group
of columns F ... L without inversions or products of full blocks. From the right, with P_L = 1 and
P_{L-1} = A_L - u_{L+1},

    P_{x-1} = A_x P_x - P_{x+1},     u_F = P_F P_{F-1}^-1,
    Y_F = u_F Y_{F-1},               Y_L = P_{F-1}^-1 Y_{F-1},

and the columns between follow from both ends of the group: one inversion and
three products for each group. Rounding errors grow as |A|^(L-F), so groups are short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, invert
from hpcspin.electrons.hamiltonian import Coupling
from hpcspin.electrons.onsite import occupation


def right_connected(
    blocks: Array, energies: Array, coupling: Coupling, snapshots: Array | None = None, inner: Array | None = None
) -> list[Array]:
    """u_x of every column, connected to all columns on its right, each of shape (batch, m, m).

    ``blocks`` are (H_x - i Gamma_x) / t, shape (n, Lx, m, m), ``energies`` z / t, shape (batch,), and ``coupling`` is
    W. ``snapshots`` numbers the snapshot of each energy, from 0 to n - 1; it may be None if n is 1 or equals the batch.
    ``inner`` is W u W† of a column beyond the last one, if there is one.
    """
    xp = coupling.backend.xp
    connected: list[Array] = []
    for x in reversed(range(blocks.shape[1])):
        connected.append(invert(xp, shifted_layer(xp, blocks, x, energies, snapshots, inner)))
        inner = coupling.wrap_up(connected[-1])
    return connected[::-1]


def shifted_layer(
    xp: Any, blocks: Array, x: int, energies: Array, snapshots: Array | None, inner: Array | None = None
) -> Array:
    """(H_x - i Gamma_x - z)/t minus ``inner``, shape (batch, m, m)."""
    batch, m = energies.shape[0], blocks.shape[-1]
    block = blocks[:, x] if snapshots is None else blocks[snapshots, x]
    shifted = block - (xp.zeros((batch, 1, 1), dtype=blocks.dtype, device=energies.device) if inner is None else inner)
    xp.reshape(shifted, (batch, m * m))[:, :: m + 1] -= energies[:, None]
    return shifted


@dataclass(frozen=True)
class ColumnGroup:
    """P_{F-1}^-1 and u_F of columns F ... L that share one inversion, connected to all columns on their right."""

    columns: slice
    inverse: Array
    first: Array


@dataclass(frozen=True)
class GroupedColumns:
    """The electrode's block column for W = 1 and columns that are chains, with one inversion for each group of columns.

    The first four arguments are those of `right_connected`; ``length`` is the number of columns in a group, see
    `group_length`.
    """

    blocks: Array
    energies: Array
    coupling: Coupling
    snapshots: Array | None
    length: int

    def connect(self) -> list[ColumnGroup]:
        """As `right_connected`, from the first group to the last."""
        groups: list[ColumnGroup] = []
        stops = np.linspace(0, self.blocks.shape[1], -(-self.blocks.shape[1] // self.length) + 1).astype(int)
        beyond = self.coupling.backend.xp.zeros_like(self._identity)
        for first, stop in reversed(list(pairwise(stops.tolist()))):
            at_first, before = self._transfer(slice(first, stop), beyond)
            inverse = invert(self.coupling.backend.xp, before)
            beyond = at_first @ inverse
            groups.append(ColumnGroup(slice(first, stop), inverse, beyond))
        return groups[::-1]

    def occupations(
        self, groups: list[ColumnGroup], source: Array | None, stops: NDArray[np.int64], weights: Array
    ) -> Array:
        """Components of sum_s w_s Y Y† on every site, Y = -t G_{x,0} K, shape (batch, Lx, m / 2, 4).

        ``groups`` come from `connect`, ``source`` is K of shape (m, k), or None for the identity; ``stops`` and
        ``weights`` are those of `host_kernels.occupations`.
        """
        xp = self.coupling.backend.xp
        before = self._identity if source is None else self._identity @ source
        first = groups[0].first if source is None else groups[0].first @ source
        found = []
        for number, group in enumerate(groups):
            last = group.inverse @ before
            beyond = groups[number + 1].first @ last if number + 1 < len(groups) else xp.zeros_like(last)
            found.append(self._occupations(group.columns, (before, first), (last, beyond), stops, weights))
            before, first = last, beyond
        return xp.concat(found, axis=1)

    def _transfer(self, columns: slice, beyond: Array) -> tuple[Array, Array]:
        """P_F and P_{F-1}."""
        backend = self.coupling.backend
        if not backend.on_gpu:
            from hpcspin.electrons import host_kernels  # numba: half a second, which learned fields do not need.

            crossed = host_kernels.transfer(*self._host(columns), backend.host_view(beyond))
            return backend.asarray(crossed[0]), backend.asarray(crossed[1])
        near, far = self._identity, beyond
        for x in range(columns.stop - 1, columns.start - 1, -1):
            near, far = self._layer(x) @ near - far, near
        return far, near

    def _occupations(
        self,
        columns: slice,
        left: tuple[Array, Array],
        right: tuple[Array, Array],
        stops: NDArray[np.int64],
        weights: Array,
    ) -> Array:
        """Occupations of a group, from (Y_{F-1}, Y_F) and (Y_L, Y_{L+1}) to its middle, where rounding grows least."""
        backend = self.coupling.backend
        if not backend.on_gpu:
            from hpcspin.electrons import host_kernels

            inward, outward = ((backend.host_view(a), backend.host_view(b)) for a, b in (left, right))
            found = host_kernels.occupations(*self._host(columns), inward, outward, stops, backend.host_view(weights))
            return backend.asarray(found)
        middle = columns.start + (columns.stop - columns.start) // 2
        (far, near), before = left, [left[1]] if middle > columns.start else []
        for x in range(columns.start, middle - 1):
            near, far = self._layer(x) @ near - far, near
            before.append(near)
        (near, far), after = right, [right[0]]
        for x in range(columns.stop - 1, middle, -1):
            near, far = self._layer(x) @ near - far, near
            after.append(near)
        return backend.xp.stack([occupation(backend.xp, y, stops, weights) for y in before + after[::-1]], axis=1)

    def _layer(self, x: int) -> Array:
        return shifted_layer(self.coupling.backend.xp, self.blocks, x, self.energies, self.snapshots)

    def _host(self, columns: slice) -> tuple[Any, Any, Any, bool]:
        """The arguments that describe the layers to `host_kernels`."""
        backend = self.coupling.backend
        owners = backend.xp.arange(len(self.energies)) % len(self.blocks) if self.snapshots is None else self.snapshots
        blocks = backend.host_view(self.blocks)[:, columns]
        return blocks, backend.host_view(owners), backend.host_view(self.energies), self.coupling.periodic

    @cached_property
    def _identity(self) -> Array:
        """The identity: P_L and, if there is no source, Y_{-1}."""
        xp, m = self.coupling.backend.xp, self.blocks.shape[-1]
        eye = xp.zeros((len(self.energies), m * m), dtype=self.blocks.dtype, device=self.energies.device)
        eye[:, :: m + 1] = 1
        return xp.reshape(eye, (-1, m, m))


def group_length(magnitude: float, accuracy: float) -> int:
    """Number of columns in a group such that, for |A_x| <= ``magnitude``, rounding grows to at most ``accuracy``."""
    growth = max(1.0, accuracy / np.finfo(np.float64).eps)
    return 1 + int(math.log(growth) / math.log(magnitude))


def first_columns(
    connected: list[Array], coupling: Coupling, source: Array | None, entering: Array | None = None
) -> Iterator[Array]:
    """-t G_{x,0} K for x = 0 ... Lx - 1, from the u_x of `right_connected`.

    ``source`` is K, shape (m, k), or None for the identity; ``entering`` is W† Y of a column before the first one, or
    None if there is none.
    """
    first = connected[0] if entering is None else connected[0] @ entering
    column = first if source is None else first @ source
    yield column
    for u in connected[1:]:
        column = u @ coupling.down(column)
        yield column


def diagonals(connected: list[Array], coupling: Coupling, entering: Array | None = None) -> Iterator[Array]:
    """-t G_xx for x = 0 ... Lx - 1; ``entering`` is -t G of a column before the first one; None if there is none."""
    diagonal = entering
    for u in connected:
        diagonal = u if diagonal is None else u + (u @ coupling.wrap_down(diagonal)) @ u
        yield diagonal


def partial_lesser(
    connected: list[Array], coupling: Coupling, sources: list[Array], beyond: Array | None = None
) -> list[Array]:
    """l_x = u_x (Q_x + W l_{x+1} W†) u_x† of every column, the right-connected G Q G†; arguments as for `lesser`."""
    partial: list[Array] = []
    for u, source in zip(reversed(connected), reversed(sources), strict=True):
        inner = source if beyond is None else source + coupling.wrap_up(beyond)
        beyond = u @ inner @ adjoint(coupling.backend.xp, u)
        partial.append(beyond)
    return partial[::-1]


def lesser(
    connected: list[Array],
    coupling: Coupling,
    sources: list[Array],
    beyond: Array | None = None,
    entering: tuple[Array, Array] | None = None,
) -> Iterator[tuple[Array, Array]]:
    """Diagonal blocks (t² (G Q G†)_xx, -t G_xx) for a source Q on any sites, column by column.

    The general recursion: with l_x from `partial_lesser`,

        L_x = l_x + X + X† + p L_{x-1} p†,   p = u_x W†,   X = p U_{x-1} W l_x.

    ``connected`` are the u_x from `right_connected`, ``coupling`` is W, and ``sources`` are the Q_x, Hermitian, each
    broadcastable to (batch, m, m). ``beyond`` is l of a column beyond the last one, ``entering`` L and U of a column
    before the first one, if there is one.
    """
    xp = coupling.backend.xp
    for u, own in zip(connected, partial_lesser(connected, coupling, sources, beyond), strict=True):
        if entering is None:
            entering = own, u
        else:
            full, diagonal = entering
            passed = u @ coupling.wrap_down(diagonal)
            cross = passed @ own
            full = own + cross + adjoint(xp, cross) + u @ coupling.wrap_down(full) @ adjoint(xp, u)
            entering = full, u + passed @ u
        yield entering


def adjoint(xp: object, matrix: Array) -> Array:
    """Conjugate transpose of each matrix of a batch."""
    return xp.conj(xp.matrix_transpose(matrix))  # type: ignore[attr-defined]
