"""Outputs that could not be written, or would replace an input, are refused before anything is computed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from hpcspin.assembly.outputs import Layout
from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, make_force_field, save_model
from hpcspin.storage import read_attributes
from hpcspin.workflows import evaluate as evaluation
from hpcspin.workflows import label as labelling
from hpcspin.workflows.reproduce import _shards, run_config
from hpcspin.workflows.simulate import simulate_all


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "label_snapshots", lambda *_: pytest.fail("labelled"))
    monkeypatch.setattr(evaluation, "examine", lambda *_: pytest.fail("compared fields"))


def no_file(directory: Path | str | None = None, **_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.usefixtures("nothing_computed")
def test_label_refuses_an_output_it_cannot_write(
    config: Path, spins_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(output: Path, message: str) -> None:
        before = spins_file.read_bytes()
        with pytest.raises(HpcspinError, match=message):
            labelling.label_file(load_config(config), spins_file, output, World())
        assert spins_file.read_bytes() == before
        assert not list(tmp_path.rglob("*.partial"))

    (tmp_path / "directory").mkdir()
    refused(tmp_path / "directory", "directory: is a directory; give the name of a file")
    refused(spins_file / "o.h5", "cannot be made a directory")
    (tmp_path / "link.h5").symlink_to(spins_file)
    for output in (spins_file, tmp_path / "link.h5"):
        refused(output, "is read by this command and would be overwritten")
    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    refused(tmp_path / "o.h5", r"o\.h5: cannot be written there \(Permission denied\)")


@pytest.mark.usefixtures("nothing_computed")
def test_evaluate_refuses_an_output_it_cannot_write(
    spins_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.safetensors"
    save_model(model, make_force_field(Architecture("square", 1.5, (4,))), {})
    for output in (model, model.with_suffix(".json"), spins_file):
        before = output.read_bytes()
        with pytest.raises(HpcspinError, match=f"{output.name}: is read by this command"):
            evaluation.evaluate_files(model, spins_file, output, World())
        assert output.read_bytes() == before
    with pytest.raises(HpcspinError, match="cannot be made a directory"):
        evaluation.evaluate_files(model, spins_file, model / "numbers.json", World())
    for there in ("there.json", "there.png"):
        (tmp_path / there).touch()
        with pytest.raises(HpcspinError, match=f"{there}: exists already; .* --force"):
            evaluation.evaluate_files(model, spins_file, tmp_path / "there.json", World())
        (tmp_path / there).unlink()
    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    with pytest.raises(HpcspinError, match=r"numbers\.json: cannot be written there"):
        evaluation.evaluate_files(model, spins_file, tmp_path / "numbers.json", World())


@pytest.mark.parametrize("name", ["new", "new/deeper", "there"])
def test_a_simulation_that_is_refused_leaves_no_directory_behind(config: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    asked = load_config(config, ["dynamics.observers=[outside]"])
    with pytest.raises(HpcspinError, match="outside needs"):
        simulate_all({tmp_path / name: asked}, World())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["there"]
    assert not any((tmp_path / "there").iterdir())


def test_the_shards_of_a_reproduction_have_the_precision_of_their_labels(config: Path, tmp_path: Path) -> None:
    """That of the trajectories is the precision of the spins."""
    keys = ("electrons.solver=negf", "electrons.precision=complex64", "electrons.tolerance=1e-3", "dynamics.duration=1")
    loaded, layout = load_config(config, keys), Layout(tmp_path / "out")
    assert loaded.reproduce is not None
    runs = {name: run_config(loaded, loaded.reproduce.train[0]) for name in ("train-000", "test-000")}
    simulate_all({layout.trajectory("electrons", name).parent: run for name, run in runs.items()}, World())
    _shards(runs, layout, World())
    assert read_attributes(layout.trajectory("electrons", "train-000"))["precision"] == "float64"
    for path in (layout.data / "train-000.h5", layout.test / "test-000.h5"):
        assert read_attributes(path)["precision"] == "complex64"
