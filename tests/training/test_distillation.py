"""Distillation: trajectories under a force field are learned from, with a weight of their own."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
import torch
from teacher import run, write_data

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import Prediction
from hpcspin.storage import write_manifest
from hpcspin.training import TrainingSettings, find_data
from hpcspin.training.dataset import load_shares
from hpcspin.training.loss import batch_loss


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Label files, of which a.h5 says that it is a trajectory under a force field."""
    directory = write_data(tmp_path / "data")
    with h5py.File(directory / "a.h5", "r+") as file:
        file.attrs["kind"] = "trajectory"
        file.attrs["config"] = json.dumps({**json.loads(file.attrs["config"]), "dynamics": {"field": "learned"}})
    write_manifest(directory)
    return directory


def test_learned_trajectories_need_a_weight_and_validate_nothing(data: Path) -> None:
    def find(validation: str, distil: bool) -> dict[str, bool]:
        found = find_data([data], [validation], "square", World(), distil=distil)
        return {name: source.exact for name, source in found.sources.items()}

    exact = find("z.h5", distil=True)
    assert not exact.pop("a.h5")
    assert all(exact.values())
    with pytest.raises(HpcspinError, match=r"a\.h5: .*no exact labels.*training\.distillation"):
        find("z.h5", distil=False)
    with pytest.raises(HpcspinError, match=r"training\.validation: a\.h5 has the fields of a force field"):
        find("a.h5", distil=True)


def test_a_force_field_outside_its_physics_teaches_nothing(data: Path) -> None:
    dynamics = {"field": "learned", "allow": ["electrons.exchange"]}
    with h5py.File(data / "a.h5", "r+") as file:
        file.attrs["config"] = json.dumps({**json.loads(file.attrs["config"]), "dynamics": dynamics})
    write_manifest(data)
    with pytest.raises(HpcspinError, match=r"a\.h5: its force field may have learned other electrons"):
        find_data([data], ["z.h5"], "square", World(), distil=True)


def test_the_weights_multiply_the_squared_errors_of_their_snapshots() -> None:
    draw = torch.Generator().manual_seed(2)
    spins = torch.nn.functional.normalize(torch.randn((3, 6, 3), generator=draw, dtype=torch.float64), dim=-1)
    field, guess = torch.randn((2, 3, 6, 3), generator=draw, dtype=torch.float64)
    none, nowhere = torch.zeros(3, dtype=torch.float64), torch.zeros_like(spins)

    def loss(those: slice, weights: torch.Tensor | None) -> torch.Tensor:
        predicted = Prediction(guess[those], nowhere[those], nowhere[those], *[none[those]] * 3)
        parts = spins[those], field[those], none[those], none[those]
        return batch_loss(predicted, *parts, None, 3, TrainingSettings(), World(), weights)

    alone = torch.stack([loss(slice(number, number + 1), None) for number in range(3)])
    weights = torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64)
    torch.testing.assert_close(loss(slice(None), weights), weights @ alone)
    torch.testing.assert_close(loss(slice(None), None), alone.sum())


def test_with_the_weight_1_a_force_field_teaches_like_exact_labels(data: Path, tmp_path: Path) -> None:
    distilled = run(data, tmp_path / "distilled", epochs=2, distillation=1.0)
    less = run(data, tmp_path / "less", epochs=2, distillation=0.01)
    with h5py.File(data / "a.h5", "r+") as file:
        del file.attrs["kind"]
    write_manifest(data)
    exact = run(data, tmp_path / "exact", epochs=2)
    assert distilled.metrics["mse"] == pytest.approx(exact.metrics["mse"], rel=1e-4)
    assert less.metrics["mse"] != pytest.approx(exact.metrics["mse"], rel=1e-4)


def test_energies_of_a_force_field_are_no_labels(data: Path, tmp_path: Path) -> None:
    """They neither set the constant of the energy nor count in the loss."""
    for name, energy in (("a", 1e3), ("b", -2.0)):
        with h5py.File(data / f"{name}.h5", "r+") as file:
            file["energy"] = [energy * 20] * len(file["spins"])
    write_manifest(data)
    found = find_data([data], ["z.h5"], "square", World(), distil=True)
    (learned, labelled) = (
        load_shares(data, [shard], found.sources, World(), 1, torch.float64)[0].energy for shard in found.train
    )
    assert learned.isnan().all()
    torch.testing.assert_close(labelled, torch.full_like(labelled, -2.0))
    with pytest.raises(HpcspinError, match=r"a\.h5: has no exact energies, which training\.energy_weight asks for"):
        run(data, tmp_path / "model", kind="conservative", distillation=0.1, energy_weight=1.0)
