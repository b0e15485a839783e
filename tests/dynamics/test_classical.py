"""Classical terms: minus the gradient of energies that are written down independently, bond by bond."""

import math

import numpy as np
import pytest
import torch
from laws import OPEN, evolve, random_spins, single_domain
from scipy.special import sici

from hpcspin.dynamics import (
    Anisotropy,
    DzyaloshinskiiMoriya,
    FieldEvaluator,
    Heisenberg,
    SumField,
    Zeeman,
    energy,
    make_waveform,
)
from hpcspin.errors import HpcspinError
from hpcspin.lattice import SquareLattice, make_lattice


class Knight(SquareLattice):
    """Bonds of its own that pass a row."""

    kind = "knight_moves"
    bonds = ((1, 2), (0, 1))


kinds = pytest.mark.parametrize("kind", ["square", "triangular"])
PULSE = make_waveform("pulse", centre=1.0, width=0.5)


@kinds
@pytest.mark.parametrize("periodic", [(True, True), (False, True)])
def test_fields_are_minus_the_gradient_of_their_energy(kind, periodic):
    domain = single_domain((6, 5), periodic, kind)
    lattice = domain.lattice
    field = SumField(
        [
            Anisotropy(0.3, (0.6, 0.0, 0.8)),
            Zeeman((0.1, -0.2, 0.3)),
            Zeeman((0.5, 0.2, 0.1), PULSE),
            *(Heisenberg(exchange, lattice.shell(n)) for n, exchange in enumerate((0.8, -0.4, 0.3), 1)),
            DzyaloshinskiiMoriya.interfacial(lattice, 0.7),
            DzyaloshinskiiMoriya.bulk(lattice, -0.5),
            DzyaloshinskiiMoriya(tuple(map(tuple, random_spins((len(lattice.bonds), 1))[:, 0]))),
        ]
    )
    spins, direction, step, time = random_spins((6, 5)), random_spins((6, 5), 1), 1e-4, 0.7
    high, low = (energy(field, lattice, spins + sign * step * direction, time) for sign in (1, -1))
    force = FieldEvaluator(field, domain)(torch.as_tensor(spins), time).numpy()
    assert (high - low) / (2 * step) == pytest.approx(-(force * direction).sum(), rel=1e-9)


@pytest.mark.parametrize("periodic", [(True, True), (False, True)])
def test_dzyaloshinskii_moriya_of_a_lattice_whose_bonds_pass_a_row(periodic):
    domain = single_domain((6, 5), periodic, "knight_moves")
    field = DzyaloshinskiiMoriya.bulk(domain.lattice, 0.7)
    spins, direction, step = random_spins((6, 5)), random_spins((6, 5), 1), 1e-4
    high, low = (energy(field, domain.lattice, spins + sign * step * direction) for sign in (1, -1))
    force = FieldEvaluator(field, domain)(torch.as_tensor(spins), 0.0).numpy()
    assert (high - low) / (2 * step) == pytest.approx(-(force * direction).sum(), rel=1e-9)
    expected = 0.0
    for (dx, dy), unit in zip(Knight.bonds, np.array([[1, 2], [0, 1]]) / [[5**0.5], [1]], strict=True):
        for i, j in enumerate(domain.lattice.shift([(dx, dy)])[:, 0]):
            if j >= 0:
                one, other = spins.reshape(-1, 3)[[i, j]]
                expected += 0.7 * np.cross(one, other)[:2] @ unit
    assert energy(field, domain.lattice, spins) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda square: Anisotropy(0.2, (1.0, 1.0, 0.0)), r"the axis \(1.0, 1.0, 0.0\) is no unit vector"),
        (lambda square: Heisenberg(1.0, ()), "Heisenberg: has no bonds"),
        (lambda square: Zeeman((0.0, 1.0)), r"\(0.0, 1.0\) is no vector; give three components"),
        (lambda square: DzyaloshinskiiMoriya.bulk(square, 0.3), "2 vectors for the 3 bonds"),
    ],
)
def test_vectors_that_do_not_fit_are_one_line(make, message):
    with pytest.raises(HpcspinError, match=message):
        make(make_lattice("square", (4, 4))).bind(single_domain((4, 4), (True, True), "triangular"))


def test_terms_that_do_not_reach_the_lattices_bonds_are_refused():
    domain = single_domain((6, 5), (True, True), "knight_moves")
    for term in (Heisenberg(1.0), DzyaloshinskiiMoriya(((0.0, 0.0, 1.0),) * 2)):
        with pytest.raises(HpcspinError, match="reach farther than 1 x 1 sites"):
            term.bind(domain)


@pytest.mark.parametrize("periodic", [(True, True), (False, True)])
def test_a_sum_has_the_widest_halo_along_each_axis_and_each_term_its_own(periodic):
    domain = single_domain((7, 5), periodic)
    terms = [Heisenberg(0.8, ((3, 0), (1, 1))), Heisenberg(-0.4, ((0, 2), (0, 1))), Heisenberg(1.3), Anisotropy(0.3)]
    assert [term.halo for term in terms] == [(3, 1), (0, 2), (1, 1), (0, 0)]
    assert SumField(terms).halo == (3, 2)
    spins = torch.as_tensor(random_spins((7, 5)))
    expected = sum(FieldEvaluator(term, domain)(spins, 0.0) for term in terms)
    assert torch.equal(FieldEvaluator(SumField(terms), domain)(spins, 0.0), expected)


def pairs(lattice, distance):
    """Pairs of sites of an open lattice at a distance, and the unit vectors between them."""
    places = lattice.cartesian(np.indices(lattice.size).reshape(2, -1).T)
    between = places[None] - places[:, None]
    first, second = np.nonzero(np.triu(np.isclose(np.linalg.norm(between, axis=-1), distance)))
    return first, second, between[first, second] / distance


@kinds
def test_shells_join_all_pairs_of_a_distance(kind):
    lattice, spins = make_lattice(kind, (7, 6), OPEN), random_spins((7, 6))
    distances = {"square": (1, 2, 4, 5, 8), "triangular": (1, 3, 4, 7, 9)}[kind]
    flat = spins.reshape(-1, 3)
    for number, square in enumerate(distances, 1):
        first, second, _ = pairs(lattice, math.sqrt(square))
        expected = -0.6 * (flat[first] * flat[second]).sum()
        assert energy(Heisenberg(0.6, lattice.shell(number)), lattice, spins) == pytest.approx(expected)


def test_nearest_neighbours_are_the_first_shell():
    for kind in ("square", "triangular"):
        lattice, spins = make_lattice(kind, (4, 4), OPEN), random_spins((4, 4))
        nearest, first = (energy(Heisenberg(1.0, bonds), lattice, spins) for bonds in (None, lattice.shell(1)))
        assert nearest == pytest.approx(first)


@kinds
@pytest.mark.parametrize("form", ["interfacial", "bulk"])
def test_dzyaloshinskii_moriya_energy_bond_by_bond(kind, form):
    lattice, spins = make_lattice(kind, (5, 6), OPEN), random_spins((5, 6))
    first, second, along = pairs(lattice, 1.0)
    along = np.column_stack([along, np.zeros(len(along))])
    vectors = 0.7 * (along if form == "bulk" else np.cross([0, 0, 1.0], along))
    flat = spins.reshape(-1, 3)
    expected = (vectors * np.cross(flat[first], flat[second])).sum()
    assert energy(getattr(DzyaloshinskiiMoriya, form)(lattice, 0.7), lattice, spins) == pytest.approx(expected)


def test_the_ground_state_of_a_chain_is_the_helix_of_tan_q():
    """J and a bulk D turn neighbours by q about the chain, tan q = -D / J, the energy of a bond -sqrt(J^2 + D^2)."""
    exchange, strength, length = 1.0, 0.8, 24
    lattice = make_lattice("square", (length, 1), OPEN)
    field = SumField([Heisenberg(exchange), DzyaloshinskiiMoriya.bulk(lattice, strength)])
    end = evolve(field, random_spins((length, 1), 3), 0.1, 4000, damping=1.0)[:, 0]
    assert energy(field, lattice, end[:, None]) == pytest.approx(-(length - 1) * math.hypot(exchange, strength))
    turned = np.cross(end[:-1], end[1:])
    assert np.allclose(turned, [math.sin(-math.atan2(strength, exchange)), 0, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "parameters", "area"),
    [
        ("sinusoid", {"frequency": 1.3, "phase": 0.2}, (math.cos(0.2) - math.cos(8 * 1.3 + 0.2)) / 1.3),
        ("pulse", {"centre": 4.0, "width": 0.5}, 0.5 * math.sqrt(2 * math.pi)),
        ("sinc", {"centre": 4.0, "frequency": 3.0}, 2 * float(sici(12.0)[0]) / 3),
    ],
)
def test_a_spin_turns_by_the_area_of_the_waveform(name, parameters, area):
    start = np.array([[[1.0, 0.0, 0.0]]])
    drive = Zeeman((0.0, 0.0, 0.4), make_waveform(name, **parameters))
    x, y, _ = evolve(drive, start, 0.01, 800, damping=0.0, integrator="rk4")[0, 0]
    assert math.atan2(y, x) == pytest.approx(math.remainder(0.4 * area, 2 * math.pi), abs=1e-6)


def test_unknown_waveforms_and_parameters_are_refused():
    with pytest.raises(HpcspinError, match="'square' is unknown; choose one of pulse, sinc, sinusoid"):
        make_waveform("square")
    with pytest.raises(HpcspinError, match="its parameters: centre, width"):
        make_waveform("pulse", frequency=1.0)


@pytest.mark.parametrize(("kind", "neighbours"), [("square", 4), ("triangular", 6)])
def test_a_ferromagnet_feels_each_neighbour_once_across_periodic_edges(kind, neighbours):
    up = torch.zeros((4, 4, 3), dtype=torch.float64)
    up[..., 2] = 1
    for number in (1, 2, 3):
        term = Heisenberg(0.5, make_lattice(kind, (4, 4)).shell(number))
        force = FieldEvaluator(term, single_domain((4, 4), (True, True), kind))(up, 0.0)
        assert torch.all(force[..., 2] == 0.5 * neighbours)
