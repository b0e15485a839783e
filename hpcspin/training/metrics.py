"""How wrong a predicted field is, in numbers that add up over ranks and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
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
    """Sums over the perpendicular components of predicted and exact fields, snapshot by snapshot.

    Sums and counts, not means: snapshots may differ in size.

    Attributes
    ----------
    sums : ndarray
        For each snapshot the number of its components, the sums of (predicted -
        exact) and of its square, and the sums of the exact component and of its
        square; shape (snapshots, 5).
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 5)))

    def add(self, spins: Tensor, predicted: Tensor, exact: Tensor) -> None:
        """Count a batch of configurations; shapes (snapshots, sites, 3)."""
        spins = spins.double()
        error = tangent_components(spins, predicted.double() - exact.double()).flatten(1)
        value = tangent_components(spins, exact.double()).flatten(1)
        powers = (torch.ones_like(error), error, error.square(), value, value.square())
        more = torch.stack([power.sum(1) for power in powers], 1)
        self.sums = np.concatenate([self.sums, more.cpu().numpy()])

    def include(self, others: Errors) -> None:
        """Count the snapshots of others, too."""
        self.sums = np.concatenate([self.sums, others.sums])

    def over(self, world: World) -> Errors:
        """The snapshots of all ranks, rank by rank; all call together."""
        return Errors(np.concatenate(world.allgather(self.sums)))

    @property
    def mse(self) -> NDArray[np.float64]:
        """Mean squared error of a perpendicular component of each snapshot."""
        mse: NDArray[np.float64] = self.sums[:, 2] / self.sums[:, 0]
        return mse

    def summary(self) -> dict[str, float | int]:
        """Metrics of all snapshots together.

        Returns
        -------
        dict
            ``mse``: mean squared error of a perpendicular component;
            ``sigma``: standard deviation of that error; ``variance_fraction``:
            mse over the variance of the exact component, absent where that is
            0; ``snapshots``; of several ``mse_error``: the standard error of mse
            over the snapshots. Frames of one trajectory resemble each other: it
            is then too small.
        """
        snapshots = len(self.sums)
        count, error, error_squared, value, value_squared = self.sums.sum(0).tolist()
        mse = error_squared / count
        variance = value_squared / count - (value / count) ** 2
        numbers: dict[str, float | int] = {
            "mse": mse,
            "sigma": max(mse - (error / count) ** 2, 0.0) ** 0.5,
            **({"variance_fraction": mse / variance} if variance > 0 else {}),
            "snapshots": snapshots,
        }
        if snapshots > 1:
            # Of a ratio of sums: snapshots weigh as many components as they have.
            scatter = np.sum((self.sums[:, 2] - mse * self.sums[:, 0]) ** 2) * snapshots / (snapshots - 1)
            numbers["mse_error"] = float(np.sqrt(scatter)) / count
        return numbers


def in_words(metrics: Mapping[str, float | int]) -> str:
    """What `Errors.summary` has found, in one line for people."""
    if not metrics:
        return "no validation shards, the last weights"
    error = f" ± {metrics['mse_error']:.1e}" if "mse_error" in metrics else ""
    share = f", {metrics['variance_fraction']:.2%} of the variance" if "variance_fraction" in metrics else ""
    return f"mse {metrics['mse']:.2e}{error}{share}, sigma {metrics['sigma']:.2e}, snapshots {metrics['snapshots']}"
