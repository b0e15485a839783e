"""Quenches under a shipped force field of a closed lattice: order at the end, energies beside exact ones.

    python perf/study.py quenches NAME [--seeds 71 72 73 74] [--duration 300] [--frames 5]
        [--exact] [--output perf/results/quenches.json]

NAME is that of a shipped model and of its config, such as triangular_120; the lattice is that of the config, the spins
random at the start, the noise none. Equally spaced frames of each quench, the last among them, are labelled exactly.
With ``--exact`` the exact fields move the same spins: what they have not ordered by then, no force field need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from shared import parser_of

import hpcspin as hs
from hpcspin.drawing.closed import order
from hpcspin.electrons import ClosedLattice
from hpcspin.errors import HpcspinError
from hpcspin.storage import provenance, read_json, write_json


def quench(system: ClosedLattice, model: Any, seed: int, duration: float, frames: int) -> dict[str, Any]:
    """Order at the end of a quench, and errors of energy (a site) and field (a perpendicular component) on its way."""
    step, damping = 0.5, 0.5
    interval = round(duration / step / frames)
    spins = system.texture("random", seed=seed)
    run = hs.simulate(
        system, model, spins, damping=damping, step=step, duration=duration, record_interval=interval,
        observers=("energy",),
    )  # fmt: skip
    later = run.spins[1:]
    exact = system.solve(later)
    missed = exact.field - run.field[1:]
    missed -= (missed * later).sum(axis=-1, keepdims=True) * later
    return {
        "seed": seed,
        "time": run.time[1:].tolist(),
        "order": order(system.lattice, later[-1], exact.density[-1]),
        "energy_error": ((run.energy[1:] - exact.energy) / system.lattice.num_sites).tolist(),
        "field_mse": ((missed**2).mean(axis=(1, 2, 3)) * 1.5).tolist(),
    }


def main() -> None:
    """Run all seeds, print and store their order."""
    parser = parser_of(__doc__, "quenches.json")
    parser.add_argument("name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[71, 72, 73, 74])
    parser.add_argument("--duration", type=float, default=300.0)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--exact", action="store_true")
    arguments = parser.parse_args()
    system = hs.load_system(Path(__file__).parents[2] / "configs" / f"{arguments.name}.yaml")
    if not isinstance(system, ClosedLattice):
        raise HpcspinError(
            f"{arguments.name}: its config is that of {system.described}; choose one of a closed lattice"
        )
    model, runs = None if arguments.exact else hs.load_model(arguments.name), []
    for seed in arguments.seeds:
        runs.append(quench(system, model, seed, arguments.duration, arguments.frames))
        shown = {key: round(value, 3) for key, value in runs[-1]["order"].items()}
        off = runs[-1]["energy_error"]
        at, most = max(zip(runs[-1]["time"], off, strict=True), key=lambda pair: abs(pair[1]))
        energy = f"energy off by {off[-1]:+.1e} a site at the end, at most by {most:+.1e}, at {at:g}"
        print(f"seed {seed}: {shown}; {energy}", flush=True)
    names = runs[0]["order"]
    means = {name: float(np.mean([run["order"][name] for run in runs])) for name in names}
    print("mean:", {name: round(value, 3) for name, value in means.items()})
    stored = read_json(arguments.output, "delete it") if arguments.output.exists() else {}
    stored[f"{arguments.name}{', exact' if arguments.exact else ''}"] = {
        **provenance(),
        "duration": arguments.duration,
        "mean": means,
        "runs": runs,
    }
    write_json(arguments.output, stored)


if __name__ == "__main__":
    main()
