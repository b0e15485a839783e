"""Curves of a sweep: which points a line joins, and what the legend says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from hpcspin.drawing import curves
from hpcspin.drawing.curves import against_key, draw_curves, line_name, make_point

Drawn = dict[str, list[list[float]]]


def drawn(monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, int, float]], against: str) -> Drawn:
    """Abscissae of the lines of each entry of the legend; lines without an entry have the one of their style."""
    figures = list[Figure]()
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure))
    draw_curves([make_point("q", *row, [1.0, 2.0]) for row in rows], against, Path("curves.png"))
    axis = figures[0].axes[0]
    legend = axis.get_legend()
    handles, labels = axis.get_legend_handles_labels()
    assert labels == [text.get_text() for text in legend.get_texts()] if legend else not labels
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    styles = {look(line): label for line, label in zip(lines, labels, strict=True)}
    found: Drawn = {}
    for line in axis.lines:
        if line.get_linestyle() != "None":  # Caps of error bars are lines too.
            found.setdefault(styles.get(look(line), ""), []).append(np.asarray(line.get_xdata()).tolist())
    return found


def look(line: Any) -> tuple[Any, ...]:
    return line.get_color(), line.get_linestyle(), line.get_marker()


def test_a_chain_that_turns_has_a_style_for_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turning point ends one way and begins the other; a second rise is drawn as the first."""
    loop = [("", stage, x) for stage, x in enumerate([0.0, 1.0, 2.0, 1.0, 0.0, 1.0])]
    assert drawn(monkeypatch, loop, "voltage") == {"rising": [[0, 1, 2], [0, 1]], "falling": [[2, 1, 0]]}
    two = [(f"K {k}", stage, x) for k in (1, 2) for stage, x in enumerate([0.0, 1.0, 0.0])]
    ways = {f"K {k}, {way}": [x] for k in (1, 2) for way, x in (("rising", [0, 1]), ("falling", [1, 0]))}
    assert drawn(monkeypatch, two, "voltage") == ways


def test_runs_that_are_not_chained_have_no_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, [("", 0, 1.0), ("", 0, 2.0)], "voltage") == {"": [[1, 2]]}
    assert drawn(monkeypatch, [("K 1", 0, 1.0), ("K 1", 0, 2.0)], "voltage") == {"K 1": [[1, 2]]}


def test_stages_of_a_chain_at_one_value_are_not_joined_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("eV 1", stage, x) for stage in (1, 3) for x in (0.0, 4.0)]
    assert drawn(monkeypatch, rows, "time") == {"eV 1, stage 1": [[0, 4]], "eV 1, stage 3": [[0, 4]]}


@pytest.mark.parametrize(
    ("quantity", "label"),
    [
        ("current_left", "current out of left (t/ħ)"),
        ("wall_velocity", "wall velocity (columns per ħ/t)"),
        ("magnetization_x", "magnetization x"),
        ("energy_error", "energy error (t)"),
        ("mse", "mean squared error (t²)"),
        ("best_epoch", "best epoch"),
    ],
)
def test_quantities_are_called_by_words_with_their_unit(
    monkeypatch: pytest.MonkeyPatch, quantity: str, label: str
) -> None:
    figures = list[Figure]()
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure))
    draw_curves([make_point(quantity, "", 0, 1.0, [1.0])], "voltage", Path("curves.png"))
    assert figures[0].axes[0].get_ylabel() == label


@pytest.mark.parametrize(
    ("against", "label"),
    [
        ("electrons.reservoirs.left.potential", "potential of left (t)"),
        ("dynamics.classical.zeeman.2", "field along z (t)"),
        ("electrons.temperature", "temperature of the electrons (t)"),
        ("current_left", "current out of left (t/ħ)"),
        ("training.batch", "training.batch"),
    ],
)
def test_the_axis_has_words_with_its_unit_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, against: str, label: str
) -> None:
    figures = list[Figure]()
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure))
    draw_curves([make_point("mse", "", 0, 1.0, [1.0])], against, Path("curves.png"))
    assert figures[0].axes[0].get_xlabel() == label


def test_a_single_run_has_the_error_that_it_tells_and_several_have_that_of_their_mean() -> None:
    rows = [{"stage": 0, "voltage": 1.0, "wall_velocity": value, "wall_velocity_error": 0.3} for value in (1.0, 2.0)]
    one, two = (against_key(some, (), "voltage", ["wall_velocity", "mean_bond"]) for some in (rows[:1], rows))
    assert [point.error for point in one] == [0.3, None]
    assert (two[0].mean, two[0].error) == (1.5, 0.5)


def test_curves_are_named_by_words_for_the_keys_that_tell_them_apart() -> None:
    left = "electrons.reservoirs.left.potential"
    row = {left: -3.2, "dynamics.field": "learned", "dynamics.exact_interval": None}
    assert line_name(row, list(row)) == "potential of left (t) -3.2, field learned"
