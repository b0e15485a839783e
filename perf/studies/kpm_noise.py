"""How the noise of the kernel polynomial solver heats spins: fluctuations beside those of a bath.

    python perf/study.py kpm_noise [--output perf/results/kpm_noise.json]

White noise of variance sigma² on every perpendicular component of the field acts as a bath of temperature sigma²
step / (2 damping). Two runs start from the same tetrahedral order: one with fields of the solver and no bath, one with
exact fields and a bath of that temperature. Compared are the fluctuations about the means of the four sublattices,
which are in proportion to the temperature while they are small, and the observer `spin_temperature`, which takes exact
fields. (Collinear spins would feel no noise: it turns with them.)
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from shared import parser_of

import hpcspin as hs
from hpcspin.electrons import ClosedLattice, KpmSolver
from hpcspin.storage import provenance, write_json

SIZE, TOLERANCE = 12, 0.2
DAMPING, STEP, WARM_UP = 0.5, 0.5, 60.0


def fluctuation(spins: np.ndarray) -> np.ndarray:
    """Mean square of a component perpendicular to the mean of its sublattice, of frames (n, Lx, Ly, 3), shape (n,)."""
    n, size = len(spins), SIZE // 2
    sublattices = spins.reshape(n, size, 2, size, 2, 3)
    mean = sublattices.mean(axis=(1, 3), keepdims=True)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    along = (sublattices * mean).sum(axis=-1)
    return (1 - along**2).mean(axis=(1, 2, 3, 4)) / 2


def noise(system: ClosedLattice, spins: np.ndarray, draws: int) -> float:
    """Root mean square error of a perpendicular component of the solver's field."""
    exact, squares = system.solve(spins, solver="diagonalization").field, []
    for number in range(draws):
        solver = KpmSolver(system, TOLERANCE)
        solver.number = number
        error = solver.solve(spins[None]).field[0] - exact
        error -= (error * spins).sum(axis=-1, keepdims=True) * spins
        squares.append((error**2).sum() / (2 * system.lattice.num_sites))
    return float(np.sqrt(np.mean(squares)))


def run(system: ClosedLattice, spins: np.ndarray, temperature: float, duration: float) -> dict[str, Any]:
    """Fluctuation and spin temperature after the warm-up, with their statistical errors from four parts of the run."""
    found = hs.simulate(
        system, spins=spins, damping=DAMPING, temperature=temperature, step=STEP, duration=duration, record_interval=4,
        observers=["spin_temperature"],
    )  # fmt: skip
    late, result = np.asarray(found.time) > WARM_UP, {}
    for name, values in {"": fluctuation(found.spins), "spin_temperature_": found.spin_temperature}.items():
        parts = [part.mean() for part in np.array_split(values[late], 4)]
        result |= {f"{name}mean": float(values[late].mean()), f"{name}error": float(np.std(parts, ddof=1) / 2)}
    return result


def main() -> None:
    """Measure, print the ratio, write the JSON."""
    parser = parser_of(__doc__, "kpm_noise.json")
    parser.add_argument("--duration", type=float, default=260.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lattice = hs.make_lattice("triangular", (SIZE, SIZE), (True, True))
    system = hs.ClosedLattice(lattice, 1.0, 3.0, 0.05, filling=0.5, tolerance=TOLERANCE, solver="kpm")
    spins = system.texture("tetrahedral", tilt=0.0, seed=1)
    sigma = noise(system, spins, 10)
    temperature = sigma**2 * STEP / (2 * DAMPING)
    estimated = run(system, spins, 0.0, arguments.duration)
    bath = run(replace(system, solver="diagonalization"), spins, temperature, arguments.duration)
    found = {
        "sigma": sigma,
        "predicted_temperature": temperature,
        "fluctuation": estimated,
        "fluctuation_with_a_bath": bath,
        "temperature": temperature * estimated["mean"] / bath["mean"],
    }
    print(found)
    write_json(arguments.output, {"load": os.getloadavg()[0], **provenance(), "duration": arguments.duration, **found})


if __name__ == "__main__":
    main()
