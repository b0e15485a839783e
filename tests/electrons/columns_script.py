"""Run under mpiexec: G and steady states from divided columns; the first against the dense inverse."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
from systems import driven, random_spins

from hpcspin.electrons import RecursiveSolver
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.hamiltonian import effective_hamiltonian, layer_blocks, make_coupling
from hpcspin.parallel.world import World

BACKEND = make_backend("torch")
CASES = (("square", True, True), ("square", False, False), ("triangular", True, False), ("triangular", False, True))
"""Lattice, whether it is periodic along y, whether there is an electrode in its middle: each pair of values once."""


def deviation(world: World, kind: str, periodic_y: bool, mirrored: bool) -> float:
    """Largest deviation of my columns of G_xx and G_{x,0} relative to the largest element of G."""
    # No reservoir touches the middle: a slab alone has real levels.
    system = driven(kind, (9, 3), periodic_y=periodic_y, hopping=0.7, left=(0.6, -1.0), right=(0.3, 0.4))
    spins = random_spins(system, 2, seed=8)
    owners = np.array([0, 1, 1, 0])
    # The second energy is a level of the middle third on its own.
    dense = effective_hamiltonian(system, spins[1])
    level = np.linalg.eigvalsh(dense[18:36, 18:36])[7]
    energies = np.array([0.4, level, -1.3, 0.2 + 0.5j]) / system.hopping
    team = ColumnTeam(world, 9, make_coupling(system, BACKEND))
    team = team.mirrored() if mirrored else team
    blocks = layer_blocks(system, spins, BACKEND)[:, team.own]
    blocks = blocks.flip(1) if mirrored else blocks
    slab = team.connect(blocks, BACKEND.asarray(energies), BACKEND.asarray(owners))
    source = BACKEND.asarray(np.random.default_rng(1).standard_normal((6, 2)).astype(np.complex128))
    diagonal = np.stack([d.numpy() for d in slab.diagonals()], axis=1)
    column = np.stack([c.numpy() for c in slab.first_columns(source)], axis=1)
    everywhere = [team.gather(BACKEND.asarray(part)).numpy() for part in (diagonal, column)]

    worst = 0.0
    for e, (owner, z) in enumerate(zip(owners, energies * system.hopping, strict=True)):
        dense = effective_hamiltonian(system, spins[owner])
        green = -system.hopping * np.linalg.inv(z * np.eye(len(dense)) - dense).reshape(9, 6, 9, 6)
        green = green[::-1, :, ::-1] if mirrored else green
        exact = [np.stack([green[x, :, x] for x in range(9)]), green[:, :, 0] @ source.numpy()]
        for value, right in zip(everywhere, exact, strict=True):
            worst = max(worst, float(np.abs(value[e] - right).max() / np.abs(green).max()))
    return worst


def states(world: World, column_ranks: int) -> dict[str, np.ndarray]:
    """Steady states of lattices with electrodes on their ends or anywhere, and a bath."""
    results = {}
    for kind, periodic_y, middle in CASES:
        reservoirs = {"left": (1.0, -2.0, (0.4, 0.0, 0.5)), "right": (0.4, 0.3), "bath": (0.02, 0.0)}
        reservoirs |= {"middle": (0.3, -1.0)} if middle else {}
        system = driven(kind, (9, 3), periodic_y=periodic_y, **reservoirs)
        spins = random_spins(system, 2, seed=5)
        state = RecursiveSolver(system, 1e-4, world, column_ranks=column_ranks).solve(spins)
        results |= {f"{kind}_{periodic_y}_{middle}_{name}": value for name, value in vars(state).items()}
    return results


if __name__ == "__main__":
    world = World.detect()
    cases = product(("square", "triangular", "second_neighbours", "knight"), (True, False), (True, False))
    worst = [max(world.allgather(deviation(world, *case))) for case in cases]
    together = states(world, int(sys.argv[2]))
    first = "square_True_True_field"
    assert all(np.array_equal(together[first], other) for other in world.allgather(together[first]))
    if world.rank == 0:
        np.savez(sys.argv[1], ranks=world.size, worst=worst, **together)
    world.finish()
