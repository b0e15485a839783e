"""Pictures and films of simulations: numbers against time, and maps of the lattice."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcspin.assembly.system import lattice_of
from hpcspin.drawing.lattice_figures import draw_cells, site_maps
from hpcspin.drawing.series import Array, Curves, Quantity, Series, caption, some_frames
from hpcspin.drawing.style import PICTURES, plain, require_ending, save
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.storage import FrameReader, trajectory_file, write_bytes

_SHOWN = 5
"""Frames of a run in a picture."""
_FRAMES_A_SECOND = 12
_STYLES = ("-", "--")


def difference(first: Series, second: Series) -> tuple[Array, Curves]:
    """The second run minus the first one at the times that both have recorded."""
    times, mine, other = np.intersect1d(first.time, second.time, return_indices=True)
    found = {
        what: {name: second.curves[what][name][other] - one[mine] for name, one in named.items() if name in others}
        for what, named in first.curves.items()
        if (others := second.curves.get(what))
    }
    return times, {what: curves for what, curves in found.items() if curves}


def plot_runs(runs: Sequence[Series], path: Path) -> None:
    """Draw what runs have measured, in rows; two in the same panels, beside their difference, second minus first."""
    rows = list(dict.fromkeys(what for run in runs for what in run.curves))
    figure = Figure(figsize=(4.8 * len(runs), 2.0 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(runs), squeeze=False, sharex="col")
    for what, axis in zip(rows, axes[:, 0], strict=True):
        for run, style in zip(runs, _STYLES, strict=False):
            _draw_curves(axis, run.time, run.curves.get(what, {}), style)
        axis.set(ylabel=plain(what))
    if len(runs) > 1:
        time, apart = difference(*runs)
        if not len(time) or not apart:
            names = " and ".join(run.name for run in runs)
            raise HpcspinError(f"{names}: have recorded nothing at the same times; plot them one by one")
        first, second = (plain(run.name) for run in runs)
        axes[0, 0].set_title(f"full lines: {first}, broken: {second}", fontsize=9)
        axes[0, 1].set_title(f"{second} − {first}", fontsize=9)
        for what, axis in zip(rows, axes[:, 1], strict=True):
            if what not in apart:
                axis.set_yticks([])
                axis.text(0.5, 0.5, "recorded in one run only", ha="center", transform=axis.transAxes)
                continue
            axis.axhline(0, color="black", linewidth=0.6)
            _draw_curves(axis, time, apart[what], _STYLES[0])
    for axis in axes[-1]:
        axis.set(xlabel=runs[0].axis)
    save(figure, path)


def _draw_curves(axis: Axes, time: Array, curves: Mapping[str, Array], style: str) -> None:
    for number, (name, values) in enumerate(curves.items()):
        label = plain(name) if style == _STYLES[0] and len(curves) > 1 else None
        axis.plot(time, values, style, color=f"C{number}", label=label, linewidth=1)
    if len(curves) > 1:
        axis.legend(fontsize=7)


def draw_run(source: Path, quantity: Quantity, path: Path, most: int, world: World) -> int:
    """Draw a number of each site, as five frames below each other or as a film; rank 0 alone calls it.

    The ending of the path tells the format: PNG, PDF, SVG, a GIF of at most ``most`` frames or, if ffmpeg is installed,
    MP4. Returns the number of frames drawn. Raises HpcspinError if the run has no frame or has not recorded the
    quantity.
    """
    require_ending(path, (".gif", ".mp4", *PICTURES))
    trajectory = trajectory_file(source)
    lattice = lattice_of(trajectory)
    with FrameReader(trajectory) as frames:
        if not len(frames) or not quantity.there(frames):
            raise HpcspinError(f"{trajectory}: holds no frame with a {quantity.name}; draw another quantity")
        chosen = some_frames(len(frames), _SHOWN if path.suffix in PICTURES else most)
        maps = np.stack([quantity.measure(lattice, frames, number) for number in chosen])
        captions = [caption(frames, number) for number in chosen]
    limits = quantity.limits(maps)
    if path.suffix in PICTURES:
        site_maps(lattice, captions, {plain(source.name): maps}, quantity.label, path, limits, quantity.colours)
    else:
        _write_film(lattice, captions, maps, quantity, path, world)
    return len(chosen)


def _write_film(
    lattice: Lattice, captions: Sequence[str], maps: Array, quantity: Quantity, path: Path, world: World
) -> None:
    writer: AbstractMovieWriter = PillowWriter(_FRAMES_A_SECOND)
    if path.suffix == ".mp4":
        if not FFMpegWriter.isAvailable():
            raise HpcspinError(f"{path}: there is no ffmpeg to write MP4; install it, or write a .gif")
        # Players in browsers and on telephones want even sides and this colour format.
        even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
        writer = FFMpegWriter(_FRAMES_A_SECOND, extra_args=even)
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    axis = figure.subplots()
    image = draw_cells(axis, lattice, maps[0], quantity.limits(maps), quantity.colours)
    figure.colorbar(image, ax=axis, label=quantity.label, shrink=0.8)
    with tempfile.TemporaryDirectory() as directory, progress(world, "draw", len(maps)) as bar:
        unfinished = Path(directory) / path.name
        with writer.saving(figure, unfinished, dpi=120):
            for now, values in zip(captions, maps, strict=True):
                image.set_array(values)
                axis.set_title(now)
                writer.grab_frame()
                bar.advance()
        write_bytes(path, unfinished.read_bytes())
