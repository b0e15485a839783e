"""Chirality, winding and structure factors of textures whose values are known."""

import math

import numpy as np
import pytest

from hpcspin.lattice import make_lattice, scalar_chirality, structure_factor, topological_charge, topological_charges

kinds = pytest.mark.parametrize("kind", ["square", "triangular"])


def skyrmion(lattice, winding=1):
    places = lattice.cartesian(np.indices(lattice.size).transpose(1, 2, 0))
    x, y = np.moveaxis(places - places.reshape(-1, 2).mean(axis=0), -1, 0)
    theta = np.pi * np.exp(-((np.hypot(x, y) / 4) ** 2))  # a whole turn over: south in the middle, north far away
    phi = winding * np.arctan2(y, x)
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)


@kinds
def test_topological_charge_of_skyrmions(kind):
    lattice = make_lattice(kind, (32, 32), (True, True))
    assert topological_charge(lattice, skyrmion(lattice)) == pytest.approx(-1, abs=1e-9)
    assert topological_charge(lattice, skyrmion(lattice, -1)) == pytest.approx(1, abs=1e-9)
    assert topological_charge(lattice, -skyrmion(lattice)) == pytest.approx(1, abs=1e-9)


def test_tetrahedral_order_is_chiral():
    """Four sublattices towards the corners of a tetrahedron: each triangle has chirality 4 / (3 sqrt 3)."""
    lattice = make_lattice("triangular", (6, 4), (True, True))
    corners = np.array([[[1, 1, 1], [1, -1, -1]], [[-1, 1, -1], [-1, -1, 1]]]) / math.sqrt(3)
    x, y = np.indices(lattice.size) % 2
    chirality = scalar_chirality(lattice, corners[x, y])
    assert np.allclose(np.abs(chirality), 4 / (3 * math.sqrt(3)))
    assert len(np.unique(np.sign(chirality))) == 1
    assert topological_charge(lattice, corners[x, y]) == pytest.approx(math.copysign(2 * 24 / 4, chirality[0, 0]))


def test_coplanar_order_has_none_and_open_edges_no_value():
    lattice = make_lattice("triangular", (6, 6), (False, True))
    angle = 2 * np.pi / 3 * np.indices(lattice.size).sum(axis=0)
    spins = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    chirality = scalar_chirality(lattice, spins)
    assert np.isnan(chirality[-1]).all()
    assert np.abs(chirality[:-1]).max() < 1e-14
    assert structure_factor(lattice, spins, [(1 / 3, 1 / 3), (0, 0)]) == pytest.approx([18, 0], abs=1e-12)


def test_structure_factor_obeys_its_sum_rule():
    """Over all wave vectors of the lattice it averages to 1, and (1/2, 1/2) is the square antiferromagnet."""
    lattice = make_lattice("square", (4, 6), (True, True))
    spins = np.random.default_rng(0).normal(size=(4, 6, 3))
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    waves = [(h / 4, k / 6) for h in range(4) for k in range(6)]
    assert structure_factor(lattice, spins, waves).mean() == pytest.approx(1)
    neel = np.zeros((4, 6, 3))
    neel[..., 2] = 1 - 2 * (np.indices((4, 6)).sum(axis=0) % 2)
    assert structure_factor(lattice, neel, [(0.5, 0.5), (0.5, 0)]) == pytest.approx([24, 0])


@kinds
def test_a_vacancy_takes_away_its_six_triangles_and_no_others(kind):
    lattice = make_lattice(kind, (5, 4), (True, True))
    spins = np.random.default_rng(0).normal(size=(5, 4, 3))
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    spins[2, 2] = np.nan
    o, x, y, xy = (np.roll(spins, shift, axis=(0, 1)) for shift in ((0, 0), (-1, 0), (0, -1), (-1, -1)))
    chiralities = np.stack([(a * np.cross(b, c)).sum(axis=-1) for a, b, c in ((o, x, y), (xy, y, x))])
    assert np.isnan(chiralities).sum() == 6
    known = scalar_chirality(lattice, spins)
    assert np.argwhere(np.isnan(known)).tolist() == [[1, 2], [2, 1]]
    only = np.where(np.isnan(chiralities[0]), chiralities[1], chiralities[0])[[2, 1], [2, 1]]
    assert known[[2, 1], [2, 1]] == pytest.approx(only)
    charges = topological_charges(lattice, spins)
    assert np.array_equal(np.isnan(charges), np.isnan(known))
    assert np.array_equal(np.sign(charges[[2, 1], [2, 1]]), np.sign(only))
