"""Labelled snapshots in memory: each rank reads its own share of the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import Labels, Shard, read_attributes, read_labels, read_manifest, read_spins


@dataclass(frozen=True)
class Source:
    """What a label file says about its system.

    Attributes
    ----------
    lattice : Lattice
        The lattice of its snapshots.
    bias : float
        Difference of the largest and the smallest chemical potential.
    """

    lattice: Lattice
    bias: float


@dataclass
class Snapshots:
    """My share of a list of snapshots.

    Attributes
    ----------
    spins, field : Tensor
        Shape (mine, sites, 3).
    bias : Tensor
        Shape (mine,).
    numbers : ndarray
        Number of each of mine in the whole list, ascending, shape (mine,).
    total : int
        Length of the whole list, over all ranks.
    lattice : Lattice
        The lattice of all of them.
    """

    spins: Tensor
    field: Tensor
    bias: Tensor
    numbers: NDArray[np.int64]
    total: int
    lattice: Lattice

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those of the given snapshots that are mine stand, in the order given."""
        place = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return place[self.numbers[place] == numbers]


@dataclass(frozen=True)
class Split:
    """Shards of independent trajectories: those learned from, and those that judge."""

    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]


def split_shards(directory: Path, validation: Sequence[str], world: World) -> Split:
    """Divide the shards of a training set, by file and never within one.

    Frames of one trajectory resemble each other: an error on frames between
    those learned from would be a training error.

    Parameters
    ----------
    directory
        With a ``manifest.json``.
    validation
        File names of the shards kept for validation.
    world
        Rank 0 verifies the shards; all call together.

    Raises
    ------
    HpcspinError
        If a shard is missing or corrupt, a name is unknown, or nothing is left to learn from.
    """
    if world.rank == 0:
        read_manifest(directory)
    world.barrier()
    shards = read_manifest(directory, verify=False)
    unknown = sorted(set(validation) - {shard.file for shard in shards})
    if unknown:
        raise HpcspinError(f"training.validation: {unknown[0]!r} is not in the manifest of {directory}; mend the name")
    split = Split(
        tuple(shard for shard in shards if shard.file not in validation),
        tuple(shard for shard in shards if shard.file in validation),
    )
    if not split.train:
        raise HpcspinError(f"training.validation: keeps every shard of {directory}; leave some to learn from")
    return split


def read_source(path: Path, kind: str, bias: float) -> Source:
    """System of a label file, from the config stored in it.

    Parameters
    ----------
    path
        Label file.
    kind, bias
        Kind of lattice and bias of a file without a config; its edges are then open along x alone.

    Raises
    ------
    HpcspinError
        If the file is invalid, or its snapshots are not on the lattice of its config.
    """
    config = read_attributes(path).get("config")
    config = config if isinstance(config, dict) else {}
    section = config.get("lattice") or {}
    size = read_spins(path, section.get("size"), 0).shape[1:3]
    reservoirs = (config.get("electrons") or {}).get("reservoirs") or []
    potentials = [float(reservoir["potential"]) for reservoir in reservoirs]
    return Source(
        make_lattice(section.get("kind", kind), size, tuple(section.get("periodic", (False, True)))),
        max(potentials) - min(potentials) if potentials else bias,
    )


def load_share(
    directory: Path, shards: Sequence[Shard], kind: str, bias: float, world: World, stride: int, dtype: torch.dtype
) -> Snapshots:
    """Read my share of the snapshots of some shards.

    Snapshot number n of the list belongs to class n mod stride, and class c to
    rank c mod ranks: a batch with one snapshot of each class then costs all
    ranks the same, and its members do not depend on how many ranks there are.

    Parameters
    ----------
    directory
        Where the shards lie.
    shards
        At least one, in the order of the manifest.
    kind, bias
        See `read_source`.
    world
        The ranks.
    stride
        Number of classes.
    dtype
        Precision in memory.

    Raises
    ------
    HpcspinError
        If a file is invalid, or the shards are of different lattices.
    """
    parts: list[_Part] = []
    lattice, start = None, 0
    for shard in shards:
        path = directory / shard.file
        source = read_source(path, kind, bias)
        if lattice not in (None, source.lattice):
            raise HpcspinError(f"{path}: is of another lattice than the shards before it; train on one lattice")
        lattice = source.lattice
        for frames in _my_frames(start, shard.snapshots, stride, world):
            labels = read_labels(path, lattice.size, frames)
            parts.append(_Part(start + np.arange(shard.snapshots)[frames], labels, source.bias))
        start += shard.snapshots
    assert lattice is not None
    return _join(parts, start, lattice, dtype)


class _Part(NamedTuple):
    numbers: NDArray[np.int64]
    labels: Labels
    bias: float


def _my_frames(start: int, snapshots: int, stride: int, world: World) -> Iterator[slice]:
    """Frames of a shard whose first snapshot has the number ``start`` that are mine, a slice a class."""
    for number in range(world.rank, stride, world.size):
        first = (number - start) % stride
        if first < snapshots:
            yield slice(first, None, stride)


def _join(parts: list[_Part], total: int, lattice: Lattice, dtype: torch.dtype) -> Snapshots:
    if not parts:
        empty = torch.empty((0, lattice.num_sites, 3), dtype=dtype)
        return Snapshots(empty, empty, empty[:, 0, 0], np.empty(0, dtype=np.int64), total, lattice)
    numbers = np.concatenate([part.numbers for part in parts])
    order = np.argsort(numbers)

    def tensor(arrays: list[NDArray[np.float64]]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)[order]).to(dtype)

    return Snapshots(
        tensor([part.labels.spins for part in parts]).flatten(1, 2),
        tensor([part.labels.field for part in parts]).flatten(1, 2),
        tensor([np.full(len(part.numbers), part.bias) for part in parts]),
        numbers[order],
        total,
        lattice,
    )


def epoch_batches(total: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Numbers of the snapshots in each batch of an epoch, the same on any number of ranks.

    Each batch takes one snapshot of every class n mod batch, as far as they
    last; the order within the classes is a function of seed and epoch.

    Parameters
    ----------
    total
        Number of snapshots.
    batch
        Snapshots in a batch, over all ranks.
    seed, epoch
        What the order depends on.
    """
    generator = np.random.default_rng([seed, epoch])
    classes = [generator.permutation(np.arange(number, total, batch)) for number in range(min(batch, total))]
    length = max(len(members) for members in classes)
    return [np.array([c[step] for c in classes if step < len(c)]) for step in range(length)]
