"""Cross-check against VTK, which ParaView reads files by: what `hpcspin export --format xdmf` writes.

    python perf/benchmark.py vtk_check [--output perf/results/vtk_check.json]

VTK (pip install vtk) reads the exported frames of a triangular lattice; times, places of the sites and spins have to be
those of the trajectory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from shared import parser_of

import hpcspin as hs
from hpcspin.dynamics import Heisenberg
from hpcspin.lattice import make_texture
from hpcspin.storage import provenance, write_json

INSTALL = "VTK is not there: pip install vtk; nothing was checked"


def main() -> None:
    """Export a run, read it by VTK, compare."""
    parser = parser_of(__doc__, "vtk_check.json")
    output = parser.parse_args().output
    try:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkVersion
        from vtkmodules.vtkIOXdmf2 import vtkXdmfReader
    except ImportError:
        print(INSTALL)
        return
    lattice = hs.make_lattice("triangular", (6, 4), (True, True))
    spins = make_texture("random", lattice, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        hs.simulate(lattice, Heisenberg(1.0, lattice.bonds), spins, path=run, damping=0.1, step=0.1, duration=2)
        target = Path(folder) / "run.xdmf"
        words = ("-m", "hpcspin", "export", str(run), "--format", "xdmf", "--output", str(target))
        subprocess.run([sys.executable, *words], check=True)
        reader = vtkXdmfReader()
        reader.SetFileName(str(target))
        reader.UpdateInformation()
        times = reader.GetOutputInformation(0).Get(reader.GetExecutive().TIME_STEPS())
        apart = {"time": 0.0, "places": 0.0, "spins": 0.0}
        with hs.open_trajectory(run) as frames:
            for frame, (time, moment) in enumerate(zip(times, frames.time, strict=True)):
                reader.UpdateTimeStep(time)
                grid = reader.GetOutputDataObject(0)
                while not grid.IsA("vtkDataSet"):
                    grid = grid.GetBlock(0)
                places = vtk_to_numpy(grid.GetPoints().GetData())[:, :2]
                read = vtk_to_numpy(grid.GetPointData().GetArray("spins")).reshape(-1, 3)
                expected = {
                    "time": (time, moment),
                    "places": (places, lattice.cartesian(lattice.sites).reshape(-1, 2)),
                    "spins": (read, frames.spins[frame].reshape(-1, 3)),
                }
                for name, (theirs, ours) in expected.items():
                    apart[name] = max(apart[name], float(np.abs(np.subtract(theirs, ours)).max()))
    version = vtkVersion.GetVTKVersion()
    write_json(output, {"provenance": provenance(), "vtk": version, "frames": len(times), "largest_difference": apart})
    print(f"VTK {version}, {len(times)} frames: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items()))
    sys.exit(max(apart.values()) > 1e-6)


if __name__ == "__main__":
    main()
