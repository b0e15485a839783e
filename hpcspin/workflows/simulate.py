"""``hpcspin simulate``: one trajectory under an exact, learned or classical field."""

from __future__ import annotations

from pathlib import Path

from hpcspin.config import Config, DynamicsSection, completed
from hpcspin.dynamics import Settings, Simulation
from hpcspin.parallel.devices import keep_freed_memory, pick_device
from hpcspin.parallel.world import World
from hpcspin.workflows.fields import build_field
from hpcspin.workflows.system import build_lattice, initial_spins


def simulate_directory(config: Config, directory: Path, world: World) -> int:
    """Simulate, or go on where the directory's checkpoint stands.

    Parameters
    ----------
    config
        Must hold ``initial`` and ``dynamics``, and ``electrons`` for the exact field.
    directory
        Receives ``trajectory.h5`` and the checkpoints.
    world
        The ranks.

    Returns
    -------
    int
        Exit code: 0 when finished, 75 when stopped by a signal with a checkpoint.

    Raises
    ------
    HpcspinError
        If the config, the model or the directory does not fit.
    """
    config.need("initial", "dynamics")
    assert config.initial is not None
    assert config.dynamics is not None
    lattice = build_lattice(config.lattice)
    device = pick_device(world, config.device)
    keep_freed_memory()
    simulation = Simulation(
        lattice,
        build_field(config, lattice, world, device),
        initial_spins(config.initial, lattice, config.dynamics.seed),
        _settings(config.dynamics),
        directory,
        config=config.model_dump(mode="json"),
        complete=completed,
        world=world,
        device=device,
    )
    return simulation.run().exit_code


def _settings(dynamics: DynamicsSection) -> Settings:
    return Settings(**dynamics.model_dump(exclude={"field", "model", "classical", "check_interval"}))
