"""Optimisers: AdamW for all weights, or Muon for weight matrices; the learning rate; the running mean of weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SMALLEST = 4
"""Smallest number of rows and of columns of a weight that counts as a matrix."""


_MOMENTUM = 0.95
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.775, 2.0315)
_SMALL_NORM = 1e-7
_RMS_OF_ADAMW = 0.2


class Optimiser:
    """``adamw``: AdamW for all weights; ``muon``: Muon for the weight matrices and AdamW for the rest.

    The decay of the weights in a step is proportional to ``rate``, the learning rate of the next steps.
    """

    rate = 0.0

    def __init__(self, model: nn.Module, name: str, weight_decay: float) -> None:
        weights = list(model.parameters())
        matrices = [w for w in weights if name == "muon" and w.ndim == 2 and min(w.shape) >= _SMALLEST]
        chosen = {id(weight) for weight in matrices}
        rest = [weight for weight in weights if id(weight) not in chosen]
        self._parts: list[torch.optim.Optimizer] = []
        if rest:
            self._parts.append(torch.optim.AdamW(rest, weight_decay=weight_decay))
        if matrices:
            self._parts.append(Muon(matrices, weight_decay))
        self._owner = {
            weight: part for part in self._parts for group in part.param_groups for weight in group["params"]
        }

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One step of all weights."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self.rate
            part.step()

    def state_of(self, weight: nn.Parameter) -> Mapping[str, Tensor]:
        """State of a weight: the moments of its past gradients."""
        return self._owner[weight].state[weight]

    def load_state(self, weight: nn.Parameter, state: dict[str, Any]) -> None:
        """Restore the state of a weight, as `state_of` returns it."""
        self._owner[weight].state[weight] = state


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonal matrix nearest to the running mean of each gradient, for weights with two axes.

    The rule is that of torch.optim.Muon with Nesterov's momentum and ``match_rms_adamw`` (K. Jordan et al., *Muon: an
    optimizer for hidden layers in neural networks*, 2024; J. Liu et al., arXiv:2502.16982). torch computes the
    orthogonal matrices in bfloat16, one by one; on a CPU without bfloat16 units this takes longer than the gradients of
    a few snapshots. Here they have the precision of the weights, and matrices of the same shape are computed together.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], weight_decay: float) -> None:
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in by_shape.items():
                directions = _orthogonal(torch.stack([self._along(matrix) for matrix in matrices]))
                length = _RMS_OF_ADAMW * max(rows, columns) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(directions), alpha=-group["lr"] * length)

    def _along(self, matrix: Tensor) -> Tensor:
        """Update the running mean of the gradient and return it with Nesterov's momentum."""
        assert matrix.grad is not None
        state = self.state[matrix]
        mean: Tensor = state.setdefault("momentum_buffer", torch.zeros_like(matrix))
        mean.lerp_(matrix.grad, 1 - _MOMENTUM)
        return matrix.grad.lerp(mean, _MOMENTUM)


def _orthogonal(matrices: Tensor) -> Tensor:
    """Approximations to the orthogonal matrices nearest to given ones, of shape (matrices, rows, columns).

    Newton-Schulz iterations, whose odd polynomial moves all singular values into an interval around one, 0.7 to 1.2.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_SMALL_NORM)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Fraction of the full learning rate at a step: a rise over the fraction ``warmup``, then half a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class RunningMean:
    """Exponential running mean of weights; its ``decay`` is smaller in the first steps, to forget the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Update the mean with the weights after a step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        means, values = zip(*((self.weights[name], value) for name, value in module.named_parameters()), strict=True)
        torch._foreach_lerp_(list(means), list(values), 1 - decay)

    @torch.no_grad()
    def write_to(self, module: nn.Module) -> None:
        """Copy the mean weights to another module of the same architecture."""
        for name, value in module.named_parameters():
            value.copy_(self.weights[name])
