"""Run under mpiexec: a noisy and an exact label of the kernel polynomial solver, saved by rank 0."""

from __future__ import annotations

import sys

import numpy as np
from systems import random_spins

from hpcspin.electrons import ClosedLattice, KpmSolver
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World


def solve(world: World) -> dict[str, np.ndarray]:
    """Fields and energies at a coarse and at a fine tolerance."""
    system = ClosedLattice(make_lattice("triangular", (12, 13), (True, True)), 1.0, 3.0, 0.1, filling=0.8)
    results = {}
    for tolerance in (0.1, 1e-4):
        state = KpmSolver(system, tolerance, world).solve(random_spins(system, 1, seed=4))
        results |= {f"field_{tolerance}": state.field, f"energy_{tolerance}": state.energy}
    return results


if __name__ == "__main__":
    world = World.detect()
    results = solve(world)
    assert all(np.array_equal(results["field_0.1"], other) for other in world.allgather(results["field_0.1"]))
    if world.rank == 0:
        np.savez(sys.argv[1], ranks=world.size, **results)
