"""The loss of a batch: errors of the perpendicular field and, where energies count, of the energy of a site."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hpcspin.parallel.world import World
from hpcspin.potential import GrandPotential, Prediction
from hpcspin.training.metrics import perpendicular
from hpcspin.training.settings import Settings

_COMPRESSIBILITY = 0.02
"""Electrons a site and hopping that a learned Omega should have at least, a tenth of a metal's: without labels at other
chemical potentials nothing else makes the one of a filling unique."""


def batch_loss(
    predicted: Prediction,
    spins: Tensor,
    field: Tensor,
    energy: Tensor,
    drive: Tensor,
    grand: GrandPotential | None,
    count: int,
    settings: Settings,
    world: World,
    weights: Tensor | None = None,
) -> Tensor:
    """My part of the loss of a batch of one lattice, in squares of the hopping; the sum over all ranks is the loss.

    It is the mean squared error of a perpendicular component of the field, ``settings.gauge`` times the mean square of
    h^neq, ``settings.energy_weight`` times the variance of the error of the energy of a site, and
    ``settings.electrons_weight`` times the mean squared error of the electrons a site of a learned grand potential,
    together with what its compressibility ∂n/∂mu lacks of `_COMPRESSIBILITY` at other chemical potentials, squared.

    Parameters
    ----------
    predicted
        Of my snapshots.
    spins, field
        Spins and exact fields, shape (mine, sites, 3).
    energy
        Exact energies of a site, shape (mine,).
    drive
        Chemical potential and exact electrons a site of a learned grand potential, shape (mine, 2).
    grand
        What its polynomials refer to; None of a model without one.
    count
        Snapshots in the batch, over all ranks.
    settings
        Weights of the parts.
    world
        The ranks; all call together.
    weights
        Of the field's error in each of my snapshots, shape (mine,); None: 1.
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
    """Weights of snapshots whose errors count relative to the mean square v of their own perpendicular field.

    They are (1 + floor) / (v / scale² + floor), 1 for the mean square of all data; shape (mine,).

    Parameters
    ----------
    spins, field
        Spins and exact fields, shape (mine, sites, 3).
    scale
        Root mean square of a perpendicular component in all data.
    floor
        Share of its square that is added to v.
    """
    own = perpendicular(spins, field).square().sum(-1).mean(1) / 2
    return (1 + floor) / (own / scale**2 + floor)


def _variance(x: Tensor, count: int, world: World) -> Tensor:
    """My part of the variance of x over a batch, without bias: what a constant fitted to all data would leave of x².

    The mean is that of all ranks, and a constant in the derivative, where deviations from it add up to zero.
    """
    total = x.detach().sum()
    if world.size > 1:
        total = total.new_tensor(world.sum(np.array([float(total)]))[0])
    return (x - total / count).square().sum() / max(1, count - 1)
