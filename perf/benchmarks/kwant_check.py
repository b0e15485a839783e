"""Cross-check against Kwant: G^R, transmissions, density of states, currents, densities, fields of driven lattices.

    python perf/benchmark.py kwant_check [--kwant-python PYTHON] [--output perf/results/kwant_check.json]

Kwant needs numpy < 2 and therefore an environment of its own; PYTHON is that
environment's interpreter. Kwant gets the reservoirs as self-energy leads on
the same sites, and its Green's functions are integrated over energy by the
adaptive quadrature of SciPy: nothing of hpcspin runs there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = (
    "Kwant is not there; python -m venv kwant && kwant/bin/pip install 'numpy<2' scipy 'cython<3.1' setuptools wheel "
    "&& kwant/bin/pip install --no-build-isolation kwant, then --kwant-python kwant/bin/python"
)
ENERGIES = np.array([-3.3, -1.61, -0.2, 0.0, 0.47, 2.9])
CASES = {
    "square, periodic y": {"kind": "square", "periodic_y": True},
    "square, open y": {"kind": "square", "periodic_y": False},
    "triangular, periodic y": {"kind": "triangular", "periodic_y": True},
    "triangular, open y": {"kind": "triangular", "periodic_y": False},
}
SIZE, EXCHANGE, TEMPERATURE = (5, 3), 1.9, 0.1
RESERVOIRS = {
    "left": {"width": 1.0, "potential": -1.2, "polarization": (0.3, 0.0, 0.4)},
    "right": {"width": 0.6, "potential": 0.3, "polarization": (0.0, 0.0, 0.0)},
    "bath": {"width": 0.1, "potential": 0.0, "polarization": (0.0, 0.0, 0.0)},
}
SIGMA = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def touched(name: str) -> np.ndarray:
    """Sites of a reservoir, bool, shape SIZE."""
    x = np.indices(SIZE)[0]
    return {"left": x == 0, "right": x == SIZE[0] - 1, "bath": x >= 0}[name]


def texture() -> np.ndarray:
    """Random spins, shape (*SIZE, 3)."""
    spins = np.random.default_rng(17).standard_normal((*SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def _constant(self_energy: np.ndarray) -> Callable[..., np.ndarray]:
    return lambda *_, **__: self_energy


def kwant_system(
    spins: np.ndarray,
    exchange: float,
    kind: str,
    periodic_y: bool,
    reservoirs: dict[str, tuple[np.ndarray, np.ndarray]],
) -> Any:
    """Kwant's finalized system; each reservoir is its sites (bool) and its level width on a site (2, 2)."""
    import kwant

    columns, rows = spins.shape[:2]
    lattice = kwant.lattice.square(norbs=2)
    builder = kwant.Builder()
    for x, y in np.ndindex(columns, rows):
        builder[lattice(x, y)] = -exchange * np.einsum("k,kab->ab", spins[x, y], SIGMA[1:])
    bonds = [(1, 0), (0, 1)] + ([(1, -1)] if kind == "triangular" else [])
    for x, y in np.ndindex(columns, rows):
        for dx, dy in bonds:
            to = (x + dx, (y + dy) % rows if periodic_y else y + dy)
            if 0 <= to[0] < columns and 0 <= to[1] < rows:
                builder[lattice(x, y), lattice(*to)] = -np.eye(2)
    for mask, width in reservoirs.values():
        sites = [lattice(int(x), int(y)) for x, y in np.argwhere(mask)]
        energy = np.kron(np.eye(len(sites)), -1j * width)
        builder.leads.append(kwant.builder.SelfEnergyLead(_constant(energy), sites, ()))
    return builder.finalized()


def site_width(reservoir: dict[str, Any]) -> np.ndarray:
    """Level width of a reservoir on each of its sites, shape (2, 2)."""
    return reservoir["width"] * np.einsum("k,kab->ab", [1, *reservoir["polarization"]], SIGMA)


def seconds_an_energy(size: tuple[int, int] = (30, 24), repeats: int = 3) -> float:
    """Seconds that Kwant takes for the block column of G from the left electrode to all sites, at one energy."""
    import kwant

    x = np.indices(size)[0]
    spins = np.zeros((*size, 3))
    spins[..., 2] = np.where(np.indices(size).sum(axis=0) % 2, 1, -1)
    spins[: size[0] // 4] = (1, 0, 0)
    reservoirs = {
        name: (mask, width * np.eye(2))
        for name, mask, width in (("left", x == 0, 1.0), ("right", x == size[0] - 1, 1.0), ("bath", x >= 0, 1e-3))
    }
    system = kwant_system(spins, 3.8, "square", True, reservoirs)
    times = []
    for repeat in range(repeats):
        start = time.perf_counter()
        kwant.greens_function(system, -1.0 - 0.1 * repeat, in_leads=[0], out_leads=[2], check_hermiticity=False)
        times.append(time.perf_counter() - start)
    return min(times)


def by_kwant(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Everything that is compared, from Kwant's Green's functions."""
    import kwant
    from scipy.integrate import quad_vec

    columns, rows = SIZE
    reservoirs = {name: (touched(name), site_width(reservoir)) for name, reservoir in RESERVOIRS.items()}
    system = kwant_system(texture(), EXCHANGE, case["kind"], case["periodic_y"], reservoirs)
    bath = list(RESERVOIRS).index("bath")
    widths = [np.kron(np.diag(mask.reshape(-1)), width) for mask, width in reservoirs.values()]

    def green(energy: float) -> Any:
        return kwant.greens_function(system, energy, check_hermiticity=False)

    def full(energy: float) -> np.ndarray:
        return green(energy).submatrix(bath, bath)

    def fermi(energy: float) -> np.ndarray:
        potentials = np.array([reservoir["potential"] for reservoir in RESERVOIRS.values()])
        return 1 / (np.exp(np.clip((energy - potentials) / TEMPERATURE, -700, 700)) + 1)

    def occupied(energy: float) -> np.ndarray:
        propagator = full(energy)
        filled = sum(f * 2 * width for f, width in zip(fermi(energy), widths, strict=True))
        rho = (propagator @ filled @ propagator.conj().T).reshape(columns * rows, 2, columns * rows, 2)
        return np.einsum("kab,ibia->ik", SIGMA, rho).real / (2 * np.pi)

    def passed(energy: float) -> np.ndarray:
        measured = green(energy)
        return np.array([[measured.transmission(r, s) if r != s else 0.0 for s in range(3)] for r in range(3)])

    def flow(energy: float) -> np.ndarray:
        f = fermi(energy)
        return np.sum(passed(energy) * (f[:, None] - f[None, :]), axis=1) / (2 * np.pi)

    # Kwant's operators give the current of a wave function; the density matrix is a sum over the modes that reservoirs
    # inject.
    bonds = _bonds(case, system)
    operators = [kwant.operator.Current(system, onsite=m, where=bonds) for m in (SIGMA[0], *(SIGMA[1:] / 2))]

    def carried(energy: float) -> np.ndarray:
        propagator = full(energy)
        total = np.zeros((len(bonds), 4))
        for f, width in zip(fermi(energy), widths, strict=True):
            values, modes = np.linalg.eigh(2 * width)
            for value, mode in zip(values, modes.T, strict=True):
                if value > 0:
                    psi = np.sqrt(value) * propagator @ mode
                    total += f * np.stack([operator(psi) for operator in operators], axis=-1)
        return total / (2 * np.pi)

    flows = quad_vec(carried, -np.inf, 8.0, epsabs=1e-9, epsrel=0, limit=20000, norm="max")[0]
    states = [np.diag(full(e)).imag.reshape(-1, 2).sum(axis=1) / -np.pi for e in ENERGIES]
    density = quad_vec(occupied, -np.inf, 8.0, epsabs=1e-9, epsrel=0, limit=20000, norm="max")[0]
    current = quad_vec(flow, -6.0, 5.0, epsabs=1e-9, epsrel=0, limit=20000, norm="max")[0]
    return {
        "green": np.stack([full(e) for e in ENERGIES]),
        "transmission": np.stack([passed(e) for e in ENERGIES]),
        "density": density[:, 0],
        "field": EXCHANGE * density[:, 1:],
        "current": current,
        "bond_current": flows[:, 0],
        "bond_spin_current": flows[:, 1:],
        "ldos": np.stack(states),
    }


def _bonds(case: dict[str, Any], system: Any) -> list[tuple[Any, Any]]:
    """Kwant's pairs (to, from) of each bond, in the order of hpcspin: by direction, then by the site that it leaves."""
    columns, rows = SIZE
    sites = {tuple(site.tag): site for site in system.sites}
    found = []
    for dx, dy in [(1, 0), (0, 1)] + ([(1, -1)] if case["kind"] == "triangular" else []):
        for x, y in np.ndindex(columns, rows):
            to = (x + dx, (y + dy) % rows if case["periodic_y"] else y + dy)
            if to in sites:
                found.append((sites[to], sites[x, y]))
    return found


def by_hpcspin(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same quantities; of G^R the diagonal blocks and the first block column."""
    from hpcspin.electrons import DrivenLattice, RecursiveSolver, Reservoir, transmission
    from hpcspin.electrons.backend import make_backend
    from hpcspin.electrons.columns import ColumnTeam
    from hpcspin.electrons.hamiltonian import layer_blocks, make_coupling
    from hpcspin.lattice import make_lattice
    from hpcspin.parallel.world import World

    lattice = make_lattice(case["kind"], SIZE, (False, case["periodic_y"]))
    reservoirs = tuple(Reservoir(name, touched(name), **values) for name, values in RESERVOIRS.items())
    system, spins = DrivenLattice(lattice, 1.0, EXCHANGE, TEMPERATURE, reservoirs), texture()
    state = RecursiveSolver(system, 1e-9).solve(spins[None])
    backend = make_backend("torch")
    team = ColumnTeam(World(), SIZE[0], make_coupling(system, backend))
    slab = team.connect(layer_blocks(system, spins[None], backend), backend.asarray(ENERGIES + 0j))
    passed = transmission(system, spins, ENERGIES)
    passed[:, range(3), range(3)] = 0
    flows = system.transport(spins, ENERGIES)
    there = np.stack([lattice.shift(term.offset)[:, 0] >= 0 for term in system.hopping_terms])
    count = len(there)
    return {
        "bond_current": flows.bond_current.reshape(count, -1)[there],
        "bond_spin_current": flows.bond_spin_current.reshape(count, -1, 3)[there],
        "ldos": flows.ldos.reshape(len(ENERGIES), -1),
        "diagonal": np.stack([-backend.to_numpy(d) for d in slab.diagonals()], axis=1),
        "column": np.stack([-backend.to_numpy(c) for c in slab.first_columns(None)], axis=1),
        "transmission": passed,
        "density": state.density[0].reshape(-1),
        "field": state.field[0].reshape(-1, 3),
        "current": state.current[0],
    }


def deviations(kwant: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest deviation of every quantity."""
    columns, m = SIZE[0], 2 * SIZE[1]
    green = kwant["green"].reshape(len(ENERGIES), columns, m, columns, m)
    kwant = {**kwant, "diagonal": np.einsum("exaxb->exab", green), "column": green[:, :, :, 0]}
    return {name: float(np.abs(kwant[name] - value).max()) for name, value in ours.items()}


def is_there(python: str) -> bool:
    """Whether an interpreter has Kwant."""
    return subprocess.run([python, "-c", "import kwant"], capture_output=True, check=False).returncode == 0


def run_kwant(python: str) -> dict[str, dict[str, np.ndarray]] | None:
    """Kwant's side of every case from its own interpreter; None where Kwant is not there."""
    if not is_there(python):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kwant.npz"
        subprocess.run([python, __file__, "--worker", str(path)], check=True)
        with np.load(path) as data:
            return {
                case: {key.split("|")[1]: data[key] for key in data.files if key.startswith(case + "|")}
                for case in CASES
            }


def main() -> None:
    """Compare, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kwant-python", default=sys.executable)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "kwant_check.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seconds-an-energy", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seconds_an_energy:
        print(seconds_an_energy())
        return
    if arguments.worker:
        results = {f"{name}|{key}": v for name, case in CASES.items() for key, v in by_kwant(case).items()}
        np.savez(arguments.worker, **results)
        return
    measured = run_kwant(arguments.kwant_python)
    if measured is None:
        print(INSTALL)
        return
    from hpcspin.storage import provenance

    cases = {name: deviations(measured[name], by_hpcspin(case)) for name, case in CASES.items()}
    for name, values in cases.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.1e}" for key, value in values.items()))
    version = subprocess.run(
        [arguments.kwant_python, "-c", "import kwant; print(kwant.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    arguments.output.write_text(
        json.dumps({"kwant": version, "size": SIZE, "deviations": cases, "provenance": provenance()}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
