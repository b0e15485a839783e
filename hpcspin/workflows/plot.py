"""``hpcspin plot``: numbers of one simulation or path, or of two, against time or distance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcspin.drawing.runs import plot_runs
from hpcspin.drawing.series import read_series
from hpcspin.drawing.style import PICTURES, require_ending
from hpcspin.parallel.world import World
from hpcspin.storage import require_absent


def plot(sources: Sequence[Path], output: Path, world: World, *, force: bool = False) -> None:
    """Draw what one or two simulations or paths have measured, over each other with their difference; rank 0 works."""
    require_ending(output, PICTURES)
    if world.rank == 0:
        require_absent(output, force=force)
        runs = [read_series(source) for source in sources]
        plot_runs(runs, output)
        world.log_result(f"{output}: {' and '.join(str(source) for source in sources)} against the {runs[0].axis}")
