"""Bad input gets one line that says what, where and how to mend it, a non-zero exit, and leaves no half file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    for word in words:
        assert word in line
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("electrons.tolerence=1", ("electrons.tolerence", "tolerance")),
        ("lattice.size=[0, 4]", ("lattice.size",)),
        ("electrons.reservoirs.0.width=-1", ("width",)),
        ("electrons.temperature=0", ("temperature",)),
        ("electrons.reservoirs.0.potential=1e9", ("potential",)),
        ("electrons.reservoirs.1.sites=[]", ("right", "no site")),
        ("lattice.size=[5, 4]", ("spins.h5", "5")),
    ],
)
def test_label_refuses_a_wrong_config(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path, override: str, words: tuple[str, ...]
) -> None:
    refused(hpcspin("label", config, override, "--spins", spins_file, "--output", tmp_path / "out.h5"), *words)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("fault", ["nan", "length", "missing", "truncated", "text", "absent"])
def test_label_refuses_wrong_spins(hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path, fault: str) -> None:
    with h5py.File(spins_file, "r+") as file:
        if fault == "nan":
            file["spins"][2, 1, 1, 0] = np.nan
        if fault == "length":
            file["spins"][2, 1, 1] = (1, 1, 0)
        if fault == "missing":
            del file["spins"]
    if fault == "truncated":
        spins_file.write_bytes(spins_file.read_bytes()[:1500])
    if fault == "text":
        spins_file.write_text("not HDF5")
    if fault == "absent":
        spins_file.unlink()
    refused(hpcspin("label", config, "--spins", spins_file, "--output", tmp_path / "out.h5"), "spins.h5")
    assert not list(tmp_path.glob("out.h5*"))


def test_spins_of_another_kind_of_lattice_are_refused(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    """The labels were those of the config's lattice, in silence. Files without a config fit every kind."""
    with h5py.File(spins_file, "r+") as file:
        file.attrs["config"] = json.dumps({"lattice": {"kind": "triangular", "size": [6, 4]}})
    words = (str(spins_file), "lattice of kind triangular", "lattice.kind is square")
    refused(hpcspin("label", config, "--spins", spins_file, "--output", tmp_path / "out.h5"), *words)
    initial = f"initial={{kind: file, path: {spins_file}}}"
    refused(hpcspin("simulate", config, initial, "--output", tmp_path / "run"), *words)
    classical = ["dynamics.field=classical", "electrons=null", "path={images: 4}"]
    ends = ["--from", spins_file, "--to", spins_file]
    refused(hpcspin("path", config, *classical, *ends, "--output", tmp_path / "path"), *words)


def test_a_tolerance_that_cannot_be_met_stops_the_label(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    result = hpcspin(
        "label", config, "electrons.tolerance=1e-19", "--spins", spins_file, "--output", tmp_path / "out.h5"
    )
    refused(result, "tolerance")
    assert not list(tmp_path.glob("out.h5*"))


@pytest.mark.mpi
def test_a_wrong_file_ends_all_ranks_with_one_line(mpirun: Cli, config: Path, spins_file: Path, tmp_path: Path) -> None:
    spins_file.write_text("not HDF5")
    result = mpirun(
        2,
        "-m",
        "hpcspin",
        "label",
        str(config),
        "--spins",
        str(spins_file),
        "--output",
        str(tmp_path / "o"),
        timeout=60,
    )
    assert result.returncode != 0
    assert result.stderr.count("spins.h5: cannot be read") == 1


@pytest.mark.mpi
def test_a_mistake_on_the_command_line_is_told_by_one_rank(mpirun: Cli, config: Path) -> None:
    result = mpirun(2, "-m", "hpcspin", "label", str(config), timeout=60)
    assert result.returncode == 2
    assert len(said := [line for line in result.stderr.splitlines() if "hpcspin" in line]) == 1
    assert "label: Missing option '--spins'" in said[0]
    assert "label --help" in said[0]


def test_simulate_refuses_a_model_that_is_not_one(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    learned = ("dynamics.field=learned", "--output", tmp_path / "run")
    refused(hpcspin("simulate", config, *learned), "dynamics.model")
    refused(hpcspin("simulate", config, "dynamics.model=none.safetensors", *learned), "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04junk")
    refused(hpcspin("simulate", config, f"dynamics.model={tmp_path}/bad.safetensors", *learned), "bad.json")
    (tmp_path / "bad.json").write_text('{"format": "hpcspin force field", "schema_version": 2}')
    refused(hpcspin("simulate", config, f"dynamics.model={tmp_path}/bad.safetensors", *learned), "bad.safetensors")


def test_simulate_refuses_a_model_of_another_lattice_or_cutoff(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    from hpcspin.potential import Architecture, make_force_field, save_model

    model = tmp_path / "model.safetensors"
    save_model(model, make_force_field(Architecture("square", 2.0, (16, 16), precision="float64")), {})
    learned = ("dynamics.field=learned", f"dynamics.model={model}", "--output", tmp_path / "run")
    refused(hpcspin("simulate", config, *learned), "model.safetensors", "radius (2.0 -> 1.5)")
    assert hpcspin("simulate", config, "potential=null", *learned).returncode == 0
    triangular = ("potential=null", "lattice.kind=triangular")
    refused(hpcspin("simulate", config, *triangular, *learned), "model.safetensors", "triangular", "lattice.kind")


def test_simulate_refuses_another_config_on_the_same_directory(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    assert hpcspin("simulate", config, "--output", tmp_path / "run").returncode == 0
    refused(hpcspin("simulate", config, "dynamics.damping=0.5", "--output", tmp_path / "run"), "dynamics.damping")


def test_train_refuses_a_missing_or_changed_shard(hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path) -> None:
    from hpcspin.storage import write_manifest

    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.h5", "b.h5"):
        with h5py.File(spins_file, "r+") as file:
            file["spins"][...] = np.roll(file["spins"][...], 1, axis=2)
        assert hpcspin("label", config, "--spins", spins_file, "--output", data / name).returncode == 0
    write_manifest(data)
    arguments = ("train", config, "training.validation=[b.h5]", "--data", data, "--output", tmp_path / "model")
    refused(hpcspin(*arguments, "lattice.kind=triangular"), "a.h5: the spins are on a square lattice", "lattice.kind")
    with h5py.File(data / "b.h5", "r+") as file:
        file["field"][0] = 0
    refused(hpcspin(*arguments), "b.h5")
    (data / "b.h5").unlink()
    refused(hpcspin(*arguments), "b.h5")
    (data / "manifest.json").write_text("{")
    refused(hpcspin(*arguments), "manifest.json")
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_report_of_an_empty_directory(hpcspin_process: Cli, tmp_path: Path) -> None:
    refused(hpcspin_process("report", tmp_path), "config.json", "reproduce")


def test_model_cards_are_json(tmp_path: Path) -> None:
    """Nothing that is read back may execute code: cards are JSON, weights are safetensors."""
    from hpcspin.errors import HpcspinError
    from hpcspin.potential import load_model

    (tmp_path / "m.safetensors").write_bytes(b"")
    (tmp_path / "m.json").write_text(json.dumps({}))
    with pytest.raises(HpcspinError, match="m"):
        load_model(tmp_path / "m.safetensors")


def test_evaluate_refuses_the_name_of_its_picture(hpcspin: Cli, tmp_path: Path) -> None:
    output = tmp_path / "errors.png"
    refused(
        hpcspin("evaluate", tmp_path / "m.safetensors", "--data", tmp_path, "--output", output), "give a .json file"
    )
