"""``hpcspin draw``: films and pictures of a lattice."""

from __future__ import annotations

from pathlib import Path

from hpcspin.drawing.runs import draw_run
from hpcspin.drawing.series import QUANTITIES
from hpcspin.parallel.world import World


def draw(source: Path, quantity: str, output: Path, frames: int, world: World) -> None:
    """Draw a number of each site of a simulation; rank 0 does the work.

    Parameters
    ----------
    source, output, frames
        See `draw_run`.
    quantity
        A name in `QUANTITIES`.
    world
        The ranks.

    Raises
    ------
    HpcspinError
        As `draw_run` does.
    """
    if world.rank == 0:
        count = draw_run(source, QUANTITIES[quantity], output, frames, world)
        world.log_result(f"{output}: {quantity}, {count} frames")
