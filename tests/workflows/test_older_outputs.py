"""Outputs that were begun before a key of the config existed go on, as if it had been written there at its default."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcspin.config import Config, completed, load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import read_checkpoint, write_checkpoint
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.stages import claim

SYSTEM = """
lattice: {kind: square, size: [6, 5], periodic: [false, true]}
initial: {kind: random}
dynamics: {field: classical, classical: {heisenberg: 1.0}, damping: 0.1, temperature: 0.05, step: 0.1, duration: 3,
           seed: 3, checkpoint_interval: 4}
device: cpu
"""
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NEWER = ("checkpoint_minutes", "tolerance", "compression", "wave_vectors")


def simulate(directory: Path, *overrides: str) -> None:
    path = directory.parent / "system.yaml"
    path.write_text(SYSTEM)
    assert simulate_directory(load_config(path, overrides), directory, World()) == 0


def make_older(path: Path) -> None:
    """The checkpoint as a version would have written it that does not know some of today's keys."""
    found = read_checkpoint(path)
    assert found is not None
    config = copy.deepcopy(found.config)
    for key in NEWER:
        del config["dynamics"][key]
    del config["learning"]
    write_checkpoint(path, found.arrays, found.meta, config)


def test_a_simulation_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    simulate(tmp_path / "whole")
    simulate(tmp_path / "parts", "dynamics.duration=1.2")
    make_older(tmp_path / "parts" / "checkpoint.h5")
    simulate(tmp_path / "parts")
    files = [h5py.File(tmp_path / name / "trajectory.h5") for name in ("whole", "parts")]
    assert set(files[0]) == set(files[1])
    assert all(np.array_equal(files[0][name][...], files[1][name][...]) for name in files[0])


@pytest.mark.parametrize("override", ["dynamics.compression=lzf", "dynamics.seed=4"])
def test_another_value_than_the_default_is_another_config(tmp_path: Path, override: str) -> None:
    simulate(tmp_path / "run", "dynamics.duration=1.2")
    make_older(tmp_path / "run" / "checkpoint.h5")
    key, value = override.split("=")
    with pytest.raises(HpcspinError, match=rf"belongs to another config: {key} \(.* -> {value}"):
        simulate(tmp_path / "run", override)


def test_a_directory_of_several_stages_is_claimed_again(tmp_path: Path) -> None:
    (tmp_path / "system.yaml").write_text(SYSTEM)
    config, path = load_config(tmp_path / "system.yaml"), tmp_path / "run" / "config.json"
    claim(config, path, World())
    older = json.loads(path.read_text())
    del older["dynamics"]["compression"]
    path.write_text(json.dumps(older))
    claim(config, path, World())
    assert json.loads(path.read_text()) == config.model_dump(mode="json")


@pytest.mark.parametrize("name", ["driven_sd", "driven_sd_small", "driven_sd_model"])
def test_whatever_is_absent_at_its_default_comes_back(name: str) -> None:
    """Every key of the shipped configs that they do not set, one after the other."""
    config = load_config(CONFIGS / f"{name}.yaml")
    today, removed = config.model_dump(mode="json"), 0

    def unset(model: Any, found: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
        keys = [(found, key) for key in type(model).model_fields if key not in model.model_fields_set]
        for key in model.model_fields_set:
            if isinstance(found[key], dict) and hasattr(getattr(model, key), "model_fields_set"):
                keys += unset(getattr(model, key), found[key])
        return keys

    older = copy.deepcopy(today)
    for section, key in unset(config, older):
        kept = section.pop(key)
        assert completed(older) == today
        section[key], removed = kept, removed + 1
    assert removed > 10


def test_a_key_without_meaning_is_left_out() -> None:
    today = load_config(CONFIGS / "driven_sd.yaml").model_dump(mode="json")
    older = copy.deepcopy(today)
    older["reproduce"]["record_interval"] = 1
    assert completed(older) == today


def test_a_config_of_a_key_that_is_gone_stays_as_it_is() -> None:
    stored = {"lattice": {"kind": "square", "size": [6, 5]}, "forgotten": 1}
    assert completed(stored) == stored
    assert set(completed({"lattice": stored["lattice"]})) == set(Config.model_fields)
