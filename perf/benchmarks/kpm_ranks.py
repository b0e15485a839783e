"""Kernel polynomials on two ranks: the probing vectors divided, and the sites, beside one rank.

    python perf/benchmark.py kpm_ranks [--output perf/results/kpm_ranks.json]

One thread a rank; wall seconds of one gradient of the metal of the benchmark `kpm` with s = 8 and 64 moments, the three
ways in turn within one job, the least of several. The second rank waits while the first works alone. All give the same
bits, which is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import torch
from kpm import case
from shared import parser_of

from hpcspin.electrons.kpm_estimates import KpmEstimate, Probing
from hpcspin.electrons.kpm_host import HostRecursion, host_pairs
from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases
from hpcspin.electrons.kpm_recursion import scaled_hamiltonian
from hpcspin.electrons.kpm_series import Expansion, spectral_interval
from hpcspin.electrons.kpm_strips import Strip
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import provenance, write_json

SIZES, MOMENTS = (32, 64, 128, 256), 64
SECONDS, MOST_REPEATS = 5.0, 9
"""About how long the first rank alone works in the repetitions of one size."""


def ways(size: int, world: World) -> dict[str, Callable[[], KpmEstimate]]:
    """One gradient by the first rank alone, by ranks that share the vectors, and by ranks that share the sites."""
    system, spins, kernel = case("metal", size)
    interval, sites = spectral_interval(system), system.lattice.num_sites
    series = Expansion(interval, system.temperature, MOMENTS, kernel)
    groups = probe_groups(colouring(system.lattice, 8), random_phases(sites, 0, 0, 0), host_pairs())

    def gradient(ranks: World, team: World) -> Callable[[], KpmEstimate]:
        strip = Strip.cut(system, team)
        probing = Probing(system, HostRecursion(scaled_hamiltonian(system, spins, interval, strip)), ranks)
        return lambda: probing.gradient(groups, series)

    return {
        "alone": gradient(World(), World()),
        "vectors": gradient(world, World()),
        "sites": gradient(world, world),
    }


def seconds(size: int, world: World) -> dict[str, Any]:
    """Least seconds of each way, and ratios to one rank."""
    times: dict[str, list[float]] = {}
    repeats, all_ways = 1, ways(size, world)
    while len(times.get("alone", ())) < repeats:
        found = {}
        for name, work in all_ways.items():
            world.barrier()
            start = time.perf_counter()
            found[name] = work() if world.rank == 0 or name != "alone" else None
            world.barrier()
            times.setdefault(name, []).append(time.perf_counter() - start)
        if world.rank == 0:
            first = found["alone"].components
            assert all(np.array_equal(one.components, first) for one in found.values()), "bits depend on the division"
        repeats = world.broadcast(max(3, min(MOST_REPEATS, int(SECONDS / times["alone"][0]))))
    least = {name: min(one) for name, one in times.items()}
    ratios = {name: least["alone"] / least[name] for name in ("vectors", "sites")}
    return {"size": size, "seconds": least, "ratios": ratios, "repeats": repeats}


def main() -> None:
    """Start the ranks, write the JSON."""
    parser = parser_of(__doc__, "kpm_ranks.json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides of the square lattices")
    arguments = parser.parse_args()
    if not arguments.worker:
        if World.detect().size > 1:
            raise HpcspinError(
                "kpm_ranks: starts its two ranks itself, and others beside them would slow them; run it without mpiexec"
            )
        launcher = which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        assert launcher is not None, "no mpiexec on this machine; pip install 'hpcspin[mpi]' brings one"
        runner = str(Path(__file__).parents[1] / "benchmark.py")
        command = [launcher, "-n", "2", sys.executable, runner, "kpm_ranks", "--worker", *sys.argv[1:]]
        sys.exit(subprocess.run(command, check=False).returncode)
    torch.set_num_threads(1)
    world, load, rows = World.detect(), os.getloadavg()[0], []
    for size in arguments.sizes:
        rows.append(seconds(size, world))
        if world.rank == 0:
            print(json.dumps(rows[-1]), flush=True)
    if world.rank == 0:
        machine = {"load": load, "threads": 1, **provenance()}
        write_json(arguments.output, {"machine": machine, "moments": MOMENTS, "rows": rows})


if __name__ == "__main__":
    main()
