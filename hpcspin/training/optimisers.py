"""AdamW for all weights, or Muon for weight matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpcspin.training.muon import Muon

_SMALLEST = 4
"""Smallest number of rows and of columns of a weight that counts as a matrix."""


class Optimiser:
    """``adamw``: AdamW for all weights; ``muon``: Muon for the weight matrices and AdamW for the rest.

    `Muon` replaces the running mean of a matrix's gradient by the nearest orthogonal matrix, so that a step changes the
    matrix equally in all directions; steps are scaled to the size of AdamW's. The decay of the weights in a step is
    proportional to ``rate``, the learning rate of the next steps.
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
