"""The pretended GPU has the rules of a real one, and counts what it is asked for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretended_gpu import GPU, PretendedTensor, pretended_gpu, real
from torch import nn


def test_devices_do_not_mix() -> None:
    with pretended_gpu():
        x = torch.ones(3).to(GPU)
        assert x.device == GPU
        assert (x + 1).device == GPU
        assert torch.zeros(2, device=GPU).device == torch.tensor([1.0], device=GPU).device == GPU
        assert torch.equal(real(x + 1), torch.full((3,), 2.0))
        assert torch.equal((2 * x).cpu(), torch.full((3,), 2.0))
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            x + torch.ones(3)
        with pytest.raises(TypeError, match="can't convert cuda"):
            x.numpy()
        with pytest.raises(TypeError, match="can't convert cuda"):
            np.asarray(x)
    with pytest.raises(RuntimeError, match="used where it is not pretended"):
        x + 1


def test_launches_copies_and_waits_are_counted() -> None:
    with pretended_gpu() as gpu:
        x, index = torch.arange(6.0).to(GPU), torch.tensor([1, 4], device=GPU)
        for count, ask in (
            ((1, 0, 0), lambda: x.view(2, 3)[1] * 2),
            ((1, 0, 0), lambda: x[index]),
            ((1, 0, 0), lambda: x.double()),
            ((0, 0, 0), lambda: x.to(GPU).view(2, 3).T[1:].detach()),
            ((0, 1, 0), lambda: x.cpu()),
            ((0, 1, 0), lambda: torch.ones(3).to(GPU)),
            ((0, 1, 0), lambda: torch.as_tensor([1, 2], device=GPU)),
            ((0, 1, 0), lambda: torch.tensor(3.0, device=GPU)),
            ((1, 1, 0), lambda: x.view(2, 3)[:, torch.tensor([0, 1])]),
            ((0, 0, 1), lambda: float(x[2])),
            ((0, 0, 1), lambda: torch.equal(x, x)),
            ((2, 0, 1), lambda: x[x > 2]),
        ):
            with gpu.counting() as counts:
                ask()
            assert tuple(sum(part.values()) for part in (counts.launches, counts.copies, counts.waits)) == count


def test_a_module_moves_as_it_would_to_a_real_gpu() -> None:
    """Its parameters stay the same objects, and learn there."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False))
    other = copy.deepcopy(module)
    weight = module[0].weight
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    with pretended_gpu():
        module.to(GPU)
        assert module[0].weight is weight
        assert all(isinstance(part, PretendedTensor) for part in [*module.parameters(), *module.buffers()])
        module(x.to(GPU)).square()[:, 0].sum().backward()
        gradient = real(weight.grad)
        with torch.inference_mode():
            assert copy.deepcopy(module)(x.to(GPU)).device == GPU
    other(x).square()[:, 0].sum().backward()
    torch.testing.assert_close(gradient, other[0].weight.grad)
