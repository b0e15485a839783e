"""The verb that computes a quantity of a whole trajectory."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.analysis import QUANTITIES
from hpcspin.errors import HpcspinError
from hpcspin.workflows.analyse import equal_intervals

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_every_quantity_of_a_trajectory_is_written(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    field = ("dynamics.field=classical", "dynamics.classical.heisenberg=0.3", "dynamics.record_interval=1")
    assert hpcspin("simulate", config, *field, "--output", run).returncode == 0
    for name in QUANTITIES:
        output = tmp_path / f"{name}.h5"
        done = hpcspin("analyse", run, "--quantity", name, "--output", output)
        assert done.returncode == 0, done.stderr
        assert "11 frames, 0.4 apart" in done.stdout
        with h5py.File(output) as file:
            assert file.attrs["quantity"] == name
            assert {"kind", "schema_version", "units", "provenance", "config"} <= file.attrs.keys()
            assert file[name].shape[-2:] == (6, 4)
            assert all({"units", "meaning"} <= dataset.attrs.keys() for dataset in file.values())
    again = hpcspin("analyse", run, "--quantity", "dispersion", "--output", output)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    done = hpcspin("analyse", run, "--quantity", "dispersions", "--output", tmp_path / "none.h5")
    assert done.returncode == 1
    assert "did you mean 'dispersion'" in done.stderr
    assert not (tmp_path / "none.h5").exists()


def test_frames_are_equally_far_apart_but_for_the_ends() -> None:
    assert equal_intervals(np.array([0.0, 0.4, 0.8, 1.0]), Path("t.h5")) == (0, 3, 0.4)
    assert equal_intervals(np.array([0.0, 0.4, 0.8]), Path("t.h5")) == (0, 3, 0.4)
    for times in ([0.0, 0.4, 1.0, 1.4], [0.0]):
        with pytest.raises(HpcspinError):
            equal_intervals(np.array(times), Path("t.h5"))


def test_frames_of_a_window_are_analysed_without_the_start_of_the_run(
    hpcspin: Cli, config: Path, tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "correlation.h5"
    field = ("dynamics.field=classical", "dynamics.classical.heisenberg=0.3", "dynamics.record_interval=1")
    assert hpcspin("simulate", config, *field, "dynamics.record_window=[1.2,2.8]", "--output", run).returncode == 0
    done = hpcspin("analyse", run, "--quantity", "correlation", "--output", output)
    assert done.returncode == 0, done.stderr
    assert "5 frames, 0.4 apart" in done.stdout
    with h5py.File(run / "trajectory.h5") as trajectory, h5py.File(output) as found:
        spins = trajectory["spins"][1:6]
        np.testing.assert_allclose(
            found["correlation"][:, 0, 0], [(spins[t:] * spins[: 5 - t]).sum(-1).mean() for t in range(3)]
        )


def test_vacancies_are_left_out(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "correlation.h5"
    changes = ("dynamics.field=classical", "dynamics.classical.heisenberg=0.3", "electrons.vacancies=[[1,1]]")
    record = "dynamics.record_interval=1"
    assert hpcspin("simulate", config, *changes, record, "--output", run).returncode == 0
    done = hpcspin("analyse", run, "--quantity", "correlation", "--output", output)
    assert done.returncode == 0, done.stderr
    with h5py.File(run / "trajectory.h5") as trajectory, h5py.File(output) as found:
        spins = np.delete(trajectory["spins"][()].reshape(-1, 24, 3), 1 * 4 + 1, axis=1)
        frames = len(spins)
        np.testing.assert_allclose(
            found["correlation"][:, 0, 0],
            [(spins[t:] * spins[: frames - t]).sum(-1).mean() for t in range((frames + 1) // 2)],
        )
