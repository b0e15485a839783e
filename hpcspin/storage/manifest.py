"""The manifest of a training set: its shards, their lengths and their checksums."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import sha256, write_json
from hpcspin.storage.opening import count_frames, open_hdf5, read_json
from hpcspin.storage.provenance import SCHEMA_VERSION
from hpcspin.storage.trajectory import TRAJECTORY

MANIFEST = "manifest.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Shard:
    """One label file of a training set."""

    file: str
    """Name relative to the directory of the manifest."""
    snapshots: int
    """Number of labelled configurations."""
    checksum: str
    """SHA-256 of the file."""


def data_files(directory: str | Path) -> list[Path]:
    """All `*.h5` of a directory of data, without the checkpoints beside the trajectory of a simulation."""
    files = sorted(Path(directory).glob("*.h5"))
    simulated = any(file.name == TRAJECTORY for file in files)
    return [file for file in files if not (simulated and file.name.startswith("checkpoint."))]


def write_manifest(directory: str | Path) -> tuple[Shard, ...]:
    """List the `data_files` of a directory in its `manifest.json`; all must hold labels."""
    directory = Path(directory)
    if not directory.is_dir():
        raise HpcspinError(f"{directory}: is no directory; give one of label files")
    shards = tuple(_describe(path) for path in data_files(directory))
    if not shards:
        raise HpcspinError(f"{directory}: holds no label files (*.h5); label some spins into it first")
    content = {"schema_version": SCHEMA_VERSION, "shards": [asdict(shard) for shard in shards]}
    write_json(directory / MANIFEST, content)
    return shards


def ensure_manifest(directory: str | Path) -> None:
    """Write the manifest of a directory of label files if there is none; the log reports files that one leaves out."""
    path = Path(directory) / MANIFEST
    if not path.exists():
        _log.info("%s: written, with the %d label files there", path, len(write_manifest(directory)))
        return
    listed = {shard.file for shard in read_manifest(directory, verify=False)}
    for file in data_files(directory):
        if file.name not in listed:
            _log.warning("warning: %s is not in the manifest and left out; delete %s to take it in", file, path)


def read_manifest(directory: str | Path, *, verify: bool = True) -> tuple[Shard, ...]:
    """Read the manifest of a training set, sorted by file name.

    With ``verify``, enough on one rank, each shard must exist and have its checksum. Raises HpcspinError if the
    manifest is missing or invalid, or a shard is not what it says.
    """
    path = Path(directory) / MANIFEST
    advice = "delete it, and it is made again"
    try:
        listed = read_json(path, advice).get("shards")
    except FileNotFoundError as error:
        raise HpcspinError(
            f"{path}: no such file; `hpcspin train` writes it beside the label files of its --data"
        ) from error
    if not isinstance(listed, list):
        raise HpcspinError(f"{path}: is not a valid manifest, it lists no shards; {advice}")
    shards = tuple(sorted(_shard(entry, path, advice) for entry in listed))
    if len({shard.file for shard in shards}) < len(shards):
        raise HpcspinError(f"{path}: is not a valid manifest, it lists a file twice; {advice}")
    advice = f"delete {path} to train on the label files that are there"
    for shard in shards if verify else ():
        file = path.parent / shard.file
        if not file.is_file():
            raise HpcspinError(f"{file}: shard is missing; restore it, or {advice}")
        if sha256(file) != shard.checksum or _describe(file).snapshots != shard.snapshots:
            raise HpcspinError(
                f"{file}: shard is corrupt or changed, its SHA-256 or number of snapshots is not the manifest's; "
                f"restore it, or {advice}"
            )
    return shards


def _describe(path: Path) -> Shard:
    with open_hdf5(path) as file:
        missing = [name for name in ("/spins", "/field") if name not in file]
        if missing:
            raise HpcspinError(
                f"{path}: has no dataset {missing[0]}; a directory of data holds only label files and trajectories: "
                "copy those to be used into a directory of their own"
            )
        snapshots = count_frames(file, path)
    return Shard(path.name, snapshots, sha256(path))


def _shard(entry: Any, path: Path, advice: str) -> Shard:
    """An entry of the manifest, which may only name files in its own directory."""
    types = {"file": str, "snapshots": int, "checksum": str}
    if not isinstance(entry, dict) or any(type(entry.get(name)) is not kind for name, kind in types.items()):
        raise HpcspinError(f"{path}: is not a valid manifest, {entry!r:.60} is no shard; {advice}")
    shard = Shard(**{name: entry[name] for name in types})
    if shard.file in ("", "..") or shard.file != Path(shard.file).name or "\0" in shard.file or "\\" in shard.file:
        raise HpcspinError(f"{path}: names {shard.file!r}, which is no plain name of a file in its directory; {advice}")
    return shard
