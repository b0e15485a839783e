"""Seconds an exact label takes, against dense inversion, the closed form, and what the machine can do.

    python perf/labeler.py [--output perf/results/labeler.json] [--quick]

All comparisons are ratios within this one run. Dense inversion is timed on a
few energies and extrapolated to the label's nodes, and the output says so.
With an MPI launcher at hand the speed-up of two ranks is measured too, one
thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcspin.electrons import ClosedFormSolver, DrivenLattice, RecursiveSolver, Reservoir
from hpcspin.electrons.hamiltonian import effective_hamiltonian
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.storage import provenance

TOLERANCE = 1e-6
DENSE_ENERGIES = 3


def driven(size: tuple[int, int], bath: float) -> DrivenLattice:
    """The paper's driven system on a lattice of any size."""
    lattice = make_lattice("square", size)
    left, right, everywhere = (np.zeros(size, dtype=bool) for _ in range(3))
    left[0] = right[-1] = everywhere[:] = True
    reservoirs = (
        Reservoir("left", left, 1.0, -3.2),
        Reservoir("right", right, 1.0, 0.0),
        Reservoir("bath", everywhere, bath, 0.0),
    )
    return DrivenLattice(lattice, 1.0, 3.8, 0.01, reservoirs)


def wall(system: DrivenLattice, seed: int) -> np.ndarray:
    """One snapshot with a wall at a quarter of the lattice, shape (1, Lx, Ly, 3)."""
    return make_texture("wall", system.lattice, seed, position=system.lattice.size[0] // 4, tilt=0.1)[None]


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def product_rate(m: int = 1536) -> float:
    """Real flops a second of a large complex128 matrix product: the machine's practical limit."""
    a = torch.randn(m, m, dtype=torch.complex128)
    return 8 * m**3 / seconds(lambda: a @ a, 5)


def label(size: tuple[int, int], bath: float, repeats: int) -> dict[str, Any]:
    """Time of one recursive label, its nodes, its arithmetic and its error."""
    system = driven(size, bath)
    solver, spins = RecursiveSolver(system, TOLERANCE), wall(system, 1)

    def fresh() -> Any:
        solver.reset()
        return solver.solve(spins)

    taken = seconds(fresh, repeats)
    before = solver.evaluations
    state = fresh()
    nodes = solver.evaluations - before
    m = 2 * size[1]
    # One inversion (8 m^3 real flops) and one product (8 m^3) a column of sites and energy of the window.
    return {
        "size": size,
        "bath": bath,
        "seconds": taken,
        "window_nodes": nodes,
        "window_flops": 16 * m**3 * size[0] * nodes,
        "error_estimate": float(state.error[0]),
    }


def dense_seconds(system: DrivenLattice, nodes: int) -> float:
    """Dense batched inversion on as many nodes, extrapolated from a few."""
    hamiltonian = torch.from_numpy(effective_hamiltonian(system, wall(system, 1)[0]))
    eye = torch.eye(len(hamiltonian), dtype=torch.complex128)
    energies = torch.linspace(-3, 0, DENSE_ENERGIES, dtype=torch.complex128)
    batch = energies[:, None, None] * eye - hamiltonian
    return seconds(lambda: torch.linalg.inv(batch), 1) / DENSE_ENERGIES * nodes


def exponent(sizes: list[int], times: list[float]) -> float:
    """Slope of log time against log size."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def scaling(repeats: int, lengths: list[int], widths: list[int]) -> dict[str, Any]:
    """Seconds for one fixed number of energy nodes, so that only the sweep's cost is compared."""

    def sweep(size: tuple[int, int]) -> float:
        measured = label(size, 0.1, repeats)
        return measured["seconds"] / measured["window_nodes"]

    along_x = [sweep((length, 24)) for length in lengths]
    along_y = [sweep((30, width)) for width in widths]
    return {
        "Lx": lengths,
        "seconds_a_node_Lx": along_x,
        "exponent_Lx": exponent(lengths, along_x),
        "Ly": widths,
        "seconds_a_node_Ly": along_y,
        "exponent_Ly": exponent(widths, along_y),
    }


def rank_seconds(ranks: int) -> float | None:
    """One label shared by MPI ranks of one thread each; None without a launcher."""
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if launcher is None:
        return None
    command = [launcher, "-n", str(ranks), sys.executable, __file__, "--rank-worker"]
    result = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    return float(result.stdout.split()[-1])


def rank_worker() -> None:
    """Time one label with all ranks of this launch; rank 0 prints it."""
    world = World.detect()
    system = driven((30, 24), 0.001)
    solver, spins = RecursiveSolver(system, TOLERANCE, world), wall(system, 1)

    def fresh() -> None:
        solver.reset()
        solver.solve(spins)

    taken = seconds(fresh, 2)
    if world.rank == 0:
        print(taken)


def measure(quick: bool) -> dict[str, Any]:
    """All figures of one run."""
    repeats = 1 if quick else 3
    rate = product_rate()
    labels = []
    for bath in (0.001, 0.01):
        found = label((30, 24), bath, repeats)
        system = driven((30, 24), bath)
        found["fraction_of_product_rate"] = found["window_flops"] / found["seconds"] / rate
        found["dense_seconds_extrapolated"] = dense_seconds(system, found["window_nodes"])
        found["times_faster_than_dense"] = found["dense_seconds_extrapolated"] / found["seconds"]
        closed = ClosedFormSolver(system, TOLERANCE)
        found["closed_form_seconds"] = seconds(lambda: closed.solve(wall(system, 1)), 1)  # noqa: B023
        found["times_faster_than_closed_form"] = found["closed_form_seconds"] / found["seconds"]
        labels.append(found)
    one, two = rank_seconds(1), rank_seconds(2)
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "load_before": os.getloadavg()[0],
        "quick": quick,
        "provenance": provenance(),
        "product_rate_flops": rate,
        "labels": labels,
        "scaling": scaling(1, [30, 60] if quick else [30, 60, 120, 240], [12, 24] if quick else [12, 24, 48]),
        "ranks": {"one": one, "two": two, "speed_up": one / two if one and two else None},
    }


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "labeler.json")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes")
    parser.add_argument("--rank-worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_worker:
        rank_worker()
        return
    found = measure(arguments.quick)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
