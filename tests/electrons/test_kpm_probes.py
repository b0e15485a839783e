"""Probing vectors: distances between sites of a colour, and phases that nothing but their key determines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases, unit_colouring
from hpcspin.lattice import make_lattice


def along(a, b, length):
    return min((a - b) % length, (b - a) % length)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 19), st.integers(3, 19), st.integers(1, 12))
def test_sites_of_a_colour_are_apart(lx, ly, distance):
    """At least the distance along x or along y around the periodic lattice, whatever the sides."""
    coloured = colouring(make_lattice("square", (lx, ly), (True, True)), distance)
    assert set(coloured.colours) == set(range(coloured.count))
    assert coloured.count <= (2 * distance) ** 2 or coloured.is_exact
    for colour in range(coloured.count):
        places = [divmod(int(site), ly) for site in np.flatnonzero(coloured.colours == colour)]
        for i, (x, y) in enumerate(places):
            for u, v in places[:i]:
                assert max(along(x, u, lx), along(y, v, ly)) >= distance


def test_as_few_colours_as_the_distance_allows():
    for size, distance, count in (((24, 24), 8, 64), ((30, 24), 8, 80), ((16, 9), 6, 72), ((5, 5), 6, 25)):
        assert colouring(make_lattice("triangular", size, (True, True)), distance).count == count


def test_unit_vectors():
    lattice = make_lattice("square", (4, 5), (True, True))
    assert unit_colouring(lattice).is_exact
    assert colouring(lattice, 6).is_exact
    assert not colouring(lattice, 2).is_exact


@pytest.mark.parametrize("pairs", [4, 5])
def test_groups_hold_every_site_once(pairs):
    coloured, phases = colouring(make_lattice("square", (9, 8), (True, True)), 3), random_phases(72, 1, 2, 0)
    groups = probe_groups(coloured, phases, pairs)
    assert sorted(np.concatenate([group.sites for group in groups])) == list(range(72))
    for number, group in enumerate(groups):
        assert np.array_equal(coloured.colours[group.sites], pairs * number + group.pairs)
        assert np.array_equal(group.phases, phases[group.sites])


def test_phases_follow_their_key_and_average_out():
    phases = random_phases(20000, 3, 1 << 40, 1)
    assert np.array_equal(phases, random_phases(20000, 3, 1 << 40, 1))
    assert np.array_equal(phases[:50], random_phases(50, 3, 1 << 40, 1))
    assert np.abs((phases**2).sum(axis=1) - 1).max() < 1e-15
    values = phases[:, 0] + 1j * phases[:, 1]
    for other in ((4, 1 << 40, 1), (3, 1 + (1 << 40), 1), (3, 0, 1), (3, 1 << 40, 0)):
        others = random_phases(20000, *other)
        assert abs(np.vdot(values, others[:, 0] + 1j * others[:, 1])) / 20000 < 4 / np.sqrt(20000)
    for power in (1, 2, 3, 4):
        assert abs(np.mean(values**power)) < 4 / np.sqrt(20000)
