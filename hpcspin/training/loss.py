"""The loss of a batch: errors of the perpendicular field and, if they have a weight, of the energies per site."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import GrandPotential, Prediction
from hpcspin.training.settings import TrainingSettings

_COMPRESSIBILITY = 0.02
"""Smallest ∂n/∂mu, in electrons per site and hopping, that the loss demands of a learned Omega, a tenth of a metal's.
Without labels at other chemical potentials nothing else makes the chemical potential of a filling unique."""


def batch_loss(
    predicted: Prediction,
    spins: Tensor,
    field: Tensor,
    energy: Tensor,
    drive: Tensor,
    grand: GrandPotential | None,
    count: int,
    settings: TrainingSettings,
    world: World,
    weights: Tensor | None = None,
) -> Tensor:
    """My part of the loss of a batch of one lattice, in t²; the sum over all ranks is the loss; a collective call.

    The loss is the sum of the mean squared error of a perpendicular component of the field, ``settings.gauge`` times
    the mean square of h^neq, and ``settings.energy_weight`` times the variance of the error of the energy per site. A
    learned grand potential adds ``settings.electrons_weight`` times the mean squared error of the electrons per site
    plus the mean square of the amount by which its compressibility ∂n/∂mu falls short of `_COMPRESSIBILITY` at other
    chemical potentials.

    Of my snapshots, spins and exact ``field`` have the shape (mine, sites, 3), the exact ``energy`` per site and the
    ``weights`` of their errors, None for 1, (mine,). ``drive`` has chemical potential and electrons per site, (mine,
    2), if there is a ``grand`` potential; ``count`` is the number of snapshots over all ranks.
    """
    sites = spins.shape[1]
    squares = perpendicular(spins, predicted.field - field).square()
    error = squares.sum() if weights is None else squares.sum((1, 2)) @ weights
    toroidal = predicted.nonequilibrium.square().sum()
    loss = (error + settings.gauge * toroidal) / (2 * count * sites)
    if settings.energy_weight:
        part = _variance(predicted.energy.double() / sites - energy, count, world)
        loss = loss + settings.energy_weight * part.to(loss.dtype)
    if grand is not None:
        missed = grand.electrons(predicted.terms, drive, sites) / sites - drive[:, 1]
        stiff = (_COMPRESSIBILITY - grand.compressibility(predicted.terms) / sites).clamp(min=0)
        part = (missed.square().sum() + stiff.square().mean(1).sum()) / count
        loss = loss + settings.electrons_weight * part.to(loss.dtype)
    return loss


def relative_weights(spins: Tensor, field: Tensor, scale: Tensor, floor: float) -> Tensor:
    """Weights (1 + floor) / (v / scale² + floor) of snapshots, (mine,), with the mean square v of their own field."""
    own = perpendicular(spins, field).square().sum(-1).mean(1) / 2
    return (1 + floor) / (own / scale**2 + floor)


def _variance(x: Tensor, count: int, world: World) -> Tensor:
    """My part of the unbiased variance of x over a batch: the mean of x² after a constant is fitted to all data.

    The mean of x is over all ranks. It is a constant in the derivative, because the deviations from it add up to zero.
    """
    total = x.detach().sum()
    if world.size > 1:
        total = total.new_tensor(world.sum(np.array([float(total)]))[0])
    return (x - total / count).square().sum() / max(1, count - 1)
