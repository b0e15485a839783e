"""What figures of a reproduction show of all runs and of all numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hpcspin.drawing import figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    found: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, _: found.append(figure))
    return found


def test_parity_has_room_for_wrong_predictions(drawn: list[Figure]) -> None:
    figures.torque_parity(np.array([0.1, -0.1, 0.0]), np.array([0.1, -0.5, 0.0]), Path("unused.png"))
    (mesh,) = drawn[0].axes[0].collections
    assert np.nansum(np.ma.filled(mesh.get_array(), 0)) == 3


def test_runs_against_time_share_an_entry_of_the_legend_for_each_dynamics(drawn: list[Figure]) -> None:
    curve = np.arange(3.0), np.arange(3.0)
    figures.against_time(8 * [{"exact": curve, "learned": curve}], "wall", Path("unused.png"))
    legend = drawn[0].axes[0].get_legend()
    assert len(drawn[0].axes[0].lines) == 16
    assert [text.get_text() for text in legend.get_texts()] == ["exact", "learned"]
    assert legend.get_title().get_text() == "8 runs, a colour each"
