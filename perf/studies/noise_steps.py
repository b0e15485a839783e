"""What spins take for the bath's temperature, at the steps that `suggest-step` allows and at four times these.

    python perf/study.py noise_steps [--output perf/results/noise_steps.json]

The component z of independent spins in a field or an anisotropy along z is a Markov chain from step to step. Its
transfer operator, from Gauss-Hermite sums over the noise, on Legendre polynomials of z, gives the stationary means
without sampling: <z> in a field, beside the Langevin function, and <z^2> of anisotropic spins, beside Boltzmann's.
Coupled spins are sampled: the bonds of open chains, beside Fisher's <b> = coth(J/T) - T/J.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.polynomial import hermite_e, legendre
from numpy.typing import NDArray
from shared import parser_of, table, write_section
from torch import Tensor

from hpcspin.dynamics import INTEGRATORS, FieldEvaluator, Heisenberg, Thermostat
from hpcspin.dynamics.integrators import make_integrator
from hpcspin.dynamics.step_bounds import step_bounds
from hpcspin.dynamics.torque import angular_velocity, components_first
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

BATHS = ((5.0, 0.1), (2.0, 0.5), (2.0, 0.1), (0.5, 0.5), (0.5, 0.1))
"""Temperatures and dampings."""
DEGREE, NODES = 24, 8
CHAINS, BLOCKS, TIMES = (64, 64), 8, 12.0


def stationary(
    name: str, field: float, anisotropy: float, damping: float, temperature: float, dt: float
) -> list[float]:
    """Stationary means of the Legendre polynomials of z."""
    nodes, chances = hermite_e.hermegauss(NODES)
    chances = chances / chances.sum()
    normal = np.stack(np.meshgrid(nodes, nodes, nodes), axis=-1).reshape(-1, 3)
    noise = torch.from_numpy(normal) * math.sqrt(2 * damping * temperature / dt)
    z, weights = legendre.leggauss(2 * DEGREE)
    start = np.stack([np.sqrt(1 - z**2), 0 * z, z], axis=-1)
    spins = components_first(torch.from_numpy(np.repeat(start[:, None], len(noise), axis=1)))
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def omega(at: Tensor, time: float) -> Tensor:
        total = noise + (field + 2 * anisotropy * at[..., 2:]) * up
        return angular_velocity(at, components_first(total), damping)

    moved = make_integrator(name, noise=True).step(spins, 0.0, dt, omega)[..., 2].numpy()
    chance = np.einsum("i,j,k->ijk", chances, chances, chances).ravel()
    expected = np.einsum("znl,n->zl", legendre.legvander(moved, DEGREE), chance)
    moments = (weights[:, None] * expected).T @ legendre.legvander(z, DEGREE) * (np.arange(DEGREE + 1) + 0.5)
    rest = np.eye(DEGREE) - moments[1:, 1:]
    return [1.0, *np.linalg.solve(rest, moments[1:, 0]).tolist()]


def boltzmann(field: float, anisotropy: float, temperature: float) -> tuple[float, float]:
    """<z> and <z^2> in equilibrium."""
    z = np.linspace(-1, 1, 200001)
    weight = np.exp((field * z + anisotropy * z**2) / temperature)
    return float((z * weight).sum() / weight.sum()), float((z**2 * weight).sum() / weight.sum())


def independent(name: str) -> list[dict[str, Any]]:
    """Relative errors of the means of independent spins."""
    rows = []
    for temperature, damping in BATHS:
        row: dict[str, Any] = {"integrator": name, "temperature": temperature, "damping": damping}
        for system, field, anisotropy, rate in (("field", 1.0, 0.0, 1.0), ("anisotropy", 0.0, 1.0, 2.0)):
            step = min(step_bounds(name, rate, [], 1.0, damping, temperature).values())
            exact = boltzmann(field, anisotropy, temperature)
            for factor in (1, 4) if name != "midpoint" else (1,):
                measured = stationary(name, field, anisotropy, damping, temperature, factor * step)
                error = measured[1] / exact[0] - 1 if field else (2 * measured[2] + 1) / 3 / exact[1] - 1
                row[f"{system} {factor}"] = error
            row[f"{system} step"] = step
        rows.append(row)
        print(row, flush=True)
    return rows


def chain(name: str, damping: float = 0.5, temperature: float = 2.0) -> dict[str, Any]:
    """Mean bond of sampled open chains of exchange 1, and its standard error over blocks of time."""
    dt = min(step_bounds(name, 4.0, [], 1.0, damping, temperature).values())
    domain = Domain(make_lattice("square", CHAINS, (False, False)), World(), (1, 1))
    evaluate = FieldEvaluator(Heisenberg(1.0, ((0, 1),)), domain)
    bath = Thermostat(temperature, damping, dt, seed=3)
    advance, sites = make_integrator(name, noise=True).step, torch.as_tensor(domain.sites)
    start = np.random.default_rng(5).standard_normal((*CHAINS, 3))
    now = components_first(torch.as_tensor(start / np.linalg.norm(start, axis=-1, keepdims=True)))
    steps, measured = math.ceil(TIMES * (1 + damping**2) / (2 * damping * temperature) / dt), []
    for step in range(steps):
        noise = bath.field(sites, step, now.dtype)

        def omega(at: Tensor, time: float, noise: Tensor | None = noise) -> Tensor:
            assert noise is not None
            return angular_velocity(at, evaluate(at, time) + noise, damping)

        now = advance(now, step * dt, dt, omega)
        if step >= steps // 3:
            spins: NDArray[np.float64] = now.numpy()
            measured.append((spins[:, 1:] * spins[:, :-1]).sum(axis=-1).mean())
    blocks = [block.mean() for block in np.array_split(np.array(measured), BLOCKS)]
    row = {
        "integrator": name,
        "step": dt,
        "mean": float(np.mean(blocks)),
        "error": float(np.std(blocks, ddof=1) / math.sqrt(BLOCKS)),
        "exact": 1 / math.tanh(1 / temperature) - temperature,
    }
    print(row, flush=True)
    return row


def summary(measured: dict[str, Any]) -> str:
    """What the JSON says, as Markdown."""

    def percent(row: dict[str, Any], key: str) -> str:
        return f"{100 * row[key]:+.2f} %" if key in row else ""

    keys = ("field 1", "field 4", "anisotropy 1", "anisotropy 4")
    rows = [
        [row["integrator"], f"{row['temperature']:g}", f"{row['damping']:g}", f"{row['field step']:.3g}",
         *(percent(row, key) for key in keys)]
        for row in measured["independent"]
    ]  # fmt: skip
    header = ["integrator", "T", "damping", "step in a field 1", "<z>", "<z> at 4 steps", "<z²>, K = 1", "at 4 steps"]
    chains = ", ".join(f"{row['mean']:.4f} ± {row['error']:.4f} with {row['integrator']}" for row in measured["chains"])
    return "\n".join(
        [
            "Errors of stationary means at the suggested step and at four times it, from the transfer operator:",
            "",
            table(header, rows),
            "",
            f"Mean bond of chains of exchange 1 at T = 2 and damping 0.5 in suggested steps, sampled: {chains}; exact "
            f"{measured['chains'][0]['exact']:.4f}.",
        ]
    )


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "noise_steps.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = sorted(name for name, scheme in INTEGRATORS.items() if scheme.langevin)
    measured = {
        "independent": [row for name in names for row in independent(name)],
        "chains": [chain(name) for name in names],
    }
    arguments.output.write_text(json.dumps(measured, indent=1) + "\n")
    write_section("noise_steps.py", summary(measured))


if __name__ == "__main__":
    main()
