"""``hpcspin draw``: films and pictures of a lattice."""

from __future__ import annotations

from pathlib import Path

from hpcspin.drawing.runs import draw_run
from hpcspin.drawing.series import QUANTITIES
from hpcspin.parallel.world import World
from hpcspin.storage import require_absent


def draw(source: Path, quantity: str, output: Path, frames: int, world: World, *, force: bool = False) -> None:
    """Draw a number of each site of a simulation, a name in `QUANTITIES`, by `draw_run`; rank 0 works."""
    if world.rank == 0:
        require_absent(output, force=force)
        count = draw_run(source, QUANTITIES[quantity], output, frames, world)
        world.log_result(f"{output}: {quantity}, {count} frames")
