"""Learning rate and the running mean of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Fraction of the full learning rate at a step: a rise over the fraction ``warmup``, then half a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class RunningMean:
    """Exponential running mean of a module's weights.

    ``decay`` is the weight of the previous mean in a step. It is smaller during the first steps, so that the initial
    weights are forgotten.
    """

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
