"""Errors of predicted fields, as sums that add up over ranks and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World

Summary = dict[str, float | int | None]
_FEWEST_SNAPSHOTS = 10
"""Smallest number of independent snapshots of one trajectory for which a standard error is given."""


def tangent_components(spins: Tensor, field: Tensor) -> Tensor:
    """Components, (..., 2), along e_1, in the plane of S and the axis farthest from it, and e_2 = S x e_1."""
    axis = torch.zeros_like(spins).scatter_(-1, spins.abs().argmin(-1, keepdim=True), 1.0)
    first = torch.nn.functional.normalize(perpendicular(spins, axis), dim=-1)
    second = torch.linalg.cross(spins, first)
    return torch.stack([(field * first).sum(-1), (field * second).sum(-1)], -1)


@dataclass
class Errors:
    """Sums over the perpendicular components of predicted and exact fields for each snapshot.

    Sums and counts, not means, because snapshots may differ in size.
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 5)))
    """For each snapshot the number of its components, the sums of (predicted - exact) and of its square, and the sums
    of the exact component and of its square; shape (snapshots, 5)."""
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    """For each snapshot the number of its file, one for each trajectory, and its number in the file, (snapshots, 2)."""
    energies: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """For each snapshot the predicted and the exact energy per site, NaN if unknown; shape (snapshots, 2)."""

    def add(
        self,
        spins: Tensor,
        predicted: Tensor,
        exact: Tensor,
        places: NDArray[np.int64],
        energies: NDArray[np.float64] | None = None,
    ) -> None:
        """Add a batch of snapshots of shape (snapshots, sites, 3), with places and energies of shape (snapshots, 2)."""
        spins = spins.double()
        error = tangent_components(spins, predicted.double() - exact.double()).flatten(1)
        value = tangent_components(spins, exact.double()).flatten(1)
        powers = (torch.ones_like(error), error, error.square(), value, value.square())
        unknown = np.full((len(spins), 2), np.nan)
        more = torch.stack([power.sum(1) for power in powers], 1)
        self.extend(Errors(more.cpu().numpy(), places, unknown if energies is None else energies))

    def extend(self, others: Errors) -> None:
        """Add the snapshots of others."""
        self.sums = np.concatenate([self.sums, others.sums])
        self.places = np.concatenate([self.places, others.places])
        self.energies = np.concatenate([self.energies, others.energies])

    def gathered(self, world: World) -> Errors:
        """The snapshots of all ranks in the order of their places; a collective call."""
        sums, places, energies = (
            np.concatenate(world.allgather(part)) for part in (self.sums, self.places, self.energies)
        )
        order = np.lexsort(places.T[::-1])
        return Errors(sums[order], places[order], energies[order])

    @property
    def mse(self) -> NDArray[np.float64]:
        """Mean squared error of a perpendicular component of each snapshot."""
        return self.sums[:, 2] / self.sums[:, 0]

    def summary(self) -> Summary:
        """Metrics of all snapshots together, which must be in the order of their places.

        ``mse``: mean squared error of a perpendicular component; ``mse_error``: its standard error, see
        `standard_error`; ``sigma``: standard deviation of the error of a component; ``variance_fraction``: mse divided
        by the variance of the exact component, absent if that is 0; ``snapshots``; and if energies are known
        ``energy_rms``: root mean square error of the energy per site, up to a constant for all snapshots.
        """
        snapshots = len(self.sums)
        count, error, error_squared, value, value_squared = self.sums.sum(0).tolist()
        mse = error_squared / count
        variance = value_squared / count - (value / count) ** 2
        return {
            "mse": mse,
            "mse_error": self.standard_error,
            "sigma": max(mse - (error / count) ** 2, 0.0) ** 0.5,
            **({"variance_fraction": mse / variance} if variance > 0 else {}),
            "snapshots": snapshots,
            **({"energy_rms": float(np.std(self.energy_errors))} if len(self.energy_errors) else {}),
        }

    @property
    def energy_errors(self) -> NDArray[np.float64]:
        """Predicted minus exact energy per site for the snapshots with both energies."""
        errors = self.energies[:, 0] - self.energies[:, 1]
        return errors[np.isfinite(errors)]

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean squared error.

        For several files it follows from the scatter over the files, which are independent trajectories. For one file
        it follows from the scatter over its snapshots, whose number is reduced to that of independent ones by the
        correlation time of their errors; None if these are fewer than 10, so that the correlation time is unknown.
        """
        count, squared = self.sums[:, (0, 2)].sum(0)
        # Error of a ratio of sums, in which snapshots are weighted by their number of components.
        excess = self.sums[:, 2] - squared / count * self.sums[:, 0]
        _, files = np.unique(self.places[:, 0], return_inverse=True)
        samples, correlated = np.bincount(files, weights=excess), 1.0
        if len(samples) == 1:
            samples, correlated = excess, autocorrelation_frames(excess)
            if len(samples) < _FEWEST_SNAPSHOTS * correlated:
                return None
        scatter = correlated * np.sum(samples**2) * len(samples) / (len(samples) - 1)
        return float(np.sqrt(scatter) / count)


def autocorrelation_frames(series: NDArray[np.float64]) -> float:
    """Integrated autocorrelation time of a series in frames, summed until the correlation first turns negative."""
    series = series - series.mean()
    variance = float(series @ series)
    if variance == 0:
        return 1.0
    total = 1.0
    for lag in range(1, len(series)):
        correlation = float(series[lag:] @ series[:-lag]) / variance
        if correlation <= 0:
            break
        total += 2 * correlation
    return total


def describe_metrics(metrics: Mapping[str, float | int | None]) -> str:
    """The result of `Errors.summary` as one line of text."""
    if not metrics:
        return "the last weights, error unknown without validation files"
    error = f" ± {metrics['mse_error']:.1e}" if metrics["mse_error"] is not None else ""
    share = f", {metrics['variance_fraction']:.2%} of the variance" if "variance_fraction" in metrics else ""
    energy = f", energy rms {metrics['energy_rms']:.2e} per site" if "energy_rms" in metrics else ""
    return (
        f"mse {metrics['mse']:.2e}{error}{share}, sigma {metrics['sigma']:.2e}{energy}, "
        f"snapshots {metrics['snapshots']}"
    )
