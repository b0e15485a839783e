"""Strong and weak scaling of the dynamics over MPI ranks of one thread each, and what the halos cost.

    python perf/scaling.py [--ranks 1 2] [--output perf/results/scaling.json] [--slurm scaling.slurm]

Speed-ups are ratios within this one run; they mean little where ``load_before`` says that the cores
were busy. ``exchange_fraction`` is the share of a step, on its slowest rank, spent in packing, sending
and waiting for halos. ``halo_bytes_over_minimum`` compares the bytes that the ranks receive in one
exchange with the distinct foreign sites that their halos hold. ``--slurm`` also writes a batch script
that repeats the run on a cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamics import random_block, standard_network, stepper
from torch import Tensor

from hpcspin.dynamics import Heisenberg
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain, choose_blocks
from hpcspin.parallel.halo import HaloExchange
from hpcspin.parallel.world import World
from hpcspin.storage import provenance

SLURM = """#!/bin/bash
#SBATCH --job-name=hpcspin-scaling
#SBATCH --ntasks={ranks}
#SBATCH --cpus-per-task=1
#SBATCH --exclusive
#SBATCH --time=01:00:00
export OMP_NUM_THREADS=1
for ranks in {counts}; do
    for case in {cases}; do
        srun -n $ranks python perf/scaling.py --worker $case
    done
done
"""
FIELDS = {"heisenberg": lambda: Heisenberg(1.0), "network": standard_network}


class TimedDomain(Domain):
    """A domain that adds up the seconds of its halo exchanges."""

    waited = 0.0

    def extend(self, block: Tensor, halo: int) -> Tensor:
        """As :meth:`Domain.extend`."""
        start = time.perf_counter()
        extended = super().extend(block, halo)
        self.waited += time.perf_counter() - start
        return extended


def halo_bytes(domain: Domain, halo: int) -> tuple[float, float]:
    """Bytes received in one exchange by all ranks, and the least that would do."""
    like = random_block(domain)
    strips = [strip for strip in HaloExchange(domain, halo, like)._strips if strip is not None]
    received = sum(buffer.nbytes for strip in strips for buffer in strip._in.values())
    index = torch.arange(1, domain.lattice.num_sites + 1).reshape(*domain.lattice.size, 1)
    seen = np.unique(domain.window(index, halo).numpy()) - 1
    foreign = np.setdiff1d(seen[seen >= 0], domain.sites)
    total = domain.world.sum(np.array([received, 3 * like.element_size() * foreign.size], dtype=np.int64))
    return float(total[0]), float(total[1])


def worker(field_name: str, size: tuple[int, int], steps: int) -> None:
    """Time some steps on all ranks of this launch; rank 0 prints one line of JSON."""
    torch.set_num_threads(1)
    world, field = World.detect(), FIELDS[field_name]()
    assert field.halo is not None
    lattice = make_lattice("square", size, (False, True))
    domain = TimedDomain(lattice, world, choose_blocks(size, world.size, field.halo))
    step = stepper(field, domain)
    step()
    world.barrier()
    domain.waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        step()
    mine = time.perf_counter() - start
    times = world.allgather((mine, domain.waited))
    received, least = halo_bytes(domain, field.halo)
    slowest, waited = max(times)
    if world.rank == 0:
        found = {
            "field": field_name,
            "size": size,
            "ranks": world.size,
            "blocks": domain.blocks,
            "step_seconds": slowest / steps,
            "exchange_fraction": waited / slowest if world.size > 1 else 0.0,
            "halo_bytes": received,
            "halo_bytes_over_minimum": received / least if least else None,
        }
        print(json.dumps(found))
    world.finish()


def launch(ranks: int, case: str) -> dict[str, Any]:
    """Run a worker on MPI ranks."""
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if launcher is None:
        sys.exit("no mpiexec on this machine; pip install 'hpcspin[mpi]' brings one")
    command = [launcher, "-n", str(ranks), sys.executable, __file__, "--worker", case]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def cases(weak_length: int | str) -> dict[str, str]:
    """What is run: kind of scaling and field to FIELD:LX:LY:STEPS; weak scaling has 512 columns a rank."""
    return {
        "strong heisenberg": "heisenberg:512:512:10",
        "strong network": "network:96:96:1",
        "weak heisenberg": f"heisenberg:{weak_length}:512:10",
    }


def measure(counts: list[int]) -> list[dict[str, Any]]:
    """All runs, each with its speed-up or efficiency against the first number of ranks."""
    runs: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    for ranks in counts:
        for name, case in cases(512 * ranks).items():
            found = {"case": name, **launch(ranks, case)}
            found["speed_up" if name.startswith("strong") else "efficiency"] = (
                first.setdefault(name, found["step_seconds"]) / found["step_seconds"]
            )
            runs.append(found)
    return runs


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    parser.add_argument("--slurm", type=Path, help="batch script to write")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        field, length, width, steps = arguments.worker.split(":")
        worker(field, (int(length), int(width)), int(steps))
        return
    if arguments.slurm:
        names = " ".join(cases("$((512*ranks))").values())
        counts = " ".join(map(str, arguments.ranks))
        arguments.slurm.write_text(SLURM.format(ranks=max(arguments.ranks), counts=counts, cases=names))
    found = {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "provenance": provenance(),
        "runs": measure(arguments.ranks),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
