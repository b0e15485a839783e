"""Strips of a lattice: every site is one rank's, rows lead where bonds do, the grid of ranks leaves no one idle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.electrons import ClosedLattice, KpmSolver
from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases
from hpcspin.electrons.kpm_strips import LEAST_SITES, Strip, strips_of_a_team
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World


def closed(size, kind="square", periodic=(True, True), hopping=(1.0, 0.3)):
    return ClosedLattice(make_lattice(kind, size, periodic), hopping, 1.0, 0.1, potential=0.0)


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["square", "triangular"]),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    periodic=st.tuples(st.booleans(), st.booleans()),
    ranks=st.integers(1, 3),
)
def test_rows_lead_to_the_sites_of_the_bonds(kind, size, periodic, ranks):
    """With the lines that a rank's neighbours have where its borders are."""
    ranks = min(ranks, max(size) // 2)
    system = closed(size, kind, periodic)
    strips = [Strip.cut(system, World(rank, ranks)) for rank in range(ranks)]
    assert np.array_equal(
        np.sort(np.concatenate([strip.sites for strip in strips])), np.arange(system.lattice.num_sites)
    )
    joined = np.concatenate([strip.sites for strip in strips])
    offsets = np.array([term.offset for term in system.hopping_terms])
    for rank, strip in enumerate(strips):
        before, after = strips[rank - 1].sites, strips[(rank + 1) % ranks].sites
        count = strip.border * strip.across
        known = np.concatenate([strip.sites, before[len(before) - count :], after[:count], [-1]])
        for sign in (1, -1):
            targets = system.lattice.shift(sign * offsets)[strip.sites]
            assert np.array_equal(known[strip.rows_of(targets)], targets)
    assert np.array_equal(strips[0].by_site(joined[:, None])[:, 0], np.arange(system.lattice.num_sites))


@pytest.mark.parametrize("size", [(9, 7), (7, 9)])
def test_groups_are_divided_with_their_phases(size):
    system, sites = closed(size), 63
    (group,) = probe_groups(colouring(system.lattice, 3), random_phases(sites, 0, 0, 0), 20)
    found = []
    for rank in range(3):
        strip = Strip.cut(system, World(rank, 3))
        own, before = strip.own(group)
        assert before == len(found)
        found += zip(strip.sites[own.sites], own.pairs, *own.phases.T, strict=True)
    assert sorted(found) == sorted(zip(group.sites, group.pairs, *group.phases.T, strict=True))
    assert np.array_equal([site for site, *_ in found], strip.in_line_order(group.sites))


def test_ranks_share_sites_where_vectors_do_not_divide():
    large = closed((256, 256))
    assert strips_of_a_team(large, ranks=4, groups=16) == 1
    assert strips_of_a_team(large, ranks=4, groups=2) == 2
    assert strips_of_a_team(large, ranks=2, groups=1) == 2
    assert strips_of_a_team(large, ranks=2, groups=9) == 2
    # Too small for two strips; too thin for bonds over two lines.
    assert strips_of_a_team(closed((64, LEAST_SITES // 64)), ranks=2, groups=1) == 1
    assert strips_of_a_team(closed((3, 3), periodic=(False, False)), ranks=3, groups=1) == 1


def test_teams_have_the_memory_of_the_pilot(monkeypatch):
    system = closed((60, 60))
    needed = 2 * 128 * 36 * 3600
    monkeypatch.setattr("hpcspin.electrons.backend.Backend.free_memory", lambda self: needed / 2.5)
    monkeypatch.setattr(World, "allgather", lambda self, value: [value] * self.size)
    assert KpmSolver.ranks_needed(system, World(size=4, sharing={"cpu": 1}), "cpu") == 3
    with pytest.raises(HpcspinError, match=r"kpm needs some .* GiB for this lattice.*; use 3 ranks"):
        KpmSolver.ranks_needed(system, World(sharing={"cpu": 1}), "cpu")


def test_ranks_whose_processors_take_other_vectors_together_are_refused(monkeypatch):
    """They would share out other vectors each."""
    monkeypatch.setattr(World, "allgather", lambda self, value: [value, 2 * value])
    system = closed((8, 8))
    with pytest.raises(HpcspinError, match="nodes of one kind"):
        KpmSolver(system, 1e-3).solve(np.tile([0.0, 0.0, 1.0], (1, 8, 8, 1)))
