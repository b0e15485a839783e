"""What workflows of several stages share: a directory of one config, and trajectories shared out over the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcspin.config import Config
from hpcspin.dynamics import CHECKPOINTING
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import config_differences, describe_differences, make_directory, read_json, write_text
from hpcspin.workflows.simulate import simulate_directory

_FREE = (*CHECKPOINTING, "training.allow", "dynamics.allow", "plugins")


def claim(config: Config, path: Path, world: World, may_grow: tuple[str, ...] = ()) -> None:
    """Store the config in a directory; refuse the directory of another one.

    Parameters
    ----------
    config
        What the directory is for.
    path
        File of the config in the directory, which is made.
    world
        The ranks.
    may_grow
        Dotted keys in which the stored config may differ, more of the same; `CHECKPOINTING`, and what is allowed to
        differ between labels and models, always may.

    Raises
    ------
    HpcspinError
        If the directory belongs to another config.
    """
    if world.rank == 0:
        make_directory(path.parent)
        if path.exists():
            stored = read_json(path, "choose another --output")
            differences = config_differences(stored, config.model_dump(mode="json"), (*may_grow, *_FREE))
            if differences:
                raise HpcspinError(
                    f"{path.parent}: belongs to another config: {describe_differences(differences)}; "
                    "restore these keys or choose another --output"
                )
        write_text(path, config.as_json())
    world.barrier()


def simulate_all(configs: Mapping[Path, Config], world: World) -> int:
    """Simulate every directory's trajectory, a team of ranks each.

    Returns
    -------
    int
        The largest exit code: 0 when all are finished.
    """
    teams = min(world.size, len(configs))
    number, team = world.split(teams)
    code = 0
    for directory, config in list(configs.items())[number::teams]:
        team.say(f"{directory}")
        code = simulate_directory(config, directory, team)
        if code:
            break
    return max(world.allgather(code))
