"""Energy over many steps without damping: of a conservative system under each integrator, and of learned fields.

    python perf/study.py energy_drift [--steps 100000] [--output perf/results/energy_drift.json]
    python perf/study.py energy_drift --model MODEL [--step 0.1 0.05] [--steps 10000] [--directory runs/energy_drift]

Sixteen spins with exchange and anisotropy, started at random, without damping. The drift is the slope of a straight
line through the energy over time, the scatter what is left beside it; both in units of the exchange, the whole system.

With ``--model``, a shipped or saved force field of the driven lattice, of a pair E alone, the implicit midpoint rule
moves the spins of 30x24 in double precision, from a wall that 80 units of time with damping and noise at T = 0.01 have
warmed. Recorded is every tenth step; a run goes on where it stands, also to more steps. The drift is the slope of a
line through means over equal times, of 10, 20 and 40 the one with the largest standard error, since energies beside
each other are correlated; the oscillation is the standard deviation beside a line. The rule conserves not E but
E + dt^2 E2 + ..., so that E follows the slow changes of E2 as well; ``both`` compares the two steps over the time that
both runs have: the ratios should be 4, and (4 E(dt/2) - E(dt)) / 3 is without dt^2. Energies are those of a site, in
hoppings. Whatever moves spins without damping does no work, H . (H x S) = 0, whether an energy exists or not. What
tells is the work on another way between the same spins, along great circles from the first frame to each of twenty
others: of a field with an energy it is none but for the drift.
Writes ``perf/results/energy_drift_learned.json``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import RESULTS, parser_of

import hpcspin as hs
from hpcspin.dynamics import INTEGRATORS, Anisotropy, FieldEvaluator, Heisenberg, SumField, make_integrator
from hpcspin.dynamics.torque import components_first, normalise
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import ForceField, load_force, make_force_field
from hpcspin.storage import provenance, read_json, write_json

STEP, SAMPLES = 0.05, 1000
CONFIG = Path(__file__).parents[2] / "configs" / "driven_sd.yaml"
LEARNED = RESULTS / "energy_drift_learned.json"
BLOCKS, RECORDED, COMPARED, NODES = (10, 20, 40), 10, 20, 24

Array = NDArray[np.float64]


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


def with_energy_alone(model: ForceField) -> ForceField:
    """Of a pair E without G; any other force field as it is."""
    if model.architecture.settings.kind != "pair":
        return model
    alone, weights = make_force_field(model.architecture.changed(kind="conservative")), model.state_dict()
    last = max(name for name in weights if name.startswith(f"layers.{len(model.networks) - 1}.network.layers."))
    weights[last] = weights[last][:1]
    alone.load_state_dict({name: weight for name, weight in weights.items() if name != "envelope"})
    alone.card = model.card
    return alone.eval()


def line(times: Array, values: Array) -> tuple[float, float]:
    """Slope of a line through means over equal times, with its standard error: the largest of all `BLOCKS`."""
    slopes = []
    for blocks in BLOCKS:
        kept = len(times) // blocks * blocks
        means = (part[:kept].reshape(blocks, -1).mean(1) for part in (times, values))
        (slope, _), covariance = np.polyfit(*means, 1, cov=True)
        slopes.append((float(slope), float(np.sqrt(covariance[0, 0]))))
    return max(slopes, key=lambda one: one[1])


def oscillation(times: Array, energies: Array) -> float:
    """Standard deviation beside a straight line."""
    return float((energies - np.polyval(np.polyfit(times, energies, 1), times)).std())


def compared(coarse: dict[str, Any], fine: dict[str, Any]) -> dict[str, float]:
    """Runs with steps of 0.1 and 0.05 from the same spins, over the time that both have."""
    both = min(len(coarse["energies"]), (len(fine["energies"]) + 1) // 2)
    first, second = np.array(coarse["energies"][:both]), np.array(fine["energies"][: 2 * both - 1 : 2])
    times = 0.1 * RECORDED * np.arange(both)
    extrapolated = (4 * second - first) / 3
    drift, error = line(times[1:], extrapolated[1:])
    return {
        "time": float(times[-1]),
        "ratio_of_oscillations": oscillation(times, first) / oscillation(times, second),
        "ratio_of_drifts": line(times[1:], first[1:])[0] / line(times[1:], second[1:])[0],
        "drift": drift,
        "drift_error": error,
        "oscillation": oscillation(times, extrapolated),
    }


def work(model: ForceField, system: Any, first: Array, last: Array) -> float:
    """Integral of H . dS along great circles between spins of shape (Lx, Ly, 3), over the sites."""
    across = np.cross(first, last)
    sine = np.linalg.norm(across, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (first * last).sum(-1, keepdims=True))
    side = np.cross(across / np.maximum(sine, np.finfo(float).tiny), first)
    places, weights = np.polynomial.legendre.leggauss(NODES)
    turned = angle * (0.5 + 0.5 * places)[:, None, None, None]
    fields = model.field(first * np.cos(turned) + side * np.sin(turned), system)
    along = (fields * angle * (side * np.cos(turned) - first * np.sin(turned))).sum((1, 2, 3))
    return float(0.5 * weights @ along)


def learned_drift(model: ForceField, step: float, steps: int, directory: Path) -> dict[str, Any]:
    """One run without damping under a learned field."""
    system = hs.load_system(CONFIG, "lattice.size=[30,24]")
    wall = system.texture("wall", position=15, tilt=0.1, seed=1)
    warm = hs.simulate(system, model, wall, damping=0.2, temperature=0.01, step=0.4, duration=80.0, record_interval=200)
    run = hs.simulate(
        system, model, warm.spins[-1], path=directory, integrator="midpoint", damping=0.0, temperature=0.0, step=step,
        duration=step * steps, record_interval=RECORDED, checkpoint_interval=500,
        observers=["energy"] if model.has_potentials else [],
    )  # fmt: skip
    times, sites = run.time, system.lattice.num_sites
    chosen = np.linspace(0, len(times) - 1, COMPARED + 1).round().astype(int)[1:]
    works = np.array([work(model, system, run.spins[0], run.spins[number]) for number in chosen]) / sites
    found = {
        "steps": round(float(times[-1]) / step),
        "works": works.tolist(),
        "work": float(np.sqrt(np.mean(works**2))),
    }
    if model.has_potentials:
        energies = run.energy.reshape(-1) / sites
        drift, error = line(times[1:], energies[1:])
        closing = works + energies[chosen] - energies[0]
        found |= {"drift": drift, "drift_error": error, "oscillation": oscillation(times, energies)}
        found |= {"energies": energies.tolist(), "work_and_energy": float(np.abs(closing).max())}
    return found


def measure_learned(name: str, lengths: list[float], steps: int, directory: Path, output: Path) -> None:
    """Run each step and keep what is found beside what is there."""
    model = load_force(name, "float64")
    if not isinstance(model, ForceField):
        raise SystemExit(f"{name} is a committee; give one force field")
    model, key = with_energy_alone(model), Path(name).name
    for step in lengths:
        found = learned_drift(model, step, steps, directory / f"{key}_{step:g}")
        stored = read_json(output, "delete it") if output.exists() else {}
        runs = stored.setdefault(key, {"kind": model.architecture.settings.kind, **provenance()})
        runs[f"{step:g}"] = found
        if {"0.1", "0.05"} <= runs.keys() and model.has_potentials:
            runs["both"] = compared(runs["0.1"], runs["0.05"])
            print(key, runs["both"], flush=True)
        write_json(output, stored)
        print(key, step, {name: value for name, value in found.items() if np.ndim(value) == 0}, flush=True)


def main() -> None:
    """Measure all integrators, or a learned field, and write the table."""
    parser = parser_of(__doc__, "energy_drift.json")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--model")
    parser.add_argument("--step", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--directory", type=Path, default=Path("runs/energy_drift"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.model:
        steps, output = arguments.steps or 10_000, arguments.output
        output = LEARNED if output == parser.get_default("output") else output
        measure_learned(arguments.model, arguments.step, steps, arguments.directory, output)
        return
    arguments.steps = arguments.steps or 100_000
    results = {"provenance": provenance(), "steps": arguments.steps, "step": STEP, "integrators": {}}
    for name in sorted(INTEGRATORS):
        results["integrators"][name] = drift(name, arguments.steps)
        print(name, results["integrators"][name], flush=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
