"""How far the states of an exact trajectory are from any energy function."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.config import Config
from hpcspin.electrons import estimate_nonconservativity, make_solver
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.storage import write_json
from hpcspin.workflows.system import build_system

_TOLERANCE = 1e-8
"""Of the fields whose differences are taken."""


def driven_distances(
    config: Config, time: NDArray[np.float64], spins: NDArray[np.float64], states: int, world: World, output: Path
) -> list[dict[str, Any]]:
    """Nonconservativity of some states of a trajectory, written to a JSON file.

    Parameters
    ----------
    config
        Must hold ``electrons``.
    time, spins
        Of the trajectory, shapes (n,) and (n, Lx, Ly, 3).
    states
        How many, equally spaced in time.
    world
        Ranks that share the labels.
    output
        JSON file; rank 0 writes.

    Returns
    -------
    list
        ``time``, ``ratio``, ``error`` and ``resolution`` of every state, see `DrivenDistance`.
    """
    assert config.electrons is not None
    tolerance = min(config.electrons.tolerance, _TOLERANCE)
    solver = make_solver(
        config.electrons.solver, build_system(config), tolerance, world, pick_device(world, config.device)
    )
    found = []
    for frame in np.unique(np.linspace(0, len(time) - 1, states).round().astype(int)):
        distance = estimate_nonconservativity(solver, spins[frame])
        found.append({"time": float(time[frame]), **asdict(distance)})
        world.say(f"report: nonconservativity {distance.ratio:.3g} ± {distance.error:.2g} at time {time[frame]:g}")
    if world.rank == 0:
        write_json(output, found)
    return found
