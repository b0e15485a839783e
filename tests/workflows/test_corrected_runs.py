"""Learned dynamics corrected by exact labels, as a user runs it: how near it comes to the exact one, and its traces."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, make_force_field, save_model
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.suggest_step import suggest_step

Cli = Callable[..., subprocess.CompletedProcess[str]]
DRIVEN = ("electrons.reservoirs.2.width=0.001", "dynamics.step=0.2", "dynamics.record_interval=2", "potential=null")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A force field that has learned nothing."""
    path = tmp_path / "model.safetensors"
    return save(path, seed=1)


def save(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = make_force_field(Architecture("square", 1.5, (16, 16), precision="float32")).eval()
    features = model.network.mean.shape
    model.network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
    save_model(path, model, {})
    return path


def corrected(model: Path, interval: int, *overrides: str) -> list[str]:
    return [
        *DRIVEN,
        "dynamics.field=corrected",
        f"dynamics.model={model}",
        f"dynamics.exact_interval={interval}",
        *overrides,
    ]


def run(config: Path, directory: Path, overrides: list[str]) -> dict[str, Any]:
    assert simulate_directory(load_config(config, overrides), directory, World()) == 0
    with h5py.File(directory / "trajectory.h5") as file:
        return {name: dataset[()] for name, dataset in file.items()}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_labels_bring_even_an_untrained_field_near_the_exact_run(config: Path, model: Path, tmp_path: Path) -> None:
    exact = run(config, tmp_path / "exact", list(DRIVEN))["spins"]

    def error(name: str, overrides: list[str]) -> float:
        return float(np.sqrt(np.mean((run(config, tmp_path / name, overrides)["spins"] - exact) ** 2)))

    errors = [error(f"every-{interval}", corrected(model, interval)) for interval in (1, 2, 4)]
    errors.append(error("learned", [*DRIVEN, "dynamics.field=learned", f"dynamics.model={model}"]))
    assert errors[0] < errors[1] / 2 < errors[2] / 4
    assert errors[2] < errors[3] / 4


def test_labelled_frames_are_labels(hpcspin: Cli, config: Path, model: Path, tmp_path: Path) -> None:
    found = run(config, tmp_path / "run", corrected(model, 2))
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["spins"] = found["spins"]
    result = hpcspin("label", config, *DRIVEN, "--spins", tmp_path / "frames.h5", "--output", tmp_path / "labels.h5")
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "labels.h5") as labels:
        for name in ("field", "density", "current"):
            np.testing.assert_allclose(found[name], labels[name][()], atol=1e-10, err_msg=name)
        np.testing.assert_allclose(found["error"], labels["error"][()], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("solver", ["closed_form", "negf"])
def test_a_restart_leaves_no_trace(config: Path, model: Path, tmp_path: Path, solver: str) -> None:
    """Stopped between two labels, with the energies that the solver remembers and a classical term beside."""
    overrides = corrected(model, 4, f"electrons.solver={solver}", "dynamics.classical.zeeman=[0,0,0.1]")
    whole = run(config, tmp_path / "whole", overrides)
    run(config, tmp_path / "parts", [*overrides, "dynamics.duration=2"])
    moved = save(tmp_path / "moved.safetensors", seed=1)
    again = [text.replace(str(model), str(moved)) for text in overrides]
    assert_same(run(config, tmp_path / "parts", again), whole)
    other = save(tmp_path / "other.safetensors", seed=2)
    with pytest.raises(HpcspinError, match=r"dynamics\.model"):
        run(config, tmp_path / "parts", [text.replace(str(model), str(other)) for text in overrides])


@pytest.mark.mpi
def test_two_ranks_have_the_bits_of_one(mpirun: Cli, config: Path, model: Path, tmp_path: Path) -> None:
    overrides = corrected(model, 3)
    result = mpirun(2, "-m", "hpcspin", "simulate", str(config), *overrides, "--output", str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    assert "7 exact labels; root mean square error" in result.stderr
    whole = run(config, tmp_path / "one", overrides)
    with h5py.File(tmp_path / "two" / "trajectory.h5") as file:
        assert_same({name: dataset[()] for name, dataset in file.items()}, whole)


def test_observers_of_learned_fields_and_suggest_step_know_it(config: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match="spread is the disagreement of a committee"):
        run(config, tmp_path / "run", corrected(model, 2, "dynamics.observers=[spread]"))
    said = suggest_step(load_config(config, corrected(model, 2)), World(), 6)
    assert said == suggest_step(
        load_config(config, [*DRIVEN, "dynamics.field=learned", f"dynamics.model={model}"]), World(), 6
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dynamics.exact_interval=2"], "exact_interval is for field: corrected; leave it out"),
        (["dynamics.field=corrected", "dynamics.exact_interval=2"], "field: corrected needs model"),
        (["dynamics.model=m.safetensors", "dynamics.field=corrected"], "field: corrected needs exact_interval"),
        (
            ["dynamics.model=m", "dynamics.field=corrected", "dynamics.exact_interval=2", "dynamics.check_interval=2"],
            "check_interval is for field: learned",
        ),
        (["dynamics.exact_interval=0"], "exact_interval: must be at least 1"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(config: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(HpcspinError, match=message) as failure:
        load_config(config, overrides)
    assert "\n" not in str(failure.value)


def test_the_electrons_are_needed(config: Path, model: Path, tmp_path: Path) -> None:
    text = config.read_text()
    start, end = text.index("electrons:"), text.index("initial:")
    config.write_text(text[:start] + text[end:])
    with pytest.raises(HpcspinError, match="the config has no section 'electrons', which this verb needs; add it"):
        run(config, tmp_path / "run", corrected(model, 2)[1:])
