"""Brillouin zones have the shape of their lattice, and orders are drawn where their wave vectors are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from hpcspin.drawing import lattice_figures
from hpcspin.drawing.lattice_figures import at_times, reciprocal_vectors, site_maps, zone_corners, zone_maps
from hpcspin.lattice import make_lattice, make_texture, structure_factors


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(lattice_figures, "save", lambda figure, _: figures.append(figure))
    return figures


@pytest.mark.parametrize(("kind", "corners"), [("square", 4), ("triangular", 6)])
def test_the_zone_is_a_square_or_a_hexagon_of_the_area_of_a_reciprocal_cell(kind: str, corners: int) -> None:
    lattice = make_lattice(kind, (6, 6), (True, True))
    outline = zone_corners(lattice)
    assert len(outline) == corners
    assert np.ptp(np.linalg.norm(outline, axis=1)) < 1e-9
    x, y = outline.T
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    assert area == pytest.approx((2 * np.pi) ** 2 / abs(np.linalg.det(lattice.primitive_vectors)))


def test_the_corners_of_the_hexagon_are_the_wave_vectors_of_the_120_degree_order() -> None:
    lattice = make_lattice("triangular", (6, 6), (True, True))
    corners = zone_corners(lattice) @ np.linalg.inv(reciprocal_vectors(lattice))
    found = {tuple(np.round(corner % 1, 6)) for corner in corners}
    assert found == {(0.333333, 0.666667), (0.666667, 0.333333)}


def test_orders_are_bright_where_their_wave_vectors_are(drawn: list[Figure]) -> None:
    """The square antiferromagnet in the corners, the tetrahedral order in the middles of the edges."""
    for kind, name, places in (
        ("square", "antiferromagnet", [(math.pi, math.pi), (-math.pi, math.pi)]),
        ("triangular", "tetrahedral", [(0, 2 * math.pi / math.sqrt(3)), (math.pi, math.pi / math.sqrt(3))]),
    ):
        lattice = make_lattice(kind, (6, 6), (True, True))
        factors = structure_factors(lattice, make_texture(name, lattice, 1, tilt=0.0))
        zone_maps(lattice, {name: factors, "nothing": np.zeros(lattice.size)}, Path("unused.png"))
        image = drawn[-1].axes[0].images[0]
        pixels = np.asarray(image.get_array())
        left, right, low, high = image.get_extent()
        rows, columns = pixels.shape
        for x, y in places:
            column = round((0.98 * x - left) / (right - left) * (columns - 1))
            row = round((0.98 * y - low) / (high - low) * (rows - 1))
            assert pixels[row, column] == pytest.approx(factors.max())
        assert pixels[rows // 2, columns // 2] == pytest.approx(0, abs=1e-9)
        assert not np.asarray(drawn[-1].axes[1].images[0].get_array()).any()
        assert drawn[-1].axes[0].axison
        assert drawn[-1].axes[0].get_xlabel() == "$q_x$ (1 / lattice constant)"


def test_sites_are_drawn_at_their_places(drawn: list[Figure]) -> None:
    lattice = make_lattice("triangular", (4, 3), (True, True))
    values = np.arange(12.0).reshape(1, 4, 3) / 12
    site_maps(lattice, at_times(np.array([5.0])), {"exact": values, "learned": -values}, "b", Path("unused.png"))
    (mesh,) = (one for one in drawn[0].axes[1].collections if isinstance(one, QuadMesh))
    corners = mesh.get_coordinates()
    middles = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    np.testing.assert_allclose(middles, lattice.cartesian(lattice.sites))
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(4, 3), -values[0])
    assert drawn[0].axes[0].get_title() == "exact, t = 5 ħ/t"


def test_pictures_of_the_sites_have_a_length_scale_and_a_scale_of_colours(drawn: list[Figure]) -> None:
    lattice, values = make_lattice("square", (30, 12)), np.zeros((2, 30, 12))
    site_maps(lattice, at_times(np.array([0.0, 5.0])), {"exact": values, "learned": values}, "b", Path("unused.png"))
    upper, _, lower, right, colours = drawn[0].axes
    assert all(axis.axison for axis in drawn[0].axes)
    assert [(axis.get_xlabel(), axis.get_ylabel()) for axis in (upper, lower, right)] == [
        ("", "y"),
        ("x (lattice constants)", "y"),
        ("x (lattice constants)", ""),
    ]
    assert (lower.get_xlim(), lower.get_ylim()) == ((-0.5, 29.5), (-0.5, 11.5))
    assert colours.get_ylabel() == "b"


def test_a_scale_of_colours_says_that_numbers_are_beyond_it(drawn: list[Figure]) -> None:
    values = np.ones((1, 4, 3))
    for most in (1 + 1e-15, 1.5):
        values[0, 2, 1] = most
        site_maps(make_lattice("square", (4, 3)), [""], {"exact": values}, "b", Path("unused.png"))
    assert [found.axes[0].collections[0].colorbar.extend for found in drawn] == ["neither", "both"]
