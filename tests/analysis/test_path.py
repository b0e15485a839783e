"""Minimum-energy paths and rest, where energies are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpcspin as hs
from hpcspin.analysis import geodesic, relax
from hpcspin.analysis.path import angles
from hpcspin.dynamics import Anisotropy, Heisenberg, Slonczewski, Zeeman
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture

ONE = make_lattice("square", (1, 1), (False, False))


def up(lattice, sign: float = 1.0) -> np.ndarray:
    return np.broadcast_to((0.0, 0.0, sign), (*lattice.size, 3)).copy()


@settings(max_examples=8, deadline=None)
@given(st.floats(0.1, 5.0), st.floats(0.0, 0.5))
def test_the_barrier_of_the_macrospin(anisotropy: float, part: float) -> None:
    """E = -K cos^2 a - h cos a with h = 2 K part: from +z to the top is K (1 + part)^2, from -z K (1 - part)^2."""
    land = hs.landscape(ONE, [Anisotropy(anisotropy), Zeeman((0, 0, 2 * anisotropy * part))])
    band = land.path(up(ONE), up(ONE, -1.0), tolerance=1e-6 * anisotropy)
    assert band.barrier == pytest.approx(anisotropy * (1 + part) ** 2, rel=1e-6)
    assert band.barrier_back == pytest.approx(anisotropy * (1 - part) ** 2, rel=1e-6)
    assert band.has_saddle


@pytest.mark.parametrize("reverse", [False, True])
def test_no_barrier_keeps_spins_on_a_maximum(reverse: bool) -> None:
    """Spins across the axis have no torque, and K to lose: the energy falls all the way."""
    ends = [np.full((1, 1, 3), (1.0, 0.0, 0.0)), up(ONE)]
    band = hs.landscape(ONE, [Anisotropy(0.7)]).path(*ends[:: -1 if reverse else 1])
    barriers = [band.barrier, band.barrier_back]
    assert barriers[:: -1 if reverse else 1] == [0.0, pytest.approx(0.7, abs=1e-12)]
    assert not band.has_saddle


def test_strong_exchange_turns_all_spins_together() -> None:
    lattice = make_lattice("triangular", (3, 4), (True, True))
    band = hs.landscape(lattice, [Heisenberg(1.0, lattice.bonds), Anisotropy(0.05)]).path(
        up(lattice), up(lattice, -1.0)
    )
    assert band.barrier == pytest.approx(12 * 0.05, rel=1e-6)
    assert band.force.max() <= 1e-4
    assert band.climbs


def test_a_long_chain_is_reversed_by_a_wall() -> None:
    """Of energy sqrt(8 J K) where it is wide, far below the N K of a uniform rotation."""
    chain = make_lattice("square", (24, 1), (False, False))
    band = hs.landscape(chain, [Heisenberg(1.0), Anisotropy(0.05)]).path(up(chain), up(chain, -1.0), images=11)
    assert band.barrier == pytest.approx(np.sqrt(8 * 0.05), rel=0.02)


def test_the_same_path_back() -> None:
    land = hs.landscape(ONE, [Anisotropy(0.5), Zeeman((0.2, 0.0, 0.1))])
    first, last = (land.minimise(spins, 1e-10).spins for spins in (up(ONE), up(ONE, -1.0)))
    there, back = (land.path(*ends, tolerance=1e-8, tilt=0.0) for ends in ((first, last), (last, first)))
    assert there.energy[there.top] == pytest.approx(back.energy[back.top], abs=1e-12)


def test_a_band_that_goes_on_repeats_its_bits() -> None:
    chain = make_lattice("square", (6, 1), (False, False))
    land = hs.landscape(chain, [Heisenberg(1.0), Anisotropy(0.3)])
    bands = list(relax(land.images, geodesic(up(chain), up(chain, -1.0), 5, 0.1), 1e-5))
    for start in (2, len(bands) // 2, len(bands) - 1):
        state = {name: getattr(bands[start], name) for name in ("spring", "step", "climbs", "evaluations")}
        again = list(relax(land.images, bands[start].spins, 1e-5, **state))
        assert len(again) == len(bands) - start
        for one, other in zip(again, bands[start:], strict=True):
            np.testing.assert_array_equal(one.spins, other.spins)
            assert one.evaluations == other.evaluations


def test_images_of_a_geodesic_are_equally_far_apart() -> None:
    first, last = (make_texture("random", make_lattice("square", (3, 3)), seed) for seed in (1, 2))
    last[0, 0] = -first[0, 0]
    last[1, 1] = first[1, 1]
    images = geodesic(first, last, 7)
    np.testing.assert_allclose(angles(images[1:], images[:-1]), np.tile(angles(first, last) / 6, (6, 1, 1)), atol=1e-7)
    assert (images[0] == first).all()
    assert (images[-1] == last).all()
    with pytest.raises(HpcspinError, match="same spins"):
        next(relax(lambda images: (images[:, 0, 0, 0], images), geodesic(first, first, 5), 1e-3))
    again = first + 1e-6 * last
    again /= np.linalg.norm(again, axis=-1, keepdims=True)
    with pytest.raises(HpcspinError, match="same spins"):
        next(relax(lambda images: (images[:, 0, 0, 0], images), geodesic(first, again, 5, 0.1), 1e-3))


def test_a_heisenberg_ring_rests_at_minus_j_a_bond() -> None:
    ring = make_lattice("square", (8, 1), (True, False))
    land = hs.landscape(ring, Heisenberg(0.7))
    found = land.minimise(make_texture("ferromagnet", ring, 3, tilt=0.3), 1e-9)
    assert land(found.spins)[0] == pytest.approx(-0.7 * 8, abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.floats(5.0, 85.0))
def test_a_macrospin_switches_where_stoner_and_wohlfarth_say(degrees: float) -> None:
    """At a field of 2 K (cos^(2/3) + sin^(2/3))^(-3/2) against the spin, at an angle to the axis."""
    x, z = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    critical = 2 * 0.5 * (x ** (2 / 3) + z ** (2 / 3)) ** -1.5
    spins = up(ONE)
    for part, switched in ((0.5, False), (0.98, False), (1.02, True)):
        strength = -part * critical
        land = hs.landscape(ONE, [Anisotropy(0.5), Zeeman((strength * x, 0.0, strength * z))])
        spins = land.minimise(spins, 1e-9).spins
        assert (spins[0, 0, 2] < 0) == switched


def test_the_field_is_the_slope_of_the_energy_also_of_electrons() -> None:
    lattice = make_lattice("square", (3, 2), (True, False))
    electrons = hs.ClosedLattice(lattice, 1.0, 2.0, 0.1, filling=0.4, tolerance=1e-8)
    land = hs.landscape(electrons, [None, Heisenberg(0.3), Anisotropy(0.2)])
    rng = np.random.default_rng(1)
    spins, turn = make_texture("random", lattice, 1), rng.standard_normal((3, 2, 3))
    turn -= (turn * spins).sum(-1, keepdims=True) * spins
    energies = []
    for sign in (1, -1):
        moved = spins + sign * 1e-4 * turn
        energies.append(land(moved / np.linalg.norm(moved, axis=-1, keepdims=True))[0])
    assert (energies[0] - energies[1]) / 2e-4 == pytest.approx((land.slope(spins) * turn).sum(), rel=1e-5)


def test_a_learned_energy_and_its_field_come_from_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    system = hs.load_system("configs/triangular_120.yaml", "lattice.size=[6,6]")
    model, spins = hs.load_model("triangular_120"), make_texture("random", system.lattice, 1)
    land = hs.landscape(system, model, pinned="left")
    energy, exact = (
        model.energy(spins, system),
        model.predict(spins[None], system.lattice, model.drive(system)).field[0],
    )
    calls, forward = [], type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda *given: calls.append(1) or forward(*given))
    found, field = land(spins)
    assert len(calls) == 1
    assert found == energy
    np.testing.assert_array_equal(field, exact * ~system.lattice.mask("left")[..., None])
    np.testing.assert_allclose(land.field(spins), field, atol=1e-6)


def test_pinned_spins_stay_and_are_the_same_at_both_ends() -> None:
    land = hs.landscape(chain := make_lattice("square", (6, 1), (False, False)), Heisenberg(1.0), pinned="left")
    spins = make_texture("random", chain, 1)
    rest = land.minimise(spins, 1e-8).spins
    np.testing.assert_allclose(rest, np.broadcast_to(spins[0], rest.shape), atol=1e-6)
    np.testing.assert_array_equal(*land.ends(spins, rest)[:, 0])  # Although the descent has changed their last bits.
    with pytest.raises(HpcspinError, match="pinned spins differ between both ends"):
        land.path(rest, -rest)
    with pytest.raises(HpcspinError, match="landscape: pinned"):
        hs.landscape(chain, Heisenberg(1.0), pinned=[[9, 9]])


def test_fields_without_an_energy_are_refused() -> None:
    noisy = hs.ClosedLattice(ONE, 1.0, 2.0, 0.1, filling=0.4, solver="kpm", tolerance=1e-2)
    with pytest.raises(HpcspinError, match="kpm estimates energies with noise; choose diagonalization"):
        hs.landscape(noisy)
    with pytest.raises(HpcspinError, match="derives from no energy"):
        hs.landscape(ONE, [Anisotropy(1.0), Slonczewski((0, 0, 0.1))])
    driven = hs.load_system("configs/driven_sd_small.yaml")
    for field in (None, "driven_sd_pair", "driven_sd_fast"):
        with pytest.raises(HpcspinError, match="derives from no energy"):
            hs.landscape(driven, field, allow=["electrons.temperature"])
