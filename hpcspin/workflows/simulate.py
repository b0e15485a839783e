"""``hpcspin simulate``: one trajectory under an exact, learned, corrected or classical field."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.fields import build_field
from hpcspin.assembly.outputs import recorded_job
from hpcspin.assembly.system import build_lattice, build_system, build_vacancies, initial_spins
from hpcspin.config import Config, DynamicsSection
from hpcspin.dynamics import CorrectedField, DynamicsSettings, Field, Outcome, Simulation
from hpcspin.dynamics.fields import terms_of
from hpcspin.dynamics.interrupt import StopSignals
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice
from hpcspin.lattice.settings import InitialSettings
from hpcspin.parallel.devices import form_teams, keep_freed_memory, pick_device
from hpcspin.parallel.domain import choose_blocks
from hpcspin.parallel.world import World
from hpcspin.potential import weights_digest
from hpcspin.storage import TRAJECTORY, find_trajectory

_SHOWN = 16
"""Digits of a digest in a message."""


def simulate_directory(config: Config, directory: Path, world: World) -> int:
    """Simulate, or continue from the directory's checkpoint."""
    initial, dynamics = config.section(InitialSettings), config.section(DynamicsSection)
    lattice = build_lattice(config.lattice)
    spins = initial_spins(initial, lattice, dynamics.seed, build_vacancies(config, lattice))
    _warn_of_unfinished(initial, world)
    given = config.model_dump(mode="json")
    outcome = simulate_from(spins, config, directory, world, _identity(initial, dynamics, spins, given))
    if outcome.finished:
        world.log_result(f"{directory / TRAJECTORY}: {outcome.step} steps, to time {outcome.step * dynamics.step:g}")
    return outcome.exit_code


def simulate_from(
    spins: NDArray[np.float64], config: Config, directory: Path, world: World, identity: Mapping[str, Any]
) -> Outcome:
    """Simulate from given spins, whatever the initial spins of the config; for ``identity`` see `Simulation`."""
    lattice, device = build_lattice(config.lattice), pick_device(world, config.device)
    keep_freed_memory()
    return run_trajectory(
        lattice,
        build_field(config, lattice, world, device),
        spins,
        config.section(DynamicsSection),
        directory,
        config=config.model_dump(mode="json"),
        identity=identity,
        electrons=cache(lambda: build_system(config)) if config.electrons else None,
        vacancies=build_vacancies(config, lattice),
        world=world,
        device=device,
    )


def run_trajectory(
    lattice: Lattice,
    field: Field,
    spins: NDArray[np.float64],
    settings: DynamicsSettings,
    directory: Path,
    **given: Any,
) -> Outcome:
    """Run a trajectory, or continue from its directory's checkpoint; the arguments are those of `Simulation`."""
    with recorded_job(directory, given["world"]):
        simulation = Simulation(lattice, field, spins, settings, directory, **given)
        outcome = simulation.run()
    for term in terms_of(field):
        if isinstance(term, CorrectedField):
            simulation.world.log(f"{term.tally}")
    return outcome


def simulate_all(configs: Mapping[Path, Config], world: World) -> int:
    """Simulate the trajectory of every directory, each with a team of ranks; return the largest exit code."""
    teams = min(world.size, len(configs))
    number, team = form_teams(world, teams, next(iter(configs.values())).device)
    code = 0
    with StopSignals(team) as signals:  # A team that waits for others must not end the job before their checkpoints.
        for directory, config in list(configs.items())[number::teams]:
            team.log(f"{directory}")
            code = signals.code(simulate_directory(config, directory, team))
            if code:
                break
        return max(world.allgather(code))


def require_blocks(size: tuple[int, int], halo: Halo, trajectories: int, world: World) -> None:
    """Raise HpcspinError if the teams of `simulate_all` would cut a lattice of this size thinner than a halo."""
    teams = min(world.size, trajectories)
    for ranks in (world.size // teams, -(-world.size // teams)):
        try:
            choose_blocks(size, ranks, halo)
        except HpcspinError as failure:
            raise HpcspinError(f"{failure} for each of {teams} trajectories at a time") from failure


def _warn_of_unfinished(initial: InitialSettings, world: World) -> None:
    source = Path(initial.parameters.get("path", ""))
    if initial.kind == "file" and source.is_dir() and find_trajectory(source).suffix == ".partial":
        world.log(f"warning: {source}: the simulation is not finished, its last frame so far is taken")


def _identity(
    initial: InitialSettings, dynamics: DynamicsSection, spins: NDArray[np.float64], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The config with digests of files in place of their paths: a moved file is the same, a replaced one is not."""
    identity = dict(given)
    if initial.kind == "file":
        digest = hashlib.sha256(spins.tobytes()).hexdigest()[:_SHOWN]
        identity["initial"] = {**given["initial"], "path": f"spins {digest}"}
    if dynamics.field in ("learned", "corrected") and dynamics.model is not None:
        digest = weights_digest(dynamics.model)[:_SHOWN]
        identity["dynamics"] = {**given["dynamics"], "model": f"weights {digest}"}
    return identity
