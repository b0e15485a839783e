"""The watch over a learned trajectory: what lies outside the training data, and exact checks that change nothing."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hpcspin.assembly import learned as learned_field
from hpcspin.assembly import observers
from hpcspin.assembly.learned import LearnedField
from hpcspin.assembly.system import lattice_of
from hpcspin.config import load_config
from hpcspin.drawing.series import QUANTITIES
from hpcspin.dynamics.observers import Frame
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture, perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, Committee, ForceField, load_model, make_force_field, save_model
from hpcspin.storage import FrameReader
from hpcspin.training.dataset import Snapshots
from hpcspin.training.moments import set_envelope
from hpcspin.workflows.simulate import simulate_directory

Cli = Callable[..., subprocess.CompletedProcess[str]]
LATTICE = make_lattice("square", (6, 4))
CPU = torch.device("cpu")


def snapshots(spins: np.ndarray) -> Snapshots:
    flat = torch.from_numpy(spins).flatten(1, 2)
    none, numbers = torch.zeros(len(flat)), np.arange(len(flat))
    return Snapshots(flat, flat, none, none.double(), numbers, np.zeros(len(flat), int), len(flat), LATTICE)


def walls(count: int) -> np.ndarray:
    return np.stack([make_texture("wall", LATTICE, seed, position=3, tilt=0.2) for seed in range(count)])


def make_model(seed: int = 1, experience: np.ndarray | None = None, precision: str = "float64") -> ForceField:
    torch.manual_seed(seed)
    model = make_force_field(Architecture("square", 1.5, (16, 16), precision=precision)).eval()
    features = model.network.mean.shape
    model.network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
    if experience is not None:
        set_envelope(model, [snapshots(experience)], World(), CPU)
    return model


def outside(model: ForceField | Committee, spins: np.ndarray) -> np.ndarray:
    flat = torch.from_numpy(spins).flatten(1, 2)
    found: np.ndarray = model.outside(flat, model.neighbourhood(LATTICE), torch.zeros(len(flat))).numpy()
    return found


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_was_learned_from_lies_inside_and_strange_spins_outside(precision: str) -> None:
    known = walls(20)
    model = make_model(experience=known, precision=precision)
    assert not outside(model, known).any()
    assert not outside(model, known[3:4]).any()  # whatever the batch
    strange = known[:1].copy()
    strange[0, 4, 2] = strange[0, 4, 1]  # a ferromagnetic bond in the antiferromagnet
    flagged = outside(model, strange).reshape(LATTICE.size) > 0
    assert flagged[4, 2]
    assert not flagged[:2].any()  # beyond the reach of a centre nothing has changed


def test_the_distance_is_the_largest_excess_in_units_of_the_network() -> None:
    model = make_model(experience=walls(2))
    new = np.stack([make_texture("random", LATTICE, 7)])
    flat = torch.from_numpy(new).flatten(1, 2)
    with torch.no_grad():
        features = model.features(flat, model.neighbourhood(LATTICE), torch.zeros(len(flat))).numpy()
    assert model.envelope is not None
    low, high = model.envelope.numpy()
    scale = model.network.scale.numpy()
    expected = [max(0.0, ((low - f) * scale).max(), ((f - high) * scale).max()) for f in features]
    np.testing.assert_allclose(outside(model, new)[0], expected, rtol=1e-12)
    assert max(expected) > 1


def test_a_committee_means_over_its_members() -> None:
    members = [make_model(seed, walls(3)) for seed in (1, 2)]
    spins = make_texture("random", LATTICE, 7)[None]
    expected = (outside(members[0], spins) + outside(members[1], spins)) / 2
    np.testing.assert_allclose(outside(Committee(members), spins), expected, rtol=1e-14)


def save(path: Path, model: ForceField) -> Path:
    save_model(path, model, {})
    return path


def test_the_envelope_is_saved_where_there_is_one(tmp_path: Path) -> None:
    model = make_model(experience=walls(4))
    loaded, _ = load_model(save(tmp_path / "new.safetensors", model))
    assert torch.equal(loaded.envelope, model.envelope)
    assert not load_model(save(tmp_path / "none.safetensors", make_model()))[0].has_envelope


@pytest.mark.parametrize(
    ("lattice", "drive", "given"),
    [
        ("square", (0.3,), {}),
        ("square", (0.3,), {"kind": "direct", "layers": (1, 2), "channels": 3, "electrode_range": 4.0}),
        ("square", (0.3,), {"kind": "pair", "layers": (1, 2), "channels": 3}),
        ("square", (0.7, -1.1, 0, 0, 0.7, 0.6, 0, 0), {"kind": "direct", "layers": (1,), "drive": "polarized"}),
        ("triangular", (0.3, np.nan), {"kind": "conservative", "layers": (1, 1), "drive": "chemical_potential"}),
    ],
)
def test_features_are_computed_for_few_sites_at_once_and_no_bit_depends_on_them(
    monkeypatch: pytest.MonkeyPatch, lattice: str, drive: tuple[float, ...], given: dict[str, Any]
) -> None:
    """Those of a large lattice would not fit into the memory of a node."""
    torch.manual_seed(1)
    where = make_lattice(lattice, (13, 6), (False, True))
    (spins, known), drives = (make_texture("random", where, seed) for seed in (3, 4)), 2 if len(drive) == 8 else 1
    model = make_force_field(Architecture(lattice, 1.5, (8,), precision="float64", drives=drives, **given)).eval()
    with torch.no_grad():
        seen = model.features(
            torch.from_numpy(known).reshape(1, -1, 3), model.neighbourhood(where), torch.tensor([drive])
        )
    model.envelope = torch.stack([seen.amin(0), seen.amax(0)])
    field, free = LearnedField(model, drive), np.ones(where.size, bool)
    expected = field.on_lattice(where, torch.from_numpy(spins), model.outside)
    features, counts = model.features, list[int]()

    def counted(*given: Any) -> torch.Tensor:
        found = features(*given)
        counts.append(len(found))
        return found

    monkeypatch.setattr(learned_field, "_AT_ONCE", 20)
    monkeypatch.setattr(model, "features", counted)
    found = observers.outside(frame := Frame(where, spins, spins, 0.0, field, free))
    np.testing.assert_array_equal(found, expected)
    assert observers.outside_share(frame) == (expected > 0).mean()  # From the same features.
    assert np.ptp(found) > 0
    assert max(counts) <= 24
    assert sum(counts) == where.num_sites


def learned(config: Path, model: Path, directory: Path, *overrides: str) -> dict[str, Any]:
    changes = ["dynamics.field=learned", f"dynamics.model={model}", *overrides]
    assert simulate_directory(load_config(config, changes), directory, World()) == 0
    return contents(directory)


def contents(directory: Path) -> dict[str, Any]:
    with h5py.File(directory / "trajectory.h5") as file:
        return {name: dataset[()] for name, dataset in file.items()}


CHECKS = ("dynamics.check_interval=2", "dynamics.record_interval=2", "dynamics.observers=[outside, outside_share]")


def test_checks_are_labels_of_the_frames_and_change_no_bit(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "model.safetensors", make_model(experience=walls(4)))
    plain = learned(config, model, tmp_path / "plain", "dynamics.record_interval=2")
    checked = learned(config, model, tmp_path / "checked", *CHECKS)
    for name in ("spins", "field", "time"):
        assert np.array_equal(plain[name], checked[name])
    due = np.arange(6) % 2 == 0
    assert np.isfinite(checked["deviation"]).tolist() == due.tolist()
    assert np.isnan(checked["exact_field"][~due]).all()
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["spins"] = checked["spins"][due]
    result = hpcspin("label", config, "--spins", tmp_path / "frames.h5", "--output", tmp_path / "labels.h5")
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "labels.h5") as labels:
        np.testing.assert_allclose(checked["exact_field"][due], labels["field"][()], atol=1e-12)
        np.testing.assert_allclose(checked["exact_error"][due], labels["error"][()], rtol=1e-6, atol=1e-15)
    spins, wrong = (torch.from_numpy(a[due]) for a in (checked["spins"], checked["field"] - checked["exact_field"]))
    expected = perpendicular(spins, wrong).square().sum(-1).mean((1, 2)).div(2).sqrt()
    np.testing.assert_allclose(checked["deviation"][due], expected, rtol=1e-10)
    np.testing.assert_array_equal(checked["outside_share"], (checked["outside"] > 0).mean((1, 2)))


def test_classical_terms_are_not_part_of_what_is_checked(config: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "model.safetensors", make_model())
    one = learned(config, model, tmp_path / "plain", CHECKS[0])
    learned(config, model, tmp_path / "zeeman", CHECKS[0], "dynamics.classical.zeeman=[1,2,3]")
    trajectory = tmp_path / "zeeman" / "trajectory.h5"
    with FrameReader(trajectory) as two:
        assert one["deviation"][0] == two.deviation[0]
        assert np.array_equal(one["field_error"][0], two.field_error[0])
        drawn = QUANTITIES["error"].measure(lattice_of(trajectory), two, 0)
    error = np.cross(one["spins"][0], one["field"][0] - one["exact_field"][0])
    np.testing.assert_allclose(drawn, np.linalg.norm(error, axis=-1), rtol=1e-12)


@pytest.mark.mpi
def test_a_restart_with_checks_and_two_ranks_give_the_same_bits(mpirun: Cli, config: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "model.safetensors", make_model(experience=walls(4)))
    negf = "electrons.solver=negf"
    whole = learned(config, model, tmp_path / "whole", *CHECKS, negf)
    learned(config, model, tmp_path / "parts", *CHECKS, negf, "dynamics.duration=2")
    parts = learned(config, model, tmp_path / "parts", *CHECKS, negf)
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    command = ["-m", "hpcspin", "simulate", str(config), "--output", str(tmp_path / "two"), negf, *CHECKS]
    result = mpirun(2, *command, "dynamics.field=learned", f"dynamics.model={model}")
    assert result.returncode == 0, result.stderr
    assert "rms error of a perpendicular component of the learned field" in result.stderr
    two = contents(tmp_path / "two")
    for name in ("spins", "field", "outside"):
        np.testing.assert_array_equal(two[name], whole[name], err_msg=name)
    np.testing.assert_allclose(two["exact_field"], whole["exact_field"], atol=1e-10)
    np.testing.assert_allclose(two["deviation"], whole["deviation"], rtol=1e-8)


def test_the_log_warns_sparsely(config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save(tmp_path / "model.safetensors", make_model(experience=walls(1)))
    with caplog.at_level(logging.WARNING, "hpcspin"):
        found = learned(config, model, tmp_path / "run", "dynamics.observers=[outside]", "initial={kind: random}")
    warnings = [record for record in caplog.records if "outside the range" in record.getMessage()]
    assert (found["outside"] > 0).mean() > 0.3
    assert 1 <= len(warnings) <= 3  # of 11 frames: each warns of twice the share of the one before


def test_what_cannot_be_watched_is_refused_in_one_line(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "model.safetensors", make_model())
    with pytest.raises(HpcspinError, match="outside needs a model that knows"):
        learned(config, model, tmp_path / "a", "dynamics.observers=[outside]")
    with pytest.raises(HpcspinError, match=r"outside needs dynamics\.field: learned"):
        simulate_directory(load_config(config, ["dynamics.observers=[outside]"]), tmp_path / "b", World())
    with pytest.raises(HpcspinError, match="check_interval is for field: learned"):
        load_config(config, ["dynamics.check_interval=2"])
    shutil.copy(config, tmp_path / "bare.yaml")
    text = "\n".join(line for line in config.read_text().splitlines())
    start, end = text.index("electrons:"), text.index("initial:")
    (tmp_path / "bare.yaml").write_text(text[:start] + text[end:])
    changes = ["dynamics.field=learned", f"dynamics.model={model}", "dynamics.check_interval=2"]
    result = hpcspin("simulate", tmp_path / "bare.yaml", *changes, "--output", tmp_path / "c")
    assert result.returncode == 1
    assert result.stderr.strip() == "hpcspin: the config has no section 'electrons', which this verb needs; add it"
