"""Committees by the command line: trained in one directory, calibrated, and their spread recorded on any ranks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.storage import write_manifest

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.mpi
def test_train_evaluate_and_simulate_with_a_committee(
    hpcspin: Cli, mpirun: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    data, models, numbers = tmp_path / "data", tmp_path / "models", tmp_path / "numbers.json"
    data.mkdir()
    assert hpcspin("label", config, "--spins", spins_file, "--output", data / "all.h5").returncode == 0
    write_manifest(data)
    result = hpcspin("train", config, "--data", data, "--output", models, "training.members=2", "training.epochs=2")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in models.glob("*/model.safetensors")) == ["model.safetensors"] * 2

    result = hpcspin("evaluate", models, "--data", data, "--output", numbers)
    assert result.returncode == 0, result.stderr
    calibration = json.loads(numbers.read_text())["calibration"]
    spreads = [share["spread"] for share in calibration["bins"]]
    assert len(spreads) == 10
    assert spreads == sorted(spreads)
    errors = np.array([share["error"] for share in calibration["bins"]])
    # 5 snapshots of 24 sites: ten equal shares add up to the whole.
    assert np.mean(errors**2) == pytest.approx(json.loads(numbers.read_text())["mse"], rel=1e-6)
    assert numbers.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    shared = tmp_path / "shared.json"
    result = mpirun(2, "-m", "hpcspin", "evaluate", str(models), "--data", str(data), "--output", str(shared))
    assert result.returncode == 0, result.stderr
    one, two = (json.loads(path.read_text()) for path in (numbers, shared))
    assert [len(part) for part in one["snapshot_mse"].values()] == [5]
    assert one["snapshot_mse"] == two["snapshot_mse"]
    assert one["mse_error"] == two["mse_error"]

    learned = ["dynamics.field=learned", f"dynamics.model={models}", "dynamics.observers=[wall_position, spread]"]
    result = hpcspin("simulate", config, "--output", tmp_path / "one", *learned)
    assert result.returncode == 0, result.stderr
    result = mpirun(2, "-m", "hpcspin", "simulate", str(config), "--output", str(tmp_path / "two"), *learned)
    assert result.returncode == 0, result.stderr
    assert "MPI" not in result.stderr  # as of messages that are not freed
    with h5py.File(tmp_path / "one/trajectory.h5") as one, h5py.File(tmp_path / "two/trajectory.h5") as two:
        assert one["spread"].shape == one["spins"].shape[:3]
        assert (one["spread"][:] > 0).all()
        for name in ("spins", "spread"):
            assert np.array_equal(one[name], two[name])


def test_spread_without_a_committee_is_refused(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    result = hpcspin("simulate", config, "--output", tmp_path / "run", "dynamics.observers=[spread]")
    assert result.returncode == 1
    assert "spread needs dynamics.field: learned" in result.stderr
