"""Numbers of a file of frames: what a trajectory came to, and how its wall moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis.series import Array, first_passage, velocity
from hpcspin.lattice import Lattice, wall_position
from hpcspin.storage import FrameReader

NUCLEATED = 3.0
"""Wall position, in columns, at which the metal counts as nucleated at the left electrode."""
_MARGIN = 2.0
"""Columns from either end within which a wall no longer moves freely."""
_SHORT = 1e-4
"""Time of the step that tells how fast a wall moves."""
_EXACT = "exact_"
_COUNTERS = ("time", "step")
_ENTRIES = {
    "magnetization": ("x", "y", "z"),
    "bond_fractions": ("ferromagnetic", "antiferromagnetic"),
    "puddles": ("count", "mean", "largest"),
}
"""Names of the entries of a vector; those of others are their numbers."""


def frame_series(path: Path) -> dict[str, Array]:
    """All numbers of a trajectory or label file that are one a frame, shape (n,); HpcspinError if it is unreadable.

    Entries of vectors have names of their own: ``magnetization_x``, and ``current_left`` of a reservoir. What was
    measured by exact labels along a learned run, ``/exact_current``, has the name that it has in exact runs. NaN where
    a frame was not labelled.
    """
    found: dict[str, Array] = {}
    with FrameReader(path) as frames:
        reservoirs = _reservoirs(frames.attributes)
        for name in sorted(frames.names, key=lambda name: name.startswith(_EXACT)):
            values = np.asarray(getattr(frames, name), dtype=float) if len(getattr(frames, name).shape) < 3 else None
            if values is None:
                continue
            if values.ndim == 1:
                found.setdefault(name.removeprefix(_EXACT), values)
                continue
            known = reservoirs if name.endswith("current") else _ENTRIES.get(name, ())
            entries = known if len(known) == values.shape[1] else range(values.shape[1])
            for entry, column in zip(entries, values.T, strict=True):
                found.setdefault(f"{name.removeprefix(_EXACT)}_{entry}", column)
    return found


def _reservoirs(attributes: Mapping[str, Any]) -> list[str]:
    electrons = attributes.get("config", {}).get("electrons") or {}
    return [entry["name"] for entry in electrons.get("reservoirs") or ()]


def frame_numbers(path: Path) -> dict[str, float | None]:
    """Numbers of a trajectory, or of a file of labels; raises HpcspinError if it is unreadable.

    Of each series of `frame_series` the mean over the last half of the frames, those of labels over all; of a
    trajectory with walls also those of `wall_numbers`. None where nothing was measured.
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
    """How a wall moved, from times and wall positions, shape (n,), on a lattice of so many columns.

    Returns
    -------
    dict
        ``wall_velocity`` in columns a unit of time, with the error ``wall_velocity_error`` of the fit: a line through
        the frames before the wall comes within two columns of an end, None if there are less than three;
        ``nucleation_time``, at which the position first exceeds 3, None if it never does; ``wall_end``, the last one.
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


def wall_rate(lattice: Lattice, spins: Array, field: Array, damping: float) -> float:
    """Velocity that a field gives to the wall of a texture, dX/dt of the Landau-Lifshitz-Gilbert equation.

    It is linear in the field: rates of the parts of a field add up to that of the whole. Spins and field have the shape
    (Lx, Ly, 3).
    """
    torque = np.cross(spins, field)
    change = -(torque + damping * np.cross(spins, torque)) / (1 + damping**2)
    there, back = ((spins + sign * _SHORT * change) for sign in (1, -1))
    places = [wall_position(lattice, moved / np.linalg.norm(moved, axis=-1, keepdims=True)) for moved in (there, back)]
    return float(places[0] - places[1]) / (2 * _SHORT)
