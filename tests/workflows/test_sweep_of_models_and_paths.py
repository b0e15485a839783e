"""Sweeps of `evaluate` and `path`: errors of models on the labels of each run's electrons, barriers against a key."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcspin as hs
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.workflows.sweep import Sweep, sweep_directory

Cli = Callable[..., subprocess.CompletedProcess[str]]
LEFT = "electrons.reservoirs.left.potential"
MODEL = "dynamics.model=driven_sd_fast"
ANISOTROPY = "dynamics.classical.anisotropy"


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_errors_of_two_models_at_two_voltages_are_those_of_evaluate(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    """Each on the labels of its voltage alone, which another sweep has made."""
    labels, output = tmp_path / "labels", tmp_path / "out"
    given = ("--run", "label", "--spins", spins_file, "--output", labels, "--vary", f"{LEFT}=-3.2,-2")
    done = hpcspin("sweep", config, *given)
    assert done.returncode == 0, done.stderr
    vary = ("--vary", f"{LEFT},dynamics.model=[-3.2,driven_sd_fast],[-2,driven_sd_light]")
    done = hpcspin("sweep", config, "--run", "evaluate", "--data", labels, "--output", output, *vary)
    assert done.returncode == 0, done.stderr
    rows, files = table(output / "sweep.csv"), table(labels / "sweep.csv")
    assert [(row["voltage"], row["snapshots"]) for row in rows] == [("3.2", "5"), ("2.0", "5")]
    file = labels / files[1]["directory"] / "labels.h5"
    assert hs.evaluate("driven_sd_light", file)["mse"] == float(rows[1]["mse"])
    assert {point["quantity"] for point in table(output / "curves.csv")} == {"mse"}


@pytest.mark.parametrize(
    ("vary", "overrides", "message"),
    [
        ([f"{LEFT}=-2,-3"], [MODEL], r"no label file has the electrons .*labels.h5 differs .*voltage \(2.0 -> 3.0\)"),
        (["dynamics.seed=1,2"], [MODEL], "--vary dynamics.seed: changes no result of evaluate, which uses electrons"),
        ([f"{LEFT}=-2"], [], "dynamics.model: is missing"),
        (["dynamics.model=driven_sd_fast,driven_sd_fats"], [f"{LEFT}=-2"], "driven_sd_fats: no such model"),
    ],
)
def test_what_an_evaluation_cannot_do_is_refused_before_anything_runs(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path, vary: list[str], overrides: list[str], message: str
) -> None:
    labels = tmp_path / "labels.h5"
    assert hpcspin("label", config, "--spins", spins_file, "--output", labels, f"{LEFT}=-2").returncode == 0
    given = Sweep(config, vary, tmp_path / "out", overrides, verb="evaluate", data=[labels])
    with pytest.raises(HpcspinError, match=message):
        sweep_directory(given, World())
    assert not (tmp_path / "out").exists()


@pytest.fixture
def magnet(tmp_path: Path) -> Path:
    path = tmp_path / "magnet.yaml"
    path.write_text(
        "lattice: {size: [1, 1], periodic: [false, false]}\ninitial: {kind: file, path: up.npy}\n"
        "dynamics: {field: classical, classical: {anisotropy: 0.2, zeeman: [0.1, 0, 0]}}\npath: {images: 5}\n"
    )
    return path


def test_barriers_between_minima_of_the_same_keys(hpcspin: Cli, magnet: Path, tmp_path: Path) -> None:
    """The barrier of a macrospin is K (1 - h / 2K)**2, from minima that turn with K."""
    vary = ("--vary", f"{ANISOTROPY}=0.2,0.4")
    for name, z in (("up", 1.0), ("down", -1.0)):
        np.save(tmp_path / f"{name}.npy", np.array([[[0.0, 0.0, z]]]))
        start = f"initial.path={tmp_path / name}.npy"
        done = hpcspin("sweep", magnet, "--run", "minimise", "--output", tmp_path / name, *vary, start)
        assert done.returncode == 0, done.stderr
    ends = ("--from", tmp_path / "up", "--to", tmp_path / "down")
    done = hpcspin("sweep", magnet, "--run", "path", *ends, "--output", tmp_path / "out", *vary)
    assert done.returncode == 0, done.stderr
    assert "is left there" not in done.stderr
    barriers = [float(point["mean"]) for point in table(tmp_path / "out" / "curves.csv")]
    assert barriers == pytest.approx([k * (1 - 0.1 / (2 * k)) ** 2 for k in (0.2, 0.4)], rel=1e-4)

    other = hpcspin("sweep", magnet, "--run", "path", *ends, "--output", tmp_path / "no", "--vary", f"{ANISOTROPY}=0.3")
    assert other.returncode == 1
    assert f"up: this sweep has no run of {ANISOTROPY}=0.3" in other.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"verb": "export"}, "--run export: makes no numbers from a config; choose from evaluate, label"),
        ({"verb": "path"}, "--from: give it with --run path, and only there"),
        ({"verb": "evaluate"}, "--data: give it with --run evaluate and train, and only there"),
    ],
)
def test_what_a_verb_needs_is_asked_for(magnet: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(HpcspinError, match=message):
        sweep_directory(Sweep(magnet, [f"{ANISOTROPY}=1,2"], tmp_path / "out", **given), World())
