"""Learned fields of closed lattices beside diagonalisation and kernel polynomials: seconds of one field, one thread.

    python perf/benchmark.py closed_fields [--size 30] [--output perf/results/closed_fields.json]

Kernel polynomials take the cheapest moments and colours whose field has a root mean square error of 1e-3 across the
spins, or less; a metal at T = 0.01 needs more moments than a gap, and minutes pass before it has them. Seconds are of
the process itself, so that what else runs counts little.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import torch
from kpm import estimates, own_seconds, perpendicular
from shared import parser_of

import hpcspin as hs
from hpcspin.electrons.kpm_probes import colouring
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import provenance, write_json

SYSTEMS = {
    "triangular_120": ("order_120", {"tilt": 0.3}, "jackson"),
    "triangular_tetrahedral": ("tetrahedral", {"tilt": 0.3}, "jackson"),
    "square_double_exchange": ("puddles", {"count": 6, "tilt": 0.3}, "none"),
}
"""Config and model of a name, a state of it, and the kernel that suits it."""
WANTED = 1e-3
MOMENTS, DISTANCES = (512, 1024, 2048), (4, 6, 8, 10, 12, 14)


def measured(name: str, size: int) -> dict[str, Any]:
    """Seconds of the three fields of one state, and their errors."""
    texture, parameters, kernel = SYSTEMS[name]
    system = hs.load_system(Path(__file__).parents[2] / "configs" / f"{name}.yaml", f"lattice.size=[{size},{size}]")
    spins = system.texture(texture, seed=1, **parameters)
    exact = system.solve(spins)
    diagonal = own_seconds(lambda: system.solve(spins), 1)
    model = load_force(name)
    learned = own_seconds(lambda: model.field(spins, system), 20)
    found = {"system": name, "size": size, "diagonalization": diagonal, "learned": learned}
    found["learned_error"] = perpendicular(system, spins, model.field(spins, system) - exact.field)
    choices = sorted(
        product(MOMENTS, DISTANCES), key=lambda choice: choice[0] * colouring(system.lattice, choice[1]).count
    )
    with progress(World(), name, len(choices)) as bar:
        for moments, distance in choices:
            work = estimates(system, spins, kernel, distance, moments)["gradient"]
            field = system.exchange * work().components[:, 1:].reshape(*system.lattice.size, 3)
            error = perpendicular(system, spins, field - exact.field)
            bar.advance(note=f"error {error:.1e} with {moments} moments and colours {distance} apart")
            if error <= WANTED:
                found |= {"kpm": own_seconds(work), "kpm_error": error}
                found |= {"kpm_distance": distance, "kpm_moments": moments}
                break
    found |= {f"{one}_over_learned": found[one] / learned for one in ("diagonalization", "kpm") if one in found}
    print(found, flush=True)
    return found


def main() -> None:
    """Measure all, write the JSON."""
    parser = parser_of(__doc__, "closed_fields.json")
    parser.add_argument("--size", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = {"load": os.getloadavg()[0], "threads": 1, **provenance()}
    fields: list[dict[str, Any]] = []
    for name in SYSTEMS:
        fields.append(measured(name, arguments.size))
        write_json(arguments.output, {"machine": machine, "fields": fields})


if __name__ == "__main__":
    main()
