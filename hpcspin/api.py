"""The functions of `import hpcspin`: the verbs of the command line, for arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.agreement import warn_of_labels
from hpcspin.assembly.given import FieldLike, GivenFields
from hpcspin.assembly.landscape import Landscape
from hpcspin.assembly.outputs import scratch
from hpcspin.assembly.system import build_system
from hpcspin.config import Allowed, Config, load_config, named_plugins, parse_config
from hpcspin.dynamics import CLOSED_OBSERVERS
from hpcspin.electrons import DrivenLattice, ElectronSystem
from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import Lattice, as_snapshots, one_snapshot
from hpcspin.lattice.settings import chosen_sites
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, load_force
from hpcspin.registry import load_plugins
from hpcspin.settings import checked
from hpcspin.storage import FrameReader, check_spins, find_trajectory, require_output, trajectory_file
from hpcspin.workflows.evaluate import evaluate as evaluate_model
from hpcspin.workflows.evaluate import label_files
from hpcspin.workflows.label import write_label_file
from hpcspin.workflows.simulate import run_trajectory
from hpcspin.workflows.train import train_directory

ConfigLike = str | Path | Mapping[str, Any] | Config
"""A config: a YAML file, its content as a mapping, or a `Config`."""


def load_system(config: ConfigLike, *overrides: str) -> ElectronSystem:
    """The electrons of a config on their lattice: a `DrivenLattice` if they have reservoirs, else a `ClosedLattice`.

    Parameters
    ----------
    config
        YAML file, or its content as a mapping.
    *overrides
        ``"key.path=value"``, as on the command line; only for a config that is a file.

    Raises
    ------
    HpcspinError
        If the config is invalid or has no electrons.
    """
    return build_system(_config(config, overrides))


def label(system: ElectronSystem, spins: Any, output: str | Path, device: str = "auto") -> FrameReader:
    """Write the exact fields of spins, and the other results of the solver, to a label file, or continue that file.

    Parameters
    ----------
    system
        The lattice of electrons, which also sets the solver and its tolerance.
    spins
        Unit vectors, shape (Lx, Ly, 3) or (n, Lx, Ly, 3).
    output
        The label file.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    FrameReader
        The label file, open for reading.

    Raises
    ------
    HpcspinError
        If the spins do not fit the lattice, a label misses its tolerance, the file belongs to other labels, or a signal
        stopped the call (the same call goes on).
    """
    world, output = World.current(), _path(output, "output")
    if not isinstance(system, ElectronSystem):
        raise HpcspinError(f"label: {shown(system)} has no electrons; give a DrivenLattice or a ClosedLattice")
    snapshots, _ = as_snapshots(spins, system.lattice.size)
    if world.rank == 0:
        require_output(output)
    attributes = {"config": system.as_config(), "spins_sha256": _digest(snapshots)}
    checked = check_spins(snapshots, None, "spins", vacancies=system.vacancies)
    if write_label_file(system, lambda n: checked[n : n + 1], len(checked), output, attributes, world, device):
        raise HpcspinError(f"{output}: the labels were stopped; the same call goes on")
    world.barrier()
    return FrameReader(output)


@checked(precision=Literal["float32", "float64"] | None)
def load_model(path: str | Path, precision: str | None = None) -> ForceField | Committee:
    """A learned force field in evaluation mode; its ``field(spins, system)`` is the exchange field.

    Parameters
    ----------
    path
        Name of a shipped model, a ``.safetensors`` file, or the output directory of `train`.
    precision
        ``"float32"`` or ``"float64"``, the precision of its arithmetic, for example for long runs without damping;
        None for the precision of its training.

    Raises
    ------
    HpcspinError
        If there is no such model or precision, or its files are damaged.
    """
    return load_force(_path(path, "model"), precision)


def simulate(
    system: ElectronSystem | Lattice,
    field: FieldLike = None,
    spins: Any = None,
    *,
    path: str | Path | None = None,
    device: str = "auto",
    allow: Collection[str] = (),
    exact_interval: int | None = None,
    check_interval: int | None = None,
    **settings: Any,
) -> Run:
    """Landau-Lifshitz-Gilbert dynamics of spins under any field.

    Parameters
    ----------
    system
        The lattice of electrons; a `Lattice` is enough for fields that need no electrons.
    field
        None for the exact field of the system's electrons; a solver, a force field or a committee, the name or path
        of one of the latter two, any object with the protocol `hpcspin.dynamics.Field`; or a list of these, for their
        sum, with at most one field of electrons, exact or learned.
    spins
        Unit vectors at time zero, shape (Lx, Ly, 3).
    path
        Directory of the run, which resumes there when the call is repeated; None to return arrays only.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    allow
        Keys of the electrons, such as ``"electrons.exchange"``, that may differ from a model's training data.
    exact_interval
        Steps between two exact fields that correct the field of a model; None for no correction.
    check_interval
        Recorded frames between two exact labels that check the field of a model and change nothing; None for no labels.
    **settings
        ``damping``, ``temperature``, ``step``, ``duration`` and others of `hpcspin.dynamics.DynamicsSettings`.

    Raises
    ------
    HpcspinError
        If the arguments do not fit together, or the field fails.
    """
    world, lattice = World.current(), _lattice_of(system)
    if spins is None:
        raise HpcspinError(
            "simulate: spins are missing; give those at time zero, such as spins=system.texture('random')"
        )
    start = one_snapshot(spins, lattice.size)
    chosen = pick_device(world, device)
    if isinstance(system, ElectronSystem) and not isinstance(system, DrivenLattice):
        settings = {"observers": CLOSED_OBSERVERS, **settings}
    intervals = {"exact_interval": exact_interval, "check_interval": check_interval}
    given = GivenFields("simulate", field, system, settings, allow=allow, **intervals)
    with scratch(world) if path is None else nullcontext(_path(path, "path")) as directory:
        outcome = run_trajectory(
            lattice,
            given.build(world, chosen),
            start,
            given.dynamics,
            directory,
            config=given.config,
            identity={**given.identity, "spins_sha256": _digest(start)},
            electrons=(lambda: system) if isinstance(system, ElectronSystem) else None,
            vacancies=system.vacancies if isinstance(system, ElectronSystem) else None,
            world=world,
            device=chosen,
        )
        trajectory = find_trajectory(directory)
        if path is not None:
            return Run(trajectory, outcome.finished)
        arrays = None
        if world.rank == 0:
            with FrameReader(trajectory) as frames:
                arrays = {name: np.asarray(getattr(frames, name)) for name in frames.names}
        return Run(trajectory, outcome.finished, world.broadcast(arrays))


def landscape(
    system: ElectronSystem | Lattice,
    field: FieldLike = None,
    *,
    pinned: Any = (),
    device: str = "auto",
    allow: Collection[str] = (),
) -> Landscape:
    """Energy of the spins under a field that derives from one, for minimisation and for paths between minima.

    Parameters
    ----------
    system, field, device, allow
        As for `simulate`; the field can be that of closed electrons, a model of kind conservative, a classical term,
        or a list of these.
    pinned
        Sites whose spins are fixed, as for `simulate`: a name such as ``"left"``, ``{"columns": [0, 2]}``, sites
        [x, y], or a mask, bool, shape (Lx, Ly).

    Raises
    ------
    HpcspinError
        If the field derives from no energy, or its solver estimates it with noise.
    """
    world, lattice = World.current(), _lattice_of(system)
    vacancies = system.vacancies if isinstance(system, ElectronSystem) else None
    given = GivenFields("landscape", field, system, {"pinned": pinned}, allow=allow)
    total = given.build(world, pick_device(world, device))
    fixed = chosen_sites(lattice, given.dynamics.pinned, "landscape: pinned")
    return Landscape(lattice, total, vacancies, fixed)


def train(
    config: ConfigLike, data: str | Path | Sequence[str | Path], output: str | Path, *overrides: str
) -> ForceField | Committee:
    """Fit the force field of a config to directories of label files, or resume the training in `output`.

    Parameters
    ----------
    config, *overrides
        As for `load_system`; with the sections ``lattice``, ``potential`` and ``training``.
    data
        One or several directories of label files.
    output
        Directory of the model, its checkpoints and metrics.

    Returns
    -------
    ForceField or Committee
        The trained force field, or with ``training.members`` all of them, as `load_model` returns it.

    Raises
    ------
    HpcspinError
        If the config or the data are wrong, or the training was interrupted (the same call resumes it).
    """
    directories = data if isinstance(data, list | tuple) else [data]
    if not directories:
        raise HpcspinError("data: the list is empty; give directories of label files")
    world, output = World.current(), _path(output, "output")
    if train_directory(_config(config, overrides), [_path(d, "data") for d in directories], output, world):
        raise HpcspinError(f"{output}: the training was stopped, with a checkpoint; the same call goes on")
    return load_model(output)


@checked(allow=Allowed)
def evaluate(
    model: ForceField | Committee | str | Path, data: str | Path, device: str = "auto", allow: Collection[str] = ()
) -> dict[str, Any]:
    """Errors of a model on exact labels.

    Parameters
    ----------
    model
        A force field or a committee, or the name or path of one.
    data
        Label file, or directory of label files.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    allow
        Keys of the electrons, such as ``"electrons.exchange"``, that may differ between the labels and the model's
        training data.

    Returns
    -------
    dict
        What `hpcspin evaluate` writes: ``mse`` of a component of the perpendicular field, ``sigma``,
        ``variance_fraction``, ``snapshots`` and more.

    Raises
    ------
    HpcspinError
        If a file is invalid, or the labels do not fit the model.
    """
    world = World.current()
    force = load_model(model) if isinstance(model, str | Path) else model
    if not isinstance(force, ForceField | Committee):
        raise HpcspinError(f"evaluate: {shown(model)} is no model; give a force field, or the name or path of one")
    files, name = label_files(_path(data, "data"), world), str(model) if isinstance(model, str | Path) else "the model"
    bias = warn_of_labels(files, Path(name), force.card, allow, world)
    return evaluate_model(force, files, world, bias, device)[0]


def open_labels(path: str | Path) -> FrameReader:
    """Open a label file; frames are read when they are indexed, as in ``labels.spins[3]``.

    Its attributes are ``labels.attributes``.
    """
    return FrameReader(_path(path, "labels"))


def open_trajectory(path: str | Path) -> FrameReader:
    """Open a finished or running trajectory, given by its directory or its file; read like `open_labels`."""
    return FrameReader(trajectory_file(_path(path, "trajectory")))


def _config(given: ConfigLike, overrides: Sequence[str]) -> Config:
    if not all(isinstance(override, str) for override in overrides):
        raise HpcspinError(f"overrides {shown(overrides)} are no texts; give 'key.path=value', ...")
    if isinstance(given, str | Path):
        return load_config(given, overrides)
    if overrides:
        raise HpcspinError("overrides belong to a config that is a file; change the mapping itself")
    if isinstance(given, Config):
        return given
    if not isinstance(given, Mapping):
        raise HpcspinError(f"{shown(given)} is no config; give a YAML file or its content as a mapping")
    load_plugins(named_plugins(given, "config"), Path())
    return parse_config(dict(given), "config")


def _path(given: Any, meaning: str) -> Path:
    if not isinstance(given, str | os.PathLike) or given == "":  # "" would be the current directory.
        raise HpcspinError(f"{meaning}: {shown(given)} is no path; give the name of a file or directory")
    return Path(given)


def _lattice_of(system: Any) -> Lattice:
    lattice = system.lattice if isinstance(system, ElectronSystem) else system
    if not isinstance(lattice, Lattice):
        raise HpcspinError(
            f"{shown(system)} is no system; give a DrivenLattice, a ClosedLattice or, without electrons, a Lattice"
        )
    return lattice


def _digest(spins: NDArray[np.float64]) -> str:
    return hashlib.sha256(spins.tobytes()).hexdigest()


class Run:
    """The recorded frames of a trajectory; each dataset is an attribute, such as ``run.spins``.

    Attributes
    ----------
    time : ndarray
        Times of the frames in ħ/t, shape (n,).
    spins, field : ndarray
        Spins and the field on them, shape (n, Lx, Ly, 3).
    wall_position : ndarray
        In columns, shape (n,), if recorded; likewise every other observer and observable of the field.
    finished : bool
        False if the run was stopped from outside; the same call then continues it.
    """

    def __init__(self, path: Path, finished: bool, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._path, self.finished, self._arrays = path, finished, arrays

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._arrays is None:
            with FrameReader(self._path) as frames:
                return np.asarray(getattr(frames, name))
        if name not in self._arrays:
            raise AttributeError(f"the run has no {name!r}; it has {', '.join(self._arrays)}")
        return self._arrays[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the datasets."""
        if self._arrays is not None:
            return tuple(self._arrays)
        with FrameReader(self._path) as frames:
            return tuple(frames.names)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.names]  # For completion in notebooks.

    def __repr__(self) -> str:
        where = "" if self._arrays is not None else f" in {self._path}"
        state = "finished" if self.finished else "stopped"
        return f"<{state} run of {len(self.time)} frames{where}: {', '.join(self.names)}>"
