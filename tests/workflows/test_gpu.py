"""On a GPU every verb gives what it gives on the CPU."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU on this machine"),
]


def on_both(hpcspin: Cli, tmp_path: Path, name: str, *arguments: object) -> list[dict[str, np.ndarray]]:
    """Results of one verb on the CPU and on the GPU."""
    found = []
    for device in ("cpu", "cuda"):
        output = tmp_path / device
        result = hpcspin(*arguments, f"device={device}", "--output", output / name)
        assert result.returncode == 0, result.stderr
        path = output / name if name.endswith(".h5") else output / name / "trajectory.h5"
        with h5py.File(path) as file:
            found.append({key: file[key][()] for key in file})
    return found


@pytest.mark.parametrize("solver", ["closed_form", "negf"])
def test_labels(hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path, solver: str) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cuda").mkdir()
    arguments = ("label", config, f"electrons.solver={solver}", "--spins", spins_file)
    cpu, gpu = on_both(hpcspin, tmp_path, "labels.h5", *arguments)
    for key in ("field", "density", "current"):
        np.testing.assert_allclose(gpu[key], cpu[key], atol=2e-7, err_msg=key)


@pytest.mark.parametrize(
    "settings",
    [{"kind": "pair"}, {"kind": "conservative"}, {"kind": "direct", "layers": (1, 2)}],
)
def test_learned_trajectory(hpcspin: Cli, config: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    from hpcspin.potential import Architecture, make_force_field, save_model

    torch.manual_seed(1)
    model = tmp_path / "model.safetensors"
    save_model(model, make_force_field(Architecture("square", 1.5, (16, 16), precision="float64", **settings)), {})
    learned = ("dynamics.field=learned", f"dynamics.model={model}", "potential=null")
    cpu, gpu = on_both(hpcspin, tmp_path, "run", "simulate", config, *learned)
    np.testing.assert_allclose(gpu["spins"], cpu["spins"], atol=1e-9)
