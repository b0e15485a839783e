"""Label files: spins with their exact fields and further results for the electrons, such as the density."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.storage.agreement import require_same_config
from hpcspin.storage.atomic import atomic_hdf5
from hpcspin.storage.datasets import OF_ELECTRONS, describe_datasets, shapes_beside
from hpcspin.storage.frames import FrameFile, partial_path
from hpcspin.storage.opening import attributes, check_schema, count_frames, open_hdf5, read_rows, real_dataset
from hpcspin.storage.provenance import with_provenance, write_attributes
from hpcspin.storage.spins import SPINS, Frames, check_spins, frame_slice

LARGEST_FIELD = 1e4
"""Upper bound on exchange fields, far above any physical one."""


@dataclass(frozen=True)
class Labels:
    """Labelled spin configurations, arrays whose first axis counts the n snapshots.

    Spins and field have the shape (n, Lx, Ly, 3). Others, by name, are those of these that the file holds: ``density``
    (n, Lx, Ly), ``current`` (n, reservoirs), ``current_error``, ``energy`` of the whole lattice, from which the field
    of closed electrons derives, ``energy_error``, ``electrons``, ``chemical_potential`` and ``error``, all (n,).
    """

    spins: NDArray[np.float64]
    field: NDArray[np.float64]
    others: dict[str, NDArray[np.float64]]
    attributes: dict[str, Any]


def read_labels(path: str | Path, size: tuple[int, int] | None = None, frames: Frames = None) -> Labels:
    """Read a label file, a trajectory, or any file with `/spins` and `/field`.

    The spins must have the lattice ``size``, None for any; ``frames`` is an index, a slice, or None for all. Raises
    HpcspinError if the file is unreadable or lacks spins or fields, if they are invalid or have different shapes, if
    numbers are not finite, or if only some of the fields of a trajectory are exact.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        check_schema(file, path)
        rows = frame_slice(count_frames(file, path), frames, str(path))
        if "field" not in file:
            raise HpcspinError(f"{path}: has no dataset /field; label it first with `hpcspin label`")
        spins = real_dataset(file, path, "spins", SPINS)
        shapes = shapes_beside(spins.shape)
        there = [name for name in ("field", *OF_ELECTRONS) if name in file]
        data = {"spins": spins, **{name: real_dataset(file, path, name, shapes[name]) for name in there}}
        arrays = {name: read_rows(one, path, rows) for name, one in data.items()}
        stored = attributes(file, path)
    numbers = range(rows.start, rows.stop, rows.step)
    checked, field = check_spins(arrays["spins"], size, str(path), numbers), arrays["field"]
    _require_finite("field", field, path, numbers)
    error = arrays.get("error")
    largest = _largest_field(stored, error)
    with np.errstate(over="ignore"):
        wrong = np.linalg.norm(field, axis=-1) > largest
    if wrong.any():
        frame, *site = (int(index) for index in np.argwhere(wrong)[0])
        raise HpcspinError(
            f"{path}: /field of frame {numbers[frame]} at site {tuple(site)} is {field[frame][tuple(site)].tolist()}, "
            f"longer than the {largest:g} that an exchange field can be; label the spins again"
        )
    if error is not None and np.isnan(error).any():
        raise HpcspinError(
            f"{path}: {np.isnan(error).sum()} of {len(field)} fields are not exact, where /error is NaN; "
            "let dynamics.record_interval be a multiple of dynamics.exact_interval, and the duration one of both"
        )
    others = {name: arrays[name] for name in OF_ELECTRONS if name in arrays}
    for name, values in others.items():  # Last, since they are NaN on purpose where /error is.
        _require_finite(name, values, path, numbers)
    return Labels(checked, field, others, stored)


def write_labels(
    path: str | Path,
    spins: NDArray[np.float64],
    field: NDArray[np.float64],
    attributes: Mapping[str, Any],
    **others: NDArray[np.float64] | None,
) -> None:
    """Write complete arrays of `Labels` at once, first under a temporary name.

    The attributes are the ``config`` (mapping), ``precision`` (str), ``reservoirs`` (names) and anything else that
    belongs to the labels. Other datasets have a row for each snapshot; those that are None are left out.
    """
    given = {"spins": spins, "field": field, **others}
    with atomic_hdf5(path) as file:
        write_attributes(file, "labels", with_provenance(attributes))
        for name, values in given.items():
            if values is not None:
                file.create_dataset(name, data=np.asarray(values, dtype=np.float64))
        describe_datasets(file, attributes)


class LabelWriter(FrameFile):
    """Append labels durably; a killed job resumes at the first snapshot without a label.

    The labels are collected in ``PATH.partial`` (see :mod:`hpcspin.storage.frames`); `finish` creates PATH. ``shapes``
    are those of the datasets of one snapshot except the spins and the field; ``error`` is one of them. A partial file
    with labels is resumed only if all attributes agree: the ``config``, the names of the ``reservoirs`` in the order of
    `/current`, and all else that determines the labels. Raises HpcspinError, which names the keys, if they differ, or
    the partial file is unreadable.
    """

    kind, marker = "labels", "error"

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        shapes: Mapping[str, tuple[int, ...]],
        attributes: Mapping[str, Any],
        n_expected: int,
    ) -> None:
        given = {**attributes, "snapshots": n_expected}
        shapes = {"spins": (*size, 3), "field": (*size, 3), **shapes}
        super().__init__(path, shapes, n_expected, given, keep=_resumable(partial_path(path), given))

    def append(self, **frames: NDArray[np.float64]) -> None:
        """Append k labels, an array (k, ...) for each dataset, if all are finite; on return they survive a crash."""
        for name, values in frames.items():
            if not np.isfinite(values).all():
                raise HpcspinError(
                    f"{self.path}: {name} from snapshot {self.done} on is not finite; correct the electrons"
                )
        self.write(**frames)


def _require_finite(name: str, values: NDArray[np.float64], path: Path, numbers: range) -> None:
    """Refuse NaN and infinity, of which a training would seem to diverge; ``numbers`` are those of the frames."""
    wrong = ~np.isfinite(values.reshape(len(numbers), -1)).all(axis=1)
    if wrong.any():
        raise HpcspinError(
            f"{path}: /{name} of frame {numbers[int(np.argmax(wrong))]} holds numbers that are not finite; label the "
            "spins again"
        )


def _largest_field(stored: Mapping[str, Any], error: NDArray[np.float64] | None) -> float:
    """Bound on fields of known electrons: H_i = J tr(sigma rho_ii), and rho_ii has eigenvalues from 0 to 1."""
    config = stored.get("config")
    section = config.get("electrons") if isinstance(config, dict) and stored.get("kind") == "labels" else None
    exchange = section.get("exchange") if isinstance(section, dict) else None
    if not isinstance(exchange, int | float):
        return LARGEST_FIELD
    achieved = 0.0 if error is None or not error.size else float(np.nanmax(error))
    return 1.001 * abs(exchange) + achieved


def _resumable(partial: Path, given: Mapping[str, Any]) -> int:
    """Number of labels in a partial file, which must have the given attributes."""
    if not partial.exists():
        return 0
    with open_hdf5(partial, "delete it to label from the first snapshot on") as file:
        done = count_frames(file, partial)
        stored = attributes(file, partial)
    if not done:  # A file without labels is replaced whatever its settings were, since nothing is lost.
        return 0
    wanted = json.loads(json.dumps(given))
    advice = "delete the file to start from the first snapshot"
    require_same_config({key: stored.get(key) for key in wanted}, wanted, partial, advice)
    return done
