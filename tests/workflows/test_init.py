"""``hpcspin init``: its configs are valid as they stand, and each verb takes its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.workflows.init import JOBS, write_config

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize("job", JOBS)
def test_each_config_is_read_and_has_the_sections_of_its_verb(job: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write_config(path, kind, job, World())
    config = load_config(path)
    sections = [section.removeprefix("closed_").removeprefix("torque_") for section in JOBS[job][2].split()]
    config.need(*("dynamics" if section == "classical" else section for section in sections))
    assert config.lattice.kind == kind
    # Each key has a comment, or a line of its section has one.
    assert path.read_text().count("#") > 8


@pytest.mark.parametrize("job", ["classical", "quench", "learn", "torque"])
def test_a_written_config_runs(job: str, hpcspin: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    written = hpcspin("init", path, "--job", job, "--lattice", "triangular")
    assert written.returncode == 0, written.stderr
    small = {
        "classical": ("dynamics.duration=1",),
        "quench": ("dynamics.duration=1",),
        "torque": ("lattice.size=[4,3]", "torque.angles=[90]", "torque.voltages=[0.2]",
                   "torque.switching.voltages=[0.1,0.4]"),
        "learn": ("lattice.size=[6,4]", "dynamics.duration=2", "training.epochs=1", "learning.trajectories=2",
                  "learning.labels=2", "learning.rounds=1", "learning.initial=[{kind: wall, position: 2}]"),
    }[job]  # fmt: skip
    verb = JOBS[job][1].split()[0]
    done = hpcspin(verb, path, "--output", tmp_path / "out", *small)
    assert done.returncode == 0, done.stderr


def test_labels_of_a_written_config(hpcspin: Cli, tmp_path: Path) -> None:
    assert hpcspin("init", tmp_path / "mine.yaml", "--job", "label").returncode == 0
    np.save(tmp_path / "spins.npy", np.broadcast_to([0.0, 0.6, 0.8], (1, 12, 6, 3)))
    output = tmp_path / "labels.h5"
    done = hpcspin("label", tmp_path / "mine.yaml", "--spins", tmp_path / "spins.npy", "--output", output)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as labels:
        assert labels["error"][0] < 1e-3


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(HpcspinError, match="exists already"):
        write_config(path, "square", "wall", World())
    assert path.read_text() == "mine"
