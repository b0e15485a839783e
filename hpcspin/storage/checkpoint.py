"""Checkpoints: atomic, versioned and checksummed; the previous one is kept.

A checkpoint is a set of named arrays, a JSON mapping (`meta`), and the configuration to which it belongs. Its SHA-256
covers all three and thus detects a flipped bit in the data as well as an incomplete file.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcspin.errors import HpcspinError
from hpcspin.storage.agreement import require_same_config
from hpcspin.storage.atomic import atomic_hdf5, remove_temporaries
from hpcspin.storage.opening import attributes, check_schema, open_hdf5, stored_array
from hpcspin.storage.provenance import write_attributes

_log = logging.getLogger(__name__)

_PARTS = {"meta": h5py.Dataset, "config": h5py.Dataset, "arrays": h5py.Group}


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a run resumes."""

    arrays: dict[str, np.ndarray]
    """Named arrays; names may contain ``/``."""
    meta: dict[str, Any]
    """JSON values."""
    config: dict[str, Any]
    """Configuration of the run."""
    path: Path
    """File from which it was read."""

    def array(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """One of the arrays, of real, finite numbers; raises HpcspinError if there is none of this name and shape."""
        array = self.arrays.get(name)
        if array is None or array.shape != tuple(shape) or array.dtype.kind not in "fiu":
            stored = "none" if array is None else f"{array.dtype} of shape {array.shape}"
            raise self.mismatch(f"it should have {name!r} of shape {tuple(shape)} and has {stored}")
        if not np.isfinite(array).all():
            raise self.mismatch(f"{name!r} holds NaN or infinity")
        return np.asarray(array, dtype=array.dtype.newbyteorder("="))

    def count(self, name: str, most: int | None = None) -> int:
        """One of the numbers in `meta`, a whole number from 0 to `most`; raises HpcspinError if there is none."""
        value = self.meta.get(name)
        if type(value) is not int or value < 0 or (most is not None and value > most):
            raise self.mismatch(f"its {name!r} is {value!r}")
        return value

    def mismatch(self, reason: object) -> HpcspinError:
        """The error to raise if this is not a state of the current run."""
        line = " ".join(str(reason).split())
        return HpcspinError(f"{self.path}: does not hold the state of this run ({line}); start in another directory")


def previous_path(path: str | Path) -> Path:
    """Name under which the previous checkpoint is kept."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_checkpoint(
    path: str | Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Write a checkpoint with the content described in `Checkpoint`; the newest so far becomes the previous one."""
    path = Path(path)
    remove_temporaries(path)
    contiguous = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    texts = {"meta": _canonical(meta).encode(), "config": _canonical(config).encode()}
    # For a moment there is only the previous one, which readers allow for.
    with atomic_hdf5(path, keep=previous_path(path)) as file:
        write_attributes(file, "checkpoint", {"sha256": _digest(contiguous, texts)})
        # Datasets, not attributes: HDF5 limits an attribute to 64 kB.
        for name, text in texts.items():
            file[name] = np.frombuffer(text, dtype=np.uint8)
        arrays_group = file.create_group("arrays")
        for name, array in contiguous.items():
            arrays_group[name] = array


def read_checkpoint(
    path: str | Path, config: Mapping[str, Any] | None = None, ignore: Collection[str] = ()
) -> Checkpoint | None:
    """Read the newest checkpoint or, with a warning in the log, the previous one if the newest is corrupt.

    Returns None if there is no checkpoint. Raises HpcspinError if all are corrupt, or if the checkpoint belongs to a
    config that differs from the given one in keys other than the dotted keys to ignore; config None accepts any.
    """
    present = [candidate for candidate in (Path(path), previous_path(path)) if candidate.exists()]
    failures = []
    for candidate in present:
        try:
            checkpoint = _read(candidate)
        except HpcspinError as error:
            failures.append(error)
            _log.warning("%s; falling back to the checkpoint before it", error)
            continue
        wanted = checkpoint.config if config is None else json.loads(_canonical(config))
        require_same_config(checkpoint.config, wanted, candidate, "start in another directory", ignore)
        return checkpoint
    if failures:
        raise HpcspinError(f"{failures[0]}; no intact checkpoint is left, start in another directory")
    return None


def _read(path: Path) -> Checkpoint:
    arrays: dict[str, np.ndarray] = {}

    def collect(name: str | bytes, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(name, bytes):  # h5py returns names that are not UTF-8 as bytes.
            raise HpcspinError(f"{path}: is no checkpoint, it has {name!r}")
        if isinstance(item, h5py.Dataset):
            arrays[name] = stored_array(item, path)

    with open_hdf5(path) as file:
        check_schema(file, path)
        missing = [name for name in _PARTS if not isinstance(file.get(name), _PARTS[name])]
        if missing:
            raise HpcspinError(f"{path}: is no checkpoint, it has no {missing[0]!r}")
        texts = {name: stored_array(file[name], path).tobytes() for name in ("meta", "config")}
        file["arrays"].visititems(collect)
        digest = attributes(file, path).get("sha256")
    if digest != _digest(dict(sorted(arrays.items())), texts):
        raise HpcspinError(f"{path}: checkpoint is corrupt, its SHA-256 does not match")
    return Checkpoint(arrays, json.loads(texts["meta"]), json.loads(texts["config"]), path)


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


def _digest(arrays: Mapping[str, np.ndarray], texts: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(name.encode() + b":" + text + b"\n")
    for name, array in arrays.items():
        digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode(errors="surrogateescape"))
        digest.update(array.tobytes())
    return digest.hexdigest()
