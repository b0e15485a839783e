"""``hpcspin export``: trajectories in formats for other viewers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.outputs import sole_writer
from hpcspin.assembly.system import lattice_of, vacancies_of
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import (
    SPINS,
    all_or_none,
    count_frames,
    frames_path,
    open_hdf5,
    partial_path,
    read_attributes,
    read_rows,
    real_dataset,
    require_absent,
    require_output,
    trajectory_file,
    write_ovf,
    write_xdmf,
)
from hpcspin.storage.ovf import Representation, is_square_grid

Format = Literal["ovf", "ovf-binary4", "ovf-text", "xdmf"]
_REPRESENTATIONS: dict[str, Representation] = {"ovf": "Binary 8", "ovf-binary4": "Binary 4", "ovf-text": "Text"}
_VECTORS = {"spins": "1", "field": "t"}


def export(source: Path, target: Format, output: Path, world: World, *, force: bool = False) -> None:
    """Write a trajectory or label file that carries a config, or the trajectory of a directory, in another format.

    The output is an ``xdmf`` file (for ParaView and meshio), or a directory of one OVF 2.0 file a frame of spins and
    one of the field. Vectors are 0 at vacancies. Files that are there are replaced only with ``force``. Rank 0 does the
    work.
    """
    source = trajectory_file(source)
    lattice = lattice_of(source)
    places, vacancies = lattice.cartesian(lattice.sites), vacancies_of(read_attributes(source), lattice)
    if target == "xdmf" and output.suffix != ".xdmf":
        raise HpcspinError(f"{output}: ParaView recognises XDMF by the name; end it with .xdmf")
    with sole_writer(output, world, directory=target != "xdmf"):
        if world.rank > 0:
            return
        if target == "xdmf":
            require_output(frames_path(output), source)
            require_absent(output, frames_path(output), force=force)
            with all_or_none(lambda: filter(Path.is_file, (output, frames_path(output)))):
                count = write_xdmf(output, source, places, vacancies)
            _tell(output, f"{count} frames, whose numbers are in {frames_path(output)}", source, world)
            return
        require_absent(*sorted(output.glob("*.ovf")), force=force)
        if not is_square_grid(places):
            world.log(
                f"warning: a {lattice.kind} lattice becomes an irregular mesh, with the place of each site; OOMMF "
                "reads it, viewers of square grids, such as mumax3 and Ubermag, show nothing: take XDMF and ParaView"
            )
        with all_or_none(lambda: output.glob("*.ovf")):
            count = _write_all_ovf(output, source, places, vacancies, _REPRESENTATIONS[target])
        _tell(output, f"{count} frames, a file each of {' and of '.join(_VECTORS)}", source, world)


def _tell(output: Path, what: str, source: Path, world: World) -> None:
    if source.suffix == partial_path(source).suffix:
        world.log(
            f"warning: {source}: its run is not finished; its frames so far are copied; export again with --force"
        )
    world.log_result(f"{output}: {what}")


def _write_all_ovf(
    output: Path,
    source: Path,
    places: NDArray[np.float64],
    vacancies: NDArray[np.bool_],
    representation: Representation,
) -> int:
    with open_hdf5(source) as file:
        count = count_frames(file, source)
        shape = real_dataset(file, source, "spins", SPINS).shape
        data = {name: real_dataset(file, source, name, shape) for name in _VECTORS}
        series = {name: real_dataset(file, source, name, shape[:1]) for name in ("time", "step") if name in file}
        values = {name: read_rows(one, source, slice(count)) for name, one in series.items()}
        time, step = values.get("time", np.zeros(count)), values.get("step", np.arange(count))
        if not (np.all(step >= 0) and np.all(np.diff(step) > 0)):
            raise HpcspinError(
                f"{source}: its /step does not grow from frame to frame; export the file as it was written"
            )
        for frame in range(count):
            for name, unit in _VECTORS.items():
                vectors = read_rows(data[name], source, slice(frame, frame + 1))[0]
                vectors[vacancies] = 0  # A magnet of these formats ends where its vectors are 0.
                write_ovf(
                    output / f"{name}_{int(step[frame]):08d}.ovf",
                    vectors,
                    places,
                    title=name,
                    unit=unit,
                    time=float(time[frame]),
                    representation=representation,
                )
    return count
