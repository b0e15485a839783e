"""One run an output, on all ranks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcspin.parallel.world import World
from hpcspin.storage import OutputLock, make_directory


@contextmanager
def sole_writer(output: Path, world: World, *, directory: bool = True) -> Iterator[None]:
    """Keep other runs from an output within a block; all ranks enter together, and rank 0 has the lock.

    Parameters
    ----------
    output
        Directory, which is made, or file.
    world
        The ranks.
    directory
        Which of both it is.

    Raises
    ------
    HpcspinError
        If another run writes there.
    """

    def end(message: str) -> None:
        with suppress(OSError):
            print(f"hpcspin: {message}", file=sys.stderr, flush=True)
        world.abort(1)

    lock = None
    if world.rank == 0:
        make_directory(output if directory else output.parent)
        lock = OutputLock(output, end)
        lock.acquire()
    try:
        world.barrier()
        yield
    finally:
        if lock is not None:
            lock.release()
