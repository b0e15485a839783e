"""The kernel in C says what PyTorch says, and its bits depend on nothing but the surroundings of a site."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins
from torch import Tensor

from hpcspin.lattice import Lattice, make_lattice
from hpcspin.potential import ForceField, host_adjoint, host_library

LAYERS = {"kind": "direct", "layers": (1, 1, 1), "precision": "float32"}
PRECISIONS = ("float32", "float64")
BIAS = torch.full((1,), 1.3, dtype=torch.float64)

needs_kernel = pytest.mark.skipif(
    host_library.library(torch.float32) is None, reason="there is no C compiler, or it fails"
)


def predict(model: ForceField, lattice: Lattice, spins: Tensor) -> Tensor:
    return model(spins, model.neighbourhood(lattice), BIAS.expand(len(spins))).field


@needs_kernel
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("square", {}),
        ("square", {"symmetry": "full"}),
        ("square", {"channels": 3}),
        ("square", {"channels": 24, "hidden": (40,)}),
        ("square", {"layers": (1, 3, 2), "electrode_range": 3.0, "hidden": (8, 24, 16)}),
        ("triangular", {"symmetry": "full", "channels": 15}),
        ("square", {"kind": "pair"}),
        ("square", {"kind": "pair", "layers": (1,)}),
        ("square", {"kind": "pair", "channels": 6}),
        ("square", {"kind": "pair", "layers": (1, 1), "channels": 24, "hidden": (40,), "symmetry": "full"}),
        ("square", {"kind": "conservative", "layers": (1, 3, 2), "electrode_range": 3.0, "hidden": (8, 24, 16)}),
        ("triangular", {"kind": "pair", "symmetry": "full", "channels": 15, "layers": (1, 1, 1, 1)}),
        ("triangular", {"kind": "conservative", "symmetry": "full", "radius": 2.7, "channels": 28}),
        ("square", {"kind": "pair", "symmetry": "full", "radius": 2.3, "channels": 12, "layers": (1, 1)}),
        ("triangular", {"time_reversal": "even", "symmetry": "full"}),
        ("square", {"kind": "conservative", "time_reversal": "even", "channels": 16, "symmetry": "full"}),
    ],
)
def test_it_is_the_field_of_the_layers(monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]) -> None:
    """Against PyTorch in double precision, to the rounding of both precisions; one site of the lattice is missing."""
    lattice = make_lattice(kind, (11, 7))
    single, double = (make_model(lattice=kind, **{**LAYERS, **changes, "precision": name}) for name in PRECISIONS)
    double.load_state_dict(single.state_dict())
    spins = random_spins(2, lattice.num_sites, 3)
    spins[:, 17] = 0
    found, exactly = predict(single, lattice, spins), predict(double, lattice, spins)
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    expected, without = predict(double, lattice, spins), predict(single, lattice, spins)
    scale = expected.square().mean().sqrt()
    assert (found - expected).abs().max() < 2e-5 * scale
    assert (found - without).abs().max() < 2e-5 * scale
    assert not torch.equal(found, without)
    assert (exactly - expected).abs().max() < 1e-12 * scale
    assert not torch.equal(exactly, expected)


@needs_kernel
@pytest.mark.parametrize("kind", ["pair", "conservative"])
def test_potentials_in_double_precision_are_those_of_the_layers(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    lattice = make_lattice("square", (11, 7))
    model, spins = make_model(**{**LAYERS, "kind": kind, "precision": "float64"}), random_spins(1, 77, 3)
    given = spins, model.neighbourhood(lattice), BIAS
    found = model(*given)
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    for one, other in zip(found, model(*given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@needs_kernel
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["direct", "pair"])
@pytest.mark.parametrize("symmetry", ["bias", "full"])
def test_threads_and_neighbours_in_the_batch_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, kind: str, precision: str, symmetry: str
) -> None:
    lattice = make_lattice("square", (31, 17))
    model = make_model(**{**LAYERS, "kind": kind, "precision": precision, "symmetry": symmetry})
    spins = random_spins(2, lattice.num_sites, 8)
    together = predict(model, lattice, spins)
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for one, field in zip(spins, together, strict=True):
            assert torch.equal(predict(model, lattice, one[None])[0], field)


@needs_kernel
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("kind", "symmetry"), [("pair", "bias"), ("conservative", "bias"), ("conservative", "full")])
def test_the_way_back_reads_what_it_would_make_again(
    monkeypatch: pytest.MonkeyPatch, kind: str, symmetry: str, precision: str
) -> None:
    """A block of few centres and one of many have the same bits."""
    lattice = make_lattice("square", (31, 17))
    model = make_model(**{**LAYERS, "kind": kind, "precision": precision, "symmetry": symmetry})
    spins = random_spins(1, lattice.num_sites, 8)
    kept = predict(model, lattice, spins)
    monkeypatch.setattr(host_adjoint, "KEPT", 0)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(predict(model, lattice, spins), kept)


def replace_weights(model: ForceField) -> None:
    model.load_state_dict({name: 1.5 * value for name, value in model.state_dict().items()}, assign=True)


NETWORK = {"kind": "pair", "descriptor": "bispectrum", "radius": 1.5}
CHANGES: dict[str, Callable[[ForceField], Any]] = {
    "in place": lambda model: next(model.parameters()).mul_(1.5),
    "data": lambda model: next(model.parameters()).data.mul_(1.5),
    "NumPy": lambda model: np.negative(array := next(model.parameters()).numpy(), out=array),
    "load_state_dict": replace_weights,
    "normalisation": lambda model: model.networks[0].mean.add_(0.5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("given", [LAYERS, LAYERS | {"kind": "pair"}, NETWORK], ids=["direct", "pair", "network"])
@pytest.mark.parametrize("compiler", [True, False], ids=["kernel", "torch"])
def test_new_weights_are_noticed(
    monkeypatch: pytest.MonkeyPatch, compiler: bool, given: dict[str, Any], change: Callable[[ForceField], Any]
) -> None:
    if not compiler:
        monkeypatch.setattr(host_library, "library", lambda *_: None)
    lattice = make_lattice("square", (5, 4))
    model, spins = make_model(**given), random_spins(1, lattice.num_sites, 8)
    before = predict(model, lattice, spins)
    with torch.no_grad():
        change(model)
    found = predict(model, lattice, spins)
    assert not torch.equal(found, before)
    assert torch.equal(found, predict(copy.deepcopy(model), lattice, spins))  # A copy derives its data anew.


@needs_kernel
@pytest.mark.parametrize("kind", ["direct", "pair"])
def test_a_model_that_has_been_evaluated_can_be_copied(kind: str) -> None:
    lattice = make_lattice("square", (5, 4))
    model, spins = make_model(**{**LAYERS, "kind": kind}), random_spins(1, lattice.num_sites, 8)
    before = predict(model, lattice, spins)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        next(copied.parameters()).mul_(1.5)
    assert torch.equal(predict(model, lattice, spins), before)
    assert not torch.equal(predict(copied, lattice, spins), before)


def test_without_a_compiler_pytorch_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    host_library.library.cache_clear()
    try:
        assert host_library.library(torch.float32) is None
        assert not host_library.usable(torch.float32, torch.device("cpu"))
        broken = tmp_path / "cc"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        host_library.library.cache_clear()
        assert host_library.library(torch.float32) is None
    finally:
        host_library.library.cache_clear()


@needs_kernel
def test_each_precision_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    host_library.library.cache_clear()
    try:
        assert host_library.library(torch.float32) is not None
        (single,) = tmp_path.rglob("*.so")
        assert host_library.library(torch.float64) is not None
        times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")}
        assert len(times) == 2
        assert single in times
        host_library.library.cache_clear()
        for precision in (torch.float32, torch.float64):
            assert host_library.library(precision) is not None
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")} == times
    finally:
        host_library.library.cache_clear()
