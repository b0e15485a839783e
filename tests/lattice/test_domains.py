"""Domains: correlations against sums over all pairs, walls and puddles of textures that are drawn by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hpcspin.lattice import (
    chirality_correlation,
    chirality_walls,
    correlation_length,
    make_lattice,
    make_texture,
    nearest_bonds,
    puddle_sizes,
)
from hpcspin.lattice.domains import correlation_function
from hpcspin.lattice.lattice import nearest_vectors

lattices = st.builds(
    make_lattice,
    st.sampled_from(["square", "triangular"]),
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.tuples(st.booleans(), st.booleans()),
)


@given(lattices, st.integers(-30, 30), st.integers(-30, 30))
@settings(deadline=None)
def test_the_nearest_image_is_the_shortest_of_many(lattice, x, y):
    images = [
        lattice.cartesian([x + m * lattice.size[0], y + n * lattice.size[1]])
        for m in (range(-16, 17) if lattice.periodic[0] else [0])
        for n in (range(-16, 17) if lattice.periodic[1] else [0])
    ]
    found = nearest_vectors(lattice, [x, y])
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(images, axis=-1).min())
    assert np.isclose(found, images).all(axis=-1).any()


@given(lattices, st.data())
@settings(max_examples=30, deadline=None)
def test_correlations_are_means_over_all_pairs(lattice, data):
    values = data.draw(arrays(float, lattice.size, elements=st.floats(-1, 1).filter(lambda v: v == 0 or abs(v) > 1e-6)))
    values[0, 0], values[1, 1] = 0.5, np.nan
    sites, flat = lattice.sites.reshape(-1, 2), values.ravel()
    radius = np.linalg.norm(nearest_vectors(lattice, sites[None] - sites[:, None]), axis=-1)
    there = ~np.isnan(flat[:, None] * flat)
    mean_square = np.nanmean(flat**2)
    distance, correlation = correlation_function(lattice, values)
    assert len(distance) == min(lattice.size) // 2 + 1
    for number in range(len(distance)):
        pairs = there & (np.round(radius) == number)
        assert distance[number] == pytest.approx(radius[pairs].mean(), abs=1e-12)
        assert correlation[number] == pytest.approx((flat[:, None] * flat)[pairs].mean() / mean_square, abs=1e-9)


def test_the_length_of_a_correlation_is_where_it_has_halved():
    assert correlation_length(np.arange(5.0), 1 - 2 * np.arange(5.0) / 8) == pytest.approx(2)
    assert math.isnan(correlation_length(np.arange(3.0), np.array([1.0, 0.9, 0.8])))


def two_domains(lattice):
    """Both chiralities of the tetrahedral order, each on half of x."""
    spins = make_texture("tetrahedral", lattice, 1, tilt=0.0)
    spins[lattice.size[0] // 2 :] = make_texture("tetrahedral", lattice, 1, chirality=-1, tilt=0.0)[
        lattice.size[0] // 2 :
    ]
    return spins


def test_walls_between_chiralities_are_counted_along_their_length():
    """Two straight walls along y, one where the lattice closes on itself: 2 Ly edges of length 1 / sqrt 3 each."""
    lattice = make_lattice("triangular", (24, 12), (True, True))
    assert chirality_walls(lattice, make_texture("tetrahedral", lattice, 1, tilt=0.05)) == 0
    walls = chirality_walls(lattice, two_domains(lattice))
    assert 2 * 12 <= walls <= 2 * 12 * 2 * 2 / math.sqrt(3)
    opened = make_lattice("triangular", (24, 12), (False, True))
    assert chirality_walls(opened, two_domains(opened)) == pytest.approx(walls / 2)


def test_the_chirality_of_one_domain_is_correlated_everywhere_and_of_two_domains_on_average_not():
    lattice = make_lattice("triangular", (24, 24), (True, True))
    distance, correlation = chirality_correlation(lattice, make_texture("tetrahedral", lattice, 1, tilt=0.0))
    np.testing.assert_allclose(correlation, 1, atol=1e-12)
    assert math.isnan(correlation_length(distance, correlation))
    distance, correlation = chirality_correlation(lattice, two_domains(lattice))
    assert np.all(np.diff(correlation) < 0)
    # Domains of width 12: isotropically averaged, d * 2 / pi of the distance lies across the walls.
    assert correlation_length(distance, correlation) == pytest.approx(12 / 4 * math.pi / 2, abs=1.5)


@given(lattices, st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_puddles_are_the_clusters_that_a_search_finds(lattice, seed):
    spins = make_texture("random", lattice, seed)
    bonds, table = nearest_bonds(lattice, spins).reshape(lattice.num_sites, -1), lattice.shift(lattice.bonds)
    joined = {site: set() for site in range(lattice.num_sites)}
    for site, bond in np.argwhere(bonds > 1 / 2):
        joined[site].add(table[site, bond])
        joined[table[site, bond]].add(site)
    sizes, left = [], set(joined)
    while left:
        cluster, frontier = set(), {left.pop()}
        while frontier:
            cluster |= frontier
            frontier = set().union(*(joined[site] for site in frontier)) - cluster
        left -= cluster
        sizes.append(len(cluster))
    assert puddle_sizes(lattice, spins).tolist() == sorted((size for size in sizes if size > 1), reverse=True)


def test_a_puddle_goes_across_a_periodic_edge():
    spins = np.zeros((6, 6, 3))
    spins[..., 2] = 1 - 2 * (np.indices((6, 6)).sum(axis=0) % 2)
    spins[[0, 5], 2] = (1.0, 0.0, 0.0)
    assert puddle_sizes(make_lattice("square", (6, 6), (True, True)), spins).tolist() == [2]
    assert puddle_sizes(make_lattice("square", (6, 6), (False, True)), spins).tolist() == []
