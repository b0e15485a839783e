"""How much of the exact field no local model can know: the scatter of fields under equal surroundings.

    python perf/study.py locality CONFIG MODEL LABELS ... [--areas 3 5 8x29] [--frames 8] [--metal 0.85]
        [--hardest 3] [--duration 20] [--output perf/results/locality.json] [KEY=VALUE ...]

Some areas of a labelled frame are frozen, discs of a radius R or boxes of RX columns and RY rows to either side
of their centre, and all other spins are moved by Langevin dynamics under the learned field for a while; both
states are then solved exactly. A field that sees as far as such an area finds the same spins around its centre
in both, so that half the mean square of the difference of the exact perpendicular fields there is error that it
cannot avoid: the variance of the field given the surroundings. It is a lower bound, since the outside keeps its
texture; a longer ``--duration`` brings it up. A box that reaches over all columns or rows is a band, whose middle line
are centres all. At random places frozen areas take at most a quarter of the lattice; with ``--hardest`` they
stand around the few sites of a frame on which the model errs most. A pair of potentials sees twice its reach.

Each file of labels is a row of the result, under the voltages that it carries; keys of the config,
as ``electrons.reservoirs.bath.width=0.01``, count for all. Errors are standard errors over frames.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import RESULTS, config_of

from hpcspin.analysis.series import Estimate
from hpcspin.assembly.system import build_solver, build_system
from hpcspin.config import Config
from hpcspin.dynamics.integrators import make_integrator
from hpcspin.dynamics.thermostat import Thermostat
from hpcspin.dynamics.torque import angular_velocity
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.progress import Bar, progress
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, load_force
from hpcspin.storage import Labels, provenance, read_labels, write_json

_METAL = 0.95
"""Electrons on a site below which it belongs to the metal: the antiferromagnet has one."""
_FROZEN = 0.25
"""Largest share of the lattice that areas at random places take."""


def offsets(lattice: Lattice, area: str, scale: int = 1) -> NDArray[np.int64]:
    """Offsets from the centre of an area, ``R`` (a disc) or ``RXxRY`` (a box), to its sites, the area scaled.

    Returns
    -------
    ndarray
        Shape (sites, 2), no two of them the same site of the lattice.
    """
    radii = [scale * float(radius) for radius in area.split("x")]
    reach = [
        min(int(radius) + len(radii) % 2, length // 2 if closed else length - 1)
        for radius, length, closed in zip(
            2 * radii if len(radii) == 1 else radii, lattice.size, lattice.periodic, strict=True
        )
    ]
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 2)
    return steps if len(radii) == 2 else steps[np.linalg.norm(lattice.cartesian(steps), axis=-1) <= radii[0]]


def freeze(
    lattice: Lattice, area: str, order: NDArray[np.int64], most: int | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Areas that do not overlap, around sites in the given order.

    Parameters
    ----------
    lattice
        Its sites.
    area
        See `offsets`.
    order
        Sites, the first of which that is free is the next centre.
    most
        Areas at most; None: as many as `_FROZEN` allows.

    Returns
    -------
    tuple
        Flat indices of all sites that have one of these areas, and which sites are frozen, shape (Lx, Ly).
    """
    inside, blocked = (np.zeros((lattice.num_sites, lattice.num_sites), dtype=bool) for _ in range(2))
    for scale, mask in ((1, inside), (2, blocked)):
        near = lattice.shift(offsets(lattice, area, scale))
        sites, columns = np.nonzero(near >= 0)
        mask[sites, near[sites, columns]] = True
    free, frozen = np.ones(lattice.num_sites, dtype=bool), np.zeros(lattice.num_sites, dtype=bool)
    limit = max(1, int(_FROZEN * lattice.num_sites / inside.sum(axis=1).max())) if most is None else most
    centres: list[int] = []
    for site in order:
        if free[site] and limit > 0:
            limit -= 1
            centres += np.flatnonzero(np.all(inside == inside[site], axis=-1)).tolist()
            free &= ~blocked[site]
            frozen |= inside[site]
    return np.array(centres), frozen.reshape(lattice.size)


def move_outside(
    config: Config,
    model: ForceField | Committee,
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
    drive = model.drive(build_system(config))
    now = torch.as_tensor(spins)
    for number in range(round(duration / step)):
        noise = bath.field(sites, number, torch.float64)

        def omega(at: torch.Tensor, _: float, noise: torch.Tensor | None = noise) -> torch.Tensor:
            fields = model.predict(at.numpy()[None], lattice, drive)
            field = torch.as_tensor(fields.equilibrium[0] + fields.nonequilibrium[0])
            return angular_velocity(at, field if noise is None else field + noise, damping)

        now = torch.where(held, now, advance(now, number * step, step, omega))
    return now.numpy()


def perpendicular(field: NDArray[np.float64], spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """H - S (S·H) at the sites, shape (Lx Ly, 3)."""
    return (field - spins * np.sum(field * spins, axis=-1, keepdims=True)).reshape(-1, 3)


def chosen_frames(labels: Labels, most: int, metal: float) -> NDArray[np.int64]:
    """Evenly spread frames among those with this share of sites in metal.

    Raises
    ------
    HpcspinError
        If there is none, or the file does not say which sites are metal.
    """
    density = labels.others.get("density")
    if density is None and metal > 0:
        raise HpcspinError("--metal: a file of labels has no density; give one that has it, or leave --metal out")
    depleted = np.zeros(len(labels.spins)) if density is None else np.mean(density < _METAL, axis=(1, 2))
    enough = np.flatnonzero(depleted >= metal)
    if not len(enough):
        raise HpcspinError(f"--metal: a file of labels has no frame with {metal} of its sites in metal; give less")
    return enough[np.unique(np.linspace(0, len(enough) - 1, min(most, len(enough))).round().astype(int))]


def study(
    config: Config, model: ForceField | Committee, labels: Labels, arguments: argparse.Namespace, bar: Bar
) -> dict[str, Any]:
    """Errors that no field of each reach avoids, and those of the model, on the frames of one file."""
    system = build_system(config)
    lattice, solver = system.lattice, build_solver(config, system, World())
    scatter, there = ({area: [] for area in arguments.areas} for _ in range(2))
    variance, errors, in_metal = [], [], []
    for frame in chosen_frames(labels, arguments.frames, arguments.metal):
        spins = labels.spins[frame]
        solver.reset()
        state = solver.solve(spins[None])
        exact = perpendicular(state.field[0], spins)
        learned = perpendicular(model.predict(spins[None], lattice, model.drive(system)).field[0], spins)
        squares = np.sum((learned - exact) ** 2, axis=-1) / 2
        depleted = state.density[0].reshape(-1) < _METAL
        variance.append(float(np.mean(np.sum(exact**2, axis=-1)) / 2))
        errors.append(float(np.mean(squares)))
        in_metal.append([depleted.mean(), squares[depleted].sum() / squares.sum()])
        for number, area in enumerate(arguments.areas):
            rng = np.random.default_rng([int(frame), number])
            order = rng.permutation(lattice.num_sites) if arguments.hardest is None else np.argsort(-squares)
            centres, frozen = freeze(lattice, area, order, arguments.hardest)
            moved = move_outside(config, model, lattice, spins, frozen, arguments.duration, int(frame))
            solver.reset()
            other = perpendicular(solver.solve(moved[None]).field[0], moved)
            # Two components, and the difference of two draws has twice the variance of one.
            scatter[area].append(float(np.mean(np.sum((other - exact)[centres] ** 2, axis=-1)) / 4))
            there[area].append(float(np.mean(squares[centres])))
            bar.advance(note=f"{area}: {scatter[area][-1]:.1e}")
    return {
        "frames": len(variance),
        "variance": _mean(variance),
        "model_mse": _mean(errors),
        "share_of_sites_in_metal": float(np.mean(in_metal, axis=0)[0]),
        "share_of_squared_error_in_metal": float(np.mean(in_metal, axis=0)[1]),
        "unavoidable_mse": {area: _mean(measured) for area, measured in scatter.items()},
        "by_frame": {"model_mse": errors, "unavoidable_mse": scatter},
        "model_mse_there": {area: _mean(measured) for area, measured in there.items()},
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("labels", nargs="+", help="files of labels, and keys of the config as KEY=VALUE")
    parser.add_argument("--areas", nargs="+", default=["3", "5", "8"])
    parser.add_argument("--frames", type=int, default=8, help="of each file")
    parser.add_argument("--metal", type=float, default=0.0, help="smallest share of sites in metal of these frames")
    parser.add_argument("--hardest", type=int, help="areas a frame, around the sites of the largest errors")
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--output", type=Path, default=RESULTS / "locality.json")
    arguments = parser.parse_args()
    files = [Path(name) for name in arguments.labels if "=" not in name]
    overrides = [name for name in arguments.labels if "=" in name]
    model, start = load_force(arguments.model), time.perf_counter()
    configs = [config_of(arguments.config, path, overrides) for path in files]
    labels = [read_labels(path, config.lattice.size) for path, config in zip(files, configs, strict=True)]
    count = sum(len(chosen_frames(one, arguments.frames, arguments.metal)) for one in labels)
    with progress(World(), "locality", count * len(arguments.areas)) as bar:
        rows = {
            path.stem: study(config, model, one, arguments, bar)
            for path, config, one in zip(files, configs, labels, strict=True)
        }
    given = {name: value for name, value in vars(arguments).items() if name not in ("labels", "output")}
    result = {
        "provenance": provenance(),
        "arguments": {name: value.name if isinstance(value, Path) else value for name, value in given.items()},
        "overrides": overrides,
        "seconds": round(time.perf_counter() - start, 1),
        "reaches": model.reaches,
        "files": rows,
    }
    write_json(arguments.output, result)
    print(json.dumps(rows, indent=2))


def _mean(values: list[float]) -> dict[str, float | None]:
    """Mean over frames and its standard error."""
    return dataclasses.asdict(Estimate.of(values))


if __name__ == "__main__":
    main()
