"""Bravais lattices with open or periodic edges.

A site is a pair of integers (x, y); its flat index is ``x * Ly + y``. x is the
transport direction. A new lattice is one subclass with a ``kind``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcspin.errors import HpcspinError, shown
from hpcspin.registry import Registry
from hpcspin.settings import Count, checked

LATTICES: Registry[type[Lattice]] = Registry("lattice.kind")
Halo = tuple[int, int]
"""Width of the halo of a block: lattice steps along x and along y by which it is extended on both sides."""
SHAPES: Registry[Callable[[Lattice], NDArray[np.bool_]]] = Registry("sites")
"""Named sets of sites, such as those of reservoirs: functions of a lattice that return a mask, bool, shape (Lx, Ly)."""


@dataclass(frozen=True)
class Lattice:
    """A finite piece of a two-dimensional Bravais lattice.

    Parameters
    ----------
    size
        Number of sites (Lx, Ly).
    periodic
        Whether the lattice is periodic along x and along y.

    Raises
    ------
    HpcspinError
        If the size is not a pair of whole numbers, a side is not positive, a periodic side is so short that two
        different bonds would join the same two sites, or a bond is listed twice.
    """

    size: tuple[int, int]
    periodic: tuple[bool, bool] = (False, True)

    kind: ClassVar[str]
    bonds: ClassVar[tuple[tuple[int, int], ...]]
    """Offsets of half of the nearest neighbours; the other half are their negatives."""
    primitive_vectors: ClassVar[NDArray[np.float64]]
    generators: ClassVar[tuple[tuple[tuple[int, int], tuple[int, int]], ...]]
    """Integer matrices, acting on offsets, that generate the point group."""

    def __init_subclass__(cls) -> None:
        _require_form(cls)
        LATTICES.add(cls.kind, cls)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "size", tuple(map(operator.index, self.size)))
            object.__setattr__(self, "periodic", tuple({0: False, 1: True}[side] for side in self.periodic))
            ((_, _), (_, _)) = self.size, self.periodic
        except (KeyError, TypeError, ValueError):
            raise HpcspinError(
                f"lattice: size {shown(self.size)} must be two whole numbers (Lx, Ly), and periodic "
                f"{shown(self.periodic)} two of True and False"
            ) from None
        for axis, length, closed in zip("xy", self.size, self.periodic, strict=True):
            if length < 1:
                raise HpcspinError(f"lattice.size: {length} sites along {axis}; give at least 1")
            if closed and length < 3:
                raise HpcspinError(
                    f"lattice.size: {length} sites along periodic {axis} would join two sites by two bonds; "
                    f"give at least 3 or make {axis} open"
                )
        if len(set(self.neighbours)) < 2 * len(self.bonds):
            raise HpcspinError(
                f"lattice.kind: the bonds {self.bonds} of {self.kind!r} hold one twice, or with its opposite; "
                "give one of each pair of opposite offsets"
            )

    @property
    def num_sites(self) -> int:
        """Number of sites Lx Ly."""
        return self.size[0] * self.size[1]

    @property
    def sites(self) -> NDArray[np.int64]:
        """Coordinates (x, y) of all sites, shape (Lx, Ly, 2)."""
        return np.moveaxis(np.indices(self.size), 0, -1)

    @property
    def neighbours(self) -> list[tuple[int, int]]:
        """Offsets of all neighbours to which a bond leads from a site, in order."""
        return sorted((sign * x, sign * y) for x, y in self.bonds for sign in (1, -1))

    @property
    def point_group(self) -> NDArray[np.int64]:
        """Point group of a site as integer matrices on offsets, shape (operations, 2, 2), identity first.

        Raises
        ------
        HpcspinError
            If a generator changes lengths, or does not map the bonds onto themselves.
        """
        metric = self.primitive_vectors @ self.primitive_vectors.T
        for generator in np.array(self.generators):
            images = sorted((int(x), int(y)) for x, y in np.array(self.neighbours) @ generator.T)
            if images != self.neighbours or not np.allclose(generator.T @ metric @ generator, metric):
                raise HpcspinError(
                    f"lattice.kind: the generator {generator.tolist()} of {self.kind!r} is no symmetry of its bonds "
                    "and primitive vectors; give generators of the point group of both"
                )
        elements = [np.eye(2, dtype=np.int64)]
        for element in elements:  # The list grows during the loop, to the closure of the generators.
            for generator in np.array(self.generators):
                further = generator @ element
                if not any(np.array_equal(further, known) for known in elements):
                    elements.append(further)
        return np.stack(elements)

    @property
    def mirror_y(self) -> NDArray[np.int64]:
        """The mirror that maps every column of sites onto itself, and remains a symmetry under a bias along x.

        Raises
        ------
        HpcspinError
            If the point group has no such mirror.
        """
        for operation in self.point_group:
            if operation[0].tolist() == [1, 0] and np.linalg.det(operation) < 0:
                return operation
        raise HpcspinError(
            f"lattice.kind: the generators of {self.kind!r} give no mirror that maps each column of sites onto itself; "
            "add it where the lattice has one"
        )

    @checked(number=Count)
    def shell(self, number: int) -> tuple[tuple[int, int], ...]:
        """Offsets of half of the neighbours of a shell, counted from 1 by distance; the others are their negatives."""
        # The first multiples of the shorter primitive vector lie in different shells, so the radius is large enough.
        along_x, along_y = self.reach(number * float(np.linalg.norm(self.primitive_vectors, axis=1).min()))
        steps = [(x, y) for x in range(along_x + 1) for y in range(-along_y, along_y + 1)]
        half = np.array([step for step in steps if step > (0, 0)])
        square = np.round((self.cartesian(half) ** 2).sum(axis=-1), 9)
        return tuple((int(x), int(y)) for x, y in half[square == np.unique(square)[number - 1]])

    def mask(self, sites: str | Iterable[Sequence[int]]) -> NDArray[np.bool_]:
        """Mask of some sites, shape (Lx, Ly).

        Parameters
        ----------
        sites
            ``"left"`` (column 0), ``"right"`` (the last column), ``"all"``, another name in `SHAPES`, or pairs (x, y).

        Raises
        ------
        HpcspinError
            If the name is unknown or a site lies outside the lattice.
        """
        if isinstance(sites, str):
            mask = np.asarray(SHAPES[sites](self))
            if mask.dtype != bool or mask.shape != self.size:  # Other arrays would be taken for numbers of sites.
                raise HpcspinError(
                    f"{sites}: its function gives shape {mask.shape} and type {mask.dtype}; correct it, it must return "
                    f"a mask, bool of shape {self.size}"
                )
            return mask
        mask = np.zeros(self.size, dtype=bool)
        try:
            pairs = [(operator.index(x), operator.index(y)) for x, y in sites]
        except (TypeError, ValueError) as failure:
            raise HpcspinError(f"sites: {shown(sites)} is neither a name nor pairs (x, y)") from failure
        for x, y in pairs:
            if not (0 <= x < self.size[0] and 0 <= y < self.size[1]):
                raise HpcspinError(f"site [{x}, {y}] lies outside the {self.size} lattice")
            mask[x, y] = True
        return mask

    def reach(self, radius: float) -> tuple[int, int]:
        """Largest number of lattice steps along x and along y of any offset no longer than a radius."""
        heights = 1 / np.linalg.norm(np.linalg.inv(self.primitive_vectors), axis=0)
        along_x, along_y = np.floor(radius / heights + 1e-9).astype(int).tolist()
        return along_x, along_y

    def cartesian(self, offsets: ArrayLike) -> NDArray[np.float64]:
        """Cartesian vectors of lattice offsets, shape (..., 2), in units of the lattice constant."""
        return np.asarray(offsets) @ self.primitive_vectors

    def shift(self, offsets: ArrayLike) -> NDArray[np.int64]:
        """Site at each offset from every site.

        Parameters
        ----------
        offsets
            Lattice offsets, shape (K, 2).

        Returns
        -------
        ndarray
            Flat site indices, shape (num_sites, K); -1 beyond an open edge.
        """
        offsets = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        sites = np.indices(self.size).reshape(2, -1)
        inside = np.ones((self.num_sites, len(offsets)), dtype=bool)
        target = []
        for axis in range(2):
            coordinate = sites[axis][:, None] + offsets[None, :, axis]
            if not self.periodic[axis]:
                inside &= (coordinate >= 0) & (coordinate < self.size[axis])
            target.append(coordinate % self.size[axis])
        return np.where(inside, target[0] * self.size[1] + target[1], -1)


def _require_form(lattice: type[Lattice]) -> None:
    """Refuse a lattice with a class attribute that is missing or of another form."""
    if not isinstance(getattr(lattice, "kind", None), str):
        raise HpcspinError(f"the lattice {lattice.__name__} has no kind; give it a name in configs, a text")
    for name, kinds, shape, form in (
        ("bonds", "iu", (2,), "pairs of whole numbers"),
        ("primitive_vectors", "iuf", (2,), "two vectors of the plane, not parallel"),
        ("generators", "iu", (2, 2), "matrices of 2 x 2 whole numbers"),
    ):
        try:
            given = np.asarray(getattr(lattice, name))
        except (AttributeError, ValueError) as failure:
            raise HpcspinError(f"the lattice {lattice.kind!r} needs {name}: {form}") from failure
        right = not given.size or (given.dtype.kind in kinds and given.shape[1:] == shape)
        if not right or (name == "primitive_vectors" and (len(given) != 2 or not np.linalg.det(given))):
            raise HpcspinError(f"the {name} of the lattice {lattice.kind!r} must be {form}")


class SquareLattice(Lattice):
    """Square lattice: 4 neighbours, point group D4."""

    kind = "square"
    bonds = ((1, 0), (0, 1))
    primitive_vectors = np.eye(2)
    generators = (((0, -1), (1, 0)), ((1, 0), (0, -1)))


class TriangularLattice(Lattice):
    """Triangular lattice: the square grid plus the (+1, -1) diagonal, 6 neighbours, point group D6."""

    kind = "triangular"
    bonds = ((1, 0), (0, 1), (1, -1))
    primitive_vectors = np.array([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    generators = (((0, -1), (1, 1)), ((1, 1), (0, -1)))


@SHAPES.adding("all")
def everywhere(lattice: Lattice) -> NDArray[np.bool_]:
    """All sites."""
    return np.ones(lattice.size, dtype=bool)


@SHAPES.adding("left")
def left_edge(lattice: Lattice) -> NDArray[np.bool_]:
    """Column 0."""
    return np.indices(lattice.size)[0] == 0


@SHAPES.adding("right")
def right_edge(lattice: Lattice) -> NDArray[np.bool_]:
    """The last column."""
    return np.indices(lattice.size)[0] == lattice.size[0] - 1


def make_lattice(kind: str, size: tuple[int, int], periodic: tuple[bool, bool] = (False, True)) -> Lattice:
    """Lattice of a registered kind.

    Raises
    ------
    HpcspinError
        If the kind is unknown or the size is impossible.
    """
    return LATTICES[kind](size, periodic)


def nearest_vectors(lattice: Lattice, offsets: ArrayLike) -> NDArray[np.float64]:
    """Cartesian vectors, shape (..., 2), of integer lattice offsets, each to the nearest of its periodic images."""
    vectors = lattice.cartesian(offsets)
    basis = _reduced(lattice.cartesian(np.diag(lattice.size)[list(lattice.periodic)]))
    if not len(basis):
        return vectors
    whole = np.round(vectors @ np.linalg.pinv(basis))
    # In a reduced basis the nearest point is the rounded one or a neighbour of it.
    steps = np.array(list(product((-1, 0, 1), repeat=len(basis))))
    images = vectors[..., None, :] - (whole[..., None, :] + steps) @ basis
    nearest = np.argmin((images**2).sum(axis=-1), axis=-1)
    return np.take_along_axis(images, nearest[..., None, None], axis=-2)[..., 0, :]


def _reduced(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest vectors that span the same lattice of translations (Lagrange-Gauss), shape (0 to 2, 2)."""
    if len(basis) < 2:
        return basis
    while True:
        short, long = sorted(basis, key=np.linalg.norm)
        shorter = long - np.round(short @ long / (short @ short)) * short
        if np.linalg.norm(shorter) >= np.linalg.norm(long) * (1 - 1e-12):
            return np.array([short, long])
        basis = np.array([short, shorter])
