"""Numbers of what verbs write: a record for each result; of frames, means over them and how their wall moved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis.series import Array, first_passage, velocity
from hpcspin.potential.files import card_path
from hpcspin.storage import FrameReader, read_json
from hpcspin.training.loop import METRICS, MODEL

NUCLEATED = 3.0
"""Wall position, in columns, at which the metal counts as nucleated at the left electrode."""
_MARGIN = 2.0
"""Columns from either end within which a wall no longer moves freely."""
_EXACT = "exact_"
_COUNTERS = ("time", "step")
_ENTRIES = {
    "magnetization": ("x", "y", "z"),
    "bond_fractions": ("ferromagnetic", "antiferromagnetic"),
    "puddles": ("count", "mean", "largest"),
}
"""Names of the entries of some vectors; entries of others are numbered."""


def frame_series(path: Path) -> dict[str, Array]:
    """All series of one number per frame in a trajectory or label file, shape (n,).

    Each entry of a vector is a series with its own name: ``magnetization_x``, or ``current_left`` for a reservoir. Data
    of exact labels along a learned run have the names of exact runs, and are NaN at frames that were not labelled.
    """
    found: dict[str, Array] = {}
    with FrameReader(path) as frames:
        reservoirs = reservoir_names(frames.attributes)
        for name in sorted(frames.names, key=lambda name: name.startswith(_EXACT)):
            data = getattr(frames, name)
            if len(data.shape) > 2:
                continue
            values = np.asarray(data, dtype=float)
            if values.ndim == 1:
                found.setdefault(name.removeprefix(_EXACT), values)
                continue
            known = reservoirs if name.endswith("current") else _ENTRIES.get(name, ())
            entries = known if len(known) == values.shape[1] else range(values.shape[1])
            for entry, column in zip(entries, values.T, strict=True):
                found.setdefault(f"{name.removeprefix(_EXACT)}_{entry}", column)
    return found


def reservoir_names(attributes: Mapping[str, Any]) -> list[str]:
    """Names of the reservoirs in the config among a file's attributes; their numbers where they have none."""
    electrons = attributes.get("config", {}).get("electrons") or {}
    return [str(entry.get("name", number)) for number, entry in enumerate(electrons.get("reservoirs") or ())]


def frame_numbers(path: Path) -> dict[str, float | None]:
    """For each series of `frame_series` the mean over the last half of a trajectory, or over all of a label file.

    For a trajectory with walls also the numbers of `wall_numbers`. None where nothing was measured.
    """
    series = frame_series(path)
    time = series.get("time")
    first = 0 if time is None else len(time) // 2
    numbers = {name: _mean(values[first:]) for name, values in series.items() if name not in _COUNTERS}
    if time is not None and "wall_position" in series:
        with FrameReader(path) as frames:
            columns = frames.spins.shape[1]
        numbers |= wall_numbers(time, series["wall_position"], columns)
    return numbers


def wall_numbers(time: Array, position: Array, columns: int) -> dict[str, float | None]:
    """How a wall moved, from times and wall positions, shape (n,), on a lattice with this many columns.

    Returns ``wall_velocity`` in columns per unit of time and its error ``wall_velocity_error``, from a line fitted to
    the frames before the wall comes within two columns of an end, None if there are fewer than three;
    ``nucleation_time``, at which the position first exceeds 3, None if it never does; ``wall_end``, the last position.
    """
    at_an_end = np.flatnonzero((position < _MARGIN) | (position > columns - 1 - _MARGIN))
    free = slice(0, at_an_end[0] if len(at_an_end) else len(time))
    slope, error = velocity(time[free], position[free]) if len(time[free]) > 2 else (None, None)
    return {
        "wall_velocity": slope,
        "wall_velocity_error": error,
        "nucleation_time": first_passage(time, position, NUCLEATED),
        "wall_end": float(position[-1]),
    }


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


Row = dict[str, Any]


def of_training(directory: Path) -> list[Row]:
    """Every force field of a training: one, or those of a committee."""
    return [_force_field(path, directory) for path in sorted(directory.glob(f"**/{MODEL}"))]


def _force_field(model: Path, directory: Path) -> Row:
    card = json.loads(card_path(model).read_text())
    last = (model.parent / METRICS).read_text().splitlines()[-1]
    return {
        "metrics": card["metrics"],
        "best_epoch": card["best_epoch"],
        "seconds": json.loads(last)["seconds"],
        "seed": card["training"]["seed"],
        "provenance": card["provenance"],
        "directory": str(Path(directory.name) / model.parent.relative_to(directory)),
    }


def of_frames(name: str) -> Callable[[Path], list[Row]]:
    """A trajectory or a file of labels with this name; see `frame_numbers`."""
    return lambda directory: [{"metrics": frame_numbers(directory / name), "directory": directory.name}]


def of_numbers(directory: Path) -> list[Row]:
    """``numbers.json`` of a verb that writes it."""
    numbers = read_json(directory / "numbers.json", "run the sweep again")
    numbers.pop("provenance", None)
    return [{"metrics": flat_numbers(numbers), "directory": directory.name}]


def of_torques(directory: Path) -> list[Row]:
    """``numbers.json`` of a torque, with Slonczewski's coefficients by field and voltage."""
    (row,), coefficients = of_numbers(directory), dict[str, float]()
    for one in read_json(directory / "numbers.json", "run the sweep again")["slonczewski"]:
        name = f"slonczewski.{one['field']}.{one['voltage']:g}"
        coefficients[name] = one["coefficient"]
        if "coefficient_error" in one:  # Of exact torques.
            coefficients[f"{name}_error"] = one["coefficient_error"]
    return [{**row, "metrics": coefficients | row["metrics"]}]


def of_learning(directory: Path) -> list[Row]:
    """The last round of an active learning."""
    last = json.loads((directory / "rounds.jsonl").read_text().splitlines()[-1])
    return [{"metrics": flat_numbers(last), "directory": directory.name}]


def flat_numbers(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """The numbers in nested mappings, by dotted names."""
    found: dict[str, float | None] = {}
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{name}.")
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[f"{prefix}{name}"] = value
    return found
