"""The force field that comes with the program does what the README says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcspin.config import load_config
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.workflows.evaluate import evaluate_files

CONFIGS = Path(__file__).parents[2] / "configs"


def test_its_error_on_exact_labels_of_30x24_is_the_one_reported(tmp_path: Path) -> None:
    output = tmp_path / "numbers.json"
    evaluate_files(CONFIGS / "models/driven_sd.safetensors", CONFIGS / "models/driven_sd_test.h5", output, World())
    numbers = json.loads(output.read_text())
    assert numbers["snapshots"] == 24
    assert numbers["mse"] == pytest.approx(1.105e-4, rel=1e-2)
    assert numbers["variance_fraction"] == pytest.approx(0.0869, rel=1e-2)


def test_it_is_what_its_config_describes() -> None:
    config = load_config(CONFIGS / "driven_sd_model.yaml")
    model, card = load_model(CONFIGS / "models/driven_sd.safetensors")
    assert config.potential is not None
    assert config.training is not None
    stored = model.architecture.as_dict()
    described = config.potential.model_dump(mode="json")
    assert {key: stored[key] for key in described} == described
    assert {key: getattr(config.training, key) for key in card["training"]} == card["training"]
