"""Errors of a force field on labelled snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, Neighbourhood, at_filling
from hpcspin.storage import read_labels
from hpcspin.training.dataset import Snapshots, energies_of_a_site
from hpcspin.training.device import to_device
from hpcspin.training.metrics import Errors, Summary, tangent_components
from hpcspin.training.sources import read_source

_SITES_AT_ONCE = 4096
_CALIBRATION_BINS = 10
_SAMPLED_SITES = 100
"""Number of sites of a snapshot that are sampled for figures."""


@dataclass(frozen=True)
class Examination:
    """Result of the comparison with label files, the same on all ranks except for `components`."""

    errors: Errors
    """Errors of all snapshots, file by file."""
    files: dict[str, int]
    """Path of each file, and its number of snapshots."""
    components: NDArray[np.float64]
    """Exact and predicted perpendicular components on a random sample of sites, for figures; on rank 0, shape (2,
    sampled)."""

    @property
    def snapshot_mse(self) -> dict[str, list[float]]:
        """Mean squared error of each snapshot of each file."""
        ends = np.cumsum(list(self.files.values()))[:-1]
        return {name: part.tolist() for name, part in zip(self.files, np.split(self.errors.mse, ends), strict=True)}


def snapshot_errors(model: ForceField | Committee, snapshots: Snapshots, device: torch.device) -> Errors:
    """Errors on my snapshots of a model that is in evaluation mode and on the device."""
    errors = Errors()
    for rows, (spins, *_), predicted, field, energies in _predictions(model, snapshots, device):
        errors.add(spins, predicted, field, snapshots.places[rows], energies)
    return errors


def evaluate(model: ForceField | Committee, files: Sequence[Path], world: World, device: torch.device) -> Summary:
    """Errors of a force field on label files: the summary of `examine`."""
    return examine(model, files, world, device).errors.summary()


def examine(
    model: ForceField | Committee, files: Sequence[Path], world: World, device: torch.device, bias: float | None = None
) -> Examination:
    """Compare a force field with label files, which the ranks share.

    Parameters
    ----------
    model
        The force field.
    files
        Label files, of any lattice sizes; ``/spins`` and ``/field`` suffice.
    world
        The ranks; a collective call.
    device
        Device of the computation.
    bias
        Bias of files without a config; None for the model's unit of bias, the largest in its training data.

    Raises
    ------
    HpcspinError
        If a file is invalid or has another kind of lattice than the model.
    """
    model = model.to(device).eval()
    errors, samples = Errors(), [np.zeros((2, 0))]
    counts: dict[str, int] = {}
    for number, path in enumerate(files):
        mine = _my_share(number, path, model, world, bias)
        for rows, (spins, *_), predicted, field, energies in _predictions(model, mine, device):
            errors.add(spins, predicted, field, mine.places[rows], energies)
            samples.append(_sample(mine.numbers[rows], spins, predicted, field))
        counts[str(path)] = mine.total
    components = world.gather(np.concatenate(samples, axis=1)) or [np.zeros((2, 0))]
    return Examination(errors.gathered(world), counts, np.concatenate(components, axis=1))


def _predictions(
    model: ForceField | Committee, snapshots: Snapshots, device: torch.device
) -> Iterator[tuple[slice, tuple[Tensor, Neighbourhood, Tensor], Tensor, Tensor, NDArray[np.float64]]]:
    """Predictions for a few of my snapshots at a time: rows, what the model took, predicted and exact fields, energies.

    The energies per site, predicted and exact, are NaN where unknown, shape (snapshots, 2).
    """
    table, sites = model.neighbourhood(snapshots.lattice), snapshots.lattice.num_sites
    step = max(1, _SITES_AT_ONCE // sites)
    parts = [tensor.split(step) for tensor in (snapshots.spins, snapshots.field, snapshots.bias)]
    for start, *given in zip(range(0, len(snapshots.spins), step), *parts, strict=False):
        spins, field, bias = (to_device(tensor, device) for tensor in given)
        rows = slice(start, start + step)
        drive, forward_pass = at_filling(model, spins, table, bias, sites, strict=False)
        predicted = model(spins, table, drive, forward_pass)
        energies = np.full((len(spins), 2), np.nan)
        if model.has_potentials:
            energies[:, 0] = predicted.energy.double().cpu().numpy() / sites + (model.energy_of_a_site or 0.0)
            energies[:, 1] = snapshots.energy[rows]
        yield rows, (spins, table, drive), predicted.field, field, energies


def _sample(numbers: NDArray[np.int64], spins: Tensor, predicted: Tensor, exact: Tensor) -> NDArray[np.float64]:
    """Exact and predicted components on a few sites of each snapshot, selected by its number, shape (2, sampled)."""
    both = torch.stack([tangent_components(spins.double(), field.double()) for field in (exact, predicted)]).cpu()
    sites = [np.random.default_rng(number).permutation(spins.shape[1])[:_SAMPLED_SITES] for number in numbers]
    return np.concatenate([both[:, row, those].flatten(1).numpy() for row, those in enumerate(sites)], axis=1)


def calibrate(
    model: Committee, files: Sequence[Path], world: World, device: torch.device, bias: float | None = None
) -> dict[str, Any]:
    """How well the disagreement of a committee predicts the error of its mean, site by site.

    Parameters
    ----------
    model
        The committee.
    files, world, device, bias
        As for `examine`.

    Returns
    -------
    dict
        ``factor``: root mean square error divided by root mean square spread, which turns a spread into an error;
        ``rank_correlation`` (Spearman's) of error and spread; both are None if all members agree. ``bins``: ten equal
        groups of sites in order of their spread, each with the root mean squares ``spread`` and ``error`` of a
        perpendicular component.
    """
    model = model.to(device).eval()
    spreads, errors = [np.zeros(0)], [np.zeros(0)]
    for number, path in enumerate(files):
        mine = _my_share(number, path, model, world, bias)
        for _, given, predicted, field, _ in _predictions(model, mine, device):
            wrong = perpendicular(given[0].double(), predicted.double() - field.double())
            spreads.append(model.spread(*given).cpu().double().numpy().reshape(-1))
            # The square is the sum over two perpendicular components.
            errors.append(wrong.square().sum(-1).div(2).sqrt().cpu().numpy().reshape(-1))
    spread, error = (np.concatenate(world.allgather(np.concatenate(parts))) for parts in (spreads, errors))
    # The import takes half a second, and most commands do not need it.
    from scipy.stats import spearmanr

    shares = np.array_split(np.argsort(spread, kind="stable"), min(_CALIBRATION_BINS, len(spread)))
    vary = np.ptp(spread) > 0 and np.ptp(error) > 0
    return {
        "factor": _rms(error) / _rms(spread) if _rms(spread) else None,
        "rank_correlation": float(spearmanr(spread, error).statistic) if vary else None,
        "bins": [{"spread": _rms(spread[share]), "error": _rms(error[share])} for share in shares],
    }


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _my_share(number: int, path: Path, model: ForceField | Committee, world: World, bias: float | None) -> Snapshots:
    given = model.architecture
    # A file without a config has the edges of the lattices that the model has learned from.
    learned = (model.card.get("config") or {}).get("lattice") or {}
    bias = given.bias_reference if bias is None else bias
    source = read_source(path, given.lattice, bias, model.sees, periodic=learned.get("periodic", (False, True)))
    model.require(source.lattice, str(path))
    labels = read_labels(path, source.lattice.size)
    mine = np.arange(len(labels.spins))[world.rank :: world.size]
    spins, field = (torch.from_numpy(array[mine]).flatten(1, 2) for array in (labels.spins, labels.field))
    drive = model.drive_of(source.electrons, source.drive[0], str(path))
    biases = torch.tensor(drive, dtype=torch.float64).expand(len(mine), -1)
    energies, places = torch.from_numpy(energies_of_a_site(labels)[mine]), np.full(len(mine), number)
    return Snapshots(spins, field, biases, energies, mine, places, len(labels.spins), source.lattice)
