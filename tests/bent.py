"""Random force fields whose grand potential is like that of real electrons in the chemical potential."""

from __future__ import annotations

import torch

from hpcspin.potential import ForceField


@torch.no_grad()
def bend(model: ForceField) -> None:
    """Make Omega a smooth function of mu that bends down, so that each filling has one chemical potential."""
    *_, hidden, last = model.networks[-1].layers
    last.weight[2] = -last.weight[2].abs()  # type: ignore[index, operator, union-attr]
    last.weight[3:] *= 0.02  # type: ignore[index, operator, union-attr]
    hidden.bias.fill_(2.0)  # type: ignore[operator, union-attr]
