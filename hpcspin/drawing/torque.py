"""Figures of the spin-transfer torque."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpcspin.drawing.style import save

Array = NDArray[np.float64]
LABELS = {
    "voltage": "voltage V (t)",
    "angle": "angle to the polarisation (degrees)",
    "damping_like": "damping-like a per row (t)",
    "field_like": "field-like b per row (t)",
    "current": "current per row (t/ħ)",
    "torque_error": "largest error of an exact a or b (t)",
    "current_error": "largest error of the current (t/ħ)",
    "growth": "largest growth rate (t/ħ)",
    "growth_error": "largest error of an exact growth rate (t/ħ)",
    "leaves": "leaves its direction",
    "switching_time": "time to switch (ħ/t)",
    "last_along_start": "mean spin along its start, at the end",
}
"""Labels, with units, of the columns of ``torque.csv``, ``switching.csv`` and ``runs.csv``."""
_STYLES = {"exact": "-", "learned": "o", "macrospin": ":"}
_NAMES = {"macrospin": "rigid magnet"}


def _shades(voltages: Iterable[float]) -> dict[float, Any]:
    """Colours of voltages, from dark to light in their order."""
    ordered = sorted(set(voltages))
    return dict(zip(ordered, colormaps["viridis"](np.linspace(0, 0.9, len(ordered))), strict=True))


def draw_torque(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Damping-like torque, field-like torque and current, each per row, against the angle, one colour per voltage."""
    figure = Figure(figsize=(12.6, 3.4), layout="constrained")
    panels = ("damping_like", "field_like", "current")
    colours = _shades(row["voltage"] for row in rows)
    for axis, key in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for field, voltage in dict.fromkeys((row["field"], row["voltage"]) for row in rows):
            curve = [(r["angle"], r[key]) for r in rows if (r["field"], r["voltage"]) == (field, voltage)]
            if key != "current" or field == "exact":
                axis.plot(
                    *np.array(curve).T, _STYLES[field], color=colours[voltage], label=f"{field}, V = {voltage:g} t"
                )
        axis.set(xlabel=LABELS["angle"], ylabel=LABELS[key])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    save(figure, path)


def draw_switching(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Largest growth rate of a deviation against the voltage."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axis = figure.subplots()
    for field in dict.fromkeys(row["field"] for row in rows):
        curve = [(row["voltage"], row["growth"]) for row in rows if row["field"] == field]
        axis.plot(*np.array(curve).T, _STYLES[field], label=_NAMES.get(field, field))
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(xlabel=LABELS["voltage"], ylabel=LABELS["growth"])
    axis.legend()
    save(figure, path)


def draw_runs(curves: Sequence[tuple[str, float, Array, Array]], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How a magnet leaves its direction against time, one colour per voltage, and the time of switching.

    The curves are field, voltage, times, and the mean of the spins along the direction that they start near.
    """
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = _shades(voltage for _, voltage, *_ in curves)
    for field, voltage, time, along in sorted(curves, key=lambda curve: abs(curve[1])):
        label = f"V = {voltage:.3g} t" if field == "exact" else None
        left.plot(time, along, color=colours[voltage], linestyle="-" if field == "exact" else "--", label=label)
    left.set(xlabel="time (ħ/t)", ylabel="mean spin along its start (learned: dashed)")
    left.legend(fontsize=7)
    for field in dict.fromkeys(row["field"] for row in rows):
        points = [(r["voltage"], r["switching_time"]) for r in rows if r["field"] == field and r["switching_time"]]
        right.plot(*np.array(points).reshape(-1, 2).T, "s" if field == "exact" else "x", label=field)
    if not any(row["switching_time"] for row in rows):
        right.text(0.5, 0.5, "none has switched", ha="center", transform=right.transAxes)
    # All voltages and times of the runs: a magnet that has not turned has no point.
    right.update_datalim([(voltage, time[end]) for _, voltage, time, _ in curves for end in (0, -1)])
    right.autoscale_view()
    right.set(xlabel=LABELS["voltage"], ylabel=LABELS["switching_time"])
    right.legend()
    save(figure, path)
