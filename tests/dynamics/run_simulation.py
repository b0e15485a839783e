"""Simulations of classical spins from the command line, for tests that need processes.

Arguments: a JSON mapping of directory to changed parameters.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch

from hpcspin.dynamics import (
    CorrectedField,
    DynamicsSettings,
    DzyaloshinskiiMoriya,
    Heisenberg,
    Simulation,
    Slonczewski,
    SumField,
    WholeLatticeField,
    Zeeman,
    make_waveform,
)
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

DEFAULTS = {
    "kind": "square",
    "size": [7, 5],
    "periodic": [False, True],
    "dtype": "float64",
    "integrator": "heun",
    "temperature": 0.05,
    "damping": 0.1,
    "duration": 4.0,
    "seed": 3,
    "record": 3,
    "checkpoint": 4,
    "rich": False,
    "corrected": None,
    "tolerance": None,
    "observers": ["wall_position", "magnetization", "mean_bond"],
    "record_window": None,
    "record_walls": [],
    "compression": None,
    "checkpoint_minutes": None,
    "pinned": [],
}
SAME_NAMES = (
    "tolerance",
    "observers",
    "record_window",
    "record_walls",
    "compression",
    "checkpoint_minutes",
    "pinned",
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


class Electrons(WholeLatticeField):
    """An exact field like that of electrons: mostly along the spins, computed from all of them; it counts its calls."""

    def __init__(self, size=(7, 5)):
        super().__init__(self.solve, {"density": size, "current": (2,), "error": ()})
        self.count = 0

    def solve(self, spins):
        self.count += 1
        domain = Domain.cut(make_lattice("square", spins.shape[1:3], (False, True)), World(), (1, 1))
        whole = torch.from_numpy(spins[0])
        field = TARGET.bind(domain)(domain.extend(whole, (1, 1)), 0.0) + 5 * whole
        density = np.full(spins.shape[:3], float(self.count))
        return SimpleNamespace(field=field.numpy()[None], density=density, current=np.zeros((1, 2)), error=np.zeros(1))

    def state_dict(self):
        return {"count": np.array(self.count)}

    def load_state_dict(self, state):
        self.count = int(state["count"])


TARGET = SumField([Heisenberg(-1.0), Zeeman((0.1, 0.0, 0.2))])


def corrected(interval, size=(7, 5)):
    """A field ten per cent too weak, corrected every few steps by the target plus five times the spins."""
    cheap = SumField([Heisenberg(-0.9), Zeeman((0.1, 0.0, 0.2))])
    return CorrectedField(cheap, Electrons(size), size, interval)


def default_field(chosen, lattice):
    if chosen["corrected"]:
        return SumField([Slonczewski((0.0, 0.1, 0.0)), corrected(chosen["corrected"], lattice.size)])
    return every_term(lattice) if chosen["rich"] else classical()


def simulation(directory, field=None, world=None, start=None, device="cpu", **changes):
    """A simulation with a few of its parameters changed."""
    chosen = DEFAULTS | changes
    lattice = make_lattice(chosen["kind"], tuple(chosen["size"]), tuple(chosen["periodic"]))
    spins = np.random.default_rng(1).normal(size=(*lattice.size, 3))
    return Simulation(
        lattice,
        field or default_field(chosen, lattice),
        spins / np.linalg.norm(spins, axis=-1, keepdims=True) if start is None else start,
        DynamicsSettings(
            damping=chosen["damping"],
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
        device=device,
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
