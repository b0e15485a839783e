"""Laws of the optimisers: who steps which weights, and how far."""

import pytest
import torch
from torch import nn

from hpcspin.training.optimisers import Muon, Optimiser


def stepped(name: str, rate: float = 0.1, weight_decay: float = 0.0) -> tuple[nn.Linear, nn.Linear, Optimiser]:
    """A linear map before and after a step along a gradient of one dominant direction."""
    torch.manual_seed(1)
    before = nn.Linear(12, 8).double()
    after = nn.Linear(12, 8).double()
    after.load_state_dict(before.state_dict())
    optimiser = Optimiser(after, name, weight_decay)
    optimiser.rate = rate
    inputs = torch.randn(20, 12, dtype=torch.float64) * torch.logspace(0, -2, 12, dtype=torch.float64)
    after(inputs).square().sum().backward()
    optimiser.step()
    return before, after, optimiser


def test_muon_steps_a_matrix_alike_in_all_directions_and_as_far_as_adamw() -> None:
    before, after, _ = stepped("muon")
    step = (after.weight - before.weight).detach()
    sizes = torch.linalg.svdvals(step)
    assert sizes.min() > 0.25 * sizes.max()
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2 * 0.1, rel=0.25)
    gradient = torch.linalg.svdvals(after.weight.grad)
    assert gradient.min() < 0.02 * gradient.max()


def test_muon_leaves_vectors_and_thin_matrices_to_adamw() -> None:
    _, after, optimiser = stepped("muon")
    _, other, _ = stepped("adamw")
    assert torch.equal(after.bias, other.bias)
    assert not torch.equal(after.weight, other.weight)
    assert set(optimiser.state_of(after.weight)) == {"momentum_buffer"}
    assert "exp_avg" in optimiser.state_of(after.bias)
    thin = nn.Linear(12, 2)
    alone = Optimiser(thin, "muon", 0.0)
    thin(torch.ones(1, 12)).sum().backward()
    alone.step()
    assert "exp_avg" in alone.state_of(thin.weight)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_decay_with_the_rate(name: str) -> None:
    _, free, _ = stepped(name)
    before, decayed, _ = stepped(name, weight_decay=0.5)
    assert torch.allclose(decayed.weight, free.weight - 0.5 * 0.1 * before.weight, atol=1e-12)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_no_rate_no_step(name: str) -> None:
    before, after, _ = stepped(name, rate=0.0)
    assert torch.equal(before.weight, after.weight)


def test_muon_steps_as_that_of_torch_does_in_bfloat16() -> None:
    torch.manual_seed(2)
    shapes = [(12, 8), (8, 12), (12, 8), (30, 5)]
    mine = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    others = [nn.Parameter(weight.detach().clone()) for weight in mine]
    ours, theirs = (
        Muon(mine, 0.3),
        torch.optim.Muon(others, lr=0.01, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"),
    )
    ours.param_groups[0]["lr"] = 0.01
    for _ in range(3):
        before = [weight.detach().clone() for weight in mine]
        for weight, other in zip(mine, others, strict=True):
            weight.grad = torch.randn_like(weight)
            other.grad = weight.grad.clone()
        ours.step()
        theirs.step()
        for weight, other, start in zip(mine, others, before, strict=True):
            step = weight.detach() - start
            assert float((weight - other).detach().norm() / step.norm()) < 0.05
            other.data.copy_(weight.data)


def test_muon_leaves_a_matrix_without_gradient_where_it_is() -> None:
    matrices = [nn.Parameter(torch.ones(5, 6)), nn.Parameter(torch.ones(5, 6))]
    optimiser = Muon(matrices, 0.3)
    optimiser.param_groups[0]["lr"] = 0.1
    matrices[0].grad = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    optimiser.step()
    assert not torch.equal(matrices[0], torch.ones(5, 6))
    assert torch.equal(matrices[1], torch.ones(5, 6))
