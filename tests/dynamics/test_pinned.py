"""Spins that nothing moves."""

from __future__ import annotations

import numpy as np
import pytest
from run_simulation import simulation
from test_simulation import contents

from hpcspin.dynamics import Anisotropy, SumField, Zeeman
from hpcspin.dynamics.integrators import INTEGRATORS
from hpcspin.dynamics.observers import OBSERVERS, Frame
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice

PINNED = {"columns": [2, 3]}


@pytest.mark.parametrize("name", sorted(INTEGRATORS))
def test_pinned_spins_keep_their_bits_under_every_scheme_and_the_others_move(tmp_path, name):
    noise = 0.05 if INTEGRATORS[name].langevin else 0.0
    adaptive = {"tolerance": 1e-6} if INTEGRATORS[name].pair else {}
    simulation(tmp_path, integrator=name, pinned=PINNED, temperature=noise, **adaptive).run()
    spins = contents(tmp_path)["spins"]
    assert np.array_equal(spins[:, 2:4], np.broadcast_to(spins[0, 2:4], spins[:, 2:4].shape))
    assert np.abs(np.delete(spins[-1] - spins[0], [2, 3], axis=0)).min(axis=-1).max() > 0.1


def test_one_step_moves_the_other_spins_as_if_none_were_pinned(tmp_path):
    one_step = {"duration": 0.1, "record": 1}
    simulation(tmp_path / "pinned", pinned=[[0, 0], [6, 4]], integrator="depondt_mertens", **one_step).run()
    simulation(tmp_path / "free", integrator="depondt_mertens", **one_step).run()
    # The field at the predicted spins sees neighbours that did not turn: sites far from them agree.
    ours, theirs = (contents(tmp_path / name)["spins"][-1] for name in ("pinned", "free"))
    assert np.array_equal(ours[3], theirs[3])
    assert not np.array_equal(ours[0], theirs[0])


def test_the_temperature_of_the_spins_is_that_of_those_that_move():
    lattice, generator = make_lattice("square", (40, 40), (True, True)), np.random.default_rng(2)
    spins = generator.normal(size=(*lattice.size, 3))
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    field = SumField([Anisotropy(0.7), Zeeman((0.0, 0.0, 0.4))])
    force = 2 * 0.7 * spins[..., 2:] * np.array([0, 0, 1.0]) + np.array([0, 0, 0.4])
    free = np.indices(lattice.size)[0] < 20

    def temperature(spins, force, free):
        return OBSERVERS["spin_temperature"].measure(Frame(lattice, spins, force, 0.0, field, free))

    assert temperature(spins, force, free) == pytest.approx(
        temperature(spins[:20], force[:20], np.ones((20, 40), dtype=bool)), rel=1e-12
    )


def test_a_site_beyond_the_lattice_is_refused(tmp_path):
    with pytest.raises(HpcspinError, match=r"dynamics\.pinned: columns \[5, 9\] .* from 0 to 6"):
        simulation(tmp_path, pinned={"columns": [5, 9]})
