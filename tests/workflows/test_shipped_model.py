"""The force fields that come with the program do what the README says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hpcspin as hs
from hpcspin.config import load_config
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.torque import Magnet

CONFIGS = Path(__file__).parents[2] / "configs"


NAMES = {"driven_sd": "driven_sd_model"} | {
    f"driven_sd_{name}": f"driven_sd_{name}"
    for name in ("light", "fast", "distilled", "pair", "family", "voltages", "strips")
}
"""Models and the configs that they are trained by."""
CLOSED = ("triangular_120", "triangular_tetrahedral", "square_double_exchange")
NAMES |= {"spin_valve": "spin_valve"} | {name: f"{name}_model" for name in (*CLOSED, "torque")}


@pytest.mark.parametrize(
    ("name", "labels", "mse", "fraction"),
    [
        ("driven_sd", "driven_sd_test", 2.971e-5, 0.0234),
        ("driven_sd", "driven_sd_exact", 5.896e-6, 0.00279),
        ("driven_sd_light", "driven_sd_test", 3.448e-5, 0.0271),
        ("driven_sd_light", "driven_sd_exact", 9.748e-6, 0.00461),
        ("driven_sd_fast", "driven_sd_test", 5.726e-5, 0.0450),
        ("driven_sd_fast", "driven_sd_exact", 1.393e-5, 0.00659),
        ("driven_sd_distilled", "driven_sd_test", 4.221e-5, 0.0332),
        ("driven_sd_distilled", "driven_sd_exact", 8.948e-6, 0.00423),
        ("driven_sd_pair", "driven_sd_test", 8.192e-5, 0.0644),
        ("driven_sd_pair", "driven_sd_exact", 7.131e-6, 0.00337),
        ("driven_sd_family", "driven_sd_test", 8.227e-5, 0.0647),
        ("driven_sd_family", "driven_sd_exact", 1.073e-5, 0.00508),
        ("driven_sd_voltages", "driven_sd_test", 2.897e-5, 0.0228),
        ("driven_sd_voltages", "driven_sd_exact", 7.808e-6, 0.00369),
        ("driven_sd_strips", "driven_sd_test", 1.105e-4, 0.0869),
        ("driven_sd_strips", "driven_sd_exact", 4.053e-5, 0.0192),
        ("triangular_120", "triangular_120_test", 5.483e-6, 0.00493),
        ("triangular_tetrahedral", "triangular_tetrahedral_test", 5.487e-5, 0.2021),
        ("square_double_exchange", "square_double_exchange_test", 8.188e-6, 0.01045),
    ],
)
def test_its_error_on_exact_labels_is_the_one_reported(
    tmp_path: Path, name: str, labels: str, mse: float, fraction: float
) -> None:
    output = tmp_path / "numbers.json"
    evaluate_files(CONFIGS / f"models/{name}.safetensors", CONFIGS / f"models/{labels}.h5", output, World())
    numbers = json.loads(output.read_text())
    assert numbers["snapshots"] == 24
    assert numbers["mse"] == pytest.approx(mse, rel=1e-2)
    assert numbers["variance_fraction"] == pytest.approx(fraction, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        (
            "driven_sd_family",
            {"v2.5": 3.313e-5, "v2.9": 8.322e-6, "v3.3": 2.483e-5, "v3.7": 2.147e-4, "v3.9": 2.424e-4},
        ),
        (
            "driven_sd_voltages",
            {"v2.5": 1.833e-5, "v2.9": 4.436e-6, "v3.3": 1.378e-5, "v3.7": 1.504e-4, "v3.9": 1.493e-4},
        ),
    ],
)
def test_the_models_of_many_voltages_meet_some_that_they_have_not_learned_from(
    tmp_path: Path, name: str, reported: dict[str, float]
) -> None:
    output = tmp_path / "numbers.json"
    labels = CONFIGS / "models" / "driven_sd_family_test"
    evaluate_files(CONFIGS / f"models/{name}.safetensors", labels, output, World())
    found = {Path(name).stem: np.mean(of) for name, of in json.loads(output.read_text())["snapshot_mse"].items()}
    assert found == pytest.approx(reported, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "size", "voltage", "largest"),
    [
        ("torque", (10, 6), -0.4, 0.03),
        ("torque", (10, 6), 0.03, 0.04),
        ("torque", (8, 4), -0.4, 0.02),
        ("torque", (8, 4), -0.03, 0.04),
        ("spin_valve", (8, 4), -0.4, 0.01),
        ("spin_valve", (8, 4), -0.03, 0.01),
    ],
)
def test_learned_torques_are_near_exact_ones(name: str, size: tuple[int, int], voltage: float, largest: float) -> None:
    """Damping-like torques at a voltage and at angles of the model's config, relative to the largest one."""
    changes = [
        f"lattice.size={list(size)}",
        f"electrons.reservoirs.0.potential={-3.8 + voltage / 2}",
        f"electrons.reservoirs.1.potential={-3.8 - voltage / 2}",
    ]
    config = load_config(CONFIGS / f"{name}.yaml", changes)
    magnet, system = Magnet.of(config), hs.load_system(CONFIGS / f"{name}.yaml", *changes)
    spins = np.stack([magnet.turned(angle) for angle in (30, 60, 90, 120, 150)])
    exact, learned = (
        magnet.transfer(spins, field).damping_like
        for field in (system.solve(spins).field, hs.load_model(name).field(spins, system))
    )
    assert np.abs(learned - exact).max() < largest * np.abs(exact).max()


@pytest.mark.parametrize("name", ["torque", "spin_valve"])
def test_without_a_voltage_there_is_no_damping_like_torque(name: str) -> None:
    config = CONFIGS / f"{name}.yaml"
    magnet, system = Magnet.of(load_config(config)), hs.load_system(config)
    spins = np.stack([magnet.turned(angle) for angle in (30, 90, 150)])
    found = magnet.transfer(spins, hs.load_model(name).field(spins, system))
    assert np.abs(found.damping_like).max() < 1e-6 < np.abs(found.field_like).min()


def test_without_a_voltage_the_model_of_all_voltages_is_an_energy() -> None:
    model = hs.load_model("driven_sd_family")
    system = hs.load_system(CONFIGS / "driven_sd.yaml", "electrons.reservoirs.left.potential=0")
    found = model.predict(system.texture("wall", position=8)[None], system.lattice, model.drive(system))
    assert not found.nonequilibrium.any()
    assert found.equilibrium.any()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_its_config_describes(name: str) -> None:
    config = load_config(CONFIGS / f"{NAMES[name]}.yaml")
    model, card = load_model(CONFIGS / f"models/{name}.safetensors")
    assert config.potential is not None
    assert config.training is not None
    assert model.architecture.settings == config.potential
    assert {key: getattr(config.training, key) for key in card["training"]} == card["training"]
