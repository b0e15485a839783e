"""How wrong a predicted field is, in numbers that add up over ranks and files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcspin.parallel.world import World


def perpendicular(spins: Tensor, field: Tensor) -> Tensor:
    """Part H - S (S·H) of a field that exerts a torque; any shape (..., 3)."""
    return field - spins * (spins * field).sum(-1, keepdim=True)


def tangent_components(spins: Tensor, field: Tensor) -> Tensor:
    """The two components of a field perpendicular to its spin.

    Parameters
    ----------
    spins, field
        Shape (..., 3).

    Returns
    -------
    Tensor
        Components along e_1 and e_2 = S x e_1, shape (..., 2); e_1 lies in
        the plane of S and the coordinate axis farthest from it.
    """
    axis = torch.nn.functional.one_hot(spins.abs().argmin(-1), 3).to(spins.dtype)
    first = torch.nn.functional.normalize(perpendicular(spins, axis), dim=-1)
    second = torch.linalg.cross(spins, first)
    return torch.stack([(field * first).sum(-1), (field * second).sum(-1)], -1)


@dataclass
class Errors:
    """Sums over perpendicular components of predicted and exact fields.

    Sums and counts, not means: what the ranks hold may differ in size.

    Attributes
    ----------
    snapshots, count : float
        Configurations, and field components, added so far.
    error, error_squared : float
        Sums of (predicted - exact) and of its square.
    value, value_squared : float
        Sums of the exact component and of its square.
    """

    snapshots: float = 0.0
    count: float = 0.0
    error: float = 0.0
    error_squared: float = 0.0
    value: float = 0.0
    value_squared: float = 0.0

    def add(self, spins: Tensor, predicted: Tensor, exact: Tensor) -> None:
        """Count a batch of configurations; shapes (snapshots, sites, 3)."""
        spins = spins.double()
        error = tangent_components(spins, predicted.double() - exact.double())
        value = tangent_components(spins, exact.double())
        self.snapshots += len(spins)
        self.count += error.numel()
        self.error += float(error.sum())
        self.error_squared += float(error.square().sum())
        self.value += float(value.sum())
        self.value_squared += float(value.square().sum())

    def over(self, world: World) -> Errors:
        """The sums over all ranks; all call together."""
        return Errors(*world.sum(np.array(list(vars(self).values()))).tolist())

    def summary(self) -> dict[str, float | int]:
        """Metrics.

        Returns
        -------
        dict
            ``mse``: mean squared error of a perpendicular component; ``sigma``:
            standard deviation of that error; ``variance_fraction``: mse over
            the variance of the exact component; ``snapshots``.
        """
        mse = self.error_squared / self.count
        variance = self.value_squared / self.count - (self.value / self.count) ** 2
        return {
            "mse": mse,
            "sigma": max(mse - (self.error / self.count) ** 2, 0.0) ** 0.5,
            "variance_fraction": mse / variance if variance > 0 else float("nan"),
            "snapshots": int(self.snapshots),
        }
