"""Labelled snapshots in memory: each rank reads its own share of the shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.world import World
from hpcspin.storage import Labels, Shard, read_labels, read_manifest
from hpcspin.training.sources import LabelSource


@dataclass
class Snapshots:
    """My share of a list of snapshots."""

    spins: Tensor
    """Shape (mine, sites, 3)."""
    field: Tensor
    """Shape (mine, sites, 3)."""
    bias: Tensor
    """Voltages in hoppings, shape (mine, drives): the bias, or the potential of each reservoir relative to the bath's.
    For a learned grand potential the chemical potential and the number of electrons per site."""
    energy: Tensor
    """Exact energy per site in double precision, NaN if a label has none, shape (mine,). For a learned grand potential
    the free energy."""
    numbers: NDArray[np.int64]
    """Number of each of my snapshots in the whole list, ascending, shape (mine,)."""
    files: NDArray[np.int64]
    """Number of the file of each of my snapshots, shape (mine,)."""
    total: int
    """Length of the whole list, over all ranks."""
    lattice: Lattice
    """The lattice of all snapshots in the list."""

    @property
    def places(self) -> NDArray[np.int64]:
        """Number of the file of each of my snapshots, and a number that orders it within the file, shape (mine, 2)."""
        return np.stack([self.files, self.numbers], axis=1)

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of those of the given snapshots that are mine, in the given order."""
        place = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return place[self.numbers[place] == numbers]


@dataclass(frozen=True)
class TrainingData:
    """Shards of independent trajectories, for training and for validation; see `find_data`."""

    directory: Path
    """Directory to which the names of their files are relative."""
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    sources: Mapping[str, LabelSource] = field(default_factory=dict)
    """System of each shard, by the name of its file."""

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Both lists as JSON values."""
        return {role: [asdict(shard) for shard in getattr(self, role)] for role in ("train", "validation")}


def listed_shards(directories: Sequence[Path]) -> list[Shard]:
    """The shards of a training set by name, with the directory if there are several; HpcspinError without manifest."""
    return [
        shard if len(directories) == 1 else replace(shard, file=str(directory / shard.file))
        for directory in directories
        for shard in read_manifest(directory, verify=False)
    ]


def split_shards(directories: Sequence[Path], validation: Sequence[str], world: World) -> TrainingData:
    """Divide the shards of a training set into whole files for training and for validation; a collective call.

    Frames of one trajectory resemble each other: an error on frames between those trained on would be a training error.
    Rank 0 verifies the shards. Raises HpcspinError if one is missing or corrupt, or a name for validation unknown, or
    none is left to train on.
    """
    if world.rank == 0:
        for directory in directories:
            read_manifest(directory)
    world.barrier()
    where = ", ".join(str(directory) for directory in directories)
    shards = listed_shards(directories)
    if len(directories) == 1:  # Accept also a name with the directory, which several directories require.
        short = {str(directories[0] / shard.file): shard.file for shard in shards}
        validation = [short.get(str(Path(name)), name) for name in validation]
    unknown = sorted(set(validation) - {shard.file for shard in shards})
    if unknown:
        raise HpcspinError(
            f"training.validation: {unknown[0]!r} is not in the manifest of {where}; correct the name, or delete the "
            "manifest if the file is newer"
        )
    split = TrainingData(
        directories[0] if len(directories) == 1 else Path(),
        tuple(shard for shard in shards if shard.file not in validation),
        tuple(shard for shard in shards if shard.file in validation),
    )
    if not split.train:
        raise HpcspinError(f"training.validation: keeps every shard of {where}; leave some to learn from")
    return split


def load_shares(
    directory: Path,
    shards: Sequence[Shard],
    sources: Mapping[str, LabelSource],
    world: World,
    stride: int,
    dtype: torch.dtype,
    *,
    grand: bool = False,
) -> list[Snapshots]:
    """Read my share of the snapshots of some shards, one list of snapshots for each lattice among them.

    Snapshot number n of a list belongs to class n mod stride, and class c to rank c mod ranks: a batch with one
    snapshot of each class then costs all ranks the same, and its members do not depend on the number of ranks.

    ``sources`` has the system of each shard by the name of its file. With ``grand`` the snapshots are those that a
    grand potential learns from, see `Snapshots`. Raises HpcspinError if a file is invalid or lacks the datasets for
    that.
    """
    shares = []
    for lattice in dict.fromkeys(sources[shard.file].lattice for shard in shards):
        parts: list[_Part] = []
        start = 0
        for number, shard in enumerate(shards):
            source = sources[shard.file]
            if source.lattice != lattice:
                continue
            for frames in _my_frames(start, shard.snapshots, stride, world):
                labels = read_labels(directory / shard.file, lattice.size, frames)
                drive = np.tile(source.drive, (len(labels.spins), 1))
                # The energy in a trajectory under a force field is that of the force field.
                energies = energies_of_a_site(labels) if source.exact else np.full(len(drive), np.nan)
                if grand:
                    drive, energies = _of_grand_potential(labels, drive, energies, shard.file)
                numbers = start + np.arange(shard.snapshots)[frames]
                files = np.full(len(numbers), number)
                parts.append((numbers, files, labels.spins, labels.field, drive, energies))
            start += shard.snapshots
        shares.append(_join([_nothing(lattice, len(sources[shards[0].file].drive)), *parts], start, lattice, dtype))
    return shares


_Part = tuple[NDArray[Any], ...]
"""Numbers, files, spins, fields, drives and energies of some snapshots of a list."""


def _nothing(lattice: Lattice, drives: int) -> _Part:
    """No snapshots: a rank may have none."""
    numbers, spins = np.empty(0, dtype=np.int64), np.empty((0, *lattice.size, 3))
    return numbers, numbers, spins, spins, np.empty((0, drives)), np.empty(0)


def _of_grand_potential(
    labels: Labels, fixed: NDArray[np.float64], energies: NDArray[np.float64], file: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chemical potential and electrons per site of each label, and its free energy per site."""
    if not {"electrons", "chemical_potential"} <= labels.others.keys():
        raise HpcspinError(
            f"{file}: has no /electrons and /chemical_potential, from which drive: chemical_potential learns; label "
            "its spins again"
        )
    sites = labels.spins[0, ..., 0].size
    drive = np.stack([labels.others["chemical_potential"], labels.others["electrons"] / sites], axis=1)
    # Labels at a fixed potential have no given filling, and their energy is the grand potential.
    return drive, energies + np.where(np.isnan(fixed[:, 1]), drive.prod(1), 0)


def _my_frames(start: int, snapshots: int, stride: int, world: World) -> Iterator[slice]:
    """My frames of a shard whose first snapshot has the number ``start``, one slice for each class."""
    for number in range(world.rank, stride, world.size):
        first = (number - start) % stride
        if first < snapshots:
            yield slice(first, None, stride)


def _join(parts: list[_Part], total: int, lattice: Lattice, dtype: torch.dtype) -> Snapshots:
    order = np.argsort(np.concatenate([numbers for numbers, *_ in parts]))
    numbers, files, *data = (np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True))
    spins, field, drive, energies = map(torch.from_numpy, data)
    spins, field = (tensor.to(dtype).flatten(1, 2) for tensor in (spins, field))
    return Snapshots(spins, field, drive.to(dtype), energies.double(), numbers, files, total, lattice)


def energies_of_a_site(labels: Labels) -> NDArray[np.float64]:
    """Energies of snapshots divided by the number of their sites, NaN if the labels have none, shape (n,)."""
    count, nx, ny, _ = labels.spins.shape
    return labels.others.get("energy", np.full(count, np.nan)) / (nx * ny)


def epoch_plan(totals: Sequence[int], batch: int, seed: int, epoch: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Batches of an epoch over several lists of snapshots: the number of a list, and numbers of snapshots in it.

    ``totals`` are the lengths of the lists, which alternate at random; see `epoch_batches`.
    """
    plan = [(n, members) for n, total in enumerate(totals) for members in epoch_batches(total, batch, seed, epoch)]
    if len(totals) == 1:
        return plan
    return [plan[n] for n in np.random.default_rng([seed, epoch, len(totals)]).permutation(len(plan))]


def epoch_batches(total: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Numbers of the snapshots in each batch of an epoch, a function of seed and epoch, not of the ranks.

    Each batch has ``batch`` snapshots over all ranks, one of each class n mod batch as long as the class has any left.
    """
    generator = np.random.default_rng([seed, epoch])
    classes = [generator.permutation(np.arange(number, total, batch)) for number in range(min(batch, total))]
    length = max(len(members) for members in classes)
    return [np.array([c[step] for c in classes if step < len(c)]) for step in range(length)]
