"""Laws of potentials of several layers: the field is their derivative, in evaluation and in training."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from force_fields import make_model, random_spins
from torch import Tensor

from hpcspin.lattice import make_lattice
from hpcspin.potential import LayeredPotentials, message_passing

PAIR: dict[str, Any] = {"kind": "pair", "layers": (1, 2), "radius": 1.5, "channels": 3}
KINDS = ("pair", "conservative")
STEP = 1e-4
BIAS = torch.full((1,), 1.3, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [(1,), (1, 2)])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("lattice", [make_lattice("square", (9, 8)), make_lattice("square", (8, 8), (True, True))])
def test_the_field_is_the_derivative_of_both_sums(
    kind: str, layers: tuple[int, ...], training: bool, lattice: Any
) -> None:
    """H = -dE/dS - S x dG/dS by central differences of E and G, spins as free vectors."""
    model = make_model(**{**PAIR, "kind": kind, "layers": layers}).train(training)
    spins = random_spins(1, lattice.num_sites, 1)
    table = model.neighbourhood(lattice)
    found = model(spins, table, BIAS)

    def slope(site: int) -> tuple[Tensor, Tensor]:
        parts = []
        for axis in range(3):
            change = torch.zeros_like(spins)
            change[0, site, axis] = STEP
            plus, minus = model(spins + change, table, BIAS), model(spins - change, table, BIAS)
            parts.append(torch.stack([plus.energy[0] - minus.energy[0], plus.toroidal[0] - minus.toroidal[0]]))
        energy, toroidal = (torch.stack(parts) / (2 * STEP)).detach().unbind(1)
        return energy, toroidal

    for site in (0, 13, lattice.num_sites - 1):
        energy, toroidal = slope(site)
        expected = -energy - torch.linalg.cross(spins[0, site], toroidal)
        assert expected.norm() > 1e-4
        torch.testing.assert_close(found.field[0, site].detach(), expected, rtol=0, atol=1e-7)
        assert (toroidal.norm() > 1e-5) == (kind == "pair")


def test_without_a_bias_a_pair_is_conservative() -> None:
    lattice = make_lattice("square", (9, 8))
    model, spins = make_model(**PAIR), random_spins(2, lattice.num_sites, 2)
    found = model(spins, model.neighbourhood(lattice), torch.zeros(2, dtype=torch.float64))
    assert not found.nonequilibrium.any()
    assert not found.toroidal.any()
    assert found.equilibrium.abs().mean() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_bits_of_a_configuration_do_not_depend_on_its_batch(precision: str) -> None:
    lattice = make_lattice("square", (11, 9))
    model, spins = make_model(**PAIR, precision=precision), random_spins(3, lattice.num_sites, 3)
    table = model.neighbourhood(lattice)
    together = model(spins, table, BIAS.expand(3))
    for number in range(3):
        alone = model(spins[number : number + 1], table, BIAS)
        for name, one in alone._asdict().items():
            if one.dim() == 3:
                assert torch.equal(one[0], getattr(together, name)[number]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_goes_through_the_derivative(kind: str) -> None:
    """The slope of a loss of field and energy by each weight, through both sweeps, by central differences along a
    random direction."""
    lattice = make_lattice("square", (6, 5))
    model = make_model(**{**PAIR, "kind": kind}).train()
    assert isinstance(model, LayeredPotentials)
    spins, table = random_spins(2, lattice.num_sites, 4), model.neighbourhood(lattice)

    def loss() -> Tensor:
        found = model(spins, table, BIAS.expand(2))
        return found.field.square().sum() + found.energy.square().sum()

    loss().backward()
    weights = [weight for weight in model.parameters() if weight.numel()]
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)
    directions = [torch.randn(w.shape, generator=torch.Generator().manual_seed(5), dtype=w.dtype) for w in weights]
    slope = sum((w.grad * d).sum() for w, d in zip(weights, directions, strict=True) if w.grad is not None)
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for weight, direction in zip(weights, directions, strict=True):
                weight += sign * 1e-5 * direction
            values.append(loss())
    torch.testing.assert_close((values[0] - values[1]) / 2e-5, slope, rtol=1e-5, atol=0)


def test_the_compiler_follows_a_step_through_the_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it traces of E and G, run without generated code: the field, and the slope of a loss by each weight."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))
    message_passing.compiled.cache_clear()
    lattice = make_lattice("square", (6, 5))
    model = make_model(**{**PAIR, "radius": 1.0}).train()
    assert isinstance(model, LayeredPotentials)
    spins, table, found = random_spins(2, lattice.num_sites, 4), model.neighbourhood(lattice), []
    try:
        for model.fused in (False, True):
            model.zero_grad()
            field = model(spins, table, BIAS.expand(2)).field
            field.square().sum().backward()
            slopes = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
            found.append([field.detach(), *slopes])
        assert message_passing.compiled.cache_info().misses == 1
    finally:
        message_passing.compiled.cache_clear()
    assert len(found[0]) > 10
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)


def test_a_copy_has_tables_of_its_own() -> None:
    lattice = make_lattice("square", (6, 5))
    model, spins = make_model(**PAIR), random_spins(1, lattice.num_sites, 6)
    table = model.neighbourhood(lattice)
    expected = model(spins, table, BIAS).field
    assert torch.equal(copy.deepcopy(model)(spins, table, BIAS).field, expected)
