"""How much of the exact field no local model can know: the scatter of fields under equal surroundings.

    python perf/study.py locality CONFIG MODEL LABELS [--radii 3 5 8] [--frames 8] [--hardest 3]
        [--output perf/results/locality.json]

Discs of radius R are frozen in a labelled frame and all other spins are moved by
Langevin dynamics under the learned field for a while; the result is labelled
exactly. A field that sees as far as R finds the same spins around the centres of
the discs in both frames, so that half the mean square of the difference of the
exact perpendicular fields there is error that it cannot avoid: the variance of
the field given the surroundings. With ``--hardest`` the discs stand around the few sites
of a frame on which the model errs most, elsewhere around random ones. A pair of potentials sees twice its cutoff
radius, layers as many radii as there are of them. It is a lower bound, since the
outside keeps its wall. Errors are standard errors over frames.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shared import RESULTS

from hpcspin.assembly.system import build_solver, build_system
from hpcspin.config import Config, load_config
from hpcspin.dynamics.integrators import make_integrator
from hpcspin.dynamics.thermostat import Thermostat
from hpcspin.dynamics.torque import angular_velocity
from hpcspin.lattice import Lattice
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.potential import ForceField, load_model
from hpcspin.storage import provenance, read_labels, write_json

CPU = torch.device("cpu")
_METAL = 0.95
"""Electrons on a site below which it belongs to the metal: the antiferromagnet has one."""


def discs(
    lattice: Lattice, radius: float, order: NDArray[np.int64], most: int | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Centres of discs that do not overlap, chosen in the given order of the sites, and the sites of all discs.

    Returns
    -------
    tuple
        Flat indices of the centres, and whether a site is in a disc, shape (Lx, Ly).
    """
    reach = int(2 * radius) + 1
    steps = np.stack(np.meshgrid(*2 * [np.arange(-reach, reach + 1)], indexing="ij"), axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(lattice.cartesian(steps), axis=-1)
    near = lattice.shift(steps[distance <= radius])
    blocked = lattice.shift(steps[distance <= 2 * radius])
    free, inside = np.ones(lattice.num_sites, dtype=bool), np.zeros(lattice.num_sites, dtype=bool)
    centres = []
    for site in order:
        if free[site] and len(centres) != most:
            centres.append(site)
            free[blocked[site][blocked[site] >= 0]] = False
            inside[near[site][near[site] >= 0]] = True
    return np.array(centres), inside.reshape(lattice.size)


def move_outside(
    config: Config,
    model: ForceField,
    lattice: Lattice,
    spins: NDArray[np.float64],
    frozen: NDArray[np.bool_],
    duration: float,
    seed: int,
) -> NDArray[np.float64]:
    """Langevin dynamics under the learned field of all spins that are not frozen."""
    assert config.dynamics is not None
    damping, step = config.dynamics.damping, config.dynamics.step
    bath = Thermostat(config.dynamics.temperature, damping, step, seed)
    sites = torch.arange(lattice.num_sites).reshape(lattice.size)
    advance = make_integrator("heun", noise=True).step
    held = torch.as_tensor(frozen)[..., None]
    bias = build_system(config).bias
    now = torch.as_tensor(spins)
    for number in range(round(duration / step)):
        noise = bath.field(sites, number, torch.float64)

        def omega(at: torch.Tensor, _: float, noise: torch.Tensor | None = noise) -> torch.Tensor:
            fields = model.predict(at.numpy()[None], lattice, bias)
            field = torch.as_tensor(fields.equilibrium[0] + fields.nonequilibrium[0])
            return angular_velocity(at, field if noise is None else field + noise, damping)

        now = torch.where(held, now, advance(now, number * step, step, omega))
    return now.numpy()


def perpendicular(field: NDArray[np.float64], spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """H - S (S·H) at the sites, shape (Lx Ly, 3)."""
    return (field - spins * np.sum(field * spins, axis=-1, keepdims=True)).reshape(-1, 3)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--radii", type=float, nargs="+", default=[3.0, 5.0, 8.0])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--hardest", type=int, help="discs a frame, around the sites of the largest errors")
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--output", type=Path, default=RESULTS / "locality.json")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    system = build_system(config)
    lattice = system.lattice
    labels = read_labels(arguments.labels, lattice.size)
    model = load_model(arguments.model)[0]
    solver = build_solver(config, system, World())
    chosen = np.linspace(0, len(labels.spins) - 1, min(arguments.frames, len(labels.spins))).round().astype(int)
    scatter: dict[float, list[float]] = {radius: [] for radius in arguments.radii}
    there: dict[float, list[float]] = {radius: [] for radius in arguments.radii}
    own, errors, metal, start = [], [], np.zeros(3), time.perf_counter()
    with progress(World(), "locality", len(chosen) * len(scatter)) as bar:
        for frame in chosen:
            spins, field = labels.spins[frame], labels.field[frame]
            exact = perpendicular(field, spins)
            fields = model.predict(spins[None], lattice, system.bias)
            learned = perpendicular(fields.equilibrium[0] + fields.nonequilibrium[0], spins)
            own.append(float(np.mean(np.sum(exact**2, axis=-1)) / 2))
            squares = np.sum((learned - exact) ** 2, axis=-1) / 2
            errors.append(float(np.mean(squares)))
            if labels.density is not None:
                depleted = labels.density[frame].reshape(-1) < _METAL
                metal += [depleted.mean(), squares[depleted].sum(), squares.sum()]
            for radius, measured in scatter.items():
                rng = np.random.default_rng([int(frame), int(10 * radius)])
                order = rng.permutation(lattice.num_sites) if arguments.hardest is None else np.argsort(-squares)
                centres, frozen = discs(lattice, radius, order, arguments.hardest)
                moved = move_outside(config, model, lattice, spins, frozen, arguments.duration, int(frame))
                solver.reset()
                other = perpendicular(solver.solve(moved[None]).field[0], moved)
                difference = other[centres] - exact[centres]
                # Two components, and the difference of two draws has twice the variance of one.
                measured.append(float(np.mean(np.sum(difference**2, axis=-1)) / 4))
                there[radius].append(float(np.mean(squares[centres])))
                bar.advance(note=f"R = {radius:g}: {measured[-1]:.1e}")
    result = {
        "provenance": provenance(),
        "command": " ".join(
            ("python perf/study.py locality", arguments.config.name, arguments.model.name, arguments.labels.name)
        ),
        "overrides": arguments.overrides,
        "hardest": arguments.hardest,
        "frames": len(chosen),
        "seconds": round(time.perf_counter() - start, 1),
        "variance": _mean(own),
        "model": {"mse": _mean(errors), "radius": model.architecture.settings.radius, "reaches": model.reaches},
        "metal": {"share_of_sites": metal[0] / len(chosen), "share_of_squared_error": metal[1] / max(metal[2], 1e-300)},
        "unavoidable_mse": {f"{radius:g}": _mean(measured) for radius, measured in scatter.items()},
        "model_mse_there": {f"{radius:g}": _mean(measured) for radius, measured in there.items()},
    }
    write_json(arguments.output, result)
    print(
        json.dumps({key: result[key] for key in ("variance", "model", "unavoidable_mse", "model_mse_there")}, indent=2)
    )


def _mean(values: list[float]) -> dict[str, float]:
    """Mean over frames and its standard error."""
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return {"mean": float(np.mean(values)), "error": spread}


if __name__ == "__main__":
    main()
