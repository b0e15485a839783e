"""Laws of learning energies: a loss that knows no constant, a constant that is fitted, errors that are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teacher import CPU, SIZE, Teacher, run, teacher_energy, teacher_field, write_shard

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, GrandPotential, Prediction, load_model, save_model
from hpcspin.potential.grand import TERMS
from hpcspin.storage import Shard, read_spins, write_manifest
from hpcspin.training import TrainingSettings, evaluate, examine
from hpcspin.training.dataset import load_shares
from hpcspin.training.loss import batch_loss
from hpcspin.training.sources import read_source
from hpcspin.workflows.evaluate import evaluate_files

OFFSET = -1.7
LONGER: dict[str, Any] = {"kind": "conservative", "epochs": 12, "checkpoint_interval": 12, "learning_rate": 1e-2}
LATTICE = make_lattice("square", SIZE)


def write_closed(
    directory: Path,
    *names: str,
    energy_of_a_site: float | None = OFFSET,
    snapshots: int = 20,
    teacher: Teacher = teacher_field,
) -> Path:
    """Shards of no bias, of which z.h5 validates."""
    directory.mkdir()
    for number, name in enumerate((*names, "z")):
        write_shard(directory / f"{name}.h5", snapshots, number, 0.0, teacher, energy_of_a_site=energy_of_a_site)
    write_manifest(directory)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_closed(tmp_path_factory.mktemp("labels") / "data", "a", "b")


@pytest.fixture(scope="module")
def model_path(data: Path) -> Path:
    return run(data, data.parent / "model", **LONGER, energy_weight=20.0).model


def test_energies_are_learned_with_their_constant(data: Path, model_path: Path) -> None:
    """On snapshots of another file: the model's energy is the labels', and the card tells by how much it errs."""
    model, card = load_model(model_path)
    source = {"z.h5": read_source(data / "z.h5", "square", 0.0)}
    (labels,) = load_shares(data, [Shard("z.h5", 20, "")], source, World(), 1, torch.float64)
    found = model.potentials(labels.spins.reshape(-1, *SIZE, 3).numpy(), LATTICE, 0.0).energy / LATTICE.num_sites
    scatter, errors = float(labels.energy.std()), found - labels.energy.numpy()
    assert errors.std() < 0.2 * scatter
    assert abs(errors.mean()) < 0.1 * scatter
    assert card["metrics"]["energy_rms"] == pytest.approx(errors.std(), rel=1e-9)


def test_energies_count_by_their_weight(tmp_path: Path) -> None:
    """Where fields are those of half the energy, one of the two is learned; of the snapshots learned from."""
    data = write_closed(tmp_path / "data", "a", "b", teacher=lambda *of: teacher_field(*of) / 2)
    rms, share = {}, {}
    for weight in (0.0, 1000.0):
        model, _ = load_model(run(data, tmp_path / str(weight), **LONGER, energy_weight=weight).model)
        metrics = evaluate(model, [data / "a.h5", data / "b.h5"], World(), CPU)
        rms[weight], share[weight] = metrics["energy_rms"], metrics["variance_fraction"]
    assert rms[1000.0] < 0.5 * rms[0.0]
    assert share[1000.0] > 2 * share[0.0]


class _Half:
    """One of two ranks, the sum of whose numbers is known."""

    size = 2

    def __init__(self, total: float) -> None:
        self._total = total

    def sum(self, values: np.ndarray) -> np.ndarray:
        return np.full_like(values, self._total)


def test_the_loss_of_energies_is_their_variance_on_any_number_of_ranks() -> None:
    """Value and derivative, whatever constant the energies are off by."""
    draw = torch.Generator().manual_seed(1)
    spins = torch.nn.functional.normalize(torch.randn((5, 6, 3), generator=draw, dtype=torch.float64), dim=-1)
    exact, predicted = torch.randn((2, 5), generator=draw, dtype=torch.float64)
    field, settings = torch.zeros_like(spins), TrainingSettings(energy_weight=3.0)

    def loss(energy: torch.Tensor, those: slice, world: Any) -> torch.Tensor:
        parts = *[field[those]] * 3, 6 * energy[those], *[energy[those]] * 2
        return batch_loss(
            Prediction(*parts), spins[those], field[those], exact[those], exact[those], None, 5, settings, world
        )

    everything = slice(None)
    expected = 3 * (predicted - exact).var()
    torch.testing.assert_close(loss(predicted, everything, World()), expected)
    torch.testing.assert_close(loss(predicted + 7, everything, World()), expected)
    free = predicted.clone().requires_grad_()
    (slope,) = torch.autograd.grad(3 * (free - exact).var(), free)
    total = float((predicted - exact).sum())
    halves = [loss(free, those, _Half(total)) for those in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(sum(halves), expected)
    torch.testing.assert_close(torch.autograd.grad(sum(halves), free)[0], slope)


def test_the_loss_of_electrons_is_their_error_and_what_a_least_compressibility_lacks() -> None:
    """Omega = C_0 + C_1 x + C_2 (2 x² - 1): N by hand, and ∂N/∂mu = -4 C_2, the same at all mu."""
    grand, settings = GrandPotential(-1.0, 1.0, 0.8), TrainingSettings(energy_weight=0.0, electrons_weight=2.0)
    spins = torch.nn.functional.normalize(torch.ones(1, 10, 3, dtype=torch.float64), dim=-1)
    none, drive = torch.zeros(1, dtype=torch.float64), torch.tensor([[0.5, 0.9]], dtype=torch.float64)

    def loss(first: float, second: float) -> float:
        terms = torch.zeros(1, TERMS, dtype=torch.float64)
        terms[0, 1], terms[0, 2] = first, second
        predicted = Prediction(*[torch.zeros_like(spins)] * 3, none, none, terms)
        return float(batch_loss(predicted, spins, torch.zeros_like(spins), none, drive, grand, 1, settings, World()))

    # N / sites = 0.8 - (C_1 + 4 C_2 x) / 10, with x = mu = 0.5.
    assert loss(1.0, -1.0) == pytest.approx(0.0, abs=1e-24)
    assert loss(0.0, -1.0) == pytest.approx(2 * 0.1**2)
    assert loss(-1.0, 0.0) == pytest.approx(2 * 0.02**2)
    assert loss(-1.2, 0.1) == pytest.approx(2 * 0.06**2)


def test_evaluation_tells_a_constant_apart_from_the_rest(model_path: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "same.h5", 12, 7, 0.0, energy_of_a_site=OFFSET)
    write_shard(tmp_path / "moved.h5", 12, 7, 0.0, energy_of_a_site=OFFSET + 0.25)
    write_shard(tmp_path / "none.h5", 12, 7, 0.0)
    found = {
        name: evaluate_files(model_path, tmp_path / f"{name}.h5", tmp_path / f"{name}.json", World())
        for name in ("same", "moved", "none")
    }
    assert found["moved"]["energy_rms"] == pytest.approx(found["same"]["energy_rms"], rel=1e-9)
    assert found["moved"]["energy_shift"] == pytest.approx(found["same"]["energy_shift"] - 0.25, abs=1e-12)
    assert not {"energy_rms", "energy_shift"} & found["none"].keys()
    assert found["none"]["mse"] == found["same"]["mse"]


def test_a_model_without_energies_in_its_data_knows_no_constant(tmp_path: Path) -> None:
    outcome = run(write_closed(tmp_path / "data", "a", energy_of_a_site=None), tmp_path / "model", kind="conservative")
    model, card = load_model(outcome.model)
    assert model.energy_of_a_site is None
    assert "energy_rms" not in card["metrics"]
    write_shard(tmp_path / "labelled.h5", 12, 7, 0.0, energy_of_a_site=OFFSET)
    assert "energy_rms" in evaluate(model, [tmp_path / "labelled.h5"], World(), CPU)
    numbers = evaluate_files(outcome.model, tmp_path / "labelled.h5", tmp_path / "numbers.json", World())
    assert "energy_shift" not in numbers
    # Nor does one that goes on from a model with a constant, which was that of other weights.
    model.energy_offset = torch.tensor(OFFSET, dtype=torch.float64)
    save_model(tmp_path / "start.safetensors", model, {})
    again = run(tmp_path / "data", tmp_path / "again", kind="conservative", start=tmp_path / "start.safetensors")
    assert load_model(again.model)[0].energy_of_a_site is None


def test_the_constant_is_saved_and_a_committee_takes_the_mean(model_path: Path, tmp_path: Path) -> None:
    members = []
    for number, energy in enumerate((-1.0, -2.0)):
        model, _ = load_model(model_path)
        model.energy_offset = torch.tensor(energy, dtype=torch.float64)
        save_model(tmp_path / f"{number}.safetensors", model, {})
        members.append(load_model(tmp_path / f"{number}.safetensors")[0])
    assert [member.energy_of_a_site for member in members] == [-1.0, -2.0]
    committee, spins = Committee(members).eval(), np.zeros((1, *SIZE, 3))
    spins[..., 2] = 1
    energies = [one.potentials(spins, LATTICE, 0.0).energy[0] for one in (committee, *members)]
    assert energies[0] == pytest.approx((energies[1] + energies[2]) / 2, rel=1e-12)
    members[1].energy_offset = None
    assert committee.energy_of_a_site is None


def test_the_energies_of_a_picture_are_those_of_the_files(data: Path, model_path: Path) -> None:
    model, _ = load_model(model_path)
    errors = examine(model, [data / "a.h5", data / "z.h5"], World(), CPU).errors
    spins = torch.from_numpy(read_spins(data / "a.h5", SIZE)).flatten(1, 2)
    expected = teacher_energy(spins, LATTICE) / LATTICE.num_sites + OFFSET
    np.testing.assert_allclose(errors.energies[:20, 1], expected.numpy(), rtol=1e-12)
    assert errors.energies.shape == (40, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pair"}, r"training\.energy_weight: .* kind pair is not the derivative of an energy"),
        ({"kind": "direct"}, r"training\.energy_weight: .* kind direct"),
        ({"batch": 1}, r"training\.batch: 2 or more"),
        ({"data": "mixed"}, r"b\.h5: has no exact energies, which training\.energy_weight asks for"),
    ],
)
def test_energies_that_cannot_be_learned_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    directory = write_closed(tmp_path / "data", "a", "b", snapshots=3)
    if changes.pop("data", None):
        write_shard(directory / "b.h5", 3, 1, 0.0)
        (directory / "manifest.json").unlink()
        write_manifest(directory)
    with pytest.raises(HpcspinError, match=message):
        run(directory, tmp_path / "model", **{"kind": "conservative", "energy_weight": 1.0, **changes})
