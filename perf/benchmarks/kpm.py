"""The kernel polynomial solver: error against cost, crossover with diagonalisation, time over sites, limits.

    python perf/benchmark.py kpm [--output perf/results/kpm.json]

One thread; seconds of its own (process time), so that what else runs counts little. Errors are root mean squares of the
components of the field that are perpendicular to the spins, of one set of probing vectors, against diagonalisation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from shared import parser_of

from hpcspin.electrons import ClosedLattice
from hpcspin.electrons.kpm_estimates import KpmEstimate, Probing
from hpcspin.electrons.kpm_host import HostRecursion
from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases
from hpcspin.electrons.kpm_recursion import scaled_hamiltonian
from hpcspin.electrons.kpm_series import Expansion, spectral_interval
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import provenance, write_json

SYSTEMS = {
    "tetrahedral": (
        "triangular",
        "tetrahedral",
        0.1,
        {"exchange": 3.0, "temperature": 0.01, "filling": 0.5},
        "jackson",
    ),
    "120 degrees": ("triangular", "order_120", 0.1, {"exchange": 3.0, "temperature": 0.02, "filling": 1.0}, "jackson"),
    "metal": ("square", "antiferromagnet", 0.4, {"exchange": 6.0, "temperature": 0.05, "filling": 0.97}, "none"),
}
PUBLISHED = {"tetrahedral": (1.8e-3, 1e-3), "120 degrees": (1.2e-4, 1.8e-4), "metal": (3.5e-3, 2.5e-4)}
"""Errors with s = 8 on 24x24 of the prototype, from densities and from the gradient, on states of its own."""
MOMENTS = 512
MOMENT_FLOPS, MOMENT_BYTES = 116, 144
"""Of the gradient for each site, vector and moment on the square lattice: operations, and what must pass between memory
and processor where the vectors are not in cache. Of half a step forth (72 operations; 3 spinors of 32 bytes are read or
written) and half a step back (160; 6 spinors)."""


def case(name: str, size: int) -> tuple[ClosedLattice, np.ndarray, str]:
    """A system, its spins (Lx, Ly, 3) and the kernel that suits it."""
    kind, texture, tilt, parameters, kernel = SYSTEMS[name]
    system = ClosedLattice(make_lattice(kind, (size, size), (True, True)), 1.0, **parameters)
    return system, system.texture(texture, tilt=tilt, seed=1), kernel


def own_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Least process time of some calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def estimates(
    system: ClosedLattice, spins: np.ndarray, kernel: str, distance: int, moments: int = MOMENTS
) -> dict[str, Callable[[], KpmEstimate]]:
    """Both estimates with one set of vectors."""
    interval = spectral_interval(system)
    probing = Probing(system, HostRecursion(scaled_hamiltonian(system, spins, interval)), World())
    sites = system.lattice.num_sites
    groups = probe_groups(colouring(system.lattice, distance), random_phases(sites, 0, 0, 0), probing.recursion.pairs)
    series = Expansion(interval, system.temperature, moments, kernel)
    return {
        "densities": lambda: probing.densities(probing.local_moments(groups, moments, sites), series),
        "gradient": lambda: probing.gradient(groups, series),
    }


def perpendicular(system: ClosedLattice, spins: np.ndarray, field: np.ndarray) -> float:
    """Root mean square of the perpendicular components of a field (Lx, Ly, 3)."""
    rest = field - (field * spins).sum(axis=-1, keepdims=True) * spins
    return float(np.sqrt((rest**2).sum() / (2 * system.lattice.num_sites)))


def errors(size: int, distances: tuple[int, ...]) -> list[dict[str, Any]]:
    """Error and seconds of both estimates beside diagonalisation, by the distance between sites of a colour."""
    rows = []
    for name in SYSTEMS:
        system, spins, kernel = case(name, size)
        exact = system.solve(spins)
        for distance in distances:
            for kind, work in estimates(system, spins, kernel, distance).items():
                field = system.exchange * work().components[:, 1:].reshape(*system.lattice.size, 3)
                found = {"system": name, "size": size, "distance": distance, "estimate": kind}
                error = perpendicular(system, spins, field - exact.field)
                rows.append({**found, "error": error, "seconds": own_seconds(work)})
                if (size, distance) == (24, 8):
                    rows[-1]["published"] = PUBLISHED[name][kind == "gradient"]
                print(rows[-1], flush=True)
    return rows


def crossover(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Seconds of diagonalisation and of the gradient with s = 8 on the metal."""
    rows = []
    for size in sizes:
        system, spins, kernel = case("metal", size)
        exact = own_seconds(lambda system=system, spins=spins: system.solve(spins), 1)
        series = own_seconds(estimates(system, spins, kernel, 8)["gradient"])
        rows.append({"size": size, "diagonalization": exact, "gradient": series, "ratio": exact / series})
        print(rows[-1], flush=True)
    return rows


def over_sites(sizes: tuple[int, ...], moments: int = 64) -> dict[str, Any]:
    """Seconds over sites of the gradient with s = 8, the exponent, and how far each is from the limits."""
    rows = []
    product, copied = product_rate(), copy_rate()
    for size in sizes:
        system, spins, kernel = case("metal", size)
        each = own_seconds(estimates(system, spins, kernel, 8, moments)["gradient"])
        vectors = 2 * colouring(system.lattice, 8).count
        work = moments * size**2 * vectors
        rows.append(
            {
                "size": size,
                "seconds": each,
                "of_product_rate": work * MOMENT_FLOPS / each / product,
                "of_copy_rate": work * MOMENT_BYTES / each / copied,
            }
        )
        print(rows[-1], flush=True)
    sites, times = (np.log([row[key] for row in rows]) for key in ("size", "seconds"))
    return {"moments": moments, "rows": rows, "exponent": float(np.polyfit(2 * sites, times, 1)[0])}


def product_rate(size: int = 1000) -> float:
    """Real floating-point operations a second of a complex matrix product on one thread."""
    matrix = torch.randn(size, size, dtype=torch.complex128)
    return 8 * size**3 / own_seconds(lambda: matrix @ matrix)


def copy_rate(length: int = 1 << 26) -> float:
    """Bytes that a copy of a large array reads and writes a second on one thread."""
    source = np.zeros(length // 8)
    target = np.ones_like(source)
    return 2 * length / own_seconds(lambda: np.copyto(target, source))


def main() -> None:
    """Measure all, write the JSON."""
    arguments = parser_of(__doc__, "kpm.json").parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    found = {
        "errors": errors(24, (4, 6, 8, 12)),
        "crossover": crossover((16, 24, 32)),
        "over_sites": over_sites((16, 32, 64, 128, 256)),
    }
    print(found["over_sites"]["exponent"])
    write_json(arguments.output, {"machine": {"load": load, "threads": 1, **provenance()}, **found})


if __name__ == "__main__":
    main()
