"""Laws of the lattices: neighbours are mutual, point groups are groups of isometries."""

from __future__ import annotations

import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, Lattice, SquareLattice, make_lattice, topological_charge

KINDS = sorted(kind for kind, lattice in LATTICES.items() if lattice.__module__.startswith("hpcspin."))


@pytest.mark.parametrize("kind", KINDS)
def test_point_group_is_a_group_of_isometries_that_maps_neighbours_onto_neighbours(kind: str) -> None:
    lattice = make_lattice(kind, (6, 6))
    group = lattice.point_group
    keys = {tuple(operation.ravel()) for operation in group}
    assert len(group) == {"square": 8, "triangular": 12}[kind] == len(keys)
    assert {tuple((a @ b).ravel()) for a in group for b in group} == keys
    offsets = np.random.default_rng(1).integers(-5, 6, (20, 2))
    lengths = np.linalg.norm(lattice.cartesian(offsets), axis=-1)
    neighbours = {*lattice.bonds, *((-x, -y) for x, y in lattice.bonds)}
    for operation in group:
        np.testing.assert_allclose(np.linalg.norm(lattice.cartesian(offsets @ operation.T), axis=-1), lengths)
        assert {tuple(map(int, operation @ np.array(bond))) for bond in neighbours} == neighbours


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_nearest_and_mutual(kind: str) -> None:
    lattice = make_lattice(kind, (5, 4), (False, True))
    np.testing.assert_allclose(np.linalg.norm(lattice.cartesian(lattice.bonds), axis=-1), 1.0)
    forward, backward = lattice.shift(lattice.bonds), lattice.shift(-np.array(lattice.bonds))
    for k in range(len(lattice.bonds)):
        sites = np.flatnonzero(forward[:, k] >= 0)
        np.testing.assert_array_equal(backward[forward[sites, k], k], sites)


def test_open_edges_end_and_periodic_edges_close() -> None:
    lattice = make_lattice("square", (3, 4), (False, True))
    right, up = lattice.shift([(1, 0), (0, 1)]).T
    assert (right.reshape(3, 4)[-1] == -1).all()
    assert (right.reshape(3, 4)[:-1] == np.arange(4, 12).reshape(2, 4)).all()
    np.testing.assert_array_equal(up.reshape(3, 4)[0], [1, 2, 3, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_mirror_keeps_columns_and_turns_them_over(kind: str) -> None:
    mirror = make_lattice(kind, (4, 4)).mirror_y
    np.testing.assert_array_equal(mirror @ mirror, np.eye(2))
    np.testing.assert_array_equal(mirror @ (0, 1), (0, -1))
    assert (mirror @ (3, 2))[0] == 3


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("square", (0, 4), "0 sites along x"),
        ("square", (4, 2), "periodic y"),
        ("kagome", (4, 4), "choose one of"),
    ],
)
def test_impossible_lattices_are_refused(kind: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(HpcspinError, match=message):
        make_lattice(kind, size)


class Oblique(Lattice):
    """Symmetric under inversion alone; its left-handed primitive vectors are 1 and 0.45 long."""

    kind = "oblique"
    bonds = ((1, 0), (0, 1), (2, 1))
    primitive_vectors = np.array([[1.0, 0.0], [0.2, -0.4]])
    generators = (((-1, 0), (0, -1)),)


class Sheared(SquareLattice):
    """Square generators, which do not keep its bonds."""

    kind = "sheared"
    bonds = ((1, 0), (0, 1), (1, 1))


class Shear(SquareLattice):
    """A generator of infinite order."""

    kind = "shear"
    bonds = ((1, 0),)
    generators = (((1, 1), (0, 1)),)


class Twice(SquareLattice):
    """The same bond from both of its ends."""

    kind = "twice"
    bonds = ((1, 0), (0, 1), (-1, 0))


@pytest.mark.parametrize("kind", [*KINDS, "oblique"])
def test_shells_are_complete(kind: str) -> None:
    lattice = make_lattice(kind, (4, 4))
    offsets = np.array([(x, y) for x in range(-12, 13) for y in range(-12, 13) if (x, y) > (0, 0)])
    square = np.round((lattice.cartesian(offsets) ** 2).sum(axis=-1), 9)
    for number, distance in enumerate(np.unique(square)[:8], 1):
        assert {*lattice.shell(number)} == {tuple(map(int, offset)) for offset in offsets[square == distance]}


@pytest.mark.parametrize("kind", ["sheared", "shear"])
def test_generators_that_are_no_symmetry_are_refused(kind: str) -> None:
    with pytest.raises(HpcspinError, match=f"'{kind}' is no symmetry of its bonds"):
        make_lattice(kind, (4, 4)).point_group  # noqa: B018


def test_a_lattice_without_a_mirror_is_refused_where_one_is_needed() -> None:
    lattice = make_lattice("oblique", (4, 4))
    assert len(lattice.point_group) == 2
    with pytest.raises(HpcspinError, match="'oblique' give no mirror"):
        lattice.mirror_y  # noqa: B018


def test_a_bond_that_is_named_twice_is_refused() -> None:
    with pytest.raises(HpcspinError, match="'twice' hold one twice, or with its opposite"):
        make_lattice("twice", (4, 4))


def test_chirality_does_not_depend_on_the_handedness_of_the_axes() -> None:
    """The same spins at the same places, with y counted downwards."""
    spins = np.random.default_rng(2).standard_normal((6, 6, 3))
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    left = topological_charge(make_lattice("oblique", (6, 6), (True, True)), spins)
    right = topological_charge(make_lattice("square", (6, 6), (True, True)), spins)
    assert left == pytest.approx(-right)
    assert left != 0
