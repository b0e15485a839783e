"""``hpcspin export``: trajectories for the viewers of other communities."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcspin.config import LatticeSection
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import count_frames, open_hdf5, partial_path, read_attributes, write_ovf, write_xdmf
from hpcspin.workflows.sole_writer import sole_writer
from hpcspin.workflows.system import build_lattice

Format = Literal["ovf", "ovf-text", "xdmf"]
_VECTORS = {"spins": "1", "field": "t"}


def export(source: Path, target: Format, output: Path, world: World) -> None:
    """Write a trajectory in another format.

    Parameters
    ----------
    source
        Trajectory or label file, finished or partial, or the directory of a simulation.
    target
        ``xdmf`` (ParaView reads the HDF5 file through it), ``ovf`` or ``ovf-text`` (one OVF 2.0 file a frame of spins
        and one of the field).
    output
        The .xdmf file, or the directory of the OVF files.
    world
        The ranks; the first one does the work.

    Raises
    ------
    HpcspinError
        If the source is not a file of frames with a config.
    """
    source = _frames_file(source)
    places = _places(source)
    if target == "xdmf" and output.suffix != ".xdmf":
        raise HpcspinError(f"{output}: ParaView knows XDMF by the name; end it with .xdmf")
    with sole_writer(output, world, directory=target != "xdmf"):
        if world.rank > 0:
            return
        if target == "xdmf":
            write_xdmf(output, source, places)
        else:
            _write_all_ovf(output, source, places, text=target == "ovf-text")


def _write_all_ovf(output: Path, source: Path, places: NDArray[np.float64], *, text: bool) -> None:
    with open_hdf5(source) as file:
        for frame in range(count_frames(file, source)):
            step = int(file["step"][frame]) if "step" in file else frame
            time = float(file["time"][frame]) if "time" in file else 0.0
            for name, unit in _VECTORS.items():
                write_ovf(
                    output / f"{name}_{step:08d}.ovf",
                    file[name][frame],
                    places,
                    title=name,
                    unit=unit,
                    time=time,
                    text=text,
                )


def _frames_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    finished = source / "trajectory.h5"
    return finished if finished.exists() else partial_path(finished)


def _places(source: Path) -> NDArray[np.float64]:
    """Coordinates of the sites of the lattice in the file's config."""
    config = read_attributes(source).get("config")
    if not isinstance(config, dict) or "lattice" not in config:
        raise HpcspinError(f"{source}: carries no config with a lattice; export files that hpcspin has written")
    lattice = build_lattice(LatticeSection.model_validate(config["lattice"]))
    return lattice.cartesian(np.moveaxis(np.indices(lattice.size), 0, -1))
