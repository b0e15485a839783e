"""Snapshots that occur twice in the data of a training; errors are meaningful only on data that are not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import Shard, read_spins
from hpcspin.training.dataset import TrainingData

_AT_ONCE = 256


def spin_digests(spins: NDArray[np.float64]) -> list[bytes]:
    """A short digest of each snapshot, equal in double and single precision; spins of shape (n, Lx, Ly, 3)."""
    # Adding zero turns -0 into 0.
    rounded = np.ascontiguousarray(spins, dtype=np.float32) + np.float32(0)
    return [hashlib.blake2b(frame.tobytes(), digest_size=16).digest() for frame in rounded]


def is_new(spins: NDArray[np.float64], known: Collection[bytes]) -> NDArray[np.bool_]:
    """Whether each snapshot's digest is not among the known ones; spins of shape (n, Lx, Ly, 3)."""
    return np.array([digest not in known for digest in spin_digests(spins)], dtype=bool)


def learned_files(card: Mapping[str, Any]) -> dict[str, str]:
    """Names by checksum of all label files on which a model, or a model that it was continued from, was trained.

    The card of a committee has those of its ``members``.
    """
    data = card.get("data")
    shards = data.get("train") if isinstance(data, dict) else None
    found = {
        str(shard["checksum"]): str(shard.get("file"))
        for shard in (shards if isinstance(shards, list) else [])
        if isinstance(shard, dict) and "checksum" in shard
    }
    members = card.get("members")
    for other in (card.get("start"), *(members if isinstance(members, list) else ())):
        if isinstance(other, dict):
            found |= learned_files(other)
    return found


def require_independent(
    split: TrainingData, drives: Mapping[str, Hashable], past: Mapping[str, str], world: World
) -> None:
    """Refuse validation snapshots that are trained on, and warn of those trained on twice; rank 0 does the work.

    For training, the same spins at two voltages, given by the drive of each shard, are two snapshots. ``past`` are the
    `learned_files` of the model that the training starts from.
    """
    if world.rank == 0:
        seen = _learned(split, drives, world)
        files = {**past} | {shard.checksum: shard.file for shard in split.train}
        for shard in split.validation:
            if shard.checksum in files:
                raise HpcspinError(_refusal(shard.file, "is the same file as", files[shard.checksum]))
            for number, digest in enumerate(_digests(split.directory, shard)):
                if digest in seen:
                    raise HpcspinError(_refusal(shard.file, f"its snapshot {number} is also in", seen[digest]))
    world.barrier()


def _learned(split: TrainingData, drives: Mapping[str, Hashable], world: World) -> dict[bytes, str]:
    """Digests of the training snapshots, each with the first of its files; the log warns of repeated ones."""
    seen: dict[tuple[bytes, Hashable], str] = {}
    again: list[tuple[str, str]] = []
    for shard in split.train:
        for digest in _digests(split.directory, shard):
            snapshot = (digest, drives[shard.file])
            if snapshot in seen:
                again.append((shard.file, seen[snapshot]))
            seen.setdefault(snapshot, shard.file)
    if again:
        world.log(
            f"warning: {len(again)} snapshots are learned from more than once, and so weigh more than others: the "
            f"first of them, of {again[0][0]}, is already in {again[0][1]}"
        )
    return {digest: file for (digest, _), file in seen.items()}


def _digests(directory: Path, shard: Shard) -> Iterator[bytes]:
    for start in range(0, shard.snapshots, _AT_ONCE):
        yield from spin_digests(read_spins(directory / shard.file, None, slice(start, start + _AT_ONCE)))


def _refusal(file: str, how: str, other: str) -> str:
    return (
        f"{file}: {how} {other}, which is learned from: its error would not be that of independent data; name another "
        "file in training.validation, of a trajectory of its own"
    )
