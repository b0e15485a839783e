"""Cross-check against NEP by calorine: processor time of a learned force on an atom and of a learned field on a site.

    python perf/benchmark.py nep_check [--peer-python PYTHON] [--output perf/results/nep_check.json]

PYTHON is the interpreter of an environment with calorine, whose CPUNEP evaluates neuroevolution potentials (NEP): one
network of 30 neurons on radial and angular descriptors of the usual size, here with random weights, which take the time
of trained ones. A force is minus the derivative of NEP's energy by a place; the field of an hpcspin model that is an
energy is minus that by a spin. Both are compared with central differences, then timed on one thread, one after the
other: processor time, the least of several. NEP finds the neighbours at every call, since atoms move; sites do not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kpm import own_seconds
from shared import parser_of

import hpcspin as hs
from hpcspin.potential import load_force
from hpcspin.storage import provenance, write_json

INSTALL = (
    "calorine is not there: python -m venv peers && peers/bin/pip install calorine (it compiles for ten minutes), "
    "then --peer-python peers/bin/python; nothing was checked"
)
PEER = """
import json, sys, time
import numpy as np
from ase.build import bulk
from calorine.calculators import CPUNEP

radial, angular, basis, neurons = 5, 5, 9, 30
features = radial + angular * 5  # l from 1 to 4, and one of four bodies
sizes = (neurons * (features + 2) + 1, basis * (radial + angular))
rng = np.random.default_rng(1)
numbers = [*rng.normal(0, 0.1, sizes[0]), *rng.normal(0, 0.3, sizes[1]), *np.ones(features)]
with open(sys.argv[1], "w") as file:
    file.write("nep4 1 Si\\ncutoff 5 5 100 100\\nn_max 4 4\\nbasis_size 8 8\\nl_max 4 2 0\\nANN 30 0\\n")
    file.writelines(f"{number:.10e}\\n" for number in numbers)
atoms = bulk("Si", "diamond", 5.43, cubic=True).repeat(5)
atoms.rattle(0.05, seed=1)
atoms.calc = CPUNEP(sys.argv[1])
force, at = atoms.get_forces()[7, 1], atoms.positions[7, 1]
energies = []
for place in (at + 1e-4, at - 1e-4):
    atoms.positions[7, 1] = place
    energies.append(atoms.get_potential_energy())
seconds = []
for _ in range(5):
    atoms.positions[0, 0] += 1e-6  # else the forces of before are given
    start = time.process_time()
    atoms.get_forces()
    seconds.append(time.process_time() - start)
distances = atoms.get_all_distances(mic=True)
print(json.dumps({
    "microseconds_an_atom": 1e6 * min(seconds) / len(atoms), "atoms": len(atoms),
    "neighbours": float((distances < 5).sum() / len(atoms) - 1),
    "slope": (energies[1] - energies[0]) / 2e-4 / force - 1,
}))
"""
MODELS = {
    "triangular_120": ("triangular_120", [30, 33], "an energy, two layers"),
    "driven_sd_strips": ("driven_sd", [32, 32], "potentials E and G of one layer"),
    "driven_sd_fast": ("driven_sd", [32, 32], "direct field, three layers"),
}
"""Of a model its config, a lattice of about as many sites as NEP has atoms, and what it is."""
ENERGIES, STEP = ("triangular_120",), 1e-2
"""Models that are energies, and how far spins are moved along the field, in parts of it, for a difference of these."""


def of_model(name: str) -> dict[str, Any]:
    """Microseconds a site, and of an energy how far its slope along the field is from the field's square, in parts."""
    config, size, kind = MODELS[name]
    system = hs.load_system(Path(__file__).parents[2] / "configs" / f"{config}.yaml", f"lattice.size={size}")
    spins, model = system.texture("random", seed=1), load_force(name)
    field, sites = model.field(spins, system), system.lattice.num_sites
    seconds = own_seconds(lambda: model.field(spins, system), 20)
    found = {"model": name, "kind": kind, "sites": sites, "microseconds_a_site": 1e6 * seconds / sites}
    if name in ENERGIES:
        across = field - (field * spins).sum(-1, keepdims=True) * spins
        ends = [spins + step * across for step in (STEP, -STEP)]
        lower, higher = (model.energy(end / np.linalg.norm(end, axis=-1, keepdims=True), system) for end in ends)
        found["slope"] = float((higher - lower) / (2 * STEP) / (across**2).sum()) - 1
    return found


def main() -> None:
    """Measure both, compare forces with slopes, write the JSON."""
    parser = parser_of(__doc__, "nep_check.json")
    parser.add_argument("--peer-python", default=sys.executable)
    arguments = parser.parse_args()
    version_of = "from importlib.metadata import version; print(version('calorine'))"
    asked = subprocess.run([arguments.peer_python, "-c", version_of], capture_output=True, text=True, check=False)
    if asked.returncode:
        print(INSTALL)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.peer_python, "-c", PEER, f"{folder}/nep.txt"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    nep = {"calorine": asked.stdout.strip(), **json.loads(said.splitlines()[-1])}
    print(f"NEP: {nep['microseconds_an_atom']:.1f} us an atom, {nep['neighbours']:.0f} neighbours")
    models = [of_model(name) for name in MODELS]
    for found in models:
        print(f"{found['model']}, {found['kind']}: {found['microseconds_a_site']:.1f} us a site")
    machine = {"load": os.getloadavg()[0], "threads": 1, **provenance()}
    write_json(arguments.output, {"machine": machine, "nep": nep, "hpcspin": models})
    slopes = [nep["slope"], *(found["slope"] for found in models if "slope" in found)]
    print(f"forces are slopes of the energy up to {max(map(abs, slopes)):.0e} of themselves")
    sys.exit(max(map(abs, slopes)) > 1e-3)


if __name__ == "__main__":
    main()
