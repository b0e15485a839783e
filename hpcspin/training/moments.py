"""What a force field keeps of its training data: scales of features and fields, and the range of each feature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.parallel.world import World
from hpcspin.potential import ForceField
from hpcspin.training.dataset import Snapshots
from hpcspin.training.metrics import perpendicular

_NORMALISING_SNAPSHOTS = 512
_AT_ONCE = 8


def normalise(model: ForceField, data: Snapshots, world: World, device: torch.device) -> None:
    """Set the scales of features and fields from their moments on the training snapshots; all ranks call together."""
    chosen = data.rows(np.arange(0, data.total, -(-data.total // _NORMALISING_SNAPSHOTS)))
    for layer, network in enumerate(model.networks):
        width = len(network.mean)
        sums = np.zeros(2 * width + 1)
        for _, features in _features(model, data, chosen, device, layer):
            moments = [features.sum(0), features.square().sum(0)]
            sums[:-1] += torch.cat(moments).cpu().numpy()
            sums[-1] += len(features)
        sums = world.sum(sums)
        mean, square = sums[:width] / sums[-1], sums[width:-1] / sums[-1]
        variance = torch.from_numpy(np.maximum(square - mean**2, 0))
        network.normalise(torch.from_numpy(mean).to(device), variance.to(device))
    squares = perpendicular(data.spins[chosen].double(), data.field[chosen].double()).square().sum()
    total, components = world.sum(np.array([float(squares), 2 * len(chosen) * data.lattice.num_sites]))
    with torch.no_grad():
        model.field_scale.fill_(float(np.sqrt(total / components)) or 1.0)


def set_envelope(model: ForceField, data: Snapshots, world: World, device: torch.device) -> None:
    """Set the range of each feature on all training snapshots; all ranks call together.

    Parameters
    ----------
    model
        In evaluation mode, with its final weights: they decide on the features of learned kernels.
    data
        My share.
    world
        The ranks.
    device
        Where to compute.
    """
    lowest = np.full(len(model.networks[-1].mean), np.inf)
    highest = -lowest
    for _, features in _features(model, data, np.arange(len(data.spins)), device):
        lowest = np.minimum(lowest, features.amin(0).cpu().numpy())
        highest = np.maximum(highest, features.amax(0).cpu().numpy())
    ranges = np.stack(world.allgather(np.stack([lowest, highest])))
    found = np.stack([ranges[:, 0].min(0), ranges[:, 1].max(0)])
    model.envelope = torch.from_numpy(found).to(device, model.dtype)


@torch.no_grad()
def _features(
    model: ForceField, data: Snapshots, chosen: NDArray[np.int64], device: torch.device, layer: int = -1
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Some of the chosen rows of my snapshots at a time, and the features of all their centres in double precision."""
    table = model.neighbourhood(data.lattice)
    for rows in np.array_split(chosen, max(1, len(chosen) // _AT_ONCE)):
        if len(rows):
            yield rows, model.features(data.spins[rows].to(device), table, data.bias[rows].to(device), layer).double()
