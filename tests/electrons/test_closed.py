"""Closed lattices by diagonalisation: reference states, derivatives of the energies, ensembles, hopping terms."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf  # type: ignore[import-untyped]

import hpcspin as hs
from hpcspin.dynamics import Anisotropy, Slonczewski, WholeLatticeField, Zeeman
from hpcspin.dynamics.energies import energy
from hpcspin.electrons import ClosedLattice, DrivenLattice, Reservoir, make_solver, sd_hamiltonian
from hpcspin.electrons.diagonalization import chemical_potential, field_and_divergence
from hpcspin.electrons.nonconservativity import tangents
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice

REFERENCES = sorted(Path(__file__).parents[1].joinpath("reference", "closed").glob("*_*x*.npz"))
STATES = [path for path in REFERENCES if not path.name.startswith("trajectory")]


def reference(path: Path) -> tuple[SimpleNamespace, ClosedLattice]:
    with np.load(path) as stored:
        data = SimpleNamespace(**{name: stored[name] for name in stored})
    meta = json.loads(str(data.meta))
    lattice = make_lattice(meta["lattice"], tuple(meta["size"]), tuple(meta["periodic"]))
    ensemble = {name: meta[name] for name in ("potential", "filling") if name in meta}
    return data, ClosedLattice(lattice, meta["hopping"], meta["exchange"], meta["temperature"], **ensemble)


def unit(size, rng):
    spins = rng.standard_normal((*size, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def closed(size=(4, 5), kind="square", periodic=(True, True), **given):
    parameters = {"hopping": 1.0, "exchange": 1.3, "temperature": 0.2, **given}
    if not parameters.keys() & {"potential", "filling"}:
        parameters["potential"] = -0.7
    return ClosedLattice(make_lattice(kind, size, periodic), **parameters)


def test_every_reference_state_is_there():
    assert len(STATES) == 5


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.stem)
def test_reference_states(path):
    data, system = reference(path)
    found = system.solve(data.spins, tolerance=1e-10)
    np.testing.assert_allclose(found.field, data.field, atol=1e-10)
    np.testing.assert_allclose(found.density, data.density, atol=1e-10)
    np.testing.assert_allclose(found.spin_density, data.spin_density, atol=1e-10)
    expected = data.omega if system.filling is None else data.free_energy
    np.testing.assert_allclose(found.energy, expected, atol=1e-9)
    np.testing.assert_allclose(found.electrons, data.electrons, atol=1e-9)
    # At the stored potential: in a gap another one holds the same electrons, and has another Omega.
    grand = replace(system, potential=float(data.potential), filling=None).solve(data.spins)
    np.testing.assert_allclose(grand.energy, data.omega, atol=1e-9)
    levels = np.linalg.eigvalsh(sd_hamiltonian(system, data.spins))
    np.testing.assert_allclose(levels, data.levels, atol=1e-12)


def test_reference_trajectory():
    data, system = reference(next(path for path in REFERENCES if path not in STATES))
    meta = json.loads(str(data.meta))
    run = hs.simulate(
        system, spins=data.spins[0], damping=meta["damping"], integrator="rk4", step=0.02, duration=2.0,
        record_interval=100,
    )  # fmt: skip
    assert set(run._arrays) >= {"density", "energy", "electrons", "chemical_potential", "error", "mean_chirality"}
    np.testing.assert_allclose(run.spins[-1], data.spins[1], atol=1e-8)
    np.testing.assert_allclose(run.energy, data.free_energy[:2], atol=1e-8)
    assert "wall_position" not in run._arrays


def test_the_recorded_energy_is_that_of_the_whole_field(caplog):
    empty = np.zeros((4, 4), dtype=bool)
    empty[1, 2] = True
    system = closed(size=(4, 4), filling=0.9, vacancies=empty)
    spins = system.texture("random", seed=2)
    moving = {"damping": 0.3, "step": 0.1, "duration": 1.0}
    terms = [None, Anisotropy(1.0), Zeeman((0.0, 0.0, 0.5))]
    run, land = hs.simulate(system, terms, spins, **moving), hs.landscape(system, terms)
    np.testing.assert_allclose(run.energy, [land(frame)[0] for frame in run.spins], atol=1e-10)
    assert "/energy" not in caplog.text
    # The torque of a spin current has no energy, a term of one's own may have one.
    others = [Slonczewski((0.1, 0.0, 0.0)), Constant(7.0)]
    more = hs.simulate(system, [*terms, *others], spins, **moving | {"duration": 0.1})
    np.testing.assert_allclose(more.energy[0], run.energy[0] + 7.0, atol=1e-10)
    assert "warning: /energy leaves out Slonczewski, which derives from no energy" in caplog.text


def test_a_landscape_refuses_a_field_of_ones_own_that_says_it_has_no_energy():
    system = closed(size=(3, 3), filling=0.9)
    land, spins = hs.landscape(system, [None, Constant(None)]), system.texture("random", seed=2)
    with pytest.raises(HpcspinError, match="derives from no energy"):
        land(spins)


@dataclass
class Constant:
    """An energy without a field."""

    value: float | None
    halo: ClassVar = (0, 0)

    def bind(self, domain):
        return lambda spins, time: 0 * spins

    def energy(self, lattice, spins):
        return self.value


RISING = np.linspace(0.5, 2, 20).reshape(4, 5)
SYSTEMS = {
    "fixed potential": {},
    "fixed filling": {"filling": 0.6},
    "open edges": {"periodic": (False, True)},
    "triangular": {"kind": "triangular", "filling": 1.1},
    "further neighbours": {"hopping": (1.0, 0.3, -0.2)},
    "Rashba": {"rashba": 0.4},
    "sites of their own": {"exchange": RISING, "on_site": RISING - 1},
}  # fmt: skip


@pytest.mark.parametrize("given", SYSTEMS.values(), ids=SYSTEMS)
def test_the_field_is_minus_the_gradient_of_the_energy(given):
    system, rng = closed(**given), np.random.default_rng(3)
    spins, direction = unit((4, 5), rng), rng.standard_normal((4, 5, 3))

    def moved(step):
        solver = make_solver("diagonalization", system, 1e-9)
        return solver.solve((spins + step * direction)[None]).energy[0]

    h = 1e-3
    slope = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    field = system.solve(spins).field
    np.testing.assert_allclose(-(field * direction).sum(), slope, atol=1e-8)


@pytest.mark.parametrize("given", [{"hopping": (1.0, 0.3)}, SYSTEMS["Rashba"], SYSTEMS["sites of their own"]])
def test_weakly_coupled_reservoirs_agree_within_their_width(given):
    """NEGF at one potential, and the closed form, against diagonalisation: one description of the Hamiltonian."""
    width, potential = 1e-4, -0.7
    shut = closed(periodic=(False, True), **given)
    bath = Reservoir("bath", np.ones((4, 5), dtype=bool), width, potential)
    shared = {name: getattr(shut, name) for name in ("hopping", "exchange", "temperature", "on_site", "rashba")}
    driven = DrivenLattice(shut.lattice, reservoirs=(bath,), **shared)
    spins = unit((4, 5), np.random.default_rng(4))
    exact = shut.solve(spins)
    for solver in ("negf", "closed_form"):
        found = driven.solve(spins, 1e-7, solver=solver)
        np.testing.assert_allclose(found.field, exact.field, atol=20 * width)
        np.testing.assert_allclose(found.density, exact.density, atol=20 * width)


def test_negf_and_the_closed_form_agree_on_a_biased_lattice_with_every_hopping_term():
    lattice = make_lattice("square", (4, 5), (False, True))
    left, right = lattice.mask("left"), lattice.mask("right")
    reservoirs = (Reservoir("left", left, 0.8, -1.0), Reservoir("right", right, 1.1, 0.4))
    system = DrivenLattice(
        lattice, (1.0, 0.3), RISING, 0.1, reservoirs,
        rashba=0.4, on_site=RISING - 1,
    )  # fmt: skip
    spins = unit((4, 5), np.random.default_rng(5))
    found, exact = system.solve(spins, 1e-8), system.solve(spins, 1e-8, solver="closed_form")
    np.testing.assert_allclose(found.field, exact.field, atol=1e-8)
    np.testing.assert_allclose(found.current, exact.current, atol=1e-7)


def test_negf_says_which_bonds_are_too_long():
    lattice = make_lattice("square", (4, 5))
    bath = Reservoir("bath", lattice.mask("all"), 0.1, 0.0)
    system = DrivenLattice(lattice, (1.0, 0.3, -0.2), 1.0, 0.1, (bath,))
    with pytest.raises(HpcspinError, match=r"bond \(2, 0\).*use closed_form"):
        system.solve(lattice.sites[..., [0, 0, 0]] * 0.0 + [0, 0, 1.0])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=8),
    st.floats(0.01, 1),
    st.floats(0.02, 0.98),
)
def test_the_chemical_potential_holds_the_electrons(levels, temperature, share):
    ordered = np.sort(np.array(levels))
    electrons = share * len(levels)
    found = chemical_potential(ordered, electrons, temperature)
    held = (1 / (1 + np.exp((ordered - found) / temperature))).sum()
    np.testing.assert_allclose(held, electrons, atol=1e-10)


@pytest.mark.parametrize(
    ("levels", "filling", "temperature"),
    [
        ([-1.0, -0.9, -0.9, 2.0, 2.3, 2.4], 1.0, 0.02),
        ([-1.0, -0.9, -0.9, 7.0, 7.3, 7.4], 1.0, 0.05),
        ([-2.0] * 57 + [2.0] * 143, 0.57, 0.02),  # In double precision 0.57 * 100 is 56.99999999999999.
    ],
)
def test_in_a_gap_the_chemical_potential_is_that_of_infinite_precision(levels, filling, temperature):
    electrons = closed((len(levels) // 2, 1), periodic=(False, False), filling=filling).fixed_electrons
    found = chemical_potential(np.array(levels), electrons, temperature)
    mp.dps, full = 400, sum(level < 0 for level in levels)
    low, high = mpf(-0.9), mpf(levels[-1])
    for _ in range(60):
        middle = (low + high) / 2
        held = sum(levels.count(e) / (1 + mp.exp((mpf(e) - middle) / mpf(temperature))) for e in set(levels))
        low, high = (middle, high) if held < full else (low, middle)
    np.testing.assert_allclose(found, float(low), atol=1e-10)


def test_a_filling_with_two_decimals_gives_whole_electrons_and_others_do_not():
    assert [closed((10, 10), filling=k / 100).fixed_electrons for k in range(201)] == list(range(201))
    assert closed((10, 10), filling=0.57 + 1e-6).fixed_electrons == pytest.approx(57.0001, abs=1e-12)


def test_empty_and_full_lattices_have_no_field():
    spins = unit((4, 5), np.random.default_rng(6))
    for filling, expected in ((0.0, 0.0), (2.0, 2.0)):
        found = closed(filling=filling).solve(spins)
        np.testing.assert_allclose(found.density, expected, atol=1e-12)
        np.testing.assert_allclose(found.field, 0, atol=1e-12)
        assert np.isfinite(found.energy)


def test_the_energy_at_fixed_filling_is_the_transform_of_that_at_fixed_potential():
    spins = unit((4, 5), np.random.default_rng(7))
    free = closed(filling=0.8).solve(spins)
    grand = closed(potential=float(free.chemical_potential)).solve(spins)
    np.testing.assert_allclose(grand.field, free.field, atol=1e-11)
    np.testing.assert_allclose(free.energy, grand.energy + free.chemical_potential * 0.8 * 20, atol=1e-10)


def test_half_filling_of_a_bipartite_lattice_has_one_electron_on_every_site():
    spins = unit((4, 6), np.random.default_rng(8))
    found = closed((4, 6), potential=0.0).solve(spins)
    np.testing.assert_allclose(found.density, 1, atol=1e-12)


def test_fields_turn_with_the_spins_and_with_rashba_coupling_they_do_not():
    rng = np.random.default_rng(9)
    spins = unit((4, 5), rng)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turn *= np.linalg.det(turn)
    for rashba, turns in ((0.0, True), (0.4, False)):
        system = closed(rashba=rashba)
        there = np.allclose(system.solve(spins @ turn.T).field, system.solve(spins).field @ turn.T, atol=1e-10)
        assert there == turns


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filling": 2.1}, "filling 2.1 must lie between 0 and 2"),
        ({"filling": -0.1}, "filling -0.1 must lie between 0 and 2"),
        ({"filling": 1.0, "potential": 0.0}, "a system without reservoirs needs exactly one of potential"),
        ({"potential": float("nan")}, "potential nan must be a finite number"),
        ({"hopping": ()}, "hopping .* one of each shell"),
        ({"exchange": np.ones((2, 2))}, r"exchange of shape \(2, 2\) does not fit"),
        ({"rashba": float("inf")}, "rashba inf must be a finite number"),
    ],
)
def test_impossible_parameters_are_one_line(given, message):
    with pytest.raises(HpcspinError, match=f"^electrons: {message}"):
        closed(**given)


def test_numbers_of_numpy_are_numbers():
    given = {name: np.float32(0.5) for name in ("hopping", "exchange", "temperature", "filling")}
    ours, theirs = closed(**given), closed(**dict.fromkeys(given, 0.5))
    assert ours.as_config() == theirs.as_config()
    assert closed(hopping=np.int64(2)).nearest_hopping == 2.0


def test_where_rounding_errors_count_at_low_temperature_the_message_names_it():
    spins = unit((4, 5), np.random.default_rng(12))
    with pytest.raises(HpcspinError, match=r"raise electrons\.tolerance, or electrons\.temperature, .* start again"):
        closed(temperature=1e-12).solve(spins)


def test_solvers_say_which_systems_they_treat():
    with pytest.raises(HpcspinError, match=r"negf is for a driven lattice, with reservoirs.*choose diagonalization"):
        make_solver("negf", closed(), 1e-6)
    with pytest.raises(HpcspinError, match="complex64"):
        make_solver("diagonalization", closed(), 1e-6, precision="complex64")


def test_a_lattice_that_no_memory_holds_is_refused_with_what_would_do():
    with pytest.raises(HpcspinError, match=r"diagonalization of 1000000 sites needs .* choose kpm"):
        make_solver("diagonalization", closed((1000, 1000)), 1e-6)


def test_energies_of_a_field_of_the_lattice_are_those_of_its_spins():
    system = closed()
    field = WholeLatticeField(make_solver("diagonalization", system, 1e-9).solve, system.result_shapes)
    spins = unit((4, 5), np.random.default_rng(10))
    field.evaluate(-spins)
    np.testing.assert_allclose(energy(field, system.lattice, spins), system.solve(spins).energy, atol=1e-12)


def test_without_exchange_the_levels_are_those_of_the_rashba_band():
    """-2t (cos kx + cos ky) ± 2 rashba sqrt(sin² kx + sin² ky), Bychkov and Rashba on a square lattice."""
    system = closed(size=(4, 5), exchange=0.0, rashba=0.4)
    kx, ky = (2 * np.pi * np.arange(n) / n for n in (4, 5))
    band = -2 * (np.cos(kx)[:, None] + np.cos(ky))
    split = 0.8 * np.sqrt(np.sin(kx)[:, None] ** 2 + np.sin(ky) ** 2)
    spins = unit((4, 5), np.random.default_rng(11))
    levels = np.linalg.eigvalsh(sd_hamiltonian(system, spins))
    np.testing.assert_allclose(levels, np.sort(np.stack([band - split, band + split]).ravel()), atol=1e-12)


@pytest.mark.parametrize("given", [*SYSTEMS.values(), {"vacancies": RISING > 1.6, "filling": 0.7, "rashba": 0.3}])
def test_the_divergence_is_that_of_the_field_under_small_rotations(given):
    system, spins = closed(**given), unit((4, 5), np.random.default_rng(6))
    field, divergence = field_and_divergence(system, spins)
    np.testing.assert_allclose(field, system.solve(spins).field, atol=1e-12)
    expected, angle = np.zeros(system.lattice.size), 1e-3
    for site in np.ndindex(*system.lattice.size):
        for tangent in tangents(spins[site]):
            turned = np.stack([spins, spins])
            turned[:, *site] = [np.cos(angle) * spins[site] + sign * np.sin(angle) * tangent for sign in (1, -1)]
            ahead, behind = system.solve(turned).field[:, *site]
            expected[site] += (ahead - behind) @ tangent / (2 * angle)
    np.testing.assert_allclose(divergence, expected, atol=1e-6 * np.abs(expected).max())


def test_the_spin_temperature_under_closed_electrons_is_gradient_over_laplacian():
    empty = np.zeros((4, 4), dtype=bool)
    empty[1, 2] = True
    system = closed(size=(4, 4), filling=0.9, vacancies=empty)
    spins, terms = system.texture("random", seed=2), [None, Anisotropy(0.6)]
    run = hs.simulate(
        system, terms, spins, damping=0.3, step=0.1, duration=0.1, observers=["spin_temperature"], pinned=[[0, 0]]
    )
    land = hs.landscape(system, terms, pinned=[[0, 0]])
    frames, step, square, laplacian = tangents(spins), 1e-3, 0.0, 0.0
    middle = land(spins)[0]
    for x, y in np.argwhere(land.free):
        for across in frames[x, y]:
            ends = np.stack([spins, spins])
            ends[:, x, y] = [np.cos(step) * spins[x, y] + sign * np.sin(step) * across for sign in (1, -1)]
            ahead, behind = (land(end)[0] for end in ends)
            square += ((ahead - behind) / (2 * step)) ** 2
            laplacian += (ahead + behind - 2 * middle) / step**2
    assert run.spin_temperature[0] == pytest.approx(square / laplacian, rel=1e-5)


def test_the_noise_of_an_estimated_field_is_not_in_the_spin_temperature():
    found, fields = {}, {}
    for solver in ("kpm", "diagonalization"):
        system = closed(
            (12, 12), "triangular", exchange=3.0, temperature=0.1, filling=0.5, solver=solver, tolerance=0.3
        )
        spins = system.texture("tetrahedral", tilt=0.2, seed=2)
        run = hs.simulate(
            system, [None, Zeeman((0, 0, 0.1))], spins, duration=0.1, step=0.1, observers=["spin_temperature"]
        )
        found[solver], fields[solver] = run.spin_temperature[0], run.field[0]
    assert np.abs(fields["kpm"] - fields["diagonalization"]).max() > 1e-3
    assert found["kpm"] == pytest.approx(found["diagonalization"], rel=1e-10)
