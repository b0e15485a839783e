"""Cross-check against discretisedfield, by which Ubermag reads and writes files: spins in OVF 2.0, in both directions.

    python perf/benchmark.py ovf_check [--peer-python PYTHON] [--output perf/results/ovf_check.json]

PYTHON is the interpreter of an environment with discretisedfield. It reads what `hpcspin export --format ovf`,
`ovf-binary4` and `ovf-text` write, and writes the same spins in each of its own representations, which hpcspin reads.
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
from hpcspin.storage import provenance, read_ovf, write_json

INSTALL = (
    "discretisedfield is not there: python -m venv peers && peers/bin/pip install discretisedfield, "
    "then --peer-python peers/bin/python; nothing was checked"
)
FORMATS = ("ovf", "ovf-binary4", "ovf-text")
PEER = """
import sys
import discretisedfield as df
import numpy as np

field = df.Field.from_file(sys.argv[1])
np.savez(sys.argv[2], spins=field.array[:, :, 0], places=field.mesh.coordinate_field().array[:, :, 0, :2])
for representation in ("bin8", "bin4", "txt"):
    field.to_file(f"{sys.argv[2]}.{representation}.ovf", representation=representation)
"""


def main() -> None:
    """Export a run, read it and write it again by discretisedfield, compare."""
    parser = parser_of(__doc__, "ovf_check.json")
    parser.add_argument("--peer-python", default=sys.executable)
    arguments = parser.parse_args()
    version_of = "from importlib.metadata import version; print(version('discretisedfield'))"
    asked = subprocess.run([arguments.peer_python, "-c", version_of], capture_output=True, text=True, check=False)
    if asked.returncode:
        print(INSTALL)
        return
    lattice = hs.make_lattice("square", (6, 4), (True, True))
    places = lattice.cartesian(lattice.sites)
    apart: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        spins = make_texture("random", lattice, seed=1)
        given = {"damping": 0.1, "step": 0.1, "duration": 2.0}
        expected = hs.simulate(lattice, Heisenberg(1.0, lattice.bonds), spins, path=run, **given).spins[-1]
        for written in FORMATS:
            target, found = Path(folder) / written, Path(folder) / f"{written}.npz"
            words = ("-m", "hpcspin", "export", str(run), "--format", written, "--output", str(target))
            subprocess.run([sys.executable, *words], check=True)
            last = max(target.glob("spins_*.ovf"))
            subprocess.run([arguments.peer_python, "-c", PEER, str(last), str(found)], check=True)
            with np.load(found) as read:
                apart[f"{written}, read"] = float(np.abs(read["spins"] - expected).max())
                steps = [np.diff(read["places"], axis=axis) - np.diff(places, axis=axis) for axis in (0, 1)]
                apart[f"{written}, distances of sites"] = float(max(np.abs(step).max() for step in steps))
            for representation in ("bin8", "bin4", "txt"):
                back = read_ovf(f"{found}.{representation}.ovf", places)
                apart[f"{written}, read and written as {representation}"] = float(np.abs(back - expected).max())
    write_json(
        arguments.output,
        {"provenance": provenance(), "discretisedfield": asked.stdout.strip(), "largest_difference": apart},
    )
    for name, value in apart.items():
        print(f"{name}: {value:.1e} apart")
    exact = {name: value for name, value in apart.items() if "4" not in name}
    sys.exit(max(exact.values()) > 1e-15 or max(apart.values()) > 1e-7)


if __name__ == "__main__":
    main()
