"""What a recorded frame costs, and what compressing a trajectory gains.

    mpiexec -n 2 python perf/benchmark.py storage [--output perf/results/storage.json]

The root writes the gathered frame, or each rank writes its block to a file of its own; both with a flush to the disk.
The share of the gather says what the second could save on one disk.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from shared import parser_of

from hpcspin.dynamics import DynamicsSettings, Heisenberg, Simulation
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.storage import provenance

SIDES, REPEATS = (512, 1024), 5


def seconds(world: World, work: Callable[[], Any]) -> float:
    """Median time until all ranks are done."""
    times = []
    for _ in range(REPEATS):
        world.barrier()
        start = time.perf_counter()
        work()
        world.barrier()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def write(path: Path, block: np.ndarray) -> None:
    """One contiguous dataset, flushed to the disk."""
    with h5py.File(path, "w") as file:
        file["spins"] = block
        file.flush()
        os.fsync(file.id.get_vfd_handle())


def frame(world: World, side: int, folder: Path) -> dict[str, float]:
    """Seconds of a frame of side x side spins: gathered, gathered and written, written by each rank."""
    domain = Domain.cut(make_lattice("square", (side, side)), world, (1, 1))
    block = torch.rand((*domain.shape, 3), dtype=torch.float64)

    def root() -> None:
        whole = domain.gather(block)
        if whole is not None:
            write(folder / "root.h5", whole)

    return {
        "gather": seconds(world, lambda: domain.gather(block)),
        "root": seconds(world, root),
        "each_rank": seconds(world, lambda: write(folder / f"rank{world.rank}.h5", block.numpy())),
    }


def compression(folder: Path) -> dict[str, dict[str, float]]:
    """Size against no filter and seconds to finish, for an ordered start that a warm bath disorders."""
    measured = {}
    lattice = make_lattice("square", (128, 128))
    spins = make_texture("wall", lattice, 1, position=64, tilt=0.1)
    for name in (None, "lzf", "gzip"):
        settings = DynamicsSettings(
            damping=0.2, temperature=0.05, step=0.05, duration=2.0, record_interval=2, compression=name
        )
        start = time.perf_counter()
        Simulation(lattice, Heisenberg(-1.0), spins, settings, folder / str(name), config={}).run()
        size = (folder / str(name) / "trajectory.h5").stat().st_size
        measured[str(name)] = {"bytes": size, "seconds": time.perf_counter() - start}
    return measured


def main() -> None:
    """Measure and write the JSON."""
    parser = parser_of(__doc__, "storage.json")
    arguments = parser.parse_args()
    world = World.detect()
    folder = Path(world.broadcast(tempfile.mkdtemp(dir=".") if world.rank == 0 else None))
    results: dict[str, Any] = {"provenance": provenance(), "ranks": world.size}
    results["frames"] = {f"{side}x{side}": frame(world, side, folder) for side in SIDES}
    if world.rank == 0:
        results["compression"] = compression(folder)
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(results, indent=2))
    world.barrier()
    if world.rank == 0:
        shutil.rmtree(folder)
    world.finish()


if __name__ == "__main__":
    main()
