"""Laws of a learned grand potential: fields and electrons are its derivatives, and a filling decides on mu."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bent import bend
from force_fields import make_model, random_spins, rotation
from numpy.polynomial import Chebyshev
from torch import Tensor

from hpcspin.electrons import ClosedLattice
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import (
    Architecture,
    Committee,
    GrandPotential,
    Prediction,
    at_filling,
    host_adjoint,
    host_library,
)
from hpcspin.potential.grand import TERMS

LATTICE = make_lattice("square", (6, 5), (True, True))
RANGE = (-4.5, -3.5, 0.9)
GIVEN = torch.tensor([[-4.2, float("nan")]], dtype=torch.float64)


def grand(seed: int = 3, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "kind": "conservative", "layers": (1, 1), "channels": 3, "symmetry": "full", "radius": 1.5,
        "drive": "chemical_potential", "grand_potential": RANGE,
    }  # fmt: skip
    model = make_model(seed, **{**given, **changes})
    bend(model)
    return model


def predict(model: Any, spins: Tensor, drive: Tensor) -> Prediction:
    given = spins, model.neighbourhood(LATTICE)
    return model(*given, *at_filling(model, *given, drive, LATTICE.num_sites))


def electrons_of(model: Any, spins: Tensor, drive: Tensor) -> float:
    """N at a chemical potential."""
    return float(model.grand_potential.electrons(predict(model, spins, drive).terms, drive, LATTICE.num_sites))


def filled(model: Any, spins: Tensor) -> Tensor:
    """The drive of the filling that the model has at a chemical potential inside its range."""
    electrons = electrons_of(model, spins, GIVEN) / LATTICE.num_sites
    return torch.tensor([[float("nan"), electrons]], dtype=torch.float64)


@pytest.mark.parametrize("at_filling_", [False, True])
@pytest.mark.parametrize("time_reversal", ["broken", "even"])
def test_the_field_is_the_derivative_of_the_grand_potential_and_of_the_free_energy(
    at_filling_: bool, time_reversal: str
) -> None:
    """-∂Omega/∂S at fixed mu, and -∂F/∂S at fixed filling, where mu depends on every spin; central differences."""
    model, spins, step = grand(time_reversal=time_reversal), random_spins(1, LATTICE.num_sites, 1), 1e-4
    drive = filled(model, spins) if at_filling_ else GIVEN
    found = predict(model, spins, drive)
    for site, axis in ((0, 0), (11, 1), (29, 2)):
        ends = []
        for sign in (1, -1):
            moved = spins.clone()
            moved[0, site, axis] += sign * step
            ends.append(float(predict(model, moved, drive).energy[0]))
        assert float(found.field[0, site, axis]) == pytest.approx(-(ends[0] - ends[1]) / (2 * step), abs=2e-8)
    assert found.field.abs().max() > 1e-4
    assert not found.nonequilibrium.any()


def test_electrons_are_the_derivative_by_the_chemical_potential() -> None:
    model, spins, step = grand(), random_spins(1, LATTICE.num_sites, 2), 1e-4
    ends = [predict(model, spins, GIVEN + torch.tensor([[sign * step, 0.0]])).energy for sign in (1, -1)]
    slope = float(ends[0] - ends[1]) / (2 * step)
    assert electrons_of(model, spins, GIVEN) == pytest.approx(-slope, abs=1e-6)


def test_compressibility_is_the_derivative_of_the_electrons() -> None:
    model, spins, step = grand(), random_spins(1, LATTICE.num_sites, 2), 1e-4
    reference = model.grand_potential
    terms = predict(model, spins, GIVEN).terms
    found = reference.compressibility(terms)[0]
    for number, potential in zip((0, 16, 32), (-4.5, -4.0, -3.5), strict=True):
        ends = [torch.tensor([[potential + sign * step, 0.9]], dtype=torch.float64) for sign in (1, -1)]
        electrons = [float(reference.electrons(terms, end, LATTICE.num_sites)) for end in ends]
        assert float(found[number]) == pytest.approx((electrons[0] - electrons[1]) / (2 * step), rel=1e-5)


def test_at_a_filling_the_chemical_potential_holds_so_many_electrons() -> None:
    model, spins = grand(), random_spins(1, LATTICE.num_sites, 1)
    drive = filled(model, spins)
    found, _ = at_filling(model, spins, model.neighbourhood(LATTICE), drive, LATTICE.num_sites)
    assert float(found[0, 0]) == pytest.approx(float(GIVEN[0, 0]), abs=1e-7)
    assert electrons_of(model, spins, found) == pytest.approx(float(drive[0, 1]) * LATTICE.num_sites)


def test_given_potentials_stay_in_a_batch_with_fillings() -> None:
    """Such batches occur where some validation labels are at a chemical potential and others at a filling."""
    model, spins = grand(), random_spins(2, LATTICE.num_sites, 1)
    table, drive = model.neighbourhood(LATTICE), torch.cat([GIVEN, filled(model, spins[1:])])
    found, _ = at_filling(model, spins, table, drive, LATTICE.num_sites)
    alone, _ = at_filling(model, spins[1:], table, drive[1:], LATTICE.num_sites)
    assert torch.equal(found[:, 0], torch.cat([GIVEN, alone])[:, 0])


def test_the_chemical_potential_is_where_the_free_energy_is_largest() -> None:
    """Against a search on a fine grid, for random polynomials with one or several stationary points."""
    reference, draw = GrandPotential(*RANGE), np.random.default_rng(5)
    for _ in range(20):
        sums = draw.standard_normal(TERMS) - 3 * np.eye(TERMS)[2]
        found = reference.potential_at(sums, 0.9, 400)
        x = np.linspace(-1.05, 1.05, 20001)
        values = Chebyshev(sums)(x)
        inside = np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])) + 1
        among = inside if len(inside) else np.array([0, 20000])
        assert found == pytest.approx(-4.0 + 0.5 * x[among[np.argmax(values[among])]], abs=1e-4)


def test_a_filling_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(HpcspinError, match=r"chemical potential at a filling of 0\.5 lies outside -4\.5 to -3\.5"):
        GrandPotential(*RANGE).potential_at(np.zeros(TERMS), 0.5, 16)


@pytest.mark.parametrize("potential", [-5.0, 0.0])
def test_a_chemical_potential_that_the_model_does_not_know_is_refused(potential: float) -> None:
    """Also where labels had fillings, so that the electrons on the card have no potentials."""
    model, system = grand(), ClosedLattice(LATTICE, 1.0, 6.0, 0.05, potential=potential)
    with pytest.raises(HpcspinError, match=rf"chemical potential {potential:g} lies outside -4\.5 to -3\.5"):
        model.field(system.texture("random"), system)
    within = ClosedLattice(LATTICE, 1.0, 6.0, 0.05, potential=-4.1)
    assert model.field(within.texture("random"), within).shape == (*LATTICE.size, 3)


def test_kernels_and_pytorch_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model, spins = grand(precision="float32"), random_spins(1, LATTICE.num_sites, 4)
    drive = filled(model, spins)
    kernels, (terms, _) = predict(model, spins, drive), model.terms(spins, model.neighbourhood(LATTICE))
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    pytorch = predict(model, spins, drive)
    torch.testing.assert_close(terms, model.terms(spins, model.neighbourhood(LATTICE))[0], rtol=1e-5, atol=1e-6)
    for name in ("field", "energy", "terms"):
        one, other = getattr(kernels, name), getattr(pytorch, name)
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5 * float(other.abs().max()))


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("kept", [True, False])
def test_one_forward_pass_serves_the_chemical_potential_and_the_field(
    monkeypatch: pytest.MonkeyPatch, on_host: bool, kept: bool
) -> None:
    """The field has the bits of one that is evaluated at this chemical potential from the beginning."""
    if on_host and host_library.library(torch.float32) is None:
        pytest.skip("there is no C compiler, or it fails")
    if not on_host:
        monkeypatch.setattr(host_library, "usable", lambda *_: False)
    if not kept:
        monkeypatch.setattr(host_adjoint, "KEPT", 0)
    model, spins = grand(precision="float32"), random_spins(2, LATTICE.num_sites, 4)
    drive, table = filled(model, spins[:1]).expand(2, -1), model.neighbourhood(LATTICE)
    solved, forward_pass = at_filling(model, spins, table, drive, LATTICE.num_sites, strict=False)
    expected = model(spins, table, solved)
    for name in ("_forward_pass", "_forward_on_host"):
        monkeypatch.setattr(model, name, None)
    for one, other in zip(model(spins, table, solved, forward_pass), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["conservative", "direct"])
@pytest.mark.parametrize("training", [False, True])
def test_an_even_model_has_the_symmetry_of_closed_electrons(kind: str, training: bool) -> None:
    """Under S -> -S fields turn around, and energies stay; a model that is not even has no such symmetry."""
    turned = []
    for reversal in ("even", "broken"):
        model = make_model(1, kind=kind, layers=(1, 1), channels=3, symmetry="full", time_reversal=reversal)
        spins, zero = random_spins(1, LATTICE.num_sites, 6), torch.zeros(1)
        one, other = (
            Prediction(*map(Tensor.detach, predict(model.train(training), sign * spins, zero))) for sign in (1, -1)
        )
        turned.append(float((one.field + other.field).abs().max() + (one.energy - other.energy).abs().max()))
        assert one.field.abs().max() > 1e-3
        turn = rotation(2)
        torch.testing.assert_close(predict(model, spins @ turn.T, zero).field, one.field @ turn.T)
    assert turned[0] < 1e-12
    assert turned[1] > 1e-5


def test_a_committee_finds_one_chemical_potential_for_all_members() -> None:
    members = [grand(seed) for seed in (3, 4)]
    spins, committee = random_spins(1, LATTICE.num_sites, 1), Committee(members)
    table = committee.neighbourhood(LATTICE)
    drive = filled(committee, spins)
    solved, _ = at_filling(committee, spins, table, drive, LATTICE.num_sites)
    assert np.isfinite(float(solved[0, 0]))
    mean = sum(predict(member, spins, solved).field for member in members) / 2
    torch.testing.assert_close(committee(spins, table, solved).field, mean)
    assert electrons_of(committee, spins, solved) == pytest.approx(float(drive[0, 1]) * LATTICE.num_sites)


def test_only_an_energy_has_a_chemical_potential() -> None:
    with pytest.raises(HpcspinError, match=r"chemical_potential is that of an energy; give kind: conservative"):
        Architecture("square", 1.5, (4,), kind="pair", layers=(1,), channels=3, drive="chemical_potential")


def test_its_units_are_part_of_the_architecture() -> None:
    architecture = grand().architecture
    assert architecture.as_dict()["grand_potential"] == list(RANGE)
    assert Architecture(**architecture.as_dict()).grand_potential == GrandPotential(*RANGE)
    assert "grand_potential" not in make_model(kind="conservative", layers=(1,), channels=3).architecture.as_dict()
