"""Seconds an exact label takes, against dense inversion, the closed form, and what the machine can do.

    python perf/benchmark.py labeler [--output perf/results/labeler.json] [--kwant-python PYTHON] [--quick]

All comparisons are ratios within this one run. Dense inversion is timed on a
few energies and extrapolated to the label's nodes, and the output says so.
With an MPI launcher at hand the speed-up of two ranks is measured too, one
thread each. On a GPU, where there is one, labels of a batch of snapshots and
one label of 256x64 are timed too. Kwant, where PYTHON has it, is timed on a
few energies and extrapolated alike. Writes the JSON, a plot of the scaling, and
the table in ``perf/README.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from kwant_check import is_there
from shared import PERF, parser_of, publish, seconds, table

from hpcspin.drawing.style import save
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
    # What the plain recursion does: one inversion (8 m^3 real flops) and one product (8 m^3) a column of sites and
    # energy of the window. Groups of columns that share an inversion do about a quarter of that.
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


def kwant_seconds(python: str) -> float | None:
    """Seconds of Kwant for the electrode's column of G at one energy of 30x24; None where it is not there."""
    if not is_there(python):
        return None
    script = Path(__file__).with_name("kwant_check.py")
    result = subprocess.run([python, str(script), "--seconds-an-energy"], capture_output=True, text=True, check=True)
    return float(result.stdout)


def single_precision(size: tuple[int, int] = (30, 24), tolerance: float = 1e-4) -> dict[str, float]:
    """Gain and error of complex64 between the potentials, against complex128 at the same tolerance."""
    system, spins = driven(size, 0.001), wall(driven(size, 0.001), 1)
    exact = RecursiveSolver(system, 1e-7).solve(spins).field
    outcome: dict[str, float] = {"tolerance": tolerance}
    for precision in ("complex128", "complex64"):
        solver = RecursiveSolver(system, tolerance, precision=precision)

        def fresh(solver: RecursiveSolver = solver) -> Any:
            solver.reset()
            return solver.solve(spins)

        outcome[f"{precision}_seconds"] = seconds(fresh, 3)
        state = fresh()
        outcome[f"{precision}_error_estimate"] = float(state.error[0])
        outcome[f"{precision}_true_error"] = float(np.abs(state.field - exact).max())
    return outcome


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
    command = [launcher, "-n", str(ranks), sys.executable, str(PERF / "benchmark.py"), "labeler", "--rank-worker"]
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

    taken = seconds(fresh, 5)
    if world.rank == 0:
        print(taken)


def accuracy(size: tuple[int, int] = (30, 8)) -> list[dict[str, float]]:
    """What the tolerance asks, what the label estimates, and how far it is from the closed form."""
    system = driven(size, 0.001)
    spins = wall(system, 1)
    exact = ClosedFormSolver(system, 1e-9).solve(spins).field
    outcome = []
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        solver = RecursiveSolver(system, tolerance)
        state = solver.solve(spins)
        outcome.append(
            {
                "tolerance": tolerance,
                "error_estimate": float(state.error[0]),
                "true_error": float(np.abs(state.field - exact).max()),
                "window_nodes": solver.evaluations,
            }
        )
    return outcome


def gpu_labels(snapshots: int = 32) -> dict[str, Any] | None:
    """Labels a second of 30x24 in a batch, and seconds of one label of 256x64; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    outcome: dict[str, Any] = {"device": torch.cuda.get_device_name(), "snapshots": snapshots}
    for name, size, count in (("30x24", (30, 24), snapshots), ("256x64", (256, 64), 1)):
        system = driven(size, 0.001)
        solver = RecursiveSolver(system, TOLERANCE, device="cuda")
        spins = np.concatenate([wall(system, seed) for seed in range(count)])

        def fresh(solver: RecursiveSolver = solver, spins: np.ndarray = spins) -> None:
            solver.reset()
            solver.solve(spins)

        outcome[name] = {"backend": solver.backend.name, "labels_a_second": count / seconds(fresh, 1)}
    return outcome


def measure(quick: bool, kwant_python: str) -> dict[str, Any]:
    """All figures of one run."""
    repeats = 1 if quick else 7
    rate = product_rate()
    labels, kwant = [], kwant_seconds(kwant_python)
    for bath in (0.001, 0.01):
        outcome = label((30, 24), bath, repeats)
        system = driven((30, 24), bath)
        outcome["fraction_of_product_rate"] = outcome["window_flops"] / outcome["seconds"] / rate
        outcome["dense_seconds_extrapolated"] = dense_seconds(system, outcome["window_nodes"])
        outcome["times_faster_than_dense"] = outcome["dense_seconds_extrapolated"] / outcome["seconds"]
        closed = ClosedFormSolver(system, TOLERANCE)
        outcome["closed_form_seconds"] = seconds(lambda: closed.solve(wall(system, 1)), 1)  # noqa: B023
        outcome["times_faster_than_closed_form"] = outcome["closed_form_seconds"] / outcome["seconds"]
        outcome["times_faster_than_kwant"] = kwant * outcome["window_nodes"] / outcome["seconds"] if kwant else None
        labels.append(outcome)
    one, two = rank_seconds(1), rank_seconds(2)
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "load_before": os.getloadavg()[0],
        "quick": quick,
        "provenance": provenance(),
        "product_rate_flops": rate,
        "labels": labels,
        "scaling": scaling(1, [30, 60], [12, 24]) if quick else scaling(3, [30, 60, 120, 240], [12, 24, 48]),
        "accuracy": accuracy(),
        "single_precision": single_precision(),
        "kwant_seconds_an_energy": kwant,
        "gpu": gpu_labels(),
        "ranks": {"one": one, "two": two, "speed_up": one / two if one and two else None},
    }


def summary(outcome: dict[str, Any]) -> str:
    """What ``perf/README.md`` says of a run."""
    rows = [
        [
            f"{row['bath']:g}",
            f"{row['seconds']:.2f}",
            f"{row['window_nodes']}",
            f"{row['error_estimate']:.1e}",
            f"{row['times_faster_than_dense']:.0f}",
            f"{row['times_faster_than_closed_form']:.2f}",
            f"{row['times_faster_than_kwant']:.0f}" if row["times_faster_than_kwant"] else "not there",
            f"{100 * row['fraction_of_product_rate']:.0f} %",
        ]
        for row in outcome["labels"]
    ]
    header = [
        "bath width",
        "s a label",
        "window nodes",
        "error estimate",
        "x dense",
        "x closed form",
        "x Kwant",
        "of product rate",
    ]
    single = outcome["single_precision"]
    two = outcome["ranks"]["two"]
    scaling, ranks, gpu = outcome["scaling"], outcome["ranks"]["speed_up"], outcome["gpu"]
    lines = [
        f"30x24, tolerance {TOLERANCE:g}, {outcome['machine']['threads']} CPU threads, complex128 products at "
        f"{outcome['product_rate_flops'] / 1e9:.0f} Gflop/s, load {outcome['load_before']:.1f} at the start. "
        f"Dense inversion is extrapolated from {DENSE_ENERGIES} energies to the label's window nodes, Kwant (the "
        "electrode's column of G alone, sparse LU) likewise. The product rate is compared with one inversion and one "
        "product a column of sites and node, as the plain recursion needs them; groups of columns that share an "
        "inversion do about a quarter of that arithmetic.",
        "",
        table(header, rows),
        "",
        f"Fitted exponents of the seconds a node: {scaling['exponent_Lx']:.2f} in Lx "
        f"({scaling['Lx'][0]} to {scaling['Lx'][-1]}), {scaling['exponent_Ly']:.2f} in Ly. "
        + (f"Two MPI ranks of one thread take {two:.2f} s a label, {ranks:.2f} times as fast as one. " if ranks else "")
        + (f"GPU: {gpu}." if gpu else "No GPU was there."),
        "",
        f"In complex64 at tolerance {single['tolerance']:g} a label takes {single['complex64_seconds']:.2f} s instead "
        f"of {single['complex128_seconds']:.2f} s, its error is {single['complex64_true_error']:.1e} (estimated "
        f"{single['complex64_error_estimate']:.1e}) instead of {single['complex128_true_error']:.1e}.",
        "",
        "What a tolerance asks and what it gives, 30x8, bath width 0.001:",
        "",
        table(
            ["tolerance", "error estimate", "distance from the closed form", "window nodes"],
            [
                [
                    f"{row['tolerance']:g}",
                    f"{row['error_estimate']:.1e}",
                    f"{row['true_error']:.1e}",
                    f"{row['window_nodes']}",
                ]
                for row in outcome["accuracy"]
            ],
        ),
    ]
    return "\n".join(lines)


def draw(outcome: dict[str, Any], path: Path) -> None:
    """Seconds an energy node against the lattice's length and width, with the fitted power laws."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharey=True)
    for axis, name, fixed in zip(axes, ("Lx", "Ly"), ("Ly = 24", "Lx = 30"), strict=True):
        sizes, times = np.array(outcome["scaling"][name]), np.array(outcome["scaling"][f"seconds_a_node_{name}"])
        slope = outcome["scaling"][f"exponent_{name}"]
        fit = np.exp(np.mean(np.log(times) - slope * np.log(sizes))) * sizes**slope
        axis.loglog(sizes, 1e3 * times, "o", label=f"measured, {fixed}")
        axis.loglog(sizes, 1e3 * fit, "-", label=f"power law, exponent {slope:.2f}")
        axis.set(xlabel=f"{name} (sites)", xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
        axis.legend()
    axes[0].set_ylabel("time of an energy node (ms)")
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "labeler.json")
    parser.add_argument("--kwant-python", default=sys.executable, help="interpreter of an environment with Kwant")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes")
    parser.add_argument("--rank-worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_worker:
        rank_worker()
        return
    outcome = measure(arguments.quick, arguments.kwant_python)
    publish("labeler.py", outcome, arguments.output, summary, draw)


if __name__ == "__main__":
    main()
