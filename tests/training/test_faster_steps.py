"""Compiled layers and mixed precision change the speed of a training, not what it learns."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from teacher import run, site_local_field, write_data

from hpcspin.errors import HpcspinError
from hpcspin.training import loop

LAYERS = {"kind": "direct", "layers": (1, 1), "epochs": 2, "batch": 6, "checkpoint_interval": 1}
COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def weights(directory: Path) -> np.ndarray:
    return np.concatenate([array.ravel() for array in load_file(directory / "model.safetensors").values()])


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Code compiled for several threads adds otherwise than that for one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER, reason="torch.compile needs a C++ compiler and there is none")
def test_compiled_layers_take_the_same_steps(tmp_path: Path, two_threads: None) -> None:
    """Seven and six snapshots in batches of six: one batch is not full and not compiled."""
    data = write_data(tmp_path / "data")
    plain, fused = (
        run(data, tmp_path / name, compile=name == "fused", **{**LAYERS, "layers": (1,)}).metrics["mse"]
        for name in ("plain", "fused")
    )
    assert fused == pytest.approx(plain, rel=1e-9)
    np.testing.assert_allclose(weights(tmp_path / "fused"), weights(tmp_path / "plain"), rtol=0, atol=1e-9)


def test_mixed_precision_learns_as_much(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", (40, 40), site_local_field)
    longer = {**LAYERS, "layers": (1,), "precision": "float32", "epochs": 10, "learning_rate": 1e-2, "ema": 0.98}
    exact, mixed = (
        run(data, tmp_path / str(mixed), mixed_precision=mixed, **longer).metrics["variance_fraction"]
        for mixed in (False, True)
    )
    assert exact < 0.1
    assert mixed == pytest.approx(exact, rel=0.05)
    assert not np.array_equal(weights(tmp_path / "True"), weights(tmp_path / "False"))


@pytest.mark.parametrize("emulated", [False, True])
def test_it_is_said_where_bfloat16_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, emulated: bool
) -> None:
    monkeypatch.setattr(loop, "emulates_bfloat16", lambda device: emulated)
    with caplog.at_level("INFO"):
        run(write_data(tmp_path / "data"), tmp_path / "model", mixed_precision=True, **LAYERS)
    assert ("no units for bfloat16" in caplog.text) == emulated


def test_potentials_of_a_descriptor_cannot_be_compiled(tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match=r"training\.compile: potentials of a descriptor"):
        run(write_data(tmp_path / "data"), tmp_path / "model", compile=True)
