"""Errors of a force field on labelled snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField
from hpcspin.storage import read_labels
from hpcspin.training.dataset import Snapshots, read_source
from hpcspin.training.metrics import Errors, perpendicular

_SITES_AT_ONCE = 4096
_CALIBRATION_BINS = 10


def snapshot_errors(model: ForceField | Committee, snapshots: Snapshots, device: torch.device) -> Errors:
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


def evaluate(
    model: ForceField | Committee, files: Sequence[Path], world: World, device: torch.device
) -> dict[str, float | int]:
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


def calibrate(model: Committee, files: Sequence[Path], world: World, device: torch.device) -> dict[str, Any]:
    """How well the disagreement of a committee tells the error of its mean, site by site.

    Parameters
    ----------
    model
        The committee.
    files, world, device
        As for `evaluate`.

    Returns
    -------
    dict
        ``factor``: root mean square error over root mean square spread, by
        which a spread is to be multiplied (None where all members agree); ``rank_correlation`` (Spearman's)
        of both; ``bins``: ten equal shares of the sites in order of their
        spread, each with the root mean squares ``spread`` and ``error`` of a
        perpendicular component.
    """
    model = model.to(device).eval()
    spreads, errors = [np.zeros(0)], [np.zeros(0)]
    for path in files:
        mine = _my_share(path, model, world)
        table = model.neighbourhood(mine.lattice)
        for spins, field, bias in zip(*(t.split(1) for t in (mine.spins, mine.field, mine.bias)), strict=True):
            given = (spins.to(device), table, bias.to(device))
            wrong = perpendicular(spins, model(*given).field.cpu().double() - field)
            spreads.append(model.spread(*given).cpu().double().numpy().reshape(-1))
            # Two perpendicular components share the square.
            errors.append(wrong.square().sum(-1).div(2).sqrt().numpy().reshape(-1))
    spread, error = (np.concatenate(world.allgather(np.concatenate(parts))) for parts in (spreads, errors))
    shares = np.array_split(np.argsort(spread, kind="stable"), min(_CALIBRATION_BINS, len(spread)))
    return {
        "factor": _rms(error) / _rms(spread) if _rms(spread) else None,
        "rank_correlation": float(spearmanr(spread, error).statistic),
        "bins": [{"spread": _rms(spread[share]), "error": _rms(error[share])} for share in shares],
    }


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _my_share(path: Path, model: ForceField | Committee, world: World) -> Snapshots:
    source = read_source(path, model.architecture.lattice, model.architecture.bias_reference)
    model.require(source.lattice, str(path))
    labels = read_labels(path, source.lattice.size)
    mine = np.arange(len(labels.spins))[world.rank :: world.size]
    spins, field = (torch.from_numpy(array[mine]).flatten(1, 2) for array in (labels.spins, labels.field))
    bias = torch.full((len(mine),), source.bias, dtype=torch.float64)
    return Snapshots(spins, field, bias, mine, len(labels.spins), source.lattice)
