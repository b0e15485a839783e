"""The objects that a config describes: lattice, electrons, initial spins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from hpcspin.config import Config, parse_config
from hpcspin.electrons import ClosedLattice, DrivenLattice, ElectronSystem, Reservoir, Solver, make_solver
from hpcspin.electrons.settings import ElectronsSettings, ReservoirSettings
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, make_lattice, make_texture
from hpcspin.lattice.settings import InitialSettings, LatticeSettings, chosen_sites
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.storage import open_hdf5, real_dataset
from hpcspin.storage.opening import attributes

_SPIN_BYTES = 24


def build_lattice(section: LatticeSettings) -> Lattice:
    """Lattice of a config; HpcspinError if its spins, with all of which every rank starts, exceed the memory."""
    needed, there = _SPIN_BYTES * math.prod(section.size), psutil.virtual_memory().total
    if needed > there:
        raise HpcspinError(
            f"lattice.size: the spins of {section.size[0]} x {section.size[1]} sites take {needed / 2**30:.3g} GiB, "
            f"and this machine has {there / 2**30:.3g} GiB of memory; give a smaller lattice"
        )
    return make_lattice(section.kind, section.size, section.periodic)


def lattice_of(path: Path) -> Lattice:
    """Lattice of the config that a file of frames carries; HpcspinError if it has none, or spins on other sites."""
    with open_hdf5(path) as file:
        config = attributes(file, path).get("config", {})
        if "lattice" not in config:
            raise HpcspinError(f"{path}: carries no config with a lattice; give a file that hpcspin has written")
        lattice = build_lattice(parse_config({"lattice": config["lattice"]}, str(path)).lattice)
        real_dataset(file, path, "spins", ("n", *lattice.size, 3))
    return lattice


def build_system(config: Config) -> ElectronSystem:
    """Lattice and electrons of a config, with their reservoirs where they have some."""
    electrons, lattice = config.section(ElectronsSettings), build_lattice(config.lattice)
    shared = ("hopping", "exchange", "temperature", "on_site", "rashba", "solver", "tolerance", "precision")
    given: dict[str, Any] = {name: getattr(electrons, name) for name in shared}
    given["vacancies"] = build_vacancies(config, lattice)
    if electrons.reservoirs:
        reservoirs = tuple(_reservoir(section, lattice) for section in electrons.reservoirs)
        return DrivenLattice(lattice, reservoirs=reservoirs, **given)
    return ClosedLattice(lattice, potential=electrons.potential, filling=electrons.filling, **given)


def build_vacancies(config: Config, lattice: Lattice) -> NDArray[np.bool_] | None:
    """Sites without a spin, shape (Lx, Ly); None where every site has one."""
    if config.electrons is None or not config.electrons.vacancies:
        return None
    return chosen_sites(lattice, config.electrons.vacancies, "electrons.vacancies")


def vacancies_of(stored: Mapping[str, Any], lattice: Lattice) -> NDArray[np.bool_]:
    """Sites without a spin by the attributes of a file of frames, shape (Lx, Ly); their entries in it mean nothing."""
    vacancies = ((stored.get("config") or {}).get("electrons") or {}).get("vacancies")
    return chosen_sites(lattice, vacancies or (), "electrons.vacancies")


def build_solver(config: Config, system: ElectronSystem, world: World) -> Solver[Any, Any]:
    """Solver of the electrons' state that a config asks for, on the device of this rank."""
    seed = 0 if config.dynamics is None else config.dynamics.seed
    return solver_of(system, seed, world, pick_device(world, config.device))


def solver_of(system: ElectronSystem, seed: int, world: World, device: torch.device) -> Solver[Any, Any]:
    """The solver that a system names; the seed is that of its random vectors, if it uses any."""
    solver = make_solver(system.solver, system, system.tolerance, world, device, system.precision)
    solver.seed = seed
    return solver


def initial_spins(
    initial: InitialSettings, lattice: Lattice, seed: int, vacancies: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Spins at time zero, shape (Lx, Ly, 3); HpcspinError if they do not fit the lattice."""
    return make_texture(initial.kind, lattice, seed, vacancies, **initial.parameters)


def _reservoir(section: ReservoirSettings, lattice: Lattice) -> Reservoir:
    sites = chosen_sites(lattice, section.sites, f"electrons.reservoirs: {section.name!r}")
    return Reservoir(section.name, sites, section.width, section.potential, section.polarization)
