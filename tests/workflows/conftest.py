"""A tiny driven system, and the command line as a user types it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hpcspin import cli
from hpcspin.lattice import make_lattice, make_texture

TINY = """
lattice: {kind: square, size: [6, 4], periodic: [false, true]}
electrons:
  exchange: 3.8
  temperature: 0.05
  tolerance: 1.0e-7
  solver: closed_form
  reservoirs:
    - {name: left,  sites: left,  width: 1.0,  potential: -3.2}
    - {name: right, sites: right, width: 1.0,  potential: 0.0}
    - {name: bath,  sites: all,   width: 0.02, potential: 0.0}
initial: {kind: wall, position: 3, tilt: 0.2}
dynamics: {field: electrons, damping: 0.2, temperature: 0.01, step: 0.4, duration: 4, seed: 3, record_interval: 1,
           checkpoint_interval: 4}
potential: {kind: pair, radius: 1.5, symmetry: bias, hidden: [16, 16], precision: float64}
training: {epochs: 4, batch: 4, learning_rate: 0.002, gauge: 1.0e-3, ema: 0.9, seed: 1, checkpoint_interval: 2}
reproduce:
  train: [{seed: 1}, {seed: 2, initial: {kind: antiferromagnet}}]
  validation: [{seed: 3}]
  test: [{seed: 4}, {seed: 5}]
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny() -> str:
    return TINY


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def spins_file(tmp_path: Path) -> Path:
    lattice = make_lattice("square", (6, 4))
    path = tmp_path / "spins.h5"
    with h5py.File(path, "w") as file:
        file["spins"] = np.stack([make_texture("wall", lattice, seed, position=3, tilt=0.3) for seed in range(5)])
    return path


@pytest.fixture
def hpcspin(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run ``hpcspin *arguments`` in this process, which saves the seconds that a new one needs to import everything."""
    for name in ("hpcspin", "hpcspin.results"):
        for attribute, value in (("level", logging.NOTSET), ("handlers", []), ("propagate", True)):
            monkeypatch.setattr(logging.getLogger(name), attribute, value)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words, columns = [str(word) for word in arguments], os.environ.get("COLUMNS", "80")
        done = CliRunner().invoke(cli.app, words, prog_name="hpcspin", env={"COLUMNS": columns})
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def hpcspin_process() -> Cli:
    """Run ``hpcspin *arguments`` in a process of its own."""

    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hpcspin", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run
