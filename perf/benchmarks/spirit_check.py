"""Cross-check against Spirit: Landau-Lifshitz-Gilbert trajectories of a classical magnet, scheme by scheme.

    python perf/benchmark.py spirit_check [--output perf/results/spirit_check.json]

Spirit (pip install spirit) works in meV, Tesla and picoseconds, and takes its parameters in single precision: with
moments of one Bohr magneton, and times in units of mu_B / gamma, its equation is that of hpcspin with meV as the
unit of energy. Both move the same random spins of an 8x8 magnet with exchange, anisotropy and a field, without noise.
The fourth-order scheme is the same in both, and has to give the same spins up to Spirit's single precision. Those of
second order differ in what they do to the predictor, so that only their limit is common: at a quarter of the step they
have to be closer by a factor that is near 16.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import parser_of

import hpcspin as hs
from hpcspin.dynamics import Anisotropy, Heisenberg, Zeeman
from hpcspin.storage import provenance, write_json

Array = NDArray[np.float64]
INSTALL = "Spirit is not there: pip install spirit; nothing was checked"
SIZE, EXCHANGE, ANISOTROPY, FIELD, DAMPING = (8, 8), 1.0, 0.25, 0.5, 0.125
DURATION, STEP = 8.0, 0.03125
MU_B, GAMMA = 0.057883817555, 0.1760859644
"""meV/T and rad/(ps T), as Spirit has them."""
SCHEMES = {"heun": "SOLVER_HEUN", "depondt_mertens": "SOLVER_DEPONDT", "sib": "SOLVER_SIB", "rk4": "SOLVER_RK4"}


def texture() -> Array:
    """Random spins, shape (*SIZE, 3)."""
    spins = np.random.default_rng(17).standard_normal((*SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def by_spirit(spins: Array, solver: str, step: float) -> Array:
    """Spins after DURATION; a site is x + Lx y in Spirit."""
    from spirit import geometry, hamiltonian, simulation, state, system
    from spirit.parameters import llg

    with tempfile.TemporaryDirectory() as folder, state.State(quiet=True) as spirit:
        geometry.set_n_cells(spirit, [*SIZE, 1])
        geometry.set_mu_s(spirit, 1.0)
        hamiltonian.set_boundary_conditions(spirit, [1, 1, 0])
        hamiltonian.set_exchange(spirit, 1, [EXCHANGE])
        hamiltonian.set_dmi(spirit, 0, [])
        hamiltonian.set_ddi(spirit, 0)
        hamiltonian.set_anisotropy(spirit, ANISOTROPY, [0, 0, 1])
        hamiltonian.set_field(spirit, FIELD / MU_B, [0, 0, 1])
        llg.set_output_folder(spirit, folder)
        llg.set_output_general(spirit, any=False)
        llg.set_convergence(spirit, 0.0)
        llg.set_temperature(spirit, 0.0)
        llg.set_damping(spirit, DAMPING)
        llg.set_timestep(spirit, step * MU_B / GAMMA)
        directions = system.get_spin_directions(spirit)
        directions[:] = spins.transpose(1, 0, 2).reshape(-1, 3)
        steps = round(DURATION / step)
        simulation.start(spirit, simulation.METHOD_LLG, getattr(simulation, solver), steps, steps)
        moved = np.array(system.get_spin_directions(spirit), dtype=np.float64)
    return moved.reshape(SIZE[1], SIZE[0], 3).transpose(1, 0, 2)


def by_hpcspin(spins: Array, integrator: str, step: float) -> Array:
    """The same spins after DURATION."""
    lattice = hs.make_lattice("square", SIZE, (True, True))
    fields = [Heisenberg(EXCHANGE, lattice.bonds), Anisotropy(ANISOTROPY), Zeeman((0.0, 0.0, FIELD))]
    given: dict[str, Any] = {"damping": DAMPING, "temperature": 0.0, "duration": DURATION, "observers": []}
    return hs.simulate(lattice, fields, spins, integrator=integrator, step=step, **given).spins[-1]


def main() -> None:
    """Compare every scheme that both have."""
    parser = parser_of(__doc__, "spirit_check.json")
    output = parser.parse_args().output
    try:
        import spirit.version
    except ImportError:
        print(INSTALL)
        return
    spins = texture()
    apart = {
        name: [float(abs(by_hpcspin(spins, name, at) - by_spirit(spins, solver, at)).max()) for at in (STEP, STEP / 4)]
        for name, solver in SCHEMES.items()
    }
    about = {"provenance": provenance(), "spirit": spirit.version.version, "steps": [STEP, STEP / 4]}
    write_json(output, {**about, "duration": DURATION, "largest_difference_of_a_component": apart})
    for name, (whole, quarter) in apart.items():
        print(f"{name}: {whole:.1e} apart, {quarter:.1e} at a quarter of the step")
    agreed = max(apart.pop("rk4")) < 1e-5 and all(quarter < whole / 8 for whole, quarter in apart.values())
    sys.exit(not agreed)


if __name__ == "__main__":
    main()
