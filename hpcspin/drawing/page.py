"""Parts of a page of HTML that needs no other file: tables, plots, pictures and films.

Whatever comes from a config, a file or its name passes through `_text` or `_json` and cannot become a tag or a script;
the page's content security policy forbids all that is not in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from hpcspin.drawing.style import COLOURS
from hpcspin.lattice import Lattice

Array = NDArray[np.float64]
Curve = tuple[Array, Array]
"""Abscissae and ordinates."""

_LEVELS = 254
"""Number of the last colour of a film; the byte after it stands for a missing number."""
_LONGEST = 40
"""Longest word, in letters, that is kept on one line of a table."""
_ROUNDING = 1e-7
"""Relative changes below which a curve is drawn as a constant."""


def _text(value: object) -> str:
    return escape(str(value))


def _json(value: Any) -> str:
    """A script element of data, in which no character can end the element."""
    letters = json.dumps(value, allow_nan=False)
    for letter in "<>&":
        letters = letters.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json">{letters}</script>'


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table, with or without a line of headings."""
    lines = [f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in head)}</tr>"] if head else []
    lines += [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _cell(content: object) -> str:
    """A cell; only sentences, and words too long for a line, such as checksums, are broken."""
    broken = ' class="long"' if len(str(content)) > _LONGEST else ""
    return f"<td{broken}>{_text(content)}</td>"


def warnings(sentences: Iterable[str]) -> str:
    """A list of warnings."""
    return f'<ul class="warnings">{"".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)}</ul>'


def folded(title: str, content: str) -> str:
    """Text that appears when its title is clicked."""
    return f"<details><summary>{_text(title)}</summary><pre>{_text(content)}</pre></details>"


def plot(title: str, across: str, curves: Mapping[str, Curve], log: bool = False) -> str:
    """An interactive plot of curves, by their names, with gaps where they are not finite; ``across`` names x."""
    data = [
        {"type": "scatter", "mode": "lines" if len(x) > 1 else "markers", "x": _numbers(x), "y": _numbers(y)}
        | {"name": _text(name or title), "showlegend": len(curves) > 1}
        for name, (x, y) in curves.items()
    ]
    layout = {
        "title": {"text": _text(title), "font": {"size": 13}, "x": 0, "xanchor": "left"},
        "margin": {"l": 60, "r": 30, "t": 54, "b": 40},
        "modebar": {"orientation": "v"},
        "colorway": COLOURS,
        "xaxis": {"title": {"text": _text(across)}},
        "yaxis": {"type": "log" if log else "linear", "exponentformat": "power"} | ({} if log else _flat(curves)),
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    }
    return f'<div class="plot">{_json({"data": data, "layout": layout})}</div>'


def _flat(curves: Mapping[str, Curve]) -> dict[str, Any]:
    """The range for ordinates that differ only by rounding, which would otherwise fill the plot."""
    values = np.concatenate([y[np.isfinite(y)] for _, y in curves.values()] or [np.empty(0)])
    scale = np.abs(values).max(initial=0.0)
    if not scale or np.ptp(values) > _ROUNDING * scale:
        return {}
    return {"range": [float(values.mean() - 0.1 * scale), float(values.mean() + 0.1 * scale)]}


def _numbers(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def picture(path: Path) -> str:
    """A PNG file, embedded whole."""
    data = base64.b64encode(path.read_bytes()).decode()
    name = _text(path.stem.replace("_", " "))
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'


def film(
    lattice: Lattice,
    captions: Sequence[str],
    maps: Mapping[str, Array],
    limits: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    coarse: int = 1,
    note: str = "",
) -> str:
    """A film of numbers of each site, with a slider, on a canvas; each cell at its Cartesian place.

    ``maps`` has each quantity by its name, shape (n, cells along x, cells along y), where NaN is left blank, ``limits``
    its numbers of the first and the last colour, and ``colours`` its matplotlib colour map. A cell has ``coarse`` sites
    along each side; the sentence ``note`` stands below the film.
    """
    steps = coarse * lattice.primitive_vectors
    size = next(iter(maps.values())).shape[1:]
    corners = np.array([(0, 0), (size[0], 0), (0, size[1]), size]) @ steps
    left, bottom = corners.min(axis=0)
    right, top = corners.max(axis=0)
    content = {
        "size": size,
        "cell": steps.tolist(),
        "frame": [left, top, right - left, top - bottom],
        "captions": list(captions),
        "quantities": [
            {"name": name, "low": limits[name][0], "high": limits[name][1]}
            | {"data": _base64(_codes(values, *limits[name])), "colours": _base64(_palette(colours[name]))}
            for name, values in maps.items()
        ],
    }
    return (
        '<div class="film"><canvas></canvas>'
        '<div class="scale"><span></span><span class="bar"></span><span></span></div>'
        '<form><select aria-label="quantity"></select><button type="button">play</button>'
        '<input type="range" min="0" value="0" step="1" aria-label="time"><output></output></form>'
        f'<p class="soft">{_text(note)}</p>{_json(content)}</div>'
    )


def _codes(values: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Numbers of the colours, row after row of a canvas: shape (n, cells along y, cells along x)."""
    share = np.clip((np.swapaxes(values, 1, 2) - low) / ((high - low) or 1.0), 0, 1)
    return np.where(np.isfinite(share), np.round(np.nan_to_num(share) * _LEVELS), _LEVELS + 1).astype(np.uint8)


def _palette(name: str) -> NDArray[np.uint8]:
    return np.round(mpl.colormaps[name](np.linspace(0, 1, _LEVELS + 1))[:, :3] * 255).astype(np.uint8)


def _base64(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def page(title: str, about: str, sections: Mapping[str, Sequence[str]], seconds: int | None = None) -> str:
    """The whole page, with a line ``about`` below its title; plots and pictures stand side by side, before tables.

    Sections are parts, as the other functions make them, by their headings. A browser reloads the file after
    ``seconds``.
    """
    body = [f'<h1>{_text(title)}</h1><p class="soft">{_text(about)}</p>']
    for heading, parts in sections.items():
        beside = [part for part in parts if part.startswith(('<div class="plot"', "<figure"))]
        others = "".join(part for part in parts if part not in beside)
        grid = f'<div class="grid">{"".join(beside)}</div>' if beside else ""
        body.append(f"<section><h2>{_text(heading)}</h2>{grid}{others}</section>")
    content = {
        "TITLE": _text(title),
        "REFRESH": f'<meta http-equiv="refresh" content="{seconds}">' if seconds else "",
        "BODY": "\n".join(body),
        "PLOTLY": get_plotlyjs(),
    }
    head, *rest = resources.files(__package__).joinpath("report.html").read_text().split("<!--")
    pieces = (piece.split("-->", 1) for piece in rest)
    return head + "".join(content[name] + after for name, after in pieces)
