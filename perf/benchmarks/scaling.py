"""Strong and weak scaling of the dynamics over MPI ranks of one thread each, and what the halos cost.

    python perf/benchmark.py scaling [--ranks 1 2] [--network MODEL] [--output perf/results/scaling.json] [--quick]
                           [--launcher mpiexec] [--slurm FILE]

Speed-ups are ratios within this one run; they mean little where ``load_before`` says that the cores were busy. MODEL is
a saved model, by default the shipped pair of potentials, beside which the standard network of the benchmark
``dynamics`` is measured. ``shares`` are those of the rank that waits longest. ``halo_bytes_over_minimum`` compares the
bytes that the ranks receive in one exchange with the distinct foreign sites that their halos hold. Cases called
`patient` wait for the whole halo before they compute. ``--slurm`` writes a batch script that repeats all of this on a
cluster with ``srun``.
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

import matplotlib.pyplot as plt
import numpy as np
import torch
from dynamics import SHIPPED, network, peak_memory, random_block, stepper
from shared import PERF, parser_of, publish, table

from hpcspin.drawing.style import save
from hpcspin.dynamics import Field, Heisenberg
from hpcspin.dynamics.fields import BoundField
from hpcspin.lattice import Halo, make_lattice
from hpcspin.parallel.devices import keep_freed_memory, pick_device
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.storage import provenance

SLURM = """#!/bin/bash
#SBATCH --job-name=hpcspin-scaling
#SBATCH --ntasks={ranks}
#SBATCH --cpus-per-task=1
#SBATCH --exclusive
#SBATCH --time=01:00:00
export OMP_NUM_THREADS=1
python perf/benchmark.py scaling --launcher srun --ranks {counts}{network} --output scaling-$SLURM_JOB_ID.json
"""
PATIENT = "patient "


class Patient:
    """A field that begins when the whole halo is there."""

    def __init__(self, field: Field) -> None:
        self._field, self.halo = field, field.halo

    def bind(self, domain: Domain) -> BoundField:
        """As the field, without a head start."""
        bound = self._field.bind(domain)
        return lambda spins, moment: bound(spins, moment)


def make_field(name: str, device: torch.device) -> Field:
    """``heisenberg``, a network as `dynamics.network` knows it, or either of them patient."""
    if name.startswith(PATIENT):
        return Patient(make_field(name.removeprefix(PATIENT), device))
    return Heisenberg(1.0) if name == "heisenberg" else network(name, device)


def halo_bytes(domain: Domain, halo: Halo, device: torch.device) -> tuple[float, float]:
    """Bytes received in one exchange by all ranks, and the least that would do."""
    like = random_block(domain, device)
    received = domain.exchange(like, halo).messages.received_bytes
    index = torch.arange(1, domain.lattice.num_sites + 1).reshape(*domain.lattice.size, 1)
    seen = np.unique(domain.window(index, halo).numpy()) - 1
    foreign = np.setdiff1d(seen[seen >= 0], domain.sites)
    total = domain.world.sum(np.array([received, 3 * like.element_size() * foreign.size], dtype=np.int64))
    return float(total[0]), float(total[1])


def worker(name: str, size: tuple[int, int], steps: int) -> None:
    """Time some steps on all ranks of this launch; rank 0 prints one line of JSON."""
    torch.set_num_threads(1)
    keep_freed_memory()
    world = World.detect()
    device = pick_device(world)
    field = make_field(name, device)
    assert field.halo is not None
    domain = Domain.cut(make_lattice("square", size, (False, True)), world, field.halo)
    step = stepper(field, domain, device)
    step()
    world.barrier()
    domain.stopwatch.restart()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    mine = time.perf_counter() - start, domain.stopwatch.read(), peak_memory()
    seconds, watches, peaks = zip(*world.allgather(mine), strict=True)
    received, least = halo_bytes(domain, field.halo, device)
    longest = max(watches, key=lambda watch: watch["waiting"])
    if world.rank == 0:
        outcome = {
            "size": size,
            "ranks": world.size,
            "blocks": domain.blocks,
            "halo": field.halo,
            "step_seconds": max(seconds) / steps,
            "shares": {what: part / sum(longest.values()) for what, part in longest.items()},
            "halo_bytes": received,
            "halo_bytes_over_minimum": received / least if least else None,
            "peak_bytes_of_all_ranks": sum(peaks),
        }
        print(json.dumps(outcome))
    world.finish()


def launch(launcher: str, ranks: int, case: str) -> dict[str, Any]:
    """Run a worker on MPI ranks."""
    path = shutil.which(launcher, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        sys.exit(f"no {launcher} on this machine; pip install 'hpcspin[mpi]' brings mpiexec")
    command = [path, "-n", str(ranks), sys.executable, str(PERF / "benchmark.py"), "scaling", "--worker", case]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    outcome: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return outcome


def cases(ranks: int, model: str, quick: bool) -> dict[str, str]:
    """What is run: its name to LX:LY:STEPS:FIELD; weak scaling grows the lattice along x."""
    side, few, block = (128, 1, 64) if quick else (512, 2, 128)
    outcome = {
        "strong, Heisenberg": f"{side}:{side}:{20 * few}:heisenberg",
        "strong, standard network": f"{side}:{side}:1:standard",
        "strong, network": f"{side}:{side}:{few}:{model}",
        "weak, Heisenberg": f"{side * ranks}:{side}:{20 * few}:heisenberg",
        "weak, network": f"{block * ranks}:{block}:{few}:{model}",
    }
    if ranks > 1:
        outcome["patient, strong, network"] = f"{side}:{side}:{few}:{PATIENT}{model}"
    return outcome


def measure(launcher: str, counts: list[int], model: str, quick: bool) -> list[dict[str, Any]]:
    """All runs; each with its speed-up or efficiency against the first number of ranks."""
    runs: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    for ranks in counts:
        for name, case in cases(ranks, model, quick).items():
            outcome = {"case": name, **launch(launcher, ranks, case)}
            gain = first.setdefault(name.removeprefix("patient, "), outcome["step_seconds"]) / outcome["step_seconds"]
            outcome["efficiency" if name.startswith("weak") else "speed_up"] = gain
            runs.append(outcome)
            print(json.dumps(outcome), flush=True)
    return runs


def summary(outcome: dict[str, Any]) -> str:
    """What the JSON says, as Markdown."""
    rows = [
        [
            run["case"],
            f"{run['size'][0]}x{run['size'][1]}",
            f"{run['ranks']}",
            f"{run['step_seconds']:.3g}",
            f"{run['speed_up']:.2f}" if "speed_up" in run else "",
            f"{run['efficiency']:.2f}" if "efficiency" in run else "",
            f"{run['shares']['packing']:.2%}",
            f"{run['shares']['waiting']:.2%}",
            f"{run['halo_bytes_over_minimum']:.3f}" if run["halo_bytes_over_minimum"] else "",
        ]
        for run in outcome["runs"]
    ]
    header = ["case", "spins", "ranks", "s a step", "speed-up", "efficiency", "packing", "waiting", "bytes / minimum"]
    return "\n".join(
        [
            f"One thread a rank, {outcome['cores']} cores, load {outcome['load_before']:.1f} at the start; the network "
            f"is {outcome['network']}. `patient` fields do not compute while borders travel.",
            "",
            table(header, rows),
        ]
    )


def draw(outcome: dict[str, Any], path: Path) -> None:
    """Speed-up and efficiency against the number of ranks."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    ranks = sorted({run["ranks"] for run in outcome["runs"]})
    for axis, key, kind, ideal in (
        (axes[0], "speed_up", "strong", ranks),
        (axes[1], "efficiency", "weak", [1] * len(ranks)),
    ):
        axis.plot(ranks, ideal, "k--", label="ideal")
        for name in dict.fromkeys(run["case"] for run in outcome["runs"] if run["case"].startswith(kind)):
            points = [(run["ranks"], run[key]) for run in outcome["runs"] if run["case"] == name]
            axis.plot(*zip(*points, strict=True), "o-", label=name)
        axis.set(xlabel="ranks", ylabel=key.replace("_", "-"), xticks=ranks, ylim=(0, None))
        axis.legend()
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "scaling.json")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--network", default=SHIPPED, metavar="MODEL")
    parser.add_argument("--launcher", default="mpiexec")
    parser.add_argument("--slurm", type=Path, help="batch script to write")
    parser.add_argument("--quick", action="store_true", help="smaller lattices and fewer steps")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        length, width, steps, name = arguments.worker.split(":", 3)
        worker(name, (int(length), int(width)), int(steps))
        return
    if arguments.slurm:
        counts = " ".join(map(str, arguments.ranks))
        model = "" if arguments.network == SHIPPED else f" --network {arguments.network}"
        arguments.slurm.write_text(SLURM.format(ranks=max(arguments.ranks), counts=counts, network=model))
    outcome = {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "provenance": provenance(),
        "network": Path(arguments.network).name,
        "runs": measure(arguments.launcher, arguments.ranks, arguments.network, arguments.quick),
    }
    publish("scaling.py", outcome, arguments.output, summary, draw)


if __name__ == "__main__":
    main()
