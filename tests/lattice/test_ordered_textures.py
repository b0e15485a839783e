"""Ordered textures have the weights, chiralities and charges of their order, and refuse lattices that break it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.errors import HpcspinError
from hpcspin.lattice import (
    bond_fractions,
    bond_map,
    make_lattice,
    make_texture,
    puddle_sizes,
    scalar_chirality,
    structure_factors,
    topological_charge,
)
from hpcspin.lattice.settings import InitialSettings

CLOSED = (True, True)


def orders(lattice, name, **parameters):
    """Structure factors above rounding, by wave vector."""
    spins = make_texture(name, lattice, 1, tilt=0.0, **parameters)
    weights = structure_factors(lattice, spins)
    return {
        (round(h / lattice.size[0], 6), round(k / lattice.size[1], 6)): weights[h, k] / lattice.num_sites
        for h, k in np.argwhere(weights > 1e-9)
    }


def test_120_degree_order_has_half_of_its_weight_at_each_corner_of_the_zone():
    lattice = make_lattice("triangular", (6, 9), CLOSED)
    assert orders(lattice, "order_120") == pytest.approx({(0.333333, 0.666667): 1 / 2, (0.666667, 0.333333): 1 / 2})
    spins = make_texture("order_120", lattice, 1, tilt=0.0)
    np.testing.assert_allclose(bond_map(lattice, spins), -1 / 2, atol=1e-14)
    np.testing.assert_allclose(scalar_chirality(lattice, spins), 0, atol=1e-15)


@pytest.mark.parametrize("chirality", [1, -1])
def test_tetrahedral_order_has_one_chirality_everywhere_and_thirds_of_its_weight(chirality):
    lattice = make_lattice("triangular", (4, 6), CLOSED)
    thirds = dict.fromkeys([(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)], 1 / 3)
    assert orders(lattice, "tetrahedral", chirality=chirality) == pytest.approx(thirds)
    spins = make_texture("tetrahedral", lattice, 1, chirality=chirality, tilt=0.0)
    np.testing.assert_allclose(scalar_chirality(lattice, spins), chirality * 4 / (3 * math.sqrt(3)), atol=1e-14)
    assert topological_charge(lattice, spins) == pytest.approx(chirality * 24 / 2)


@pytest.mark.parametrize(("width", "first"), [(1, 1.0), (2, 1 / 2)])
def test_stripes_are_ordered_along_x(width, first):
    """The square wave of width 2 has its weight at 1/4 and 3/4, that of width 1 at 1/2."""
    found = orders(make_lattice("square", (8, 5), CLOSED), "stripes", width=width)
    assert found[(1 / 2 / width, 0.0)] == pytest.approx(first)
    assert sum(found.values()) == pytest.approx(1)


@given(kind=st.sampled_from(["square", "triangular"]), count=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_puddles_are_as_many_and_as_large_as_asked(kind, count, seed):
    lattice = make_lattice(kind, (20, 20), CLOSED)
    discs = {"square": 13, "triangular": 19}  # sites within two lattice constants
    spins = make_texture("puddles", lattice, seed, count=count, radius=2.0, tilt=0.0)
    in_x = np.isclose(spins[..., 0], 1)
    assert in_x.sum() == count * discs[kind]
    sizes = puddle_sizes(lattice, spins)
    if kind == "square":  # on the triangular lattice the antiferromagnet has ferromagnetic chains
        assert sizes.tolist() == [13] * count
        assert bond_fractions(lattice, spins)[0] == pytest.approx(count * 16 / 800)


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize("period", [5, 8])
def test_each_cell_of_a_skyrmion_lattice_has_one_charge(kind, period):
    lattice = make_lattice(kind, (2 * period, 3 * period), CLOSED)
    for charge in (1, -1):
        for tilt in (0.0, 0.1):
            spins = make_texture("skyrmions", lattice, 1, period=period, charge=charge, tilt=tilt)
            assert topological_charge(lattice, spins) == pytest.approx(6 * charge, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters", "kind", "size", "periodic", "said"),
    [
        ("antiferromagnet", {}, "square", (4, 5), (False, True), "multiple of 2, or make y open"),
        ("antiferromagnet", {}, "square", (5, 4), CLOSED, "multiple of 2, or make x open"),
        ("wall", {"position": 2}, "square", (4, 5), (False, True), "wall repeats after 2 sites along y"),
        ("puddles", {}, "square", (5, 4), CLOSED, "puddles repeats after 2 sites along x"),
        ("puddles", {"count": 9}, "square", (8, 8), CLOSED, "leave no room for the rest of 9"),
        ("order_120", {}, "square", (6, 6), CLOSED, "order of lattice.kind triangular, not of square"),
        ("order_120", {}, "triangular", (6, 8), CLOSED, "multiple of 3, or make y open"),
        ("tetrahedral", {}, "square", (6, 6), CLOSED, "order of lattice.kind triangular"),
        ("tetrahedral", {}, "triangular", (6, 7), (False, True), "multiple of 2, or make y open"),
        ("tetrahedral", {"chirality": 2}, "triangular", (6, 6), CLOSED, "initial.chirality: must be 1 or -1"),
        ("stripes", {"width": 2}, "square", (6, 6), CLOSED, "multiple of 4, or make x open"),
        ("skyrmions", {"period": 4}, "square", (8, 8), CLOSED, "give at least 5"),
        ("skyrmions", {"period": 8}, "square", (12, 8), (False, True), "multiples of 8"),
    ],
)
def test_sides_and_lattices_that_an_order_does_not_fit_are_refused(name, parameters, kind, size, periodic, said):
    with pytest.raises(HpcspinError, match=said) as refused:
        make_texture(name, make_lattice(kind, size, periodic), 1, **parameters)
    assert "\n" not in str(refused.value)


def test_open_sides_take_any_order():
    sizes = {"antiferromagnet": (5, 3), "order_120": (5, 7), "tetrahedral": (3, 5), "stripes": (3, 3)}
    for name, size in sizes.items():
        lattice = make_lattice("triangular", size, (False, False))
        assert make_texture(name, lattice, 1).shape == (*size, 3)


def test_a_config_refuses_a_chirality_that_is_no_sign():
    assert InitialSettings(kind="tetrahedral", chirality=-1).parameters == {"chirality": -1, "tilt": 0.1}
    with pytest.raises(ValueError, match="chirality"):
        InitialSettings(kind="tetrahedral", chirality=0)
