"""Where the time of a rank goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcspin.parallel.world import World

PACKING, WAITING = "packing", "waiting"


class Stopwatch:
    """Seconds that one rank spends packing messages and waiting for the others; all else is computing."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Set all times to zero."""
        self._seconds = {PACKING: 0.0, WAITING: 0.0}
        self._start = time.perf_counter()

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Count a block as `PACKING` or `WAITING`."""
        start = time.perf_counter()
        yield
        self._seconds[what] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Seconds of ``computing``, ``packing`` and ``waiting`` since the last restart; they add up to all of it."""
        elapsed = time.perf_counter() - self._start
        return {"computing": elapsed - sum(self._seconds.values()), **self._seconds}


def report(stopwatch: Stopwatch, world: World, path: Path, write: Callable[[Path, Any], None]) -> None:
    """Write the times of all ranks as JSON, a list in rank order, and log the means in one line; all ranks call it."""
    ranks = world.gather(stopwatch.read())
    if ranks is None:
        return
    write(path, ranks)
    total = sum(sum(rank.values()) for rank in ranks)
    shares = ", ".join(f"{sum(rank[name] for rank in ranks) / total:.1%} {name}" for name in ranks[0])
    world.log(f"time of {len(ranks)} rank{'s' * (len(ranks) > 1)}: {shares}; each rank's in {path}")
