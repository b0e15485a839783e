"""Kernels of densities as products, for the kernels in C: weights of each site, then basis functions of the symmetry.

The kernels of a layer are W^Γ_cda(δ) = Σ_r k^Γ_cdr b^Γ_ra(δ), with learned weights k of each copy r of the irrep Γ
among the orbits of neighbours, and basis functions b that are fixed by symmetry. The weights are the same for all
neighbours in an orbit, so that a site applies them once for all. With 18 neighbours on the triangular lattice this
leaves a quarter of the products.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from hpcspin.potential.layers import Layer

Floats = NDArray[np.floating[Any]]

_ROUNDING = 1e-9


class HostMatrix(ctypes.Structure):
    """The struct ``matrix`` of the kernels."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("numbers", "first", "from_", "to", "at")),
        *((name, ctypes.c_int32) for name in ("strips", "vectors")),
    )


class HostCopies(ctypes.Structure):
    """The struct ``copies`` of the kernels."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("count", "columns", "doubles")),
        *((name, ctypes.c_void_p) for name in ("starts", "members", "basis")),
        ("weights", HostMatrix),
    )


class MatrixColumns(NamedTuple):
    """Columns of densities in the kernels: whole vectors, with those of two-dimensional irreps after all others.

    The second rows of these irreps follow the first ones at a distance of whole vectors.
    """

    places: NDArray[np.int64]
    """Column of the spin and of each density, in the order of the layer."""
    doubles: int
    """First column of two-dimensional irreps."""
    first: int
    """Number of columns without the second rows."""

    @property
    def total(self) -> int:
        """Number of all columns."""
        return 2 * self.first - self.doubles

    @classmethod
    def of_layer(cls, layer: Layer, lanes: int) -> MatrixColumns:
        """Columns of a layer's densities, for vectors of so many numbers."""
        shapes = [(len(kernel), dimension) for kernel, dimension in zip(layer.kernels, layer.dimensions, strict=True)]
        singles, doubles = (sum(count for count, dimension in shapes if dimension == d) for d in (1, 2))
        doubles, apart = (-(-number // lanes) * lanes for number in (1 + singles, doubles))
        places, starts = [np.zeros(1, np.int64)], {1: 1, 2: doubles}
        for count, dimension in shapes:
            numbers = starts[dimension] + np.arange(count)
            starts[dimension] += count
            places.append((numbers[:, None] + apart * np.arange(dimension)).ravel())
        return cls(np.concatenate(places), doubles, doubles + apart)


class Copies(NamedTuple):
    """Copies of irreps in the orbits of neighbours; the n-th copy of every irrep in an orbit is evaluated together."""

    slots: list[list[int]]
    """Slots of each copy."""
    basis: Floats
    """Basis functions of the slots of all copies, shape (slots of all copies, all columns)."""
    weights: Floats
    """Weights k, shape (numbers of a site, copies, columns without the second rows)."""

    @property
    def worthwhile(self) -> bool:
        """Whether they take less than half of the products that a sum over neighbours by kernels takes."""
        numbers, copies, _ = self.weights.shape
        members = [slot for slots in self.slots for slot in slots]
        return copies * numbers + len(members) < len(set(members)) * numbers / 2


def copies_of_vectors(layer: Layer, columns: MatrixColumns) -> Copies | None:
    """The kernels of all densities; the first column is the centre's spin. None if they save nothing."""
    bases = [getattr(layer, f"basis{number}") for number in range(len(layer.kernels))]
    copies = _copies(list(layer.kernels), bases, columns._replace(places=columns.places[1:]))
    own = copies.slots.index([0])
    place = sum(map(len, copies.slots[:own]))
    copies.weights[0, own, 0] = copies.basis[place, 0] = 1
    return copies if copies.worthwhile else None


def copies_of_scalars(layer: Layer, columns: int) -> Copies | None:
    """The kernels of the sums of scalars; None if the layer reads none, or if they save nothing."""
    if layer.scalar_kernels is None:
        return None
    places = np.arange(len(layer.scalar_kernels))
    copies = _copies([layer.scalar_kernels], [layer.basis0], MatrixColumns(places, columns, columns))
    return copies if copies.worthwhile else None


@torch.no_grad()
def _copies(kernels: Sequence[Tensor], bases: Sequence[Tensor], columns: MatrixColumns) -> Copies:
    """Copies of the kernels (densities, copies * numbers) of each irrep, with bases (copies, rows, slots)."""
    found, numbers, first = [], dict[tuple[tuple[int, ...], int], int](), 0
    for kernel, basis in zip(kernels, bases, strict=True):
        weights, values = kernel.unflatten(1, (len(basis), -1)).numpy(), basis.numpy()
        places = columns.places[first : first + len(kernel) * basis.shape[1]].reshape(len(kernel), -1)
        first += places.size
        orbits = [tuple(np.flatnonzero(np.abs(rows).max(0) > _ROUNDING).tolist()) for rows in values]
        for copy, orbit in enumerate(orbits):
            number = numbers.setdefault((orbit, orbits[:copy].count(orbit)), len(numbers))
            found.append((number, places, values[copy], weights[:, copy]))
    slots = [list(orbit) for orbit, _ in numbers]
    starts, dtype = np.cumsum([0, *map(len, slots)]), kernels[0].numpy().dtype
    functions = np.zeros((starts[-1], columns.total), dtype)
    factors = np.zeros((found[0][3].shape[1], len(slots), columns.first), dtype)
    for number, places, rows, weights in found:
        functions[starts[number] : starts[number + 1], places] = rows[:, slots[number]].T[:, None]
        factors[:, number, places[:, 0]] = weights.T
    return Copies(slots, functions, factors)
