"""Simulations of classical spins from the command line, for tests that need processes.

Arguments: a JSON mapping of directory to changed parameters.
"""

import json
import sys

import numpy as np
import torch

from hpcspin.dynamics import (
    DzyaloshinskiiMoriya,
    Heisenberg,
    Settings,
    Simulation,
    Slonczewski,
    SumField,
    Zeeman,
    make_waveform,
)
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World

DEFAULTS = {
    "kind": "square",
    "size": [7, 5],
    "periodic": [False, True],
    "dtype": "float64",
    "integrator": "heun",
    "temperature": 0.05,
    "duration": 4.0,
    "seed": 3,
    "record": 3,
    "checkpoint": 4,
    "rich": False,
    "tolerance": None,
    "observers": ["wall_position", "magnetization", "mean_bond"],
    "wave_vectors": [],
    "record_window": None,
    "record_walls": [],
    "compression": None,
    "checkpoint_minutes": None,
}
SAME_NAMES = (
    "tolerance",
    "observers",
    "wave_vectors",
    "record_window",
    "record_walls",
    "compression",
    "checkpoint_minutes",
)


def classical():
    return SumField([Heisenberg(-1.0), Zeeman((0.1, 0.0, 0.2)), Slonczewski((0.0, 0.1, 0.0))])


def every_term(lattice):
    """Terms of different reach, one of them driven in time."""
    return SumField(
        [
            *classical().terms,
            Heisenberg(0.3, lattice.shell(2)),
            Heisenberg(-0.2, lattice.shell(3)),
            DzyaloshinskiiMoriya.interfacial(lattice, 0.4),
            DzyaloshinskiiMoriya.bulk(lattice, 0.3),
            Zeeman((0.0, 0.3, 0.0), make_waveform("sinusoid", frequency=2.0)),
        ]
    )


def simulation(directory, field=None, world=None, **changes):
    """A simulation with a few of its parameters changed."""
    chosen = DEFAULTS | changes
    lattice = make_lattice(chosen["kind"], tuple(chosen["size"]), tuple(chosen["periodic"]))
    spins = np.random.default_rng(1).normal(size=(*lattice.size, 3))
    return Simulation(
        lattice,
        field or (every_term(lattice) if chosen["rich"] else classical()),
        spins / np.linalg.norm(spins, axis=-1, keepdims=True),
        Settings(
            damping=0.1,
            temperature=chosen["temperature"],
            step=0.1,
            duration=chosen["duration"],
            integrator=chosen["integrator"],
            seed=chosen["seed"],
            record_interval=chosen["record"],
            checkpoint_interval=chosen["checkpoint"],
            **{name: chosen[name] for name in SAME_NAMES},
        ),
        directory,
        config={"seed": chosen["seed"], "dynamics": {"duration": chosen["duration"]}},
        world=world,
        dtype=getattr(torch, chosen["dtype"]),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        ranks = World.detect()
        for path, parameters in json.loads(sys.argv[1]).items():
            outcome = simulation(path, world=ranks, **parameters).run()
        ranks.finish()
    except HpcspinError as error:
        sys.exit(f"error: {error}")
    sys.exit(outcome.exit_code)
