"""Currents in a lattice of electrons: charge and spin along the bonds and between the lattice and its reservoirs.

They follow from the whole density matrix rho_ij, including its equilibrium part: noncollinear spins carry spin currents
without any voltage. For a bond c†_i T c_j + h.c. the number of particles that move from i to j per unit time is
2 Im tr(T† rho_ij), from the equation of motion of the density on site j, and the spin, in units of hbar, that arrives
at j is 2 Im tr((sigma / 2) T† rho_ij). If T conserves the spin, the same amount leaves i. Rashba coupling rotates the
spin on its way: the current is then the mean of what leaves i and what arrives at j, and half of the difference is a
torque on the electrons of each of the two sites.

Reservoir r changes the density matrix by 2 i (Q_r Gamma_r - Gamma_r Q_r†) - Gamma_r rho - rho Gamma_r per unit time,
with Q_r = ∫ de/2pi f_r G^R. In the steady state, on every site,

    inflow of particles + injection = 0,
    inflow of spin + injected spin + spin-orbit torque = S_i x H_i.

Currents: C. Caroli et al., J. Phys. C 4, 916 (1971). Injection: Y. Meir and N. S. Wingreen, Phys. Rev. Lett. 68, 2512
(1992), reference 57 of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR, make_backend
from hpcspin.electrons.closed import ClosedLattice
from hpcspin.electrons.closed_form import Spectrum, on_all_sites, product
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.diagonalization import potential_of, residuals
from hpcspin.electrons.fermi import fermi
from hpcspin.electrons.hamiltonian import layer_blocks, make_coupling, sd_hamiltonian, without_vacancies
from hpcspin.electrons.memory import plan_batches
from hpcspin.electrons.model import DrivenLattice, Group, site_matrices, width_traces
from hpcspin.electrons.sources import source_of
from hpcspin.electrons.system import SIGMA, ElectronSystem, are_finite
from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import Results
from hpcspin.parallel.world import World

Real: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.complex128]


@dataclass(frozen=True, repr=False)
class Transport(Results):
    """Transport of one snapshot, or of n snapshots with an axis in front; currents in t/hbar, energies in t.

    Attributes
    ----------
    bond_current
        Particle current from site i to i + offset, shape (bonds, Lx, Ly), one entry for each of the system's
        `hopping_terms`; 0 where there is no such bond.
    bond_spin_current
        Spin current, with spin in units of hbar, along the same bonds, shape (bonds, Lx, Ly, 3).
    injected, injected_spin
        Particle and spin currents from each reservoir into each site, shapes (reservoirs, Lx, Ly) and
        (reservoirs, Lx, Ly, 3).
    spin_orbit_torque
        Torque of Rashba coupling on the electrons of each site, shape (Lx, Ly, 3).
    ldos
        Local density of states tr A_ii(e) / 2 pi at the given energies, in states per unit energy, shape
        (energies, Lx, Ly). For closed lattices, whose levels are sharp, it is convolved with minus the derivative of
        the Fermi function, as a probe at the electrons' temperature measures it.
    transmission
        T_rs(e) = tr[2 Gamma_r G 2 Gamma_s G†] from reservoir s into r, shape (energies, reservoirs, reservoirs).
    flow_error
        Estimate of the largest error of the currents of particles and spin, one number.
    """

    bond_current: Real
    bond_spin_current: Real
    injected: Real
    injected_spin: Real
    spin_orbit_torque: Real
    ldos: Real
    transmission: Real
    flow_error: Real

    @staticmethod
    def shapes(system: ElectronSystem, energies: Sequence[float]) -> dict[str, tuple[int, ...]]:
        """Shape of each array for one snapshot, except empty arrays."""
        size, bonds, reservoirs = system.lattice.size, len(system.hopping_terms), len(getattr(system, "reservoirs", ()))
        shapes = {
            "bond_current": (bonds, *size),
            "bond_spin_current": (bonds, *size, 3),
            "injected": (reservoirs, *size),
            "injected_spin": (reservoirs, *size, 3),
            "spin_orbit_torque": (*size, 3),
            "ldos": (len(energies), *size),
            "transmission": (len(energies), reservoirs, reservoirs),
            "flow_error": (),
        }
        return {name: shape for name, shape in shapes.items() if 0 not in shape}


def transport(system: ElectronSystem, spins: Real, energies: Sequence[float] = ()) -> Transport:
    """`ElectronSystem.transport` of one snapshot, shape (Lx, Ly, 3), from one dense eigenproblem, O((Lx Ly)³)."""
    spins = system.check_spins(np.asarray(spins)[None])[0]
    if not (are_finite(energies) and np.ndim(energies) == 1):
        raise HpcspinError(f"energies: {shown(energies)} must be a list of finite numbers")
    at = np.asarray(energies, dtype=np.float64)
    if isinstance(system, DrivenLattice):
        return _driven(system, spins, at)
    assert isinstance(system, ClosedLattice)
    return _closed(system, spins, at)


def _driven(system: DrivenLattice, spins: Real, energies: Real) -> Transport:
    spectrum = Spectrum.of(system, spins)
    inner, everything = spectrum.occupation(system)
    rho, full = (product(product(spectrum.vectors, m), spectrum.vectors.conj().T) for m in (inner, everything))
    error = float(np.abs(full - np.diag(np.repeat(system.occupied.reshape(-1), 2))).max())
    if error > system.tolerance:
        raise HpcspinError(f"electrons.tolerance: the density matrix is off by {error:.1e}; raise the tolerance")
    blocks, size = np.einsum("iaib->iab", rho.reshape(-1, 2, len(rho) // 2, 2)), system.lattice.size
    injected = [_injection(system, r, spectrum, blocks).reshape(*size, 4) for r in range(len(system.reservoirs))]
    propagators = 1 / (energies - spectrum.levels[:, None])
    weights = (spectrum.vectors * spectrum.inverse.T).reshape(-1, 2, len(spectrum.levels)).sum(axis=1)
    ldos = -(weights @ propagators).imag.T / np.pi
    return _flows(system, rho, 10 * error, np.stack(injected), ldos, _transmission(system, spectrum, propagators))


def _closed(system: ClosedLattice, spins: Real, energies: Real) -> Transport:
    matrix = without_vacancies(system, sd_hamiltonian(system, spins))
    levels, vectors = np.linalg.eigh(matrix)
    error = float(residuals(np, matrix[None], levels[None], vectors[None])[0]) * (1 + 1 / system.temperature)
    vectors = on_all_sites(system, vectors)
    filled = vectors * np.sqrt(fermi(levels, potential_of(system, levels), system.temperature))
    weights = (np.abs(vectors) ** 2).reshape(-1, 2, len(levels)).sum(axis=1)
    # Minus the derivative of the Fermi function is f (1 - f) / T.
    occupied = fermi(levels[:, None], energies, system.temperature)
    ldos = (weights @ (occupied * (1 - occupied) / system.temperature)).T
    none = np.zeros((0, *system.lattice.size, 4))
    return _flows(system, product(filled, filled.conj().T), error, none, ldos, np.zeros((len(energies), 0, 0)))


def _flows(
    system: ElectronSystem, rho: Matrix, error: float, injected: Real, ldos: Real, transmission: Real
) -> Transport:
    """Transport with the currents along the bonds; ``injected`` is tr(.) and tr(sigma .), (reservoirs, Lx, Ly, 4).

    An element of rho has at most the ``error``, and so has one of the spectral function in the injection.
    """
    lattice = system.lattice
    sites, terms, size = lattice.num_sites, system.hopping_terms, lattice.size
    blocks = rho.reshape(sites, 2, sites, 2)
    flow, torque = np.zeros((len(terms), sites, 4)), np.zeros((sites, 3))
    for number, term in enumerate(terms):
        target = lattice.shift(term.offset)[:, 0]
        origin = np.flatnonzero(target >= 0)
        target = target[origin]
        between, back = blocks[origin, :, target], term.matrix.conj().T
        arrives, leaves = (2 * np.einsum("kab,iba->ik", m, between).imag for m in (SIGMA @ back, back @ SIGMA))
        flow[number, origin] = (arrives + leaves) / 2
        turned = (arrives - leaves)[:, 1:] / 4  # The spin is sigma / 2, and each site takes half of the difference.
        torque[origin] += turned
        torque[target] += turned
    widths = system.widths if isinstance(system, DrivenLattice) else np.zeros(4)
    weight = max(8 * np.abs(widths).sum(axis=-1).max(), *(2 * np.abs(term.matrix).sum() for term in terms))
    return Transport(
        bond_current=flow[..., 0].reshape(-1, *size),
        bond_spin_current=flow[..., 1:].reshape(-1, *size, 3) / 2,
        injected=injected[..., 0],
        injected_spin=injected[..., 1:] / 2,
        spin_orbit_torque=torque.reshape(*size, 3),
        ldos=ldos.reshape(-1, *size),
        transmission=transmission,
        flow_error=np.array(weight * error),
    )


def _injection(system: DrivenLattice, number: int, spectrum: Spectrum, rho: Matrix) -> Real:
    """Change of rho_ii by one reservoir per unit time, as tr(.) and tr(sigma .), shape (sites, 4)."""
    reservoir = system.reservoirs[number]
    width = site_matrices(system.widths[number]).reshape(-1, 2, 2)
    half = (2j * spectrum.reached(reservoir.potential, system.temperature) - rho) @ width
    return 2 * np.einsum("kab,iba->ik", SIGMA, half).real


def _transmission(system: DrivenLattice, spectrum: Spectrum, propagators: Matrix) -> Real:
    """T_rs = sum_mn g_m g_n* K_s,mn Y_r,nm, g = 1 / (e - lambda), K_s = R^-1 2 Gamma_s R^-†, Y_r = R† 2 Gamma_r R."""
    count = len(system.reservoirs)
    result = np.zeros((propagators.shape[1], count, count))
    if not len(result):
        return result
    vectors = spectrum.vectors.reshape(-1, 2, len(spectrum.levels))
    sources = [spectrum.congruence(widths) for widths in system.widths]
    for r, widths in enumerate(system.widths):
        weighted = np.einsum("iab,ibk->iak", 2 * site_matrices(widths).reshape(-1, 2, 2), vectors)
        drain = product(spectrum.vectors.T, weighted.reshape(spectrum.vectors.shape).conj())  # Y_r, transposed
        for s, source in enumerate(sources):
            result[:, r, s] = np.einsum("me,me->e", product(source * drain, propagators.conj()), propagators).real
    return result


def transmission(
    system: DrivenLattice, spins: NDArray[np.float64], energies: NDArray[np.float64], device: Any = "cpu"
) -> NDArray[np.float64]:
    """Transmission between all pairs of reservoirs.

    Parameters
    ----------
    system
        The driven lattice, open along x.
    spins
        Unit vectors of one snapshot, shape (Lx, Ly, 3).
    energies
        Real energies, shape (E,).
    device
        ``"cpu"``, ``"cuda"`` or a torch device.

    Returns
    -------
    ndarray
        T_rs from reservoir s into r, shape (E, reservoirs, reservoirs), r first; 0 for a reservoir without a width.

    Raises
    ------
    HpcspinError
        If the spins do not fit, x is periodic, or an energy coincides with a level that is coupled to no reservoir.
    """
    spins = system.check_spins(np.asarray(spins)[None])
    arrays = make_backend("auto", device)
    columns = ColumnTeam(World(), system.lattice.size[0], make_coupling(system, arrays))
    blocks = layer_blocks(system, spins, arrays)
    step = plan_batches(system, arrays).energies
    energies = np.asarray(energies, dtype=np.float64)
    result = np.zeros((len(energies), len(system.reservoirs), len(system.reservoirs)))
    for s, (reservoir, widths) in enumerate(zip(system.reservoirs, system.widths, strict=True)):
        if not widths.any():
            continue
        # Far outside the potentials rounding would grow without bound over a group of columns, so none is formed.
        source = source_of(system, Group(reservoir.potential, [s], widths), columns, accuracy=0)
        for start in range(0, len(energies), step):
            part = energies[start : start + step]
            z = arrays.asarray((part / system.nearest_hopping).astype(np.complex128))
            response, _ = source.respond(blocks, z, arrays.asarray(np.ones((len(part), 1))), None)
            sites = arrays.to_numpy(response)
            infinite = part[~np.isfinite(sites).all(axis=(1, 2, 3))]
            if len(infinite):
                raise HpcspinError(f"the Green's function is singular at the energy {infinite[0]:.9g}: {SINGULAR}")
            result[start : start + step, :, s] = width_traces(system, sites)
    return result
