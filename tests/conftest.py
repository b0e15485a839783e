"""Fixtures shared by all rooms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "reference"


@pytest.fixture
def reference() -> Callable[[str], dict[str, Any]]:
    """Load an exact steady state."""

    def load(name: str) -> dict[str, Any]:
        with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as data:
            content: dict[str, Any] = {key: data[key] for key in data.files}
        content["meta"] = json.loads(str(content["meta"]))
        return content

    return load


def _launch(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


@pytest.fixture
def mpirun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python *args`` on n MPI ranks, skipping where no MPI launcher is installed."""
    from shutil import which

    launcher = which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

    def run(n: int, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        if launcher is None:
            pytest.skip("no mpiexec on this machine; pip install 'hpcspin[mpi]' brings one")
        return _launch([launcher, "-n", str(n), sys.executable, *args], timeout)

    return run


@pytest.fixture
def torchrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python *args`` on n ranks of torchrun."""

    def run(n: int, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
        return _launch([*command, *args], timeout)

    return run
