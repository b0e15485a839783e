"""A cheap field corrected by an exact one: how near it comes, and that stops and ranks leave no trace."""

import logging
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from run_simulation import TARGET, Electrons, corrected, simulation

from hpcspin.dynamics import Heisenberg, WholeLatticeField, Zeeman
from hpcspin.dynamics.corrected import CorrectedField, Tally
from hpcspin.dynamics.torque import normalise
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.storage import read_labels

SCRIPT = str(Path(__file__).with_name("run_simulation.py"))
SIZE = (7, 5)
"""Of the default simulation."""


def contents(directory):
    with h5py.File(directory / "trajectory.h5") as file:
        return {name: dataset[...] for name, dataset in file.items()}


def run(directory, field, **changes):
    simulation(directory, field, **{"record": 1, **changes}).run()
    return contents(directory)


def assert_same_bits(directory, other):
    first, second = contents(directory), contents(other)
    assert set(first) == set(second)
    for name in first:
        assert np.array_equal(first[name], second[name], equal_nan=True), name


def exact_fields(spins):
    """The exact field of `corrected` on frames."""
    return np.stack([Electrons().solve(frame[None]).field[0] for frame in spins])


def random_spins(seed=1):
    return normalise(torch.from_numpy(np.random.default_rng(seed).standard_normal((*SIZE, 3))))


def constant(across, size=SIZE):
    """A whole-lattice field that no spin changes."""
    field = np.broadcast_to(across, (1, *size, 3)).astype(float)
    state = SimpleNamespace(field=field, density=np.ones((1, *size)), current=np.zeros((1, 2)), error=np.zeros(1))
    return WholeLatticeField(lambda spins: state, {"density": size, "current": (2,), "error": ()})


def bound(field):
    domain = Domain.cut(make_lattice("square", SIZE, (False, True)), World(), field.halo)
    return field.bind(domain), domain


def test_at_a_label_the_field_is_the_exact_one_and_the_part_along_a_spin_turns_with_it():
    rng = np.random.default_rng(2)
    exact = rng.standard_normal((*SIZE, 3))
    field = CorrectedField(Heisenberg(-1.0), constant(exact), SIZE, 3)
    evaluate, domain = bound(field)
    spins, turned = random_spins(), random_spins(2)
    evaluate.renew(0, spins, 0.0)
    np.testing.assert_allclose(evaluate(domain.extend(spins, field.halo), 0.0), exact, atol=1e-14)
    cheap, _ = bound(Heisenberg(-1.0))
    at, now = (cheap(domain.extend(s, field.halo), 0.0) for s in (spins, turned))
    difference = torch.from_numpy(exact) - at
    along = (difference * spins).sum(-1, keepdim=True)
    expected = now + difference - along * spins + along * turned
    np.testing.assert_allclose(evaluate(domain.extend(turned, field.halo), 0.2), expected, atol=1e-14)


def test_an_error_that_grows_evenly_is_followed_between_labels():
    """The exact field goes up along z by 0.1 a step, and all spins lie across z."""
    moment = {"time": 0.0}

    def solve(spins):
        height = np.zeros((1, *SIZE, 3))
        height[..., 2] = 2 + moment["time"]
        return SimpleNamespace(
            field=height, density=np.ones((1, *SIZE)), current=np.zeros((1, 2)), error=np.full(1, 1e-9)
        )

    shapes = {"density": SIZE, "current": (2,), "error": ()}
    field = CorrectedField(Zeeman((0.0, 0.0, 0.5)), WholeLatticeField(solve, shapes), SIZE, 2)
    evaluate, domain = bound(field)
    flat = torch.zeros((*SIZE, 3), dtype=torch.float64)
    flat[..., 0] = 1
    for step in range(5):
        moment["time"] = 0.1 * step
        assert evaluate.renew(step, flat, moment["time"]) == (step % 2 == 0)
        z = evaluate(domain.extend(flat, field.halo), moment["time"])[..., 2]
        # From the second label on; before, the first difference is all that is known.
        np.testing.assert_allclose(z, 2.0 if step < 2 else 2 + 0.1 * step, atol=1e-12)
    # All but the first label find no error any more but that of the first interval, and half a component each.
    assert field.observables["force_error"] == pytest.approx(0, abs=1e-12)
    assert field.tally.errors == pytest.approx(0.2**2 / 2)
    assert field.tally.deviations == pytest.approx((1.5**2 + 1.7**2 + 1.9**2) / 2)
    assert field.tally.labels == 3


def test_an_error_that_does_not_change_is_corrected_exactly(tmp_path):
    """In-plane spins that precess about z: the difference stays across them."""
    angles = 2 * np.pi * np.random.default_rng(4).random(SIZE)
    start = np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    common = {"temperature": 0.0, "damping": 0.0, "start": start}
    exact = run(tmp_path / "exact", Zeeman((0.0, 0.0, 1.3)), **common)
    wrong = run(tmp_path / "wrong", Zeeman((0.0, 0.0, 1.0)), **common)
    field = CorrectedField(Zeeman((0.0, 0.0, 1.0)), constant((0.0, 0.0, 1.3)), SIZE, 7)
    found = run(tmp_path / "corrected", field, **common)
    np.testing.assert_allclose(found["spins"], exact["spins"], atol=1e-12)
    assert np.abs(wrong["spins"] - exact["spins"]).max() > 0.5
    np.testing.assert_allclose(found["deviation"], 0.3 / np.sqrt(2))


def test_the_shorter_the_interval_the_nearer_the_exact_run(tmp_path):
    exact = run(tmp_path / "exact", TARGET, duration=1.0)["spins"]

    def error(name, field):
        return np.sqrt(np.mean((run(tmp_path / name, field, duration=1.0)["spins"] - exact) ** 2))

    errors = [error(f"{interval}", corrected(interval)) for interval in (1, 2, 4)]
    errors.append(error("cheap", corrected(1).cheap))
    assert all(better < worse / 2 for better, worse in pairwise(errors))
    assert errors[0] < errors[-1] / 30


def test_frames_say_which_field_is_exact_and_how_wrong_the_others_are(tmp_path):
    found = run(tmp_path / "run", corrected(4), record=2)
    labelled = found["step"] % 4 == 0
    for name in ("density", "current", "error"):
        assert np.isfinite(found[name][labelled]).all()
        assert np.isnan(found[name][~labelled]).all()
    exact = exact_fields(found["spins"])
    np.testing.assert_allclose(found["field"][labelled], exact[labelled], atol=1e-13)
    assert np.abs(found["field"] - exact)[~labelled].max() > 1e-6
    assert np.isnan(found["force_error"][:2]).all()
    assert np.array_equal(found["force_error"][2::2], np.append(found["force_error"][3::2], found["force_error"][-1]))
    assert (found["force_error"][2:] < found["deviation"][2:]).all()
    with pytest.raises(HpcspinError, match=r"10 of 21 fields are not exact, where /error is NaN"):
        read_labels(tmp_path / "run" / "trajectory.h5")
    run(tmp_path / "labels", corrected(4), record=4)
    labels = read_labels(tmp_path / "labels" / "trajectory.h5")
    np.testing.assert_allclose(labels.field, exact[labelled], atol=1e-13)


@pytest.mark.parametrize(("first", "integrator"), [(1.2, "heun"), (1.3, "heun"), (1.3, "dormand_prince")])
def test_a_stop_leaves_no_trace(tmp_path, first, integrator):
    """At a label, and between two; steps that divide themselves ask again for the field at their end."""
    adaptive = {"integrator": integrator, "temperature": 0.0, "tolerance": 1e-6}
    changes = adaptive if integrator == "dormand_prince" else {}
    run(tmp_path / "whole", corrected(4), record=3, **changes)
    for duration in (first, 4.0):
        run(tmp_path / "parts", corrected(4), record=3, duration=duration, checkpoint=1, **changes)
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")


def test_a_label_replaces_the_field_that_an_adaptive_step_has_left(tmp_path):
    changes = {"integrator": "dormand_prince", "temperature": 0.0, "tolerance": 1e-3}
    found = run(tmp_path / "run", corrected(4), **changes)
    labelled = found["step"] % 4 == 0
    exact = exact_fields(found["spins"])
    np.testing.assert_allclose(found["field"][labelled], exact[labelled], atol=1e-13)


def test_the_log_is_sparse(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hpcspin"):
        run(tmp_path / "run", corrected(2))
    lines = [record.getMessage() for record in caplog.records if "exact labels" in record.getMessage()]
    assert [int(line.split()[1].rstrip(":")) for line in lines] == [0, 2, 6, 14, 30]
    assert lines[0].endswith("uncorrected")
    assert lines[1].endswith(" corrected")
    assert str(Tally(3, 3e-4, 8e-4)).endswith("1.0e-02 uncorrected, 2.0e-02 corrected")
