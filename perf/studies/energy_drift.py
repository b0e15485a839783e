"""Energy of a conservative system over many steps: for each integrator, and under the field of a learned energy.

    python perf/study.py energy_drift [--steps 100000] [--output perf/results/energy_drift.json]
    python perf/study.py energy_drift --model triangular_120 --size 12 12 --steps 10000 --output OUTPUT

Sixteen spins with exchange and anisotropy, started at random, without damping. The drift is the slope of a straight
line through the energy over time, the scatter what is left beside it; both in units of the exchange, the whole system.

With ``--model`` the implicit midpoint rule moves the spins of the model's system, random angles about 0.3 from order,
in double precision by two steps, the second half as long. The drift is that of means over twenty equal times, with
the standard error of a line through them; the oscillation is the standard deviation beside the line. Energies are
those of a site, in hoppings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import parser_of

import hpcspin as hs
from hpcspin.dynamics import INTEGRATORS, Anisotropy, FieldEvaluator, Heisenberg, SumField, make_integrator
from hpcspin.dynamics.torque import components_first, normalise
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import ForceField, load_force
from hpcspin.potential.architecture import make_force_field
from hpcspin.storage import provenance

STEP, SAMPLES, BLOCKS = 0.05, 1000, 20
STARTS = {"triangular_120": ("order_120", 0.3), "triangular_tetrahedral": ("tetrahedral", 0.3)}
"""Texture and tilt from which the system of a model starts."""
_NOT_NEEDED = ("envelope", "energy_offset")


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


def in_double_precision(model: ForceField) -> ForceField:
    """The same weights, computing in double precision."""
    double = make_force_field(model.architecture.changed(precision="float64"))
    double.load_state_dict({name: value for name, value in model.state_dict().items() if name not in _NOT_NEEDED})
    return double.eval()


def learned_drift(name: str, size: Sequence[int], step: float, steps: int) -> dict[str, float]:
    """Energy of one run under a learned field."""
    config = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    system = hs.load_system(config, f"lattice.size=[{size[0]},{size[1]}]")
    texture, tilt = STARTS[name]
    run = hs.simulate(
        system, in_double_precision(load_force(name)), system.texture(texture, tilt=tilt, seed=1),
        integrator="midpoint", damping=0.0, temperature=0.0, step=step, duration=steps * step,
        record_interval=steps // SAMPLES, observers=["energy"],
    )  # fmt: skip
    energies = run.energy / (size[0] * size[1])
    times, means = (part[1:].reshape(BLOCKS, -1).mean(1) for part in (run.time, energies))
    (slope, offset), covariance = np.polyfit(times, means, 1, cov=True)
    return {
        "step": step,
        "drift": slope,
        "drift_error": float(np.sqrt(covariance[0, 0])),
        "oscillation": float((energies - slope * run.time - offset).std()),
        "energy": float(energies[0]),
    }


def main() -> None:
    """Measure all integrators, or a learned energy, and write the table."""
    parser = parser_of(__doc__, "energy_drift.json")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--model", choices=STARTS)
    parser.add_argument("--size", type=int, nargs=2, default=(12, 12))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.model:
        of = [learned_drift(arguments.model, arguments.size, step, arguments.steps) for step in (0.1, 0.05)]
        results = {"provenance": provenance(), "steps": arguments.steps, "size": arguments.size, "runs": of}
        results["ratio_of_oscillations"] = of[0]["oscillation"] / of[1]["oscillation"]
        print(json.dumps(results, indent=2))
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
        return
    results = {"provenance": provenance(), "steps": arguments.steps, "step": STEP, "integrators": {}}
    for name in sorted(INTEGRATORS):
        results["integrators"][name] = drift(name, arguments.steps)
        print(name, results["integrators"][name], flush=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
