"""Energy of a conservative system over 1e5 steps, for each integrator.

    python perf/study.py energy_drift [--steps 100000] [--output perf/results/energy_drift.json]

Sixteen spins with exchange and anisotropy, started at random, without damping. The drift is the slope of a straight
line through the energy over time, the scatter what is left beside it; both in units of the exchange, the whole system.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch
from shared import parser_of

from hpcspin.dynamics import INTEGRATORS, Anisotropy, FieldEvaluator, Heisenberg, SumField, make_integrator
from hpcspin.dynamics.torque import components_first, normalise
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.storage import provenance

STEP, SAMPLES = 0.05, 1000


def drift(name: str, steps: int) -> dict[str, Any]:
    """Energy of one run: drift per unit of time, scatter, error at the end."""
    lattice = make_lattice("square", (4, 4), (True, True))
    evaluate = FieldEvaluator(SumField([Heisenberg(1.0), Anisotropy(0.3)]), Domain.cut(lattice, World(), (1, 1)))
    advance = make_integrator(name, noise=False).step
    torch.manual_seed(1)
    spins = components_first(normalise(torch.randn((4, 4, 3), dtype=torch.float64)))
    energies, start = [], time.perf_counter()
    for step in range(steps + 1):
        if step % (steps // SAMPLES) == 0:
            energies.append(-0.5 * float((spins * evaluate(spins, 0.0)).sum()))
        spins = advance(spins, step * STEP, STEP, evaluate)
    times, measured = np.linspace(0, steps * STEP, len(energies)), np.array(energies)
    slope, offset = np.polyfit(times, measured, 1)
    return {
        "drift": slope,
        "scatter": float((measured - slope * times - offset).std()),
        "error_at_end": measured[-1] - measured[0],
        "largest_error": float(np.abs(measured - measured[0]).max()),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Measure all integrators and write the table."""
    parser = parser_of(__doc__, "energy_drift.json")
    parser.add_argument("--steps", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {"provenance": provenance(), "steps": arguments.steps, "step": STEP, "integrators": {}}
    for name in sorted(INTEGRATORS):
        results["integrators"][name] = drift(name, arguments.steps)
        print(name, results["integrators"][name], flush=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
