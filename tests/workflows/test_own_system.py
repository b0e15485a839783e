"""A reproduction of one's own system: what it needs is checked first, and it tells of a wall where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcspin.config import Config, load_config
from hpcspin.drawing import figures
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.training import spin_digests
from hpcspin.workflows import reproduce, train
from hpcspin.workflows.learn import learn_directory
from hpcspin.workflows.report import report_directory
from hpcspin.workflows.reproduce import reproduce_directory

OWN = """
lattice: {kind: triangular, size: [6, 4], periodic: [false, true]}
electrons:
  exchange: 2.5
  temperature: 0.1
  tolerance: 1.0e-3
  solver: closed_form
  reservoirs:
    - {name: left,  sites: left,  width: 1.0,  potential: -2.0}
    - {name: right, sites: right, width: 1.0,  potential: 0.0}
    - {name: bath,  sites: all,   width: 0.05, potential: 0.0}
initial: {kind: random}
dynamics: {field: electrons, damping: 0.2, temperature: 0.01, step: 0.2, duration: 0.6, record_interval: 1,
           observers: [magnetization]}
potential: {kind: direct, radius: 1.5, hidden: [4]}
training: {epochs: 1, batch: 4, checkpoint_interval: 1}
reproduce:
  train: [{seed: 1}, {seed: 2}]
  validation: [{seed: 3}]
  test: [{seed: 4}, {seed: 5}]
learning:
  initial: [{kind: wall, position: 3, tilt: 0}]
  selection: time
  rounds: 1
  trajectories: 2
  labels: 4
"""
WALLS = ("initial={kind: wall, position: 3, tilt: 0.05}", "potential.kind=pair")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def reproduced(own: Path, output: Path, *overrides: str) -> dict[str, Any]:
    assert reproduce_directory(load_config(own, overrides), output, World()) == 0
    numbers: dict[str, Any] = json.loads((output / "numbers.json").read_text())
    return numbers


def drawn(output: Path) -> set[str]:
    return {path.stem for path in (output / "figures").glob("*.png")}


def test_random_spins_of_a_direct_field_have_neither_wall_nor_ratio(own: Path, tmp_path: Path) -> None:
    numbers = reproduced(own, tmp_path / "run")
    assert {"walls", "torque_ratio_near_wall"}.isdisjoint(numbers)
    assert drawn(tmp_path / "run") == {"torque_parity", "bond_maps"}
    assert numbers["test"]["snapshots"] == 8
    assert numbers["test"]["mse_error"] > 0


def test_walls_are_measured_without_an_observer_for_them(own: Path, tmp_path: Path) -> None:
    """And figures of an earlier report do not stay where there is nothing to draw any more."""
    numbers = reproduced(own, tmp_path / "run", *WALLS)
    assert set(numbers["walls"]["runs"]) == {"test-000", "test-001"}
    assert numbers["torque_ratio_near_wall"]["median"] > 0
    assert drawn(tmp_path / "run") == {"torque_parity", "bond_maps", "wall_position", "torque_ratio"}
    for path in (tmp_path / "run" / "electrons").glob("test-*/trajectory.h5"):
        with h5py.File(path, "r+") as file:
            file["spins"][...] = np.random.default_rng(1).permuted(file["spins"][...], axis=1)
    report_directory(tmp_path / "run", World())
    assert drawn(tmp_path / "run") == {"torque_parity", "bond_maps"}


def test_runs_that_record_other_frames_are_compared_where_both_have_one(own: Path, tmp_path: Path) -> None:
    numbers = reproduced(own, tmp_path / "run", *WALLS, "dynamics.record_walls=[2.9, 3.0]")
    assert all(np.isfinite(run["mean_distance"]) for run in numbers["walls"]["runs"].values())


def test_trajectories_of_other_electrons_are_not_reported(own: Path, tmp_path: Path) -> None:
    reproduced(own, tmp_path / "run")
    with h5py.File(tmp_path / "run" / "electrons" / "test-001" / "trajectory.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        config["electrons"]["exchange"] = 1.0
        file.attrs["config"] = json.dumps(config)
    with pytest.raises(HpcspinError, match=r"than those of .*test-001.*: electrons\.exchange \(2\.5 -> 1\.0\)"):
        report_directory(tmp_path / "run", World())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["potential.radius=0.5"], r"potential\.radius"),
        (["training.compile=true", "potential.kind=pair"], r"training\.compile"),
        (["potential.electrode_range=3", "lattice.periodic=[true, true]"], "electrodes"),
        (["training.start=none.safetensors"], "no such file"),
        (["training.start=none"], "no such model"),
        (["dynamics.classical.zeeman=[0, 0, 1]"], r"dynamics\.classical: the exact fields"),
        (["reproduce.test.1.duration=1e15"], r"the run of seed 5: duration 1e\+15 would take"),
        (["dynamics.record_window=[0.5, 0.6]", "reproduce.train.0.duration=0.4"], "the run of seed 1: record_window"),
        (["reproduce.validation.0.seed=2"], "validation-000 would be the same trajectory as train-001"),
        (["reproduce.test.1.seed=3"], "test-001 would be the same trajectory as validation-000"),
        (
            ["initial={kind: wall, position: 3, tilt: 0}", "dynamics.temperature=0"],
            "validation-000 would be the same trajectory as train-000",
        ),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_first(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr(reproduce, "simulate_all", lambda *_: pytest.fail("has computed a trajectory"))
    with pytest.raises(HpcspinError, match=message):
        reproduce_directory(load_config(own, overrides), tmp_path / "run", World())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("directory", [reproduce_directory, learn_directory])
def test_ranks_that_are_too_many_for_the_learned_runs_are_refused_first(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: Callable[[Config, Path, World], int]
) -> None:
    """These came after the labels and the training."""
    monkeypatch.setattr(train, "require_room", lambda *_, **__: pytest.fail("has gone on to the training"))
    refused = pytest.raises(HpcspinError, match="thinner than the halo of 1 x 1; use at most 24 ranks for each of 2")
    with refused:
        directory(load_config(own, ["training.batch=99"]), tmp_path / "run", World(size=99))
    assert not (tmp_path / "run").exists()


def test_runs_from_the_same_spins_validate_on_the_others(own: Path, tmp_path: Path) -> None:
    """The noise of each is its own: only the first frame is that of the training."""
    reproduced(own, tmp_path / "run", "initial={kind: wall, position: 3, tilt: 0}")
    counts = {}
    for path in (tmp_path / "run").glob("*/*-00*.h5"):
        with h5py.File(path) as file:
            counts[path.stem] = len(file["spins"])
    assert counts == {"train-000": 4, "train-001": 4, "validation-000": 3, "test-000": 3, "test-001": 3}


def learning(own: Path, *overrides: str) -> Config:
    return load_config(own, ["dynamics.duration=1.2", *overrides])


def test_learning_from_equal_starts_labels_no_spins_twice(own: Path, tmp_path: Path) -> None:
    assert learn_directory(learning(own), tmp_path / "learned", World()) == 0
    found: list[bytes] = []
    for role in ("train-01", "validation-01"):
        with h5py.File(tmp_path / "learned" / "data" / f"{role}.h5") as file:
            found += spin_digests(file["spins"][()])
    with h5py.File(tmp_path / "learned" / "data" / "train-00.h5") as file:
        found += set(spin_digests(file["spins"][()]))
    assert len(set(found)) == len(found) > 1


def test_the_torques_have_a_spread_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(figures, "save", lambda figure, _: shown.append(figure.axes[1].get_title()))
    error = np.random.default_rng(1).standard_normal((500, 3)) * 0.02
    exact = np.random.default_rng(2).standard_normal((500, 3))
    figures.torque_parity(exact, exact + error, tmp_path / "torques.png")
    assert shown == [f"torque error σ = {error.std():.2g} t"]
