"""Force fields on a pretended GPU say what they say on the CPU, and ask the host for nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from force_fields import make_model, random_spins
from pretended_gpu import GPU, numbers, pretended_gpu, real, undisturbed
from shipped import NAMES, in_double, shipped
from torch import Tensor

from hpcspin.lattice import make_lattice
from hpcspin.potential import Block, Committee, ForceField

KINDS: list[dict[str, Any]] = [
    *({"kind": kind, "descriptor": descriptor} for kind in ("pair", "site") for descriptor in ("bonds", "densities")),
    {"kind": "conservative", "time_reversal": "even"},
    {"kind": "conservative", "descriptor": "bispectrum", "symmetry": "full", "time_reversal": "even"},
    {"kind": "direct"},
    {"kind": "direct", "layers": (1, 2), "electrode_range": 3.0},
]
Model = ForceField | Committee


def assert_same_without_the_host(
    model: Model, size: tuple[int, int], tolerance: float, batch: int = 1, measure: str = "__call__"
) -> None:
    """The second evaluation on the GPU copies nothing and waits for nothing; both have the numbers of the CPU."""
    lattice = make_lattice(model.architecture.lattice, size)
    spins, drives = random_spins(batch, lattice.num_sites, 5), getattr(model, "first", model).architecture.drives
    # The bias or the potentials of both electrodes; of a grand potential chemical potential and filling.
    bias = torch.tensor([[3.2] if drives == 1 else [-3.2, 0.0]] * batch, dtype=torch.float64)
    if model.grand_potential:
        bias = torch.tensor([[-4.4, 0.97]] * batch, dtype=torch.float64)
    expected = getattr(model, measure)(spins, model.neighbourhood(lattice), bias)
    with pretended_gpu() as gpu:
        there = copy.deepcopy(model).to(GPU)
        arguments = spins.to(GPU), there.neighbourhood(lattice), bias.to(GPU)
        getattr(there, measure)(*arguments)
        found = undisturbed(gpu, lambda: getattr(there, measure)(*arguments))
        for one, other in zip(parts(found), parts(expected), strict=True):
            scale = max(map(abs, other.flatten().tolist()), default=0.0) or 1.0
            torch.testing.assert_close(real(one), other, rtol=0, atol=tolerance * scale)


def parts(answer: Any) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("measure", ["__call__", "outside"])
def test_shipped_models_in_double_precision(name: str, measure: str) -> None:
    assert_same_without_the_host(in_double(name), (30, 24), 1e-12, measure=measure)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_in_single_precision(name: str) -> None:
    """On the CPU the kernel in C computes layers."""
    assert_same_without_the_host(shipped(name), (30, 24), 1e-5)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_all_kinds_in_a_batch(changes: dict[str, Any]) -> None:
    assert_same_without_the_host(make_model(**changes), (9, 7), 1e-12, batch=2)


@pytest.mark.parametrize("measure", ["__call__", "spread"])
@pytest.mark.parametrize("changes", KINDS[-2:], ids=str)
def test_committees(changes: dict[str, Any], measure: str) -> None:
    committee = Committee([make_model(seed, **changes) for seed in (1, 2)]).eval()
    assert_same_without_the_host(committee, (8, 7), 1e-12, measure=measure)


def test_a_block_of_a_lattice() -> None:
    """A window whose centres stand in another order than its rows; terms that blocks exchange are left out."""
    model = make_model(kind="direct", layers=(1, 2), electrode_range=3.0)
    cut = Block((5, 6), (False, False), (False, True), (0, 20))
    spins, bias = random_spins(1, model.window(cut).rows, 3), torch.ones(1, dtype=torch.float64)
    expected = model(spins, model.window(cut), bias).field
    with pretended_gpu() as gpu:
        there = copy.deepcopy(model).to(GPU)
        arguments = spins.to(GPU), there.window(cut), bias.to(GPU)
        there(*arguments)
        found = undisturbed(gpu, lambda: there(*arguments).field)
        torch.testing.assert_close(real(found), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", KINDS[-2:], ids=str)
def test_learning_copies_nothing_but_the_batch(changes: dict[str, Any]) -> None:
    """Neither forward nor backward; the gradients are those of the CPU."""
    lattice = make_lattice("square", (9, 7))
    spins, bias = random_spins(2, lattice.num_sites, 5), torch.full((2,), 3.2, dtype=torch.float64)

    def step(model: ForceField, spins: Tensor, bias: Tensor, table: Any) -> None:
        model.zero_grad()
        model(spins, table, bias).field.square().sum().backward()

    model = make_model(**changes).train()
    step(model, spins, bias, model.neighbourhood(lattice))
    with pretended_gpu() as gpu:
        there = copy.deepcopy(model).to(GPU)
        arguments = there, spins.to(GPU), bias.to(GPU), there.neighbourhood(lattice)
        step(*arguments)
        undisturbed(gpu, lambda: step(*arguments))
        for one, other in zip(there.parameters(), model.parameters(), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            torch.testing.assert_close(numbers(one.grad), other.grad, rtol=1e-10, atol=1e-12)
