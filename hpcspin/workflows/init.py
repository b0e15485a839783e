"""``hpcspin init``: a commented config to start from, joined from the sections in ``hpcspin/templates``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import write_text

Kind = Literal["square", "triangular"]
Job = Literal["wall", "quench", "label", "train", "learn", "reproduce", "classical", "torque"]
JOBS: dict[Job, tuple[str, str, str]] = {
    "wall": (
        "A wall that a voltage drives, under exact fields",
        "simulate {} --output runs/wall",
        "lattice electrons initial dynamics",
    ),
    "quench": (
        "Spins that order on a closed lattice, in equilibrium, under exact fields",
        "simulate {} --output runs/quench",
        "closed_lattice closed_electrons closed_dynamics",
    ),
    "label": ("Exact fields of your spins", "label {} --spins SPINS.h5 --output labels.h5", "lattice electrons"),
    "train": (
        "A force field from label files",
        "train {} --data DIR --output runs/model",
        "lattice electrons potential training",
    ),
    "learn": (
        "A force field of your own system from few labels",
        "learn {} --output runs/learned",
        "lattice electrons dynamics potential training learning",
    ),
    "reproduce": (
        "Exact trajectories, a force field from them, both dynamics compared",
        "reproduce {} --output runs/all",
        "lattice electrons initial dynamics potential training reproduce",
    ),
    "classical": (
        "Spins under classical terms, without electrons",
        "simulate {} --output runs/classical",
        "lattice initial classical",
    ),
    "torque": (
        "Torque of a polarised current on a magnet, and the voltage at which it switches",
        "torque {} --output runs/torque",
        "lattice torque_electrons torque torque_dynamics",
    ),
}
"""For each job: what it is, the arguments of its command, the sections of its config."""


def write_config(path: Path, kind: Kind, job: Job, world: World) -> None:
    """Write a config that is valid as it is, each of its keys with a comment; a file is never overwritten."""
    if world.broadcast(path.exists()):
        raise HpcspinError(f"{path}: exists already; remove it, or choose another name")
    what, arguments, sections = JOBS[job]
    command = f"hpcspin {arguments.format(path)}"
    units = "Energies in the hopping t, times in hbar/t, lengths in lattice constants."
    head = f"# {what}:\n#\n#     {command}\n#\n# {units}\n"
    parts = [(files("hpcspin") / "templates" / f"{name}.yaml").read_text() for name in sections.split()]
    if world.rank == 0:
        write_text(path, "\n".join([head, *parts]).replace("kind: KIND      ", f"kind: {kind:<10}"))
    world.log_result(f"{path}: edit it, then run {command}")
