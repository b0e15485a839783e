"""What a user has named can become no tag and no script; films hold the colours of their numbers."""

from __future__ import annotations

import base64
import json
import re
from html import unescape

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcspin.drawing import page
from hpcspin.lattice import make_lattice

UNSAFE = re.compile(r"[<>]|&(?!(amp|lt|gt|quot|#x27);)")


def data_of(part: str) -> dict:
    """The JSON in a part."""
    (content,) = re.findall(r'<script type="application/json">(.*?)</script>', part, re.DOTALL)
    assert not UNSAFE.search(content)
    return json.loads(content)


@given(st.text())
@example(41 * "0")
def test_a_cell_says_what_it_was_given_and_holds_no_tag(text: str) -> None:
    (cell,) = re.findall(r'<td(?: class="long")?>(.*?)</td>', page.table([[text]]), re.DOTALL)
    assert not UNSAFE.search(cell)
    assert unescape(cell) == text


@given(st.text())
def test_a_curve_is_named_as_it_was_given_and_ends_no_script(text: str) -> None:
    part = page.plot("title", "time", {text: (np.zeros(2), np.array([1.0, np.nan]))})
    (curve,) = data_of(part)["data"]
    assert unescape(curve["name"]) == (text or "title")
    assert curve["y"] == [1.0, None]


@pytest.mark.parametrize(("kind", "frame"), [("square", [0, 2, 4, 2]), ("triangular", [0, 3**0.5, 5, 3**0.5])])
def test_a_film_holds_each_number_as_the_byte_of_its_colour(kind: str, frame: list[float]) -> None:
    lattice = make_lattice(kind, (4, 2), (False, False))
    numbers = np.array([[-1.0, 1.0], [0.0, np.nan], [9.0, -9.0], [0.5, 0.25]])[None]
    content = data_of(page.film(lattice, ["t = 0"], {"bonds": numbers}, {"bonds": (-1.0, 1.0)}, {"bonds": "RdBu_r"}))
    assert content["frame"] == pytest.approx(frame)
    (bonds,) = content["quantities"]
    # Rows of a canvas run along x.
    codes = np.frombuffer(base64.b64decode(bonds["data"]), np.uint8).reshape(2, 4)
    np.testing.assert_array_equal(codes, [[0, 127, 254, 190], [254, 255, 0, 159]])
    colours = np.frombuffer(base64.b64decode(bonds["colours"]), np.uint8).reshape(-1, 3)
    assert colours[0, 2] > 2 * colours[0, 0]
    assert colours[254, 0] > 2 * colours[254, 2]


def test_a_page_has_its_parts_in_place_and_allows_nothing_from_outside() -> None:
    text = page.page("<a> & b", "about", {"Heading": ["<p>part <!--BODY--></p>"]}, 5)
    assert "<title>&lt;a&gt; &amp; b</title>" in text
    assert "<p>part <!--BODY--></p>" in text
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "default-src 'none'" in text
    assert "refresh" not in page.page("a", "b", {}).partition("<style>")[0]
    assert not re.search(r"<(script|img|link|iframe)[^>]*(src|href)=\W*(https?:)?//", text)
