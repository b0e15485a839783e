"""Files that a simulation is told of count by what they hold: moved they are the same, replaced they are others."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import MEMBER, Architecture, load_model, make_force_field, save_model, weights_digest
from hpcspin.workflows.simulate import simulate_directory


def write_model(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = make_force_field(Architecture("square", 1.5, (16, 16), precision="float64"))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, model, {})
    return path


def write_spins(path: Path, seed: int) -> Path:
    with h5py.File(path, "w") as file:
        file["spins"] = make_texture("wall", make_lattice("square", (6, 4)), seed, position=3, tilt=0.3)[None]
    return path


def simulate(config: Path, directory: Path, *overrides: str) -> bytes:
    assert simulate_directory(load_config(config, overrides), directory, World()) == 0
    with h5py.File(directory / "trajectory.h5") as file:
        spins: np.ndarray = file["spins"][()]
    return spins.tobytes()


def learned(model: Path) -> tuple[str, str]:
    return "dynamics.field=learned", f"dynamics.model={model}"


SHORT = "dynamics.duration=2"


def test_a_moved_model_goes_on_and_a_replaced_one_is_refused(config: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "place" / "model" / "model.safetensors", 1)
    whole = simulate(config, tmp_path / "whole", *learned(model))
    simulate(config, tmp_path / "run", SHORT, *learned(model.parent))
    shutil.move(tmp_path / "place", tmp_path / "other")
    moved = tmp_path / "other" / "model" / "model.safetensors"
    assert simulate(config, tmp_path / "run", *learned(moved)) == whole
    before = load_model(moved)[1]["weights_sha256"][:16]
    after = weights_digest(write_model(moved, 2))[:16]
    with pytest.raises(HpcspinError, match=rf"dynamics\.model \(weights {before} -> weights {after}\)"):
        simulate(config, tmp_path / "run", "dynamics.duration=6", *learned(moved))


def test_a_committee_is_all_of_its_members(config: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_model(tmp_path / "models" / MEMBER.format(number) / "model.safetensors", number)
    simulate(config, tmp_path / "run", SHORT, *learned(tmp_path / "models"))
    moved = (tmp_path / "models").rename(tmp_path / "moved")
    simulate(config, tmp_path / "run", *learned(moved))
    write_model(moved / MEMBER.format(1) / "model.safetensors", 3)
    with pytest.raises(HpcspinError, match=r"dynamics\.model \(weights .* -> weights"):
        simulate(config, tmp_path / "run", "dynamics.duration=6", *learned(moved))


def test_initial_spins_from_a_file_may_move_but_not_change(config: Path, tmp_path: Path) -> None:
    def start(path: Path) -> str:
        return f"initial={{kind: file, path: {path}}}"

    spins = write_spins(tmp_path / "a.h5", 1)
    simulate(config, tmp_path / "run", SHORT, start(spins))
    simulate(config, tmp_path / "run", start(spins.rename(tmp_path / "b.h5")))
    write_spins(tmp_path / "b.h5", 2)
    with pytest.raises(HpcspinError, match=r"initial\.path \(spins .* -> spins"):
        simulate(config, tmp_path / "run", "dynamics.duration=6", start(tmp_path / "b.h5"))


def test_checkpoints_may_be_written_at_other_times(config: Path, tmp_path: Path) -> None:
    whole = simulate(config, tmp_path / "whole")
    simulate(config, tmp_path / "run", SHORT)
    often = ("dynamics.checkpoint_interval=1", "dynamics.checkpoint_minutes=5")
    assert simulate(config, tmp_path / "run", *often) == whole
