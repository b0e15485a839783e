"""Statistics of the training data that a force field stores: scales of features and fields, range of each feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import ForceField, Neighbourhood
from hpcspin.training.dataset import Snapshots

_NORMALISING_SNAPSHOTS = 512
_AT_ONCE, _NUMBERS_AT_ONCE = 8, 2**24
"""Snapshots, and features of all their sites, that are described at a time. A step of the training takes far more for
one snapshot than a description of so many features."""


@torch.no_grad()
def normalise(model: ForceField, data: Sequence[Snapshots], world: World, device: torch.device) -> None:
    """Set the scales of features and fields from their moments over the training snapshots; a collective call."""
    stride = -(-sum(share.total for share in data) // _NORMALISING_SNAPSHOTS)
    chosen = [share.rows(np.arange(0, share.total, stride)) for share in data]
    for layer, network in enumerate(model.networks):
        width = len(network.mean)
        sums = np.zeros(2 * width + 1)
        for _, _, given in _batches(model, data, chosen, device):
            features = model.features(*given, layer).double()
            moments = [features.sum(0), features.square().sum(0)]
            sums[:-1] += torch.cat(moments).cpu().numpy()
            sums[-1] += len(features)
        sums = world.sum(sums)
        mean, square = sums[:width] / sums[-1], sums[width:-1] / sums[-1]
        variance = torch.from_numpy(np.maximum(square - mean**2, 0))
        network.normalise(torch.from_numpy(mean).to(device), variance.to(device))
    squares = np.zeros(2)
    for share, rows in zip(data, chosen, strict=True):
        field = perpendicular(share.spins[rows].double(), share.field[rows].double())
        squares += [float(field.square().sum()), 2 * len(rows) * share.lattice.num_sites]
    total, components = world.sum(squares)
    model.field_scale.fill_(float(np.sqrt(total / components)) or 1.0)


@torch.no_grad()
def set_envelope(model: ForceField, data: Sequence[Snapshots], world: World, device: torch.device) -> None:
    """Set the range of each feature over all training snapshots, in evaluation mode; a collective call, all rows."""
    lowest = np.full(len(model.networks[-1].mean), np.inf)
    highest = -lowest
    for _, _, given in _batches(model, data, [np.arange(len(share.spins)) for share in data], device):
        features = model.features(*given).double()
        lowest = np.minimum(lowest, features.amin(0).cpu().numpy())
        highest = np.maximum(highest, features.amax(0).cpu().numpy())
    ranges = np.stack(world.allgather(np.stack([lowest, highest])))
    found = np.stack([ranges[:, 0].min(0), ranges[:, 1].max(0)])
    model.envelope = torch.from_numpy(found).to(device, model.dtype)


@torch.no_grad()
def set_energy_offset(model: ForceField, data: Sequence[Snapshots], world: World, device: torch.device) -> None:
    """Fit the energy per site that is added to the energy of the potentials; to be called like `set_envelope`.

    It is the mean difference over all training snapshots whose labels have energies. Without any, the model has no
    energy offset, even if it was continued from one that had, because its weights have changed.
    """
    count = world.sum(np.array([sum(int(share.energy.isfinite().sum()) for share in data)]))[0]
    if not (count and model.has_potentials):
        model.energy_offset = None
        return
    rows_with_energy, total = [np.flatnonzero(share.energy.isfinite().numpy()) for share in data], 0.0
    for share, rows, given in _batches(model, data, rows_with_energy, device):
        found = model(*given).energy.double().cpu()
        total += float((share.energy[rows] - found / share.lattice.num_sites).sum())
    mean = world.sum(np.array([total]))[0] / count
    model.energy_offset = torch.tensor(mean, dtype=torch.float64, device=device)


def _batches(
    model: ForceField, data: Sequence[Snapshots], chosen: Sequence[NDArray[np.int64]], device: torch.device
) -> Iterator[tuple[Snapshots, NDArray[np.int64], tuple[Tensor, Neighbourhood, Tensor]]]:
    """A few of the chosen rows of my snapshots at a time, and what the model takes of them."""
    for share, those in zip(data, chosen, strict=True):
        table = model.neighbourhood(share.lattice)
        fit = _NUMBERS_AT_ONCE // (share.lattice.num_sites * max(len(network.mean) for network in model.networks))
        for rows in np.array_split(those, max(1, len(those) // min(_AT_ONCE, max(1, fit)))):
            if len(rows):
                yield share, rows, (share.spins[rows].to(device), table, share.bias[rows].to(device))
