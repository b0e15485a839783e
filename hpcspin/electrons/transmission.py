"""Transmission between reservoirs, T_rs(e) = tr[2 Gamma_r G 2 Gamma_s G†]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR, make_backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.hamiltonian import layer_blocks, make_coupling
from hpcspin.electrons.memory import plan_batches
from hpcspin.electrons.model import DrivenLattice, Group
from hpcspin.electrons.sources import source_of
from hpcspin.electrons.steady_state import width_traces
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World


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
