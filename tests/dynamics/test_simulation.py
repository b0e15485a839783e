"""The loop: what is recorded, and that stops, kills, extensions and ranks leave no trace in it."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from run_simulation import classical, simulation

from hpcspin.dynamics import EXIT_REQUEUE, DynamicsSettings, WholeLatticeField
from hpcspin.errors import HpcspinError
from hpcspin.storage import read_labels, read_spins

SCRIPT = str(Path(__file__).with_name("run_simulation.py"))


def contents(directory):
    with h5py.File(directory / "trajectory.h5") as file:
        return {name: dataset[...] for name, dataset in file.items()}


def assert_same_bits(directory, other):
    first, second = contents(directory), contents(other)
    assert set(first) == set(second)
    for name in first:
        assert np.array_equal(first[name], second[name], equal_nan=True), name


class Saboteur:
    """The classical field; at its n-th evaluation something happens."""

    def __init__(self, moment, act):
        self.halo = [1, 1]  # A list will do.
        self.moment, self.act, self.count = moment, act, 0

    def bind(self, domain):
        inner = classical().bind(domain)

        def evaluate(spins, time):
            self.count += 1
            if self.count == self.moment:
                self.act()
            return inner(spins, time)

        return evaluate


@pytest.fixture
def undisturbed(tmp_path):
    simulation(tmp_path / "undisturbed").run()
    return tmp_path / "undisturbed"


def test_records_every_interval_and_the_end(undisturbed):
    found = contents(undisturbed)
    assert found["step"].tolist() == [*range(0, 40, 3), 40]
    assert np.allclose(found["time"], 0.1 * found["step"])
    assert set(found) == {"spins", "field", "time", "step", "wall_position", "magnetization", "mean_bond"}
    assert np.allclose(np.linalg.norm(found["spins"], axis=-1), 1, atol=1e-15)
    assert np.allclose(found["magnetization"], found["spins"].mean(axis=(1, 2)))
    with h5py.File(undisturbed / "trajectory.h5") as file:
        assert json.loads(file.attrs["config"])["seed"] == 3
        assert file.attrs["precision"] == "float64"
    assert read_labels(undisturbed / "trajectory.h5", (7, 5)).others == {}


def test_the_recorded_field_belongs_to_the_recorded_spins(undisturbed):
    found = contents(undisturbed)
    field = classical()
    domain = simulation(undisturbed)._domain
    for spins, force in zip(found["spins"], found["field"], strict=True):
        extended = domain.extend(torch.as_tensor(spins), (1, 1))
        assert np.array_equal(field.bind(domain)(extended, 0.0).numpy(), force)


def test_seed_decides_the_noise_and_nothing_else(undisturbed, tmp_path):
    simulation(tmp_path / "again").run()
    assert_same_bits(tmp_path / "again", undisturbed)
    simulation(tmp_path / "other", seed=4).run()
    other = contents(tmp_path / "other")
    assert np.array_equal(other["spins"][0], contents(undisturbed)["spins"][0])
    assert not np.allclose(other["spins"][-1], contents(undisturbed)["spins"][-1])


@pytest.mark.parametrize("moment", [1, 18, 55])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signal_checkpoints_and_asks_to_be_run_again(undisturbed, tmp_path, moment, number):
    directory = tmp_path / "run"
    saboteur = Saboteur(moment, lambda: os.kill(os.getpid(), number))
    outcome = simulation(directory, saboteur).run()
    assert not outcome.finished
    assert outcome.exit_code == EXIT_REQUEUE == 75
    assert not (directory / "trajectory.h5").exists()
    assert len(read_spins(directory / "trajectory.h5.partial", (7, 5))) == outcome.step // 3 + 1
    assert simulation(directory).run().finished
    assert_same_bits(directory, undisturbed)
    assert not (directory / "trajectory.h5.partial").exists()


def test_a_second_ctrl_c_does_not_wait_for_the_checkpoint(undisturbed, tmp_path, capfd):
    directory, told = tmp_path / "run", []

    def press_twice():
        os.kill(os.getpid(), signal.SIGINT)
        # A thread says it: the handler may have interrupted what holds the locks of printing.
        for _ in range(100):
            told.append(capfd.readouterr().err)
            if any(told):
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        simulation(directory, Saboteur(30, press_twice)).run()
    assert "Ctrl-C again ends at once" in "".join(told)
    assert simulation(directory).run().finished
    assert_same_bits(directory, undisturbed)


def test_stop_file_stops_once(undisturbed, tmp_path):
    directory = tmp_path / "run"
    outcome = simulation(directory, Saboteur(30, (directory / "STOP").touch)).run()
    assert 0 < outcome.step < 40
    assert not (directory / "STOP").exists()
    assert simulation(directory).run().finished
    assert_same_bits(directory, undisturbed)


def test_failure_of_the_field_is_resumed(undisturbed, tmp_path):
    def fail():
        raise HpcspinError("tolerance missed")

    with pytest.raises(HpcspinError, match="tolerance missed"):
        simulation(tmp_path / "run", Saboteur(40, fail)).run()
    simulation(tmp_path / "run").run()
    assert_same_bits(tmp_path / "run", undisturbed)


def test_killed_at_any_moment_resumes_to_the_same_bits(tmp_path):
    """SIGKILL, again and again, at moments nobody chose."""
    changes = {"duration": 40.0, "size": [12, 9], "record": 7, "checkpoint": 25}
    simulation(tmp_path / "undisturbed", **changes).run()
    directory, kills = tmp_path / "run", 0
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, SCRIPT, json.dumps({str(directory): changes})])
        deadline = time.monotonic() + 60
        started = stamp(directory)
        while process.poll() is None and stamp(directory) == started and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.03 + 0.06 * attempt)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    simulation(directory, **changes).run()
    assert kills >= 2
    assert_same_bits(directory, tmp_path / "undisturbed")


def stamp(directory):
    """When the trajectory was last written."""
    partial = directory / "trajectory.h5.partial"
    return partial.stat().st_mtime_ns if partial.exists() else 0


@pytest.mark.parametrize("damage", [b"", b"\x89HDF\r\n\x1a\nnonsense"])
def test_corrupt_newest_checkpoint_falls_back_loudly(undisturbed, tmp_path, caplog, damage):
    directory = tmp_path / "run"
    simulation(directory, Saboteur(50, lambda: os.kill(os.getpid(), signal.SIGTERM))).run()
    (directory / "checkpoint.h5").write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        simulation(directory).run()
    assert "falling back" in caplog.text
    assert_same_bits(directory, undisturbed)


def test_a_finished_run_is_not_redone(undisturbed):
    before = (undisturbed / "trajectory.h5").stat().st_mtime_ns
    outcome = simulation(undisturbed, Saboteur(1, lambda: pytest.fail("computed again"))).run()
    assert outcome.finished
    assert (undisturbed / "trajectory.h5").stat().st_mtime_ns == before


def test_a_longer_duration_extends_a_finished_run(undisturbed, tmp_path):
    simulation(undisturbed, duration=7.0).run()
    simulation(tmp_path / "long", duration=7.0).run()
    assert_same_bits(undisturbed, tmp_path / "long")
    with pytest.raises(HpcspinError, match=r"run of 70 steps, the config asks for 40; dynamics\.duration"):
        simulation(undisturbed, duration=4.0)


def test_another_config_is_refused_with_the_key(undisturbed):
    with pytest.raises(HpcspinError, match=r"seed \(3 -> 5\)"):
        simulation(undisturbed, seed=5)


def test_a_trajectory_without_checkpoint_is_not_overwritten(undisturbed):
    for name in ("checkpoint.h5", "checkpoint.previous.h5"):
        (undisturbed / name).unlink()
    with pytest.raises(HpcspinError, match="would be overwritten"):
        simulation(undisturbed)


def test_a_checkpoint_without_its_trajectory_says_so(undisturbed):
    (undisturbed / "trajectory.h5").unlink()
    with pytest.raises(
        HpcspinError, match=r"neither it nor its .partial exists, and .*checkpoint.h5 belongs to it; restore"
    ):
        simulation(undisturbed)


def test_spins_that_cease_to_be_finite_stop_the_run_before_they_are_saved(tmp_path):
    class Broken:
        halo = (0, 0)

        def bind(self, domain):
            return lambda spins, time: spins * (np.nan if time > 1.0 else 1.0)

    with pytest.raises(HpcspinError, match=r"not finite at step 12"):
        simulation(tmp_path / "run", Broken()).run()
    assert np.isfinite(read_spins(tmp_path / "run" / "trajectory.h5.partial", (7, 5))).all()


def test_number_of_steps_and_frames():
    settings = DynamicsSettings(damping=0.1, temperature=0.0, step=0.4, duration=300.0, record_interval=7)
    assert settings.last_step == 750
    assert settings.capacity == len({*range(0, 751, 7), 750})
    assert DynamicsSettings(damping=0.1, temperature=0.0, step=0.1, duration=0.3).last_step == 3
    assert DynamicsSettings(damping=0.1, temperature=0.0, step=0.1, duration=0.31).last_step == 4


class History(WholeLatticeField):
    """A field that depends on how often it was asked: like an adaptive grid kept from step to step."""

    def __init__(self, moment=None):
        super().__init__(self.solve, {"density": (7, 5), "current": (2,), "error": ()})
        self.weight, self.calls, self.moment = np.ones(()), iter(range(1, 1000)), moment

    def solve(self, spins):
        if next(self.calls) == self.moment:
            os.kill(os.getpid(), signal.SIGTERM)
        self.weight = self.weight * 1.01
        field = np.roll(spins, 1, axis=1) * self.weight
        n = len(spins)
        return SimpleNamespace(
            field=field,
            density=field[..., 0],
            current=np.full((n, 2), self.weight),
            error=np.full(n, 1e-9) * self.weight,
        )

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight = state["weight"]


@pytest.mark.parametrize("moment", [16, 29])
def test_state_and_last_field_of_a_solver_travel_with_the_checkpoint(tmp_path, moment):
    simulation(tmp_path / "undisturbed", History()).run()
    assert not simulation(tmp_path / "run", History(moment)).run().finished
    assert simulation(tmp_path / "run", History()).run().finished
    assert_same_bits(tmp_path / "run", tmp_path / "undisturbed")
    found = contents(tmp_path / "run")
    assert found["density"].shape == (15, 7, 5)
    assert found["current"].shape == (15, 2)
    assert np.array_equal(found["density"], found["field"][..., 0])
    assert found["error"].shape == (15,)


SYSTEMS = [
    {"kind": "square", "size": [7, 5], "periodic": [False, True]},
    {"kind": "triangular", "size": [5, 8], "periodic": [True, True], "dtype": "float32", "integrator": "sib"},
    {"kind": "triangular", "size": [5, 8], "periodic": [True, False], "rich": True},
    {"size": [6, 6], "integrator": "midpoint", "rich": True},
    {"integrator": "dormand_prince", "temperature": 0.0, "tolerance": 1e-9, "rich": True},
    {"kind": "triangular", "size": [6, 6], "periodic": [True, False], "integrator": "depondt_mertens"},
    {
        "observers": [
            *("bond_map", "chirality", "mean_chirality", "topological_charge", "magnetization"),
            *("chirality_correlation", "chirality_length", "chirality_walls", "bond_fractions", "puddles"),
            {"name": "structure_factor", "wave_vectors": [[0, 0], [0.5, 0.5], [1 / 3, 1 / 3]]},
        ]
    },
    {"corrected": 3},
    {"pinned": {"columns": [1, 3]}, "rich": True},
]


SHORT = {"duration": 0.7}


@pytest.mark.mpi
# Thirds and 2 x 2 blocks, each of half of the systems; two ranks are in the tests below.
@pytest.mark.parametrize(("ranks", "systems"), [(3, SYSTEMS[::2]), (4, SYSTEMS[1::2])])
def test_trajectory_does_not_depend_on_the_number_of_ranks(mpirun, tmp_path, ranks, systems):
    jobs = {str(tmp_path / f"ranks{number}"): SHORT | system for number, system in enumerate(systems)}
    result = mpirun(ranks, SCRIPT, json.dumps(jobs), timeout=120)
    assert result.returncode == 0, result.stderr
    for number, system in enumerate(systems):
        simulation(tmp_path / f"single{number}", **SHORT, **system).run()
        assert_same_bits(tmp_path / f"ranks{number}", tmp_path / f"single{number}")


@pytest.mark.mpi
def test_started_on_two_ranks_and_continued_on_three(mpirun, undisturbed, tmp_path):
    for ranks, duration in ((2, 2.3), (3, 4.0)):
        jobs = {str(tmp_path / "run"): {"duration": duration}}
        result = mpirun(ranks, SCRIPT, json.dumps(jobs), timeout=120)
        assert result.returncode == 0, result.stderr
    assert_same_bits(tmp_path / "run", undisturbed)


@pytest.mark.mpi
def test_a_stop_file_stops_all_ranks_with_the_requeue_code(mpirun, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "STOP").touch()
    result = mpirun(2, SCRIPT, json.dumps({str(tmp_path / "run"): {}}), timeout=120)
    assert result.returncode == EXIT_REQUEUE, result.stderr
