"""The film of a report: the frames of a file, averaged over squares of sites where the lattice is large."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from hpcspin.assembly.system import lattice_of
from hpcspin.drawing import page
from hpcspin.drawing.series import QUANTITIES, Array, caption, some_frames
from hpcspin.storage import FrameReader

_FRAMES = 120
_CELLS = 1_200_000
"""Largest number of frames times cells of a film."""


def film_of(path: Path) -> str:
    """A film of a file's frames; snapshots without a time are numbered."""
    lattice = lattice_of(path)
    with FrameReader(path) as frames:
        if not len(frames):
            return page.warnings([f"{path.name}: holds no frame yet"])
        chosen = some_frames(len(frames), _FRAMES)
        captions = [caption(frames, number) for number in chosen]
        coarse = math.ceil(math.sqrt(len(chosen) * lattice.num_sites / _CELLS))
        shown = [one for one in QUANTITIES.values() if one.there(frames)]
        maps = {
            one.name: np.stack([averaged(one.measure(lattice, frames, number), coarse) for number in chosen])
            for one in shown
        }
    limits = {one.name: one.limits(maps[one.name]) for one in shown}
    note = f"Each cell is the mean of {coarse}×{coarse} sites." if coarse > 1 else ""
    colours = {one.name: one.colours for one in shown}
    return page.film(lattice, captions, maps, limits, colours, coarse, note)


def averaged(values: Array, coarse: int) -> Array:
    """Means over squares of sites, NaN where no site has a number; the last square of a side may be smaller."""
    if coarse == 1:
        return values
    padded = np.pad(values, [(0, -length % coarse) for length in values.shape], constant_values=np.nan)
    squares = padded.reshape(padded.shape[0] // coarse, coarse, padded.shape[1] // coarse, coarse)
    number = np.isfinite(squares).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(squares, axis=(1, 3)) / number)
