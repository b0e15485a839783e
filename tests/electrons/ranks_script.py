"""Run under mpiexec: steady states by both solvers on all ranks, saved by rank 0."""

from __future__ import annotations

import sys

import numpy as np
from systems import driven, random_spins

from hpcspin.electrons import ClosedFormSolver, RecursiveSolver
from hpcspin.parallel.world import World


def solve(world: World) -> dict[str, np.ndarray]:
    """Fields and currents of driven lattices of both kinds of source."""
    results = {}
    for name, middle in (("ends", {}), ("any", {"middle": (0.3, 1.0)})):
        system = driven("square", (6, 4), left=(1.0, -2.0), right=(0.4, 0.3), bath=(0.01, 0.0), **middle)
        spins = random_spins(system, 3, seed=4)
        for solver in (ClosedFormSolver, RecursiveSolver):
            state = solver(system, 1e-7, world).solve(spins)
            label = f"{name}_{solver.name}"
            results |= {f"{label}_field": state.field, f"{label}_current": state.current, f"{label}_error": state.error}
    return results


if __name__ == "__main__":
    world = World.detect()
    results = solve(world)
    assert all(
        np.array_equal(results["ends_negf_field"], other) for other in world.allgather(results["ends_negf_field"])
    )
    if world.rank == 0:
        np.savez(sys.argv[1], ranks=world.size, **results)
