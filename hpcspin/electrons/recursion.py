"""Recursive Green's functions over the columns of sites, batched over energies.

With V = H_{x,x+1} = -t W the Green's function that is connected to the right
obeys g_x = [z - H_x - V g_{x+1} V†]^-1. In units of the hopping and with
u_x = -t g_x every sign and factor disappears,

    u_x = [(H_x - z)/t - W u_{x+1} W†]^-1,
    Y_0 = u_0,                  Y_x = u_x W† Y_{x-1}             (column, Y_x = -t G_{x,0}),
    U_0 = u_0,                  U_x = u_x + u_x W† U_{x-1} W u_x  (diagonal, U_x = -t G_xx),

and on the square lattice, W = 1, a column of sites costs one inversion and one
or two products. Every function here takes lists over x of (batch, m, m) arrays.

Inversions are slower than products. With W = 1 the column obeys a three-term
recursion, A_x Y_x = Y_{x-1} + Y_{x+1} with A_x = (H_x - z)/t, which crosses a
group of columns F ... L by products alone: from the right, with P_L = 1,

    P_{x-1} = A_x P_x - P_{x+1},     u_F = P_F P_{F-1}^-1,     Y_x = P_x P_{F-1}^-1 Y_{F-1},

one inversion a group. Rounding grows as |A|^(L-F) on the way: groups are short.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpcspin.electrons.backend import Array
from hpcspin.electrons.hamiltonian import Coupling
from hpcspin.electrons.inversion import invert


def right_connected(
    blocks: Array, energies: Array, coupling: Coupling, snapshots: Array | None = None, inner: Array | None = None
) -> list[Array]:
    """u_x of every column, connected to all columns on its right.

    Parameters
    ----------
    blocks
        (H_x - i Gamma_x) / t, shape (n, Lx, m, m).
    energies
        z / t, complex, shape (batch,).
    coupling
        W.
    snapshots
        Which of the n snapshots each energy belongs to, shape (batch,); None
        where n is 1 or the batch.
    inner
        W u W† of a column beyond the last one; None where there is none.

    Returns
    -------
    list
        u_x for x = 0 ... Lx - 1, each of shape (batch, m, m).
    """
    xp = coupling.backend.xp
    connected: list[Array] = []
    for x in reversed(range(blocks.shape[1])):
        connected.append(invert(xp, _shifted(xp, blocks, x, energies, snapshots, inner)))
        inner = coupling.wrap_up(connected[-1])
    return connected[::-1]


def _shifted(
    xp: Any, blocks: Array, x: int, energies: Array, snapshots: Array | None, inner: Array | None = None
) -> Array:
    """(H_x - i Gamma_x - z)/t less what is inside, shape (batch, m, m)."""
    batch, m = energies.shape[0], blocks.shape[-1]
    block = blocks[:, x] if snapshots is None else blocks[snapshots, x]
    shifted = block - (xp.zeros((batch, 1, 1), dtype=blocks.dtype, device=energies.device) if inner is None else inner)
    xp.reshape(shifted, (batch, m * m))[:, :: m + 1] -= energies[:, None]
    return shifted


@dataclass(frozen=True)
class ColumnGroup:
    """Columns F ... L that share an inversion, connected to all columns on their right.

    Attributes
    ----------
    propagators
        P_x for x = F ... L - 1.
    inverse
        P_{F-1}^-1.
    first
        u_F.
    """

    propagators: list[Array]
    inverse: Array
    first: Array


def connect_groups(
    blocks: Array, energies: Array, coupling: Coupling, snapshots: Array | None, length: int
) -> list[ColumnGroup]:
    """As `right_connected`, ``length`` columns an inversion; for W = 1."""
    xp = coupling.backend.xp
    groups: list[ColumnGroup] = []
    beyond = None
    for last in range(blocks.shape[1] - 1, -1, -length):
        propagators = [_shifted(xp, blocks, last, energies, snapshots, beyond)]
        for x in range(last - 1, max(last - length, -1), -1):
            product = _shifted(xp, blocks, x, energies, snapshots) @ propagators[-1]
            if len(propagators) > 1:
                product -= propagators[-2]
            else:
                m = product.shape[-1]
                xp.reshape(product, (-1, m * m))[:, :: m + 1] -= 1
            propagators.append(product)
        inverse = invert(xp, propagators.pop())
        beyond = propagators[-1] @ inverse if propagators else inverse
        groups.append(ColumnGroup(propagators[::-1], inverse, beyond))
    return groups[::-1]


def grouped_columns(groups: list[ColumnGroup], source: Array | None) -> Iterator[Array]:
    """As `first_columns`, from groups."""
    column = source
    for group in groups:
        last = group.inverse if column is None else group.inverse @ column
        if group.propagators:
            yield group.first if column is None else group.first @ column
        for propagator in group.propagators[1:]:
            yield propagator @ last
        yield last
        column = last


def first_columns(
    connected: list[Array], coupling: Coupling, source: Array | None, entering: Array | None = None
) -> Iterator[Array]:
    """-t G_{x,0} K for x = 0 ... Lx - 1.

    Parameters
    ----------
    connected
        u_x from `right_connected`.
    coupling
        W.
    source
        K, shape (m, k); None for the identity.
    entering
        W† Y of a column before the first one, where there is one.
    """
    first = connected[0] if entering is None else connected[0] @ entering
    column = first if source is None else first @ source
    yield column
    for u in connected[1:]:
        column = u @ coupling.down(column)
        yield column


def diagonals(connected: list[Array], coupling: Coupling, entering: Array | None = None) -> Iterator[Array]:
    """-t G_xx for x = 0 ... Lx - 1; ``entering`` is that of a column before the first one, where there is one."""
    diagonal = entering
    for u in connected:
        diagonal = u if diagonal is None else u + (u @ coupling.wrap_down(diagonal)) @ u
        yield diagonal


def partial_lesser(
    connected: list[Array], coupling: Coupling, sources: list[Array], beyond: Array | None = None
) -> list[Array]:
    """l_x = u_x (Q_x + W l_{x+1} W†) u_x† of every column: G Q G† connected to the right.

    Parameters
    ----------
    connected, coupling, sources
        As for `lesser`.
    beyond
        l of a column beyond the last one; None where there is none.
    """
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
    """Diagonal blocks of t² G Q G† and of -t G for a source Q on any sites, column after column.

    The general recursion: with l_x from `partial_lesser`,

        L_x = l_x + X + X† + p L_{x-1} p†,   p = u_x W†,   X = p U_{x-1} W l_x.

    Parameters
    ----------
    connected
        u_x from `right_connected`.
    coupling
        W.
    sources
        Q_x, Hermitian, each broadcastable to (batch, m, m).
    beyond
        l of a column beyond the last one; None where there is none.
    entering
        L and U of a column before the first one; None where there is none.

    Yields
    ------
    tuple
        (t² (G Q G†)_xx, -t G_xx).
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
