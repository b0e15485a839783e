"""``hpcspin simulate``: one trajectory under an exact, learned, corrected or classical field."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.config import Config, DynamicsSection, completed
from hpcspin.dynamics import CorrectedField, Settings, Simulation
from hpcspin.dynamics.fields import terms_of
from hpcspin.parallel.devices import keep_freed_memory, pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import weights_digest
from hpcspin.workflows.fields import build_field
from hpcspin.workflows.system import build_lattice, initial_spins

_SHOWN = 16
"""Digits of a digest that tell two files apart in a line that people read."""


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
    field = build_field(config, lattice, world, device)
    spins = initial_spins(config.initial, lattice, config.dynamics.seed)
    contents = _contents(config, spins)
    given = config.model_dump(mode="json")
    simulation = Simulation(
        lattice,
        field,
        spins,
        _settings(config.dynamics),
        directory,
        config=given,
        identity=_told_by_contents(given, given, contents),
        complete=lambda stored: _told_by_contents(completed(stored), given, contents),
        world=world,
        device=device,
    )
    code = simulation.run().exit_code
    for term in terms_of(field):
        if isinstance(term, CorrectedField):
            world.say(f"{term.tally}")
    return code


def _contents(config: Config, spins: NDArray[np.float64]) -> dict[tuple[str, str], str]:
    """What the files hold that a config names, by section and key."""
    assert config.initial is not None
    assert config.dynamics is not None
    contents = {}
    if config.initial.kind == "file":
        contents["initial", "path"] = f"spins {hashlib.sha256(spins.tobytes()).hexdigest()[:_SHOWN]}"
    if config.dynamics.field in ("learned", "corrected") and config.dynamics.model is not None:
        contents["dynamics", "model"] = f"weights {weights_digest(config.dynamics.model)[:_SHOWN]}"
    return contents


def _told_by_contents(
    config: Mapping[str, Any], given: Mapping[str, Any], contents: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """A config with the contents of files in the place of their paths.

    A directory can then be moved, and a file that has been replaced is another one. Checkpoints of earlier versions
    have paths: the path that is given now counts as the file that it leads to now.
    """
    told = dict(config)
    for (section, key), content in contents.items():
        if told.get(section) and told[section].get(key) == given[section][key]:
            told[section] = {**told[section], key: content}
    return told


def _settings(dynamics: DynamicsSection) -> Settings:
    return Settings(
        **dynamics.model_dump(exclude={"field", "model", "allow", "exact_interval", "classical", "check_interval"})
    )
