"""Energies of learned fields: recorded along trajectories, and conserved where there is nothing but E."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import hpcspin
from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, make_force_field, save_model
from hpcspin.workflows.simulate import simulate_directory

CONFIG = """
lattice: {{kind: square, size: [6, 4], periodic: [false, true]}}
electrons:
  reservoirs:
    - {{name: left, sites: left, width: 1, potential: -3.2}}
    - {{name: right, sites: right, width: 1, potential: 0}}
initial: {{kind: random}}
dynamics: {{field: learned, model: {model}, damping: 0.0, temperature: 0.0, step: 0.1, duration: 2,
           integrator: midpoint, observers: [energy, nonequilibrium_potential], record_interval: 1}}
device: cpu
"""


def simulated(directory: Path, kind: str, name: str, *overrides: str) -> dict[str, np.ndarray]:
    torch.manual_seed(1)
    model = make_force_field(
        Architecture("square", 1.5, (8, 8), kind=kind, precision="float64", layers=(1, 2), channels=3)
    )
    for network in model.networks:
        features = network.mean.shape
        network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
        network.layers[-1].weight.data.mul_(30)  # type: ignore[operator, union-attr]
    path = directory / f"{kind}.safetensors"
    save_model(path, model, {})
    (directory / "run.yaml").write_text(CONFIG.format(model=path))
    assert simulate_directory(load_config(directory / "run.yaml", overrides), directory / name, World()) == 0
    with h5py.File(directory / name / "trajectory.h5") as file:
        return {key: file[key][()] for key in file}


def drift(energy: np.ndarray) -> float:
    return float(np.abs(energy - energy[0]).max())


def test_the_energy_of_a_conservative_model_is_conserved(tmp_path: Path) -> None:
    """Without damping, by the midpoint rule: what oscillates falls as the square of the step."""
    coarse = simulated(tmp_path, "conservative", "coarse", "dynamics.step=0.2")
    fine = simulated(tmp_path, "conservative", "fine", "dynamics.step=0.1")
    assert not fine["nonequilibrium_potential"].any()
    turned = np.linalg.norm(fine["spins"][-1] - fine["spins"][0], axis=-1).mean()
    assert turned > 0.1
    assert drift(fine["energy"]) < 1e-3 * abs(fine["energy"]).max()
    assert 3 < drift(coarse["energy"]) / drift(fine["energy"]) < 5


def test_a_run_computes_in_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    """Whatever the section potential says of that of its training."""
    described = (
        "potential={kind: conservative, radius: 1.5, hidden: [8, 8], layers: [1, 2], channels: 3, precision: float64}"
    )
    changes = described, "dynamics.integrator=heun"
    double = simulated(tmp_path, "conservative", "double", *changes)["field"]
    single = simulated(tmp_path, "conservative", "single", *changes, "dynamics.model_precision=float32")["field"]
    assert 0 < np.abs(single - double).max() < 1e-4 * np.abs(double).max()


def test_recorded_potentials_are_those_of_the_front_door(tmp_path: Path) -> None:
    frames = simulated(tmp_path, "pair", "run", "dynamics.duration=0.4")
    model, system = hpcspin.load_model(tmp_path / "pair.safetensors"), hpcspin.load_system(tmp_path / "run.yaml")
    np.testing.assert_allclose(model.energy(frames["spins"], system), frames["energy"], rtol=1e-12)
    assert model.energy(frames["spins"][0], system) == pytest.approx(frames["energy"][0], rel=1e-12)
    assert frames["nonequilibrium_potential"].std() > 0


def test_a_field_without_potentials_has_no_energy(tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match=r"dynamics\.observers: energy needs"):
        simulated(tmp_path, "direct", "run")
    model, system = hpcspin.load_model(tmp_path / "direct.safetensors"), hpcspin.load_system(tmp_path / "run.yaml")
    with pytest.raises(HpcspinError, match="no energy; take one of kind pair or conservative"):
        model.energy(system.texture("random", seed=1), system)
