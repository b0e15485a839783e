"""Sweeps over keys of the config: every combination once, recorded, the same as a training of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.storage import write_labels, write_manifest
from hpcspin.workflows.sweep import sweep_directory

Cli = Callable[..., subprocess.CompletedProcess[str]]
VALIDATION = "training.validation=[validation.h5]"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Random fields on walls: what a training makes of them is of no interest here."""
    directory, rng = tmp_path / "data", np.random.default_rng(1)
    directory.mkdir()
    for name, seeds in (("train", range(4)), ("validation", range(4, 6))):
        lattice = make_lattice("square", (6, 4))
        spins = np.stack([make_texture("wall", lattice, seed, position=3, tilt=0.3) for seed in seeds])
        write_labels(directory / f"{name}.h5", spins, rng.standard_normal(spins.shape), {"precision": "complex128"})
    write_manifest(directory)
    return directory


def test_every_combination_is_trained_once_and_recorded(hpcspin: Cli, config: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    vary = ["--vary", "potential.hidden=[8],[4,4]", "--vary", "training.learning_rate=1e-3"]
    command = ["sweep", config, VALIDATION, "training.epochs=2", "--data", data, "--output", output, *vary]
    result = hpcspin(*command)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (output / "sweep.jsonl").read_text().splitlines()]
    assert [record["overrides"]["potential.hidden"] for record in records] == [[8], [4, 4]]
    assert all({"mse", "mse_error", "snapshots"} <= set(record["metrics"]) for record in records)
    assert all(record["seconds"] > 0 and record["seed"] == 1 and record["provenance"] for record in records)
    shown = [f"{record['metrics']['mse']:.3e}" for record in sorted(records, key=lambda r: r["metrics"]["mse"])]
    assert result.stdout.index(shown[0]) <= result.stdout.index(shown[1])
    alone = tmp_path / "alone"
    changes = ["potential.hidden=[4,4]", "training.learning_rate=1e-3", "training.epochs=2", VALIDATION]
    assert hpcspin("train", config, *changes, "--data", data, "--output", alone).returncode == 0
    swept = output / records[1]["directory"] / "model.safetensors"
    assert swept.read_bytes() == (alone / "model.safetensors").read_bytes()

    before = {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.h5")}
    assert len(before) == 2
    more = [argument.replace("[8]", "[8],[2]") if isinstance(argument, str) else argument for argument in command]
    again = hpcspin(*more)
    assert again.returncode == 0, again.stderr
    extended = [json.loads(line) for line in (output / "sweep.jsonl").read_text().splitlines()]
    assert [extended[0]["metrics"], extended[2]["metrics"]] == [record["metrics"] for record in records]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_combination_that_diverges_is_left_out(
    config: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides, rate, output = [VALIDATION, "training.epochs=1"], "training.learning_rate", tmp_path / "out"
    with caplog.at_level("INFO"):
        assert sweep_directory(config, overrides, [f"{rate}=1.0e+300,0.001"], [data], output, World()) == 0
    assert "diverged in epoch 1" in caplog.text
    (line,) = (output / "sweep.jsonl").read_text().splitlines()
    assert json.loads(line)["overrides"] == {rate: 0.001}
    with pytest.raises(HpcspinError, match="every training of the sweep has diverged"):
        sweep_directory(config, overrides, [f"{rate}=1.0e+300"], [data], output, World())


@pytest.mark.parametrize(
    ("vary", "overrides", "message"),
    [
        (["training.seed"], [VALIDATION], "write it as KEY=V1,V2"),
        (["training.seed="], [VALIDATION], "write it as KEY=V1,V2"),
        (["training.seed=1", "training.seed=2"], [VALIDATION], "each key once"),
        (["training.sed=1,2"], [VALIDATION], "did you mean 'seed'"),
        (["training.seed=1,2"], [], "compares errors on validation shards"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_trained(
    config: Path, tmp_path: Path, vary: list[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(HpcspinError, match=message):
        sweep_directory(config, overrides, vary, tmp_path / "none", tmp_path / "out", World())
    assert not (tmp_path / "out").exists()
