"""Minima whose energies are known."""

import numpy as np
import pytest
import torch

from hpcspin.analysis import minimise
from hpcspin.dynamics import Anisotropy, FieldEvaluator, Heisenberg, SumField, Zeeman, energy
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

LATTICE = make_lattice("square", (6, 4), (True, True))


def evaluated(field, lattice=LATTICE):
    evaluate = FieldEvaluator(field, Domain.cut(lattice, World(), field.halo))
    return lambda spins: evaluate(torch.as_tensor(spins), 0.0).numpy()


@pytest.mark.parametrize(("order", "exchange"), [("ferromagnet", 1.0), ("antiferromagnet", -1.0)])
def test_the_ground_state_of_the_heisenberg_magnet_with_an_easy_axis(order, exchange):
    field = SumField([Heisenberg(exchange), Anisotropy(0.2)])
    found = minimise(evaluated(field), make_texture(order, LATTICE, 2, tilt=0.5), tolerance=1e-9)
    again = np.cross(found.spins, evaluated(field)(found.spins))
    assert np.linalg.norm(again, axis=-1).max() == pytest.approx(found.torque, abs=1e-14)
    assert found.torque <= 1e-9
    assert energy(field, LATTICE, found.spins) == pytest.approx(-(2 + 0.2) * LATTICE.num_sites, abs=1e-9)


def test_a_macrospin_rests_where_stoner_and_wohlfarth_say():
    """E = -K cos^2 a - h sin a, h across the axis below 2 K: sin a = h / (2 K)."""
    one = make_lattice("square", (1, 1), (False, False))
    field = SumField([Anisotropy(0.5), Zeeman((0.3, 0.0, 0.0))])
    found = minimise(evaluated(field, one), np.array([[[0.1, 0.2, 1.0]]]) / np.sqrt(1.05), tolerance=1e-12)
    np.testing.assert_allclose(found.spins[0, 0], [0.3, 0.0, np.sqrt(1 - 0.09)], atol=1e-10)


def test_too_few_evaluations_are_one_line():
    with pytest.raises(HpcspinError, match="after 3 evaluations, and 1e-09 is asked for"):
        minimise(evaluated(Heisenberg(1.0)), make_texture("random", LATTICE, 1), tolerance=1e-9, most=3)


def test_an_edge_of_the_energy_is_no_place_of_rest_and_ends_in_one_line():
    """E = sum |S_z|, as where two chemical potentials of a hardly trained model have the same free energy."""

    def field(spins):
        return -np.sign(spins[..., 2:]) * [0.0, 0.0, 1.0]

    with pytest.raises(HpcspinError, match=r"after 50 evaluations, .* derives from a smooth energy"):
        minimise(field, make_texture("random", LATTICE, 1), tolerance=1e-6, most=50)
