"""Laws of the lattices: neighbours are mutual, point groups are groups of isometries."""

from __future__ import annotations

import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, make_lattice

KINDS = sorted(LATTICES)


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
