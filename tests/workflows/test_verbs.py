"""The verbs as a user runs them: outputs by the contract, the same on any number of ranks, resumable."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.config import load_config
from hpcspin.parallel.world import World
from hpcspin.storage import read_labels, write_labels, write_manifest
from hpcspin.workflows import info
from hpcspin.workflows.evaluate import label_files

Cli = Callable[..., subprocess.CompletedProcess[str]]


def contents(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


@pytest.fixture
def labelled(hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path) -> Path:
    """A directory of two shards with a manifest."""
    data = tmp_path / "data"
    data.mkdir()
    result = hpcspin("label", config, "--spins", spins_file, "--output", data / "all.h5")
    assert result.returncode == 0, result.stderr
    whole = contents(data / "all.h5")
    (data / "all.h5").unlink()
    attributes = {"config": load_config(config).model_dump(mode="json"), "precision": "complex128"}
    for name, rows in (("train", slice(0, 4)), ("validation", slice(4, 5))):
        write_labels(data / f"{name}.h5", whole["spins"][rows], whole["field"][rows], attributes)
    write_manifest(data)
    return data


def test_label_writes_the_contract(hpcspin_process: Cli, config: Path, spins_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.h5"
    result = hpcspin_process("label", config, "--spins", spins_file, "--output", output)
    assert result.returncode == 0, result.stderr
    found = contents(output)
    shapes = {"spins": (5, 6, 4, 3), "field": (5, 6, 4, 3), "density": (5, 6, 4), "current": (5, 3), "error": (5,)}
    shapes |= {"current_error": (5,)}
    assert {name: found[name].shape for name in shapes} == shapes
    assert (found["error"] <= 1e-7).all()
    assert (found["current_error"] <= 1e-5).all()
    np.testing.assert_allclose(found["current"].sum(axis=1), 0, atol=1e-7)
    with h5py.File(output) as file:
        stored = json.loads(file.attrs["config"])
        assert {"schema_version", "code_version", "precision", "units"} <= set(file.attrs)
    assert stored == load_config(config).model_dump(mode="json")
    with h5py.File(output, "a") as file:
        del file["current_error"]  # As in files of earlier versions.
    assert "current_error" not in read_labels(output).others


@pytest.mark.mpi
def test_label_on_three_ranks_is_label_on_one(
    hpcspin: Cli, mpirun: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    arguments = ["label", str(config), "electrons.solver=negf", "--spins", str(spins_file), "--output"]
    assert hpcspin(*arguments, tmp_path / "one.h5").returncode == 0
    result = mpirun(3, "-m", "hpcspin", *arguments, str(tmp_path / "three.h5"))
    assert result.returncode == 0, result.stderr
    one, three = contents(tmp_path / "one.h5"), contents(tmp_path / "three.h5")
    for name in one:
        np.testing.assert_allclose(three[name], one[name], atol=1e-12, err_msg=name)


def test_simulate_records_the_contract_and_resumes_bitwise(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert hpcspin("simulate", config, "--output", whole).returncode == 0
    assert hpcspin("simulate", config, "dynamics.duration=2", "--output", parts).returncode == 0
    assert hpcspin("simulate", config, "--output", parts).returncode == 0
    one, other = contents(whole / "trajectory.h5"), contents(parts / "trajectory.h5")
    assert one["time"].shape == (11,)
    assert {"spins", "field", "density", "current", "error", "time", "step", "wall_position"} <= set(one)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert "nothing to do" in hpcspin("simulate", config, "--output", parts).stderr


def test_simulate_starts_from_the_last_frame_of_a_file(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    assert hpcspin("simulate", config, "--output", tmp_path / "first").returncode == 0
    last = contents(tmp_path / "first" / "trajectory.h5")["spins"][-1]
    initial = f"initial={{kind: file, path: {tmp_path / 'first' / 'trajectory.h5'}}}"
    assert hpcspin("simulate", config, initial, "--output", tmp_path / "second").returncode == 0
    np.testing.assert_array_equal(contents(tmp_path / "second" / "trajectory.h5")["spins"][0], last)


def test_train_then_evaluate_then_simulate(hpcspin: Cli, config: Path, labelled: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    split = "training.validation=[validation.h5]"
    result = hpcspin("train", config, split, "--data", labelled, "--output", model)
    assert result.returncode == 0, result.stderr
    numbers = tmp_path / "numbers.json"
    weights = model / "model.safetensors"
    result = hpcspin("evaluate", weights, "--data", labelled / "validation.h5", "--output", numbers)
    assert result.returncode == 0, result.stderr
    found = json.loads(numbers.read_text())
    assert {"mse", "sigma", "variance_fraction", "snapshots"} <= set(found)
    assert found["snapshots"] == 1
    assert found["mse"] > 0
    learned = ["dynamics.field=learned", f"dynamics.model={weights}"]
    result = hpcspin("simulate", config, *learned, "--output", tmp_path / "learned")
    assert result.returncode == 0, result.stderr
    assert np.isfinite(contents(tmp_path / "learned" / "trajectory.h5")["spins"]).all()


@pytest.mark.mpi
def test_training_on_two_ranks_is_training_on_one(
    hpcspin: Cli, mpirun: Cli, config: Path, labelled: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    arguments = ["train", str(config), "training.validation=[validation.h5]", "--data", str(labelled), "--output"]
    assert hpcspin(*arguments, tmp_path / "one").returncode == 0
    result = mpirun(2, "-m", "hpcspin", *arguments, str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.slow
@pytest.mark.mpi
def test_reproduce_draws_the_papers_figures_and_resumes(
    hpcspin: Cli, mpirun: Cli, config: Path, tmp_path: Path
) -> None:
    output, short = tmp_path / "reproduction", ("dynamics.duration=2", "training.epochs=2")
    result = mpirun(2, "-m", "hpcspin", "reproduce", str(config), *short, "--output", str(output))
    assert result.returncode == 0, result.stderr
    names = {"torque_parity", "bond_maps", "wall_position", "torque_ratio"}
    assert {path.stem for path in (output / "figures").glob("*.png")} == names
    numbers = json.loads((output / "numbers.json").read_text())
    assert numbers["test"]["snapshots"] == 12
    stages = ["exact trajectories", "shards", "training", "evaluation", "learned trajectories", "figures"]
    assert list(numbers["stage_seconds"]) == stages
    assert "seconds, figures" in result.stdout
    assert "largest distance of the walls" in result.stdout
    assert set(numbers["walls"]["runs"]) == {"test-000", "test-001"}
    before = (output / "learned" / "test-000" / "trajectory.h5").read_bytes()
    output = output.rename(tmp_path / "moved")
    again = hpcspin("reproduce", config, *short, "dynamics.checkpoint_interval=7", "--output", output)
    assert again.returncode == 0, again.stderr
    assert (output / "learned" / "test-000" / "trajectory.h5").read_bytes() == before
    (output / "numbers.json").unlink()
    assert hpcspin("report", output, "--driven-states", "2").returncode == 0
    distances = json.loads((output / "numbers.json").read_text())["nonconservativity"]
    assert [distance["time"] for distance in distances] == [0.0, 2.0]
    assert all(10 * distance["resolution"] < distance["ratio"] < 2 for distance in distances)
    other = hpcspin("reproduce", config, *short, "dynamics.seed=9", "--output", output)
    assert other.returncode == 1
    assert "dynamics.seed" in other.stderr


def test_info_names_the_backends(hpcspin: Cli) -> None:
    result = hpcspin("info")
    assert result.returncode == 0, result.stderr
    for word in ("code_version", "MPI library", "GPUs", "segment reductions", "electron algebra"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("gpu", "cupy", "said"),
    [(False, True, "torch on the CPU"), (True, False, "torch on the GPU"), (True, True, "CuPy")],
)
def test_info_says_where_electrons_are_solved(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, cupy: bool, said: str
) -> None:
    """As `make_backend` chooses."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(info, "has_cupy", lambda: cupy)
    assert info._electron_algebra().startswith(said)


def test_labels_of_a_run_are_its_trajectory_alone(tmp_path: Path) -> None:
    for name in ("trajectory.h5", "checkpoint.h5"):
        (tmp_path / name).touch()
    assert label_files(tmp_path, World()) == [tmp_path / "trajectory.h5"]
