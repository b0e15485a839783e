"""Errors of a force field on labelled snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hpcspin.parallel.world import World
from hpcspin.potential import ForceField
from hpcspin.storage import read_labels
from hpcspin.training.dataset import Snapshots, read_source
from hpcspin.training.metrics import Errors

_SITES_AT_ONCE = 4096


def snapshot_errors(model: ForceField, snapshots: Snapshots, device: torch.device) -> Errors:
    """Errors on my snapshots.

    Parameters
    ----------
    model
        In evaluation mode, on the device.
    snapshots
        My share.
    device
        Where to compute.
    """
    errors = Errors()
    table = model.neighbourhood(snapshots.lattice)
    step = max(1, _SITES_AT_ONCE // snapshots.lattice.num_sites)
    parts = [tensor.split(step) for tensor in (snapshots.spins, snapshots.field, snapshots.bias)]
    for spins, field, bias in zip(*parts, strict=True):
        if len(spins):
            predicted = model(spins.to(device), table, bias.to(device)).field
            errors.add(spins, predicted.cpu(), field)
    return errors


def evaluate(model: ForceField, files: Sequence[Path], world: World, device: torch.device) -> dict[str, float | int]:
    """Errors of a force field on label files, shared out over the ranks.

    Parameters
    ----------
    model
        The force field.
    files
        Label files, of any lattice sizes; ``/spins`` and ``/field`` suffice.
    world
        The ranks; all call together.
    device
        Where to compute.

    Returns
    -------
    dict
        See `Errors.summary`.

    Raises
    ------
    HpcspinError
        If a file is invalid or of another kind of lattice than the model.
    """
    model = model.to(device).eval()
    total = [0.0] * len(vars(Errors()))
    for path in files:
        mine = _my_share(path, model, world)
        errors = snapshot_errors(model, mine, device)
        total = [a + b for a, b in zip(total, vars(errors).values(), strict=True)]
    return Errors(*total).over(world).summary()


def _my_share(path: Path, model: ForceField, world: World) -> Snapshots:
    source = read_source(path, model.architecture.lattice, model.architecture.bias_reference)
    model.require(source.lattice, str(path))
    labels = read_labels(path, source.lattice.size)
    mine = np.arange(len(labels.spins))[world.rank :: world.size]
    spins, field = (torch.from_numpy(array[mine]).flatten(1, 2) for array in (labels.spins, labels.field))
    bias = torch.full((len(mine),), source.bias, dtype=torch.float64)
    return Snapshots(spins, field, bias, mine, len(labels.spins), source.lattice)
