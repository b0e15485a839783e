"""Equilibrium at the steps that `suggest-step` allows, and the temperature of free spins at longer ones.

    python perf/noise_steps.py [--integrators heun sib ...] [--output perf/results/noise_steps.json]

Many independent spins, or chains of them, move under noise from an equilibrium state. Their magnetisation in a field is
compared with the Langevin function, <z^2> of anisotropic spins with its Boltzmann average, and the bonds of open chains
with Fisher's -<b> = coth(J/T) - T/J; each at the step that `step_bounds` gives. At turns of 0.2 and 0.4 rad a step the
temperature that free spins take on is compared with the one that `step_bounds` derives from one step.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import RESULTS, table, write_section

from hpcspin.dynamics import INTEGRATORS, Anisotropy, Field, FieldEvaluator, Heisenberg, Thermostat, Zeeman
from hpcspin.dynamics.integrators import make_integrator
from hpcspin.dynamics.step_bounds import step_bounds, temperature_at_turn
from hpcspin.dynamics.torque import angular_velocity, components_first
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

SITES, BURN, BLOCKS = 4096, 4.0, 8
Measure = Callable[[NDArray[np.float64]], float]


def langevin(x: float) -> float:
    """Langevin function, coth x - 1/x."""
    return 1 / math.tanh(x) - 1 / x


def boltzmann(strength: float, temperature: float) -> float:
    """<z^2> under exp(K z^2 / T)."""
    z = np.linspace(-1, 1, 20001)
    weight = np.exp(strength * z**2 / temperature)
    return float((z**2 * weight).sum() / weight.sum())


SYSTEMS: dict[str, tuple[Field, tuple[int, int], float, Measure, Callable[[float], float]]] = {
    "field 1": (Zeeman((0, 0, 1.0)), (SITES, 1), 1.0, lambda s: s[..., 2].mean(), lambda t: langevin(1 / t)),
    "anisotropy 1": (Anisotropy(1.0), (SITES, 1), 2.0, lambda s: (s[..., 2] ** 2).mean(), lambda t: boltzmann(1.0, t)),
    "chain, exchange 1": (
        Heisenberg(1.0, ((0, 1),)), (SITES // 64, 64), 4.0,
        lambda s: (s[:, 1:] * s[:, :-1]).sum(axis=-1).mean(), lambda t: langevin(1 / t),
    ),
}  # fmt: skip
"""Field, size, fastest rate, measure and its exact mean at a temperature."""


def ensemble(
    field: Field, size: tuple[int, int], measure: Measure, name: str, damping: float, temperature: float, dt: float,
    times: float,
) -> tuple[float, float]:  # fmt: skip
    """Mean of a measure over some relaxation times of free spins, and its standard error over blocks of time."""
    domain = Domain(make_lattice("square", size, (False, False)), World(), (1, 1))
    evaluate, bath = FieldEvaluator(field, domain), Thermostat(temperature, damping, dt, seed=3)
    advance, sites = make_integrator(name, noise=True).step, torch.as_tensor(domain.sites)
    start = np.random.default_rng(5).standard_normal((*size, 3))
    now = components_first(torch.as_tensor(start / np.linalg.norm(start, axis=-1, keepdims=True)))
    relaxation = (1 + damping**2) / (2 * damping * temperature)
    burn, steps, found = math.ceil(BURN * relaxation / dt), math.ceil(times * relaxation / dt), []
    for step in range(burn + steps):
        noise = bath.field(sites, step, now.dtype)

        def omega(at: torch.Tensor, time: float, noise: torch.Tensor | None = noise) -> torch.Tensor:
            assert noise is not None
            return angular_velocity(at, evaluate(at, time) + noise, damping)

        now = advance(now, step * dt, dt, omega)
        if step >= burn:
            found.append(measure(now.numpy()))
    blocks = [block.mean() for block in np.array_split(np.array(found), BLOCKS)]
    return float(np.mean(blocks)), float(np.std(blocks, ddof=1) / math.sqrt(BLOCKS))


def suggested(name: str, times: float) -> list[dict[str, Any]]:
    """Means at the suggested steps beside the exact ones."""
    rows = []
    for system, (field, size, rate, measure, exact) in SYSTEMS.items():
        for temperature, damping in ((2.0, 0.5), (0.5, 0.1)):
            dt = min(step_bounds(name, rate, [], 1.0, damping, temperature).values())
            mean, error = ensemble(field, size, measure, name, damping, temperature, dt, times)
            rows.append(
                {"integrator": name, "system": system, "temperature": temperature, "damping": damping, "step": dt,
                 "mean": mean, "error": error, "exact": exact(temperature)}
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def derived(name: str, times: float) -> list[dict[str, Any]]:
    """Temperatures of free spins at long steps beside the derived ones, in units of the bath's."""
    rows, damping, temperature = [], 0.5, 5.0
    for turn in (0.2, 0.4):
        dt = turn**2 * (1 + damping**2) / (2 * damping * temperature)
        predicted = temperature_at_turn(name, damping, turn)
        if not math.isfinite(predicted):
            continue
        weak = Zeeman((0, 0, 1.0))
        mean, error = ensemble(weak, (SITES, 1), lambda s: s[..., 2].mean(), name, damping, temperature, dt, times)
        scale = langevin(1 / temperature)
        rows.append(
            {"integrator": name, "turn": turn, "step": dt, "temperature": scale / mean,
             "error": scale * error / mean**2, "derived": predicted}
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def summary(found: dict[str, Any]) -> str:
    """What the JSON says, as Markdown."""
    first = [
        [row["integrator"], row["system"], f"{row['temperature']:g}", f"{row['damping']:g}", f"{row['step']:.3g}",
         f"{row['mean']:.4f} ± {row['error']:.4f}", f"{row['exact']:.4f}"]
        for row in found["suggested"]
    ]  # fmt: skip
    second = [
        [row["integrator"], f"{row['turn']:g}", f"{row['temperature']:.3f} ± {row['error']:.3f}",
         f"{row['derived']:.3f}"]
        for row in found["derived"]
    ]  # fmt: skip
    return "\n".join(
        [
            f"{SITES} spins; errors from {BLOCKS} blocks of time.",
            "",
            table(["integrator", "system", "T", "damping", "suggested step", "mean", "exact"], first),
            "",
            table(["integrator", "turn by noise, rad a step", "temperature / bath's", "derived from one step"], second),
        ]
    )


def main() -> None:
    """Enter from the command line."""
    langevin_schemes = sorted(name for name, scheme in INTEGRATORS.items() if scheme.langevin)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--integrators", nargs="+", default=langevin_schemes, choices=langevin_schemes)
    parser.add_argument("--times", type=float, default=20.0, help="relaxation times of free spins that are averaged")
    parser.add_argument("--output", type=Path, default=RESULTS / "noise_steps.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"suggested": [], "derived": []}
    for name in arguments.integrators:
        found["derived"] += derived(name, 4 * arguments.times)
        found["suggested"] += suggested(name, arguments.times)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    write_section("noise_steps.py", summary(found))


if __name__ == "__main__":
    main()
