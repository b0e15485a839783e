"""Run under mpiexec or torchrun: kernel polynomials with ranks that share vectors, strips and both, saved by rank 0."""

from __future__ import annotations

import sys
from unittest.mock import patch

import numpy as np
from systems import random_spins

from hpcspin.electrons import ClosedLattice, KpmSolver, kpm, kpm_strips
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.kpm_estimates import Probing
from hpcspin.electrons.kpm_host import HostRecursion, library
from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases
from hpcspin.electrons.kpm_recursion import ArrayRecursion, scaled_hamiltonian
from hpcspin.electrons.kpm_series import Expansion, spectral_interval
from hpcspin.electrons.kpm_strips import Strip
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World

SIZE = (12, 13)
MAPS = dict(zip(("exchange", "on_site"), np.random.default_rng(1).normal(size=(2, *SIZE)), strict=True))
SYSTEMS = {
    "square": ClosedLattice(make_lattice("square", SIZE, (True, True)), 1.0, temperature=0.2, filling=0.8, **MAPS),
    "two shells": ClosedLattice(
        make_lattice("triangular", SIZE[::-1], (True, False)), (1.0, 0.3), 3.0, 0.6, filling=1.1, rashba=0.2
    ),
    "short and long": ClosedLattice(make_lattice("triangular", (3, 9), (True, True)), 1.0, 3.0, 0.2, potential=-1.0),
}


def estimates(system: ClosedLattice, world: World, strips: int, backend: str | None) -> dict[str, np.ndarray]:
    """Both estimates of one snapshot; without a backend by the kernels in C."""
    strip, interval = Strip.cut(system, world.split(world.size // strips)[1]), spectral_interval(system)
    hamiltonian = scaled_hamiltonian(system, random_spins(system, 1, seed=4)[0], interval, strip)
    way = ArrayRecursion(hamiltonian, make_backend(backend), 5) if backend else HostRecursion(hamiltonian)
    probing, sites = Probing(system, way, world), system.lattice.num_sites
    groups = probe_groups(colouring(system.lattice, 3), random_phases(sites, 0, 0, 0), way.pairs)
    series, moments = Expansion(interval, system.temperature, 8, "none"), probing.local_moments(groups, 8, sites)
    densities, gradient = probing.densities(moments, series), probing.gradient(groups, series)
    found = {"sampled": probing.sample(probing.local_moments(groups, 8, sites // 2), series)}
    for name, one in (("densities", densities), ("gradient", gradient)):
        found |= {name: one.components, f"{name} energy": np.array([one.energy, one.potential])}
    return found


def solve(world: World) -> dict[str, np.ndarray]:
    """Estimates, which every division of the ranks gives alike, and labels by ranks that share vectors or sites."""
    results = {}
    for name, system in SYSTEMS.items():
        for backend in (*([None] if library() else []), "torch"):
            found = [estimates(system, world, s, backend) for s in range(world.size, 0, -1) if world.size % s == 0]
            assert all(np.array_equal(other[key], found[0][key]) for other in found for key in other)
            results |= {f"{name}, {backend}: {key}": array for key, array in found[0].items()}
    system = SYSTEMS["two shells"]
    for name, least, tolerance in (("vectors", 1 << 30, 1e-4), ("strips", 1, 0.3)):
        # Few moments: each step costs a message, for which ranks wait long where they share a processor.
        with patch.object(kpm_strips, "LEAST_SITES", least), patch.object(kpm, "_LEAST_MOMENTS", 64):
            state = KpmSolver(system, tolerance, world).solve(random_spins(system, 1, seed=4))
        results |= {f"{name}: field": state.field, f"{name}: energy": state.energy}
    return results


if __name__ == "__main__":
    world = World.detect()
    results = solve(world)
    assert all(np.array_equal(results[key], other[key]) for other in world.allgather(results) for key in results)
    if world.rank == 0:
        np.savez(sys.argv[1], ranks=world.size, **results)
    world.finish()
