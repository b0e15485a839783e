"""Curves of a sweep: quantities against a key, the voltage or the time, averaged over seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcspin.analysis.series import Estimate
from hpcspin.drawing.series import labelled
from hpcspin.drawing.style import plain, save

Row = Mapping[str, Any]
LABELS = {
    "electrons.exchange": "exchange J (t)",
    "electrons.filling": "electrons per site",
    "electrons.hopping": "hopping (t)",
    "electrons.on_site": "energy of a site (t)",
    "electrons.potential": "chemical potential (t)",
    "electrons.rashba": "Rashba coupling (t)",
    "electrons.temperature": "temperature of the electrons (t)",
    **{f"dynamics.classical.zeeman.{number}": f"field along {axis} (t)" for number, axis in enumerate("xyz")},
    "dynamics.damping": "damping",
    "dynamics.duration": "duration (ħ/t)",
    "dynamics.step": "time step (ħ/t)",
    "dynamics.temperature": "temperature of the spins (t)",
    "voltage": "voltage eV (t)",
    "time": "time (ħ/t)",
    "wall_velocity": "wall velocity (columns per ħ/t)",
    "wall_position": "wall position (columns)",
    "wall_end": "last wall position (columns)",
    "nucleation_time": "nucleation time (ħ/t)",
    "mse": "mean squared error (t²)",
}
"""Words with units for columns of the table of a sweep; `in_words` has others."""
_RISING, _FALLING = "rising", "falling"
_STYLES = {"": ("o-", 3), _RISING: ("^-", 4), _FALLING: ("v--", 4)}
"""Marker, line and size of a marker by the direction of a chain, which is empty for runs that are not chained."""


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve."""

    quantity: str
    line: str
    """Name of the curve that it belongs to."""
    stage: int
    """Number of the run in a chain; 0 for runs that are not chained."""
    x: Any
    """Abscissa: a number, or of a key that has not only numbers its value in words."""
    mean: float | None
    """Mean over the runs; None unless every run has the quantity: the mean over those that have, say, nucleated would
    be too small."""
    error: float | None
    """Standard error of the mean; of a single run the error that it tells itself, if it does."""
    runs: int
    """Number of runs that have the quantity."""
    of: int
    """Number of all runs."""


def make_point(
    quantity: str, line: str, stage: int, x: Any, values: Sequence[float | None], own_error: float | None = None
) -> CurvePoint:
    """The mean over some runs, whose value is None where the quantity was not reached.

    ``own_error`` is the error of the value of a single run, such as that of a line fitted to its wall.
    """
    finite = [value for value in values if value is not None and np.isfinite(value)]
    mean = Estimate.of(finite) if len(finite) == len(values) else None
    if mean and len(values) == 1:
        mean = Estimate(mean.mean, own_error)
    return CurvePoint(
        quantity, line, stage, x, mean.mean if mean else None, mean.error if mean else None, len(finite), len(values)
    )


def against_key(rows: Sequence[Row], keys: Sequence[str], against: str, quantities: Sequence[str]) -> list[CurvePoint]:
    """Points of quantities that have one number per run, sorted along each curve: by stage, else by the abscissa.

    The rows have the varied keys of each run, its ``stage`` in a chain and its numbers; ``keys`` are the varied keys
    that tell the curves apart. An abscissa in words stays in the order of the rows.
    """
    groups: dict[tuple[str, int, Any], list[Row]] = {}
    numbers = all(isinstance(row[against], int | float) for row in rows)
    for row in rows:
        x = float(row[against]) if numbers else str(row[against])
        groups.setdefault((line_name(row, keys), row["stage"], x), []).append(row)
    return [
        make_point(quantity, line, stage, x, [row.get(quantity) for row in group], group[0].get(f"{quantity}_error"))
        for quantity in quantities
        for (line, stage, x), group in sorted(groups.items(), key=lambda item: item[0] if numbers else item[0][:2])
    ]


def against_time(
    rows: Sequence[Row], keys: Sequence[str], quantities: Sequence[str], series: Callable[[Row], Mapping[str, Any]]
) -> list[CurvePoint]:
    """Points of quantities that have one number per frame, at the times that any run of a curve has recorded.

    ``series`` returns the series of a run, including its ``time``; for the other arguments see `against_key`.
    """
    values: dict[tuple[str, str, int, float], list[float | None]] = {}
    for row in rows:
        frames = series(row)
        for quantity in quantities:
            for time, value in zip(frames["time"], frames.get(quantity, ()), strict=False):
                if np.isfinite(value):
                    place = (quantity, line_name(row, keys), row["stage"], round(float(time), 9))
                    values.setdefault(place, []).append(float(value))
    return [make_point(*place, found) for place, found in sorted(values.items(), key=lambda item: item[0])]


def line_name(row: Row, keys: Sequence[str]) -> str:
    """Name of the curve that a run belongs to: words, or else the last words, of the keys, and their values."""
    names = {key: key.rsplit(".", 1)[-1] if (words := in_words(key)) == key else words for key in keys}
    return ", ".join(f"{name} {row[key]}" for key, name in names.items() if row[key] is not None)


def in_words(name: str) -> str:
    """Words with the unit for a quantity or a key of the config; a key that has none is left as it is."""
    if match := re.fullmatch(r"electrons\.reservoirs\.(.+)\.(potential|width)", name):
        return f"{match[2]} of {match[1]} (t)"
    return LABELS.get(name) or (name if "." in name else labelled(name))


def draw_curves(points: Sequence[CurvePoint], against: str, path: Path) -> None:
    """Draw curves with their standard errors, one panel per quantity, telling both directions of a chain apart."""
    quantities = list(dict.fromkeys(point.quantity for point in points))
    figure = Figure(figsize=(4.6 * len(quantities), 3.4), layout="constrained")
    for axis, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
        of = [point for point in points if point.quantity == quantity and point.mean is not None]
        for number, (name, curve) in enumerate(_curves(of)):
            _draw_curve(axis, name, curve, against, f"C{number}")
        if of and isinstance(of[0].x, str):
            axis.tick_params(axis="x", labelrotation=20)
        axis.set(xlabel=plain(in_words(against)), ylabel=plain(in_words(quantity)))
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False, fontsize=7)
    save(figure, path)


def _curves(points: Sequence[CurvePoint]) -> Iterator[tuple[str, list[CurvePoint]]]:
    """Curves and their names: the stages of a chain are one if each has one point, such as its voltage, else several.

    At several times, say, a chain that returns to a voltage has two curves of it.
    """
    for line, mine in groupby(points, key=lambda point: point.line):
        stages = [list(some) for _, some in groupby(mine, key=lambda point: point.stage)]
        if len(stages) == 1 or all(len(stage) == 1 for stage in stages):
            yield line, [point for stage in stages for point in stage]
        else:
            yield from ((_joined(line, f"stage {stage[0].stage}"), stage) for stage in stages)


def _draw_curve(axis: Axes, name: str, points: Sequence[CurvePoint], against: str, color: str) -> None:
    named = set[str]()
    for direction, piece in _pieces(points):
        label = _joined(name, direction)
        x, mean = (np.array([getattr(point, of) for point in piece]) for of in ("x", "mean"))
        error = np.array([point.error or 0.0 for point in piece])
        look: dict[str, Any] = {"color": color, "linewidth": 1, "label": "" if label in named else label}
        named.add(label)
        if against == "time":
            axis.plot(x, mean, **look)
            axis.fill_between(x, mean - error, mean + error, color=color, alpha=0.3, linewidth=0)
        else:
            style, size = _STYLES[direction]
            fmt = style if x.dtype.kind == "f" else "o"  # Nothing lies between two words.
            axis.errorbar(x, mean, error, fmt=fmt, markersize=size, capsize=2, **look)


def _pieces(points: Sequence[CurvePoint]) -> Iterator[tuple[str, Sequence[CurvePoint]]]:
    """Directions of a chain and its points on the way; the point at which it turns belongs to both ways."""
    if points[0].stage == points[-1].stage or isinstance(points[0].x, str):
        yield "", points
        return
    first = 0
    for direction, steps in groupby(pairwise(points), key=lambda step: _FALLING if step[1].x < step[0].x else _RISING):
        last = first + len(list(steps))
        yield direction, points[first : last + 1]
        first = last


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)
