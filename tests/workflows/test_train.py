"""From label files to a training: their directory is a training set as it is, and the log says what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.storage import ensure_manifest, read_manifest, write_labels, write_manifest
from hpcspin.training.metrics import tangent_components
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.label import label_file
from hpcspin.workflows.train import train_directory

SHORT = ("training.epochs=1", "potential.hidden=[4]")


@pytest.fixture
def data(config: Path, spins_file: Path, tmp_path: Path) -> Path:
    """What `hpcspin label` leaves in a directory."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        lattice = make_lattice("square", (6, 4))
        file["spins"] = np.stack([make_texture("wall", lattice, seed, position=2, tilt=0.3) for seed in range(5)])
    for name, spins in (("a", spins_file), ("b", tmp_path / "other.h5")):
        label_file(load_config(config), spins, tmp_path / "data" / f"{name}.h5", World())
    return tmp_path / "data"


def train(config: Path, data: list[Path], output: Path, *overrides: str) -> int:
    return train_directory(load_config(config, [*SHORT, *overrides]), data, output, World())


def component_errors(model: Path, labels: Path) -> NDArray[np.float64]:
    """Errors of all perpendicular components."""
    force, _ = load_model(model)
    with h5py.File(labels) as file:
        spins, field = (torch.from_numpy(file[name][()]).flatten(1, 2) for name in ("spins", "field"))
    near = force.neighbourhood(make_lattice("square", (6, 4), (False, True)))
    error = force(spins, near, torch.full((len(spins),), 3.2)).field.double() - field
    return tangent_components(spins, error).numpy()


def test_label_files_are_a_training_set_as_they_are(
    config: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert train(config, [data], tmp_path / "model", "training.validation=[b.h5]") == 0
    assert f"{data}/manifest.json: written, with the 2 label files there" in caplog.text
    assert "warning" not in caplog.text
    assert [shard.file for shard in read_manifest(data)] == ["a.h5", "b.h5"]
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert [shard["file"] for shard in card["data"]["validation"]] == ["b.h5"]
    (data / "manifest.json").unlink()
    evaluate_files(tmp_path / "model", data, tmp_path / "errors.json", World())
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["snapshots"] == 10
    both = np.concatenate([component_errors(tmp_path / "model/model.safetensors", data / f"{n}.h5") for n in "ab"])
    assert errors["half_width_68"] == pytest.approx(np.quantile(abs(both), 0.6826895), rel=1e-6)
    assert not (data / "manifest.json").exists()


def test_labels_without_a_config_have_the_edges_of_the_training(
    config: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The training and an evaluation are those of files that say that both sides are periodic."""
    errors, closed = [], "lattice.periodic=[true, true]"
    for stated in (True, False):
        for path in data.glob("*.h5"):
            with h5py.File(path, "r+") as file:
                del file.attrs["config"]
                if stated:
                    file.attrs["config"] = load_config(config, [closed]).as_json()
        caplog.clear()
        with caplog.at_level("INFO"):
            train(config, [data], tmp_path / f"model-{stated}", "training.validation=[b.h5]", closed)
        told = "its electrons are those of the training's config" in caplog.text
        assert told == ("its lattice.periodic as [True, True]" in caplog.text) == (not stated)
        evaluate_files(tmp_path / f"model-{stated}", data, tmp_path / "errors.json", World(), force=True)
        errors.append(json.loads((tmp_path / "errors.json").read_text())["mse"])
        (data / "manifest.json").unlink()
    assert errors[0] == errors[1]


def test_a_training_that_nothing_judges_is_warned_of_once(
    config: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert train(config, [data], tmp_path / "model", "training.members=2") == 0
    (line,) = [message for message in caplog.messages if "warning" in message]
    assert "training.validation names no label file" in line
    assert "training.validation=[b.h5]" in line
    caplog.clear()
    other = shutil.copytree(data, tmp_path / "other")
    with caplog.at_level("INFO"):
        assert train(config, [data, other], tmp_path / "both") == 0
    name = next(message for message in caplog.messages if "warning" in message).rpartition("=")[2].strip("[]")
    (data / "b.h5").unlink()
    (data / "manifest.json").unlink()
    assert train(config, [data, other], tmp_path / "judged", f"training.validation=['{name}']") == 0


def test_label_files_that_came_later_are_named(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_manifest(data)
    ensure_manifest(data)
    assert not caplog.messages
    shutil.copy(data / "a.h5", data / "c.h5")
    ensure_manifest(data)
    (line,) = caplog.messages
    assert f"{data}/c.h5 is not in the manifest" in line
    assert f"delete {data}/manifest.json" in line


def test_a_directory_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    spins = np.zeros((1, 6, 4, 3))
    spins[..., 2] = 1
    write_labels(tmp_path / "a.h5", spins, spins, {})
    for absent, present in (("/field", "spins"), ("/spins", "field")):
        with h5py.File(tmp_path / "checkpoint.h5", "w") as file:
            file[present] = spins
        with pytest.raises(HpcspinError, match=rf"checkpoint\.h5: has no dataset {absent}; .* copy those"):
            ensure_manifest(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(HpcspinError, match=r"a\.h5: is no directory"):
        ensure_manifest(tmp_path / "a.h5")


def test_a_missing_or_changed_shard_says_what_to_delete(config: Path, data: Path, tmp_path: Path) -> None:
    write_manifest(data)
    with h5py.File(data / "b.h5", "r+") as file:
        file["field"][0] = 0
    for fault in ("corrupt or changed", "missing"):
        with pytest.raises(HpcspinError, match=rf"b\.h5: shard is {fault}.*delete {data}/manifest\.json"):
            train(config, [data], tmp_path / "model")
        (data / "b.h5").unlink(missing_ok=True)
    (data / "manifest.json").unlink()
    assert train(config, [data], tmp_path / "model") == 0
