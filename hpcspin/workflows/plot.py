"""``hpcspin plot``: numbers of one simulation or path, or of two, against time or distance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcspin.drawing.runs import plot_runs
from hpcspin.drawing.series import read_series
from hpcspin.drawing.style import PICTURES, require_ending
from hpcspin.parallel.world import World


def plot(sources: Sequence[Path], output: Path, world: World) -> None:
    """Draw what simulations have measured, two in the same panels with their difference; rank 0 does the work.

    Parameters
    ----------
    sources
        One or two directories of simulations or paths, or trajectories, finished or not.
    output
        PNG, PDF or SVG to write.
    world
        The ranks.

    Raises
    ------
    HpcspinError
        If one has no frame, the file has another ending, or two have nothing in common.
    """
    require_ending(output, PICTURES)
    if world.rank == 0:
        runs = [read_series(source) for source in sources]
        plot_runs(runs, output)
        world.log_result(f"{output}: {' and '.join(str(source) for source in sources)} against the {runs[0].axis}")
