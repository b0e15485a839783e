"""A card for the tests of the electrons, on machines without one."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pretend_cupy import Card

from hpcspin.parallel.world import World

Results = dict[str, np.ndarray]


@pytest.fixture
def on_ranks(mpirun: Callable[..., object], tmp_path: Path) -> Callable[[str, int], tuple[Results, Results]]:
    """What ``solve`` of a script beside the tests gives on one rank and on several, which the script saves."""

    def solved(script: str, ranks: int) -> tuple[Results, Results]:
        path = Path(__file__).with_name(f"{script}.py")
        done = mpirun(ranks, str(path), str(tmp_path / "many.npz"))
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "many.npz") as file:
            many = dict(file)
        assert int(many.pop("ranks")) == ranks
        alone = import_module(script).solve(World())
        assert alone.keys() == many.keys()
        return alone, many

    return solved


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Card:
    """CuPy and torch see one card, on which NumPy computes."""
    pretended = Card(tmp_path_factory.getbasetemp())
    monkeypatch.setitem(sys.modules, "cupy", pretended.module)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", pretended.namespace)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="pretended"))
    monkeypatch.setattr("hpcspin.electrons.fused._FASTER", {})
    monkeypatch.setattr("hpcspin.electrons.workers._mine", threading.local())
    return pretended


@pytest.fixture
def kernels(card: Card) -> Card:
    """A card whose kernels run too, threads emulated."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler on this machine")
    card.compute_capability = "90"
    return card
