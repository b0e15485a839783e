"""The look of all figures, and the formats in which they are written."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from hpcspin.errors import HpcspinError
from hpcspin.storage import write_bytes

COLOURS = [
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
]  # fmt: skip
"""Colours of curves, which the colour-blind tell apart: M. A. Petroff, arXiv:2107.02270."""

mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "savefig.dpi": 160,
        "savefig.bbox": "tight",
        # Text in PDF and SVG stays text, as journals require.
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
    }
)

BLUE = "#1f4e79"
PICTURES = (".png", ".pdf", ".svg")


def require_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file name whose ending is not one of these, with an HpcspinError that names them."""
    if path.suffix not in endings:
        raise HpcspinError(f"{path}: the ending determines the format; end it with {', '.join(endings)}")


def plain(name: str) -> str:
    """A name from a file, or of one, escaped for a figure: a dollar sign in it does not begin a formula."""
    return name.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, PDF or SVG, by the ending of its name."""
    require_ending(path, PICTURES)
    image = BytesIO()
    figure.savefig(image, format=path.suffix[1:])
    write_bytes(path, image.getvalue())
