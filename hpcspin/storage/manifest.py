"""The manifest of a training set: which shards belong to it, how long they are, and what they hash to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import atomic_path, sha256
from hpcspin.storage.frames import count_frames
from hpcspin.storage.hdf5 import SCHEMA_VERSION, open_hdf5

MANIFEST = "manifest.json"


@dataclass(frozen=True, order=True)
class Shard:
    """One label file of a training set.

    Attributes
    ----------
    file : str
        Name relative to the directory of the manifest.
    snapshots : int
        Number of labelled configurations.
    checksum : str
        SHA-256 of the file.
    """

    file: str
    snapshots: int
    checksum: str


def write_manifest(directory: str | Path) -> tuple[Shard, ...]:
    """List all label files (`*.h5`) of a directory in its `manifest.json`.

    Raises
    ------
    HpcspinError
        If there is none, or one cannot be read.
    """
    directory = Path(directory)
    shards = tuple(_describe(path) for path in sorted(directory.glob("*.h5")))
    if not shards:
        raise HpcspinError(f"{directory}: holds no label files (*.h5); label some spins into it first")
    with atomic_path(directory / MANIFEST) as temporary:
        content = {"schema_version": SCHEMA_VERSION, "shards": [asdict(shard) for shard in shards]}
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return shards


def read_manifest(directory: str | Path, *, verify: bool = True) -> tuple[Shard, ...]:
    """Read the manifest of a training set, sorted by file name.

    Parameters
    ----------
    directory
        Directory of the training set.
    verify
        Check that each shard is there and has its checksum; one rank of a job is enough to do so.

    Raises
    ------
    HpcspinError
        If the manifest is missing or invalid, or a shard is missing, or does not have its checksum.
    """
    path = Path(directory) / MANIFEST
    try:
        shards = tuple(sorted(_shard(entry) for entry in json.loads(path.read_text())["shards"]))
    except FileNotFoundError as error:
        raise HpcspinError(f"{path}: no such file; a training set is label files with a manifest") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HpcspinError(f"{path}: is not a valid manifest ({error}); delete it and make it again") from error
    for shard in shards if verify else ():
        _verify(path.parent / shard.file, shard)
    return shards


def _describe(path: Path) -> Shard:
    with open_hdf5(path) as file:
        snapshots = count_frames(file, path)
    return Shard(path.name, snapshots, sha256(path))


def _shard(entry: dict[str, Any]) -> Shard:
    return Shard(str(entry["file"]), int(entry["snapshots"]), str(entry["checksum"]))


def _verify(path: Path, shard: Shard) -> None:
    if not path.is_file():
        raise HpcspinError(f"{path}: shard is missing; restore it or write the manifest anew")
    if sha256(path) != shard.checksum:
        raise HpcspinError(f"{path}: shard is corrupt or changed, its SHA-256 is not the manifest's; restore it")
