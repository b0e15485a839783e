"""A learned grand potential from labels to dynamics: any filling that it has learned, and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from bent import bend
from typer.testing import CliRunner

import hpcspin as hs
from hpcspin.cli import app
from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, make_force_field, save_model
from hpcspin.storage import electrons_of, ensure_manifest
from hpcspin.workflows.simulate import simulate_directory

CONFIG = """
lattice: {kind: square, size: [4, 4], periodic: [true, true]}
electrons: {exchange: 3.0, temperature: 0.1, filling: 0.8}
initial: {kind: random}
potential: {kind: conservative, drive: chemical_potential, time_reversal: even, layers: [1, 1], channels: 3,
            radius: 1.0, symmetry: full, hidden: [8]}
training: {epochs: 2, batch: 4, energy_weight: 1.0, checkpoint_interval: 1, validation: [v.h5]}
dynamics: {field: learned, model: MODEL, damping: 0.0, temperature: 0.0, step: 0.1, duration: 4, integrator: midpoint,
           observers: [energy], record_interval: 1}
device: cpu
"""


def run(*words: object) -> None:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a config, labels of two fillings and of a chemical potential, and what has learned from them."""
    root = tmp_path_factory.mktemp("fillings")
    (root / "own.yaml").write_text(CONFIG.replace("MODEL", str(root / "model" / "model.safetensors")))
    for number, (name, fixed) in enumerate(
        {"a": "filling=0.8", "b": "filling=0.9", "c": "potential=-2", "v": ""}.items()
    ):
        rng = np.random.default_rng(number)
        spins = rng.standard_normal((8, 4, 4, 3))
        with h5py.File(root / f"{name}-spins.h5", "w") as file:
            file["spins"] = spins / np.linalg.norm(spins, axis=-1, keepdims=True)
        (root / "data").mkdir(exist_ok=True)
        overrides = [f"electrons.{fixed}"] if fixed else []
        overrides += ["electrons.filling=null"] if "potential" in fixed else []
        spins_and_labels = ["--spins", root / f"{name}-spins.h5", "--output", root / "data" / f"{name}.h5"]
        run("label", root / "own.yaml", *spins_and_labels, *overrides)
    ensure_manifest(root / "data")
    run("train", root / "own.yaml", "--data", root / "data", "--output", root / "model")
    return root


def test_the_card_says_which_chemical_potentials_and_fillings_are_learned(trained: Path) -> None:
    card = json.loads((trained / "model" / "model.json").read_text())
    labels = [h5py.File(trained / "data" / f"{name}.h5") for name in "abc"]
    potentials = np.concatenate([file["chemical_potential"][()] for file in labels])
    mean = np.mean([file["electrons"][()] for file in labels]) / 16
    expected = [potentials.min(), potentials.max(), mean]
    np.testing.assert_allclose(card["architecture"]["grand_potential"], expected, rtol=1e-6)
    assert {electrons.get("filling") for electrons in card["electrons"]} == {0.8, 0.9, None}


@pytest.mark.parametrize("given", [{"filling": 0.85}, {"filling": None, "potential": -2.0}])
def test_it_is_used_at_fillings_and_potentials_between_those_learned(trained: Path, given: dict[str, float]) -> None:
    overrides = [f"electrons.{key}={'null' if value is None else value}" for key, value in given.items()]
    system, model = hs.load_system(trained / "own.yaml", *overrides), hs.load_model(trained / "model")
    spins = system.texture("random", seed=5)
    field, exact = model.field(spins, system), system.solve(spins)
    assert np.isfinite(field).all()
    assert abs(model.energy(spins, system) - float(exact.energy)) < 0.2 * 16


def test_what_it_has_not_learned_is_refused(trained: Path) -> None:
    model = hs.load_model(trained / "model")
    for key, value in (("filling", 0.5), ("filling", 1.2)):
        system = hs.load_system(trained / "own.yaml", f"electrons.{key}={value}")
        with pytest.raises(HpcspinError, match=f"a filling of {value:g}, learned from 0.8 to 0.9"):
            model.field(system.texture("random", seed=5), system)
    system = hs.load_system(trained / "own.yaml", "electrons.filling=null", "electrons.potential=-1")
    with pytest.raises(HpcspinError, match="a chemical potential of -1, learned from -2 to -2"):
        model.field(system.texture("random", seed=5), system)
    driven = electrons_of({"electrons": {"reservoirs": [{"sites": "all", "potential": 0.0}]}}, "it")
    with pytest.raises(HpcspinError, match="is for closed electrons"):
        model.drive_of(driven, 0.0, "it")


@pytest.mark.parametrize(("filling", "warned"), [(0.85, False), (1.7, True)])
def test_an_evaluation_warns_of_chemical_potentials_beyond_those_learned(
    trained: Path, tmp_path: Path, hpcspin: Callable[..., Any], filling: float, warned: bool
) -> None:
    """Dynamics refuse them; a given one was not compared with anything where all labels learned from have fillings."""
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    card = json.loads((model / "model.json").read_text())
    card["electrons"] = [one for one in card["electrons"] if one.get("potential") is None]
    (model / "model.json").write_text(json.dumps(card))
    labels = tmp_path / "labels.h5"
    run(
        "label",
        trained / "own.yaml",
        "--spins",
        trained / "v-spins.h5",
        "--output",
        labels,
        f"electrons.filling={filling}",
    )
    with h5py.File(labels) as file:
        potential = float(file["chemical_potential"][0])
    run("label", trained / "own.yaml", "--spins", trained / "v-spins.h5", "--output", tmp_path / "p.h5",
        "electrons.filling=null", f"electrons.potential={potential}")  # fmt: skip
    done = hpcspin("evaluate", model, "--data", tmp_path / "p.h5", "--output", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    said = [
        line for line in done.stderr.splitlines() if "chemical potentials of some of its labels lie outside" in line
    ]
    assert len(said) == warned


def test_labels_without_chemical_potentials_are_refused(
    trained: Path, tmp_path: Path, hpcspin: Callable[..., Any]
) -> None:
    for name in "av":
        with h5py.File(trained / "data" / f"{name}.h5") as old, h5py.File(tmp_path / f"{name}.h5", "w") as new:
            for key in ("spins", "field", "energy"):
                old.copy(key, new)
            new.attrs["config"] = old.attrs["config"]
    ensure_manifest(tmp_path)
    done = hpcspin("train", trained / "own.yaml", "--data", tmp_path, "--output", tmp_path / "m")
    assert done.returncode != 0
    assert "has no /electrons and /chemical_potential" in done.stderr


def test_the_free_energy_is_conserved_at_a_filling(tmp_path: Path) -> None:
    """Without damping, while mu follows the spins: an oscillation that falls as the square of the step."""
    torch.manual_seed(1)
    model = make_force_field(
        Architecture(
            "square", 1.5, (8, 8), kind="conservative", layers=(1, 1), channels=3, symmetry="full",
            precision="float64", drive="chemical_potential", grand_potential=[-4.5, -3.5, 0.9],
        )
    )  # fmt: skip
    for network in model.networks:
        features = network.mean.shape
        network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
    bend(model)
    model.networks[-1].layers[-1].weight.data.mul_(30)  # type: ignore[operator, union-attr]
    save_model(tmp_path / "model.safetensors", model, {})
    text = CONFIG.replace("MODEL", str(tmp_path / "model.safetensors")).replace("filling: 0.8", "filling: 0.9")
    sections = [line for line in text.splitlines() if line.split(":")[0] not in ("potential", "training")]
    (tmp_path / "run.yaml").write_text("\n".join(line for line in sections if "radius: 1.0" not in line))
    drifts = []
    for step in (0.2, 0.1):
        config = load_config(tmp_path / "run.yaml", [f"dynamics.step={step}"])
        assert simulate_directory(config, tmp_path / f"run-{step}", World()) == 0
        with h5py.File(tmp_path / f"run-{step}" / "trajectory.h5") as file:
            energy, spins = file["energy"][()], file["spins"][()]
        assert np.linalg.norm(spins[-1] - spins[0], axis=-1).mean() > 0.1
        drifts.append(np.abs(energy - energy[0]).max())
    assert 3 < drifts[0] / drifts[1] < 5
