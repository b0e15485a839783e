"""The three-term recursion across groups of columns on the host's cores, one energy at a time.

A_x has four elements in each row: a multiplication by it takes no longer than reading and writing, a quarter of a
product of full blocks, if the block of one energy stays in the cache from the first column of a group to the last.
Array libraries pass the blocks of all energies through memory several times for each column; these loops do not. numba
compiles them at the first call and caches the code. They release Python's global lock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Complex = NDArray[np.complex128]


def _compiled(function: Callable[..., Any], fastmath: str = "contract") -> Any:
    """Compile; NaN and infinity keep their meaning.

    Terms are not reordered: inlined code would be reordered in one way by the process that compiles it, and in another
    way by processes that find it in numba's cache. Only sums of a function with "reassoc" are, for vector instructions.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nsz", fastmath}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba has no folder in which it may cache the code.
        return njit(**options)(function)


def transfer(
    blocks: Complex, owners: NDArray[np.int64], energies: Complex, periodic: bool, beyond: Complex
) -> tuple[Complex, Complex]:
    """P_F and P_{F-1} of a group of columns, each of shape (batch, m, m); see `recursion`.

    ``blocks`` are (H_x - i Gamma_x) / t of the columns F ... L of every snapshot, shape (n, columns, m, m), with bonds
    of -1 between neighbouring rows of sites, of which the first and the last are neighbours if ``periodic``. ``owners``
    has the snapshot of each energy, ``energies`` z / t, both of shape (batch,), and ``beyond`` is u_{L+1}, shape
    (batch, m, m).
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
    """Components of sum_s w_s Y_x Y_x† on the sites of a group of columns, shape (batch, columns, m / 2, 4).

    ``left`` is (Y_{F-1}, Y_F), and ``right`` is (Y_L, Y_{L+1}), each Y of shape (batch, m, k); ``stops``, shape
    (sources + 1,), has the index in Y at which the columns of each source s begin and at which those of the last source
    end; the weights w_s have the shape (batch, sources). Other arguments are those of `transfer`.
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


@partial(_compiled, fastmath="reassoc")
def _add_occupation(column, stops, weights, result):  # type: ignore[no-untyped-def]
    """Occupation at one energy; ``column`` is (m, k) complex numbers as pairs of reals, shape (m, 2 k)."""
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
    """Proceed from both ends of the group to its middle, so that rounding errors grow least."""
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
