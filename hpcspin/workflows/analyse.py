"""``hpcspin analyse``: a quantity of a whole trajectory, from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis import QUANTITIES
from hpcspin.assembly.system import lattice_of, vacancies_of
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import FrameReader, atomic_hdf5, require_absent, require_output, trajectory_file
from hpcspin.storage.datasets import ANALYSED, describe_datasets
from hpcspin.storage.provenance import with_provenance, write_attributes


def analyse_trajectory(directory: Path, quantity: str, output: Path, world: World, *, force: bool = False) -> None:
    """Compute a quantity of a trajectory on rank 0, which reads a few frames at a time, and write its arrays."""
    measure = QUANTITIES[quantity]
    if world.rank == 0:
        source = trajectory_file(directory)
        require_output(output, source)
        require_absent(output, force=force)
        with FrameReader(source) as frames:
            if "time" not in frames.names:
                raise HpcspinError(f"{source}: its spins have no time; give the trajectory of a simulation")
            first, stop, interval = equal_intervals(np.asarray(frames.time), source)
            config = frames.attributes.get("config")
            spins: Any = frames.spins.between(first, stop)  # Indexed like an array.
            lattice = lattice_of(source)
            vacant = vacancies_of(frames.attributes, lattice)
            if vacant.any():
                spins = spins[:]
                spins[:, vacant] = np.nan
            arrays = measure(lattice, spins, interval)
        with atomic_hdf5(output) as file:
            for name, values in arrays.items():
                file[name] = values
            about = {"quantity": quantity, "trajectory": str(source), "config": config}
            write_attributes(file, "analysis", with_provenance(about))
            describe_datasets(file, about, ANALYSED.get(quantity, {}))
        world.log_result(f"{output}: {quantity} of {stop - first} frames, {interval:g} apart in time")
    world.barrier()


def equal_intervals(time: np.ndarray, source: Path) -> tuple[int, int, float]:
    """The first of the frames that are equally spaced in time, the one after the last of them, and their spacing.

    The initial frame is left out if it is long before the others, outside `dynamics.record_window`, and so is a last
    frame that only ends the run.
    """
    if len(time) < 2:
        raise HpcspinError(f"{source}: has {len(time)} frame(s); an analysis in time needs two or more")
    first = int(len(time) > 3 and time[1] - time[0] > 1.5 * (time[2] - time[1]))
    steps = np.diff(time[first:])
    regular = np.isclose(steps, steps[0], rtol=1e-6)
    if not regular[:-1].all():
        raise HpcspinError(
            f"{source}: its frames are not equally far apart in time; simulate without dynamics.record_walls"
        )
    return first, len(time) - int(not regular[-1]), float(steps[0])
