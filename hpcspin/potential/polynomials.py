"""Tables of sums of products, by which kernels in C evaluate descriptors that are polynomials of the spins."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ONE = 0
"""The row that is 1."""

Rows = NDArray[np.int64]


class Polynomials:
    """A polynomial of the spins around a centre, as a list of rows of which each is computed from earlier ones.

    The first rows are the number 1, the components of the spins in the slots, and whether each slot holds a spin. All
    others are sums of products of two earlier rows.
    ``spins``, (slots, 3), and ``presence``, (slots,), are their numbers.
    """

    def __init__(self, slots: int) -> None:
        self.spins = 1 + np.arange(3 * slots).reshape(slots, 3)
        self.presence = 1 + 3 * slots + np.arange(slots)
        self._first = self._rows = 1 + 4 * slots
        self._terms: list[NDArray[np.float64]] = []

    def sums(self, number: int, owner: ArrayLike, factors: ArrayLike, left: ArrayLike, right: ArrayLike = ONE) -> Rows:
        """Add rows Σ factor · left · right and return their numbers; ``owner`` is that of each term, counted from 0."""
        terms = np.stack(np.broadcast_arrays(owner, factors, left, right), -1).astype(np.float64)
        terms = terms[terms[:, 1] != 0]
        terms[:, 0] += self._rows - self._first
        self._terms.append(terms[np.argsort(terms[:, 0], kind="stable")])
        self._rows += number
        return np.arange(self._rows - number, self._rows)

    def mapped(self, matrix: NDArray[np.float64], rows: Rows) -> Rows:
        """A matrix, shape (m, k), times k rows."""
        owner, column = np.nonzero(matrix)
        return self.sums(len(matrix), owner, matrix[owner, column], rows[column])

    def dots(self, left: Rows, right: Rows) -> Rows:
        """Scalar products of vectors, whose components have rows of shape (n, 3): rows of shape (n,)."""
        return self.sums(len(left), np.arange(len(left)).repeat(3), 1, left.ravel(), right.ravel())

    def crossed(self, one: Rows, others: Rows) -> Rows:
        """Vector products of one vector, rows of shape (3,), and others: rows of shape (n, 3)."""
        number, plus_minus = others.size, np.tile([1, -1], others.size)
        left = np.broadcast_to(one[np.array([(1, 2), (2, 0), (0, 1)])], (len(others), 3, 2))
        right = others[:, np.array([(2, 1), (0, 2), (1, 0)])]
        made = self.sums(number, np.arange(number).repeat(2), plus_minus, left.ravel(), right.ravel())
        return made.reshape(-1, 3)

    def tables(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
        """Ends of the terms of each sum, shape (sums,), and factors, left and right rows of all terms."""
        owner, factors, left, right = np.concatenate(self._terms).T
        ends = np.cumsum(np.bincount(owner.astype(np.int64), minlength=self._rows - self._first))
        return ends.astype(np.int32), factors, left.astype(np.int32), right.astype(np.int32)
