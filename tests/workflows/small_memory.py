"""Run under mpiexec: label a file where the memory of one rank does not hold the lattice, that of two does."""

from __future__ import annotations

import sys
from pathlib import Path

from hpcspin.assembly.system import build_system
from hpcspin.config import load_config
from hpcspin.electrons import RecursiveSolver, memory
from hpcspin.electrons.backend import Backend
from hpcspin.parallel.world import World
from hpcspin.workflows.label import label_file

world = World.detect()
with world.abort_on_failure():
    config = load_config(Path(sys.argv[1]), ["electrons.solver=negf", "lattice.size=[24, 4]"])
    needs = [sum(memory._needs(build_system(config), ranks)) / memory._SHARE for ranks in (1, 2)]
    Backend.free_memory = lambda self: int(sum(needs) / 2 * world.local_size)  # type: ignore[method-assign]
    assert RecursiveSolver.ranks_needed(build_system(config), world, "cpu") == world.size == 2
    label_file(config, Path(sys.argv[2]), Path(sys.argv[3]), world)
