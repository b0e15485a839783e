"""Closed lattices: a quench is labelled, learned, repeated and reported; the small shipped configs do so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcspin.config import load_config
from hpcspin.drawing import figures, lattice_figures
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import read_labels
from hpcspin.workflows.report import report_directory
from hpcspin.workflows.reproduce import reproduce_directory

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("triangular_120", "triangular_tetrahedral", "square_double_exchange")
SHORT = (
    *("dynamics.duration=3", "training.epochs=2", "potential.channels=3", "potential.hidden=[4]"),
    *(
        "potential.layers=[1]",
        "reproduce.train=[{seed: 1}, {seed: 2, temperature: 0.03}]",
        "dynamics.record_interval=2",
    ),
)
FIGURES = {
    *("torque_parity", "bond_maps", "chirality_maps", "structure_factor", "histograms", "energy", "energy_parity"),
}


def reproduced(name: str, output: Path) -> dict[str, Any]:
    assert reproduce_directory(load_config(CONFIGS / f"{name}_small.yaml", SHORT), output, World()) == 0
    numbers: dict[str, Any] = json.loads((output / "numbers.json").read_text())
    return numbers


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reproduction") / NAMES[0]
    reproduced(NAMES[0], output)
    return output


@pytest.mark.parametrize("name", NAMES[1:])
def test_small_configs_go_from_spins_to_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (figures, lattice_figures):
        monkeypatch.setattr(module, "save", lambda _, path: path.touch())  # NAMES[0] draws them
    numbers = reproduced(name, tmp_path / "run")
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} == FIGURES
    assert "walls" not in numbers
    assert numbers["test"]["snapshots"] == 8
    order = numbers["order"]
    assert set(order["runs"]) == {"test-000", "test-001"}
    assert order["electrons"].keys() == order["learned"].keys()
    assert 0 < order["electrons"]["antiferromagnetic_bonds"]["mean"] < 1


def test_learned_frames_have_exact_labels_and_both_dynamics_start_alike(finished: Path) -> None:
    for name in ("test-000", "test-001"):
        labels = read_labels(finished / "learned" / f"{name}-labels.h5")
        with (
            h5py.File(finished / "learned" / name / "trajectory.h5") as learned,
            h5py.File(finished / "electrons" / name / "trajectory.h5") as exact,
        ):
            np.testing.assert_array_equal(labels.spins, learned["spins"])
            np.testing.assert_array_equal(learned["spins"][0], exact["spins"][0])
            np.testing.assert_allclose(labels.field[0], exact["field"][0], atol=1e-9)
            np.testing.assert_allclose(labels.others["energy"][0], exact["energy"][0], atol=1e-9)
            assert np.all(np.diff(exact["energy"]) < 0)  # a quench without noise
            assert "wall_position" not in exact


def test_a_run_may_have_a_temperature_of_its_own(finished: Path) -> None:
    temperatures = {}
    for path in (finished / "electrons").glob("*/trajectory.h5"):
        with h5py.File(path) as file:
            temperatures[path.parent.name] = json.loads(file.attrs["config"])["dynamics"]["temperature"]
    assert temperatures.pop("train-001") == 0.03
    assert set(temperatures.values()) == {0}


def test_a_second_call_computes_nothing_and_reports_the_same(finished: Path) -> None:
    assert {path.stem for path in (finished / "figures").glob("*.png")} == FIGURES
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.h5")}
    numbers = json.loads((finished / "numbers.json").read_text())
    again = reproduced(NAMES[0], finished)
    for name in ("test", "order", "energy"):
        assert numbers[name] == again[name]
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.h5")} == before


def test_a_report_says_which_stage_is_missing(finished: Path, tmp_path: Path) -> None:
    (finished / "learned" / "test-001-labels.h5").rename(tmp_path / "aside.h5")
    with pytest.raises(HpcspinError, match=r"test-001-labels\.h5: .*hpcspin reproduce"):
        report_directory(finished, World())
    (tmp_path / "aside.h5").rename(finished / "learned" / "test-001-labels.h5")
