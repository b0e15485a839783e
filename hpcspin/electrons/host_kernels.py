"""Groups of columns crossed on the host's cores, an energy at a time.

A_x has four elements a row: to multiply by it costs what reading and writing costs, a quarter of a product of full
blocks, as long as the block of one energy stays in the cache from the first column of a group to the last. Array
libraries pass the blocks of all energies through memory several times a column; these loops, which numba compiles at
the first call and keeps, do not. Threads that are inside do not hold Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Complex = NDArray[np.complex128]


def _compiled(function: Callable[..., Any], *fastmath: str) -> Any:
    """Compile; NaN and infinity keep their meaning.

    Terms are not reordered: what is inlined would be so in one way by the process that compiles, and in another by
    those that find the code in numba's cache.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nsz", *fastmath}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # There is no folder in which numba may keep what it compiles.
        return njit(**options)(function)


def _summing(function: Callable[..., Any]) -> Any:
    """Compile with sums in the order of vector instructions."""
    return _compiled(function, "reassoc")


def transfer(
    blocks: Complex, owners: NDArray[np.int64], energies: Complex, periodic: bool, beyond: Complex
) -> tuple[Complex, Complex]:
    """P_F and P_{F-1} of a group of columns; see `recursion`.

    Parameters
    ----------
    blocks
        (H_x - i Gamma_x) / t of the columns F ... L of every snapshot, shape
        (n, columns, m, m), with bonds of -1 between neighbouring rows of sites.
    owners
        Snapshot of each energy, shape (batch,).
    energies
        z / t, shape (batch,).
    periodic
        Whether the first row of sites and the last one are neighbours.
    beyond
        u_{L+1}, shape (batch, m, m).

    Returns
    -------
    tuple
        Each of shape (batch, m, m).
    """
    first, before = np.empty_like(beyond), np.empty_like(beyond)
    _transfer(blocks, owners, energies, periodic, beyond, first, before)
    return first, before


def occupations(
    blocks: Complex,
    owners: NDArray[np.int64],
    energies: Complex,
    periodic: bool,
    left: tuple[Complex, Complex],
    right: tuple[Complex, Complex],
    stops: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Components of sum_s w_s Y_x Y_x† on the sites of a group of columns.

    Parameters
    ----------
    blocks, owners, energies, periodic
        As for `transfer`.
    left, right
        Y_{F-1} and Y_F, Y_L and Y_{L+1}, each of shape (batch, m, k).
    stops
        Where the columns of each source s begin in Y, and where those of the last one end, shape (sources + 1,).
    weights
        w_s, shape (batch, sources).

    Returns
    -------
    ndarray
        Shape (batch, columns, m / 2, 4).
    """
    batch, m, _ = right[0].shape
    result = np.zeros((batch, blocks.shape[1], m // 2, 4))
    _occupations(blocks, owners, energies, periodic, *left, *right, stops, weights, result)
    return result


@_compiled
def _step(block, energy, periodic, near, far, result):  # type: ignore[no-untyped-def]
    """A ``near`` - ``far`` for one energy, each of shape (m, k)."""
    m, width = near.shape
    rows = m // 2
    for y in range(rows):
        above, below = y + 1, y - 1
        if periodic:
            above, below = above % rows, below % rows
        for s in range(2):
            r, flipped = 2 * y + s, 2 * y + 1 - s
            diagonal, mixed = block[r, r] - energy, block[r, flipped]
            if below >= 0 and above < rows:
                a, b = 2 * above + s, 2 * below + s
                for j in range(width):
                    bonds = near[a, j] + near[b, j]
                    result[r, j] = diagonal * near[r, j] + mixed * near[flipped, j] - bonds - far[r, j]
                continue
            for j in range(width):
                result[r, j] = diagonal * near[r, j] + mixed * near[flipped, j] - far[r, j]
            if below >= 0:
                for j in range(width):
                    result[r, j] -= near[2 * below + s, j]
            if above < rows:
                for j in range(width):
                    result[r, j] -= near[2 * above + s, j]


@_compiled
def _transfer(blocks, owners, energies, periodic, beyond, first, before):  # type: ignore[no-untyped-def]
    batch, m, _ = beyond.shape
    identity = np.eye(m).astype(beyond.dtype)
    room = np.empty((3, m, m), dtype=beyond.dtype)
    for e in range(batch):
        block, near, far = blocks[owners[e]], identity, beyond[e]
        for x in range(len(block) - 1, -1, -1):
            _step(block[x], energies[e], periodic, near, far, room[x % 3])
            near, far = room[x % 3], near
        first[e], before[e] = far, near


@_summing
def _add_occupation(column, stops, weights, result):  # type: ignore[no-untyped-def]
    """Of one energy; ``column`` (m, k) as pairs of reals, shape (m, 2 k)."""
    for y in range(len(result)):
        out = result[y]
        for s in range(len(weights)):
            own = slice(2 * stops[s], 2 * stops[s + 1])
            up, down = column[2 * y, own], column[2 * y + 1, own]
            uu, dd, real, imaginary = 0.0, 0.0, 0.0, 0.0
            for j in range(len(up) // 2):
                a, b, c, d = up[2 * j], up[2 * j + 1], down[2 * j], down[2 * j + 1]
                uu += a * a + b * b
                dd += c * c + d * d
                real += a * c + b * d
                imaginary += b * c - a * d
            w = weights[s]
            out[0] += w * (uu + dd)
            out[1] += 2 * w * real
            out[2] -= 2 * w * imaginary
            out[3] += w * (uu - dd)


@_compiled
def _occupations(blocks, owners, energies, periodic, left, first, last, right, stops, weights, result):  # type: ignore[no-untyped-def]
    """From both ends of the group to its middle, for which rounding grows least."""
    batch, m, width = last.shape
    columns = blocks.shape[1]
    middle = columns // 2
    room = np.empty((3, m, width), dtype=last.dtype)
    for e in range(batch):
        block, w, out = blocks[owners[e]], weights[e], result[e]
        near, far = last[e], right[e]
        for x in range(columns - 1, middle - 1, -1):
            _add_occupation(near.view(np.float64), stops, w, out[x])
            if x > middle:
                _step(block[x], energies[e], periodic, near, far, room[x % 3])
                near, far = room[x % 3], near
        near, far = first[e], left[e]
        for x in range(middle):
            _add_occupation(near.view(np.float64), stops, w, out[x])
            if x < middle - 1:
                _step(block[x], energies[e], periodic, near, far, room[x % 3])
                near, far = room[x % 3], near
