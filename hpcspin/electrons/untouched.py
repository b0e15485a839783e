"""Levels that no reservoir touches, whose occupation the steady state does not determine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR, Array
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.equilibrium import EquilibriumPart
from hpcspin.electrons.model import DrivenLattice, Group, merge_potentials
from hpcspin.electrons.sources import GeneralSource, least_widths
from hpcspin.electrons.window import WindowIntegral
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_SINGULAR = 1e-9
"""Singular value of W, relative to the largest one, that counts as 0."""


def touches_all_levels(system: DrivenLattice, columns: ColumnTeam) -> bool:
    """Whether the reservoirs touch every level, whatever the spins are.

    They do if each site has a reservoir. Reservoirs on a whole end column do if W is invertible: for a level that
    vanishes on column x and before it, H psi = e psi gives W psi_{x+1} = 0, so that it vanishes on the next column, and
    thus everywhere.
    """
    least = least_widths(system)
    if least[system.occupied].min() > 0:
        return True
    if system.vacancies is not None or not (least[[0, -1]] > 0).all(axis=1).any():
        return False
    backend = columns.coupling.backend
    coupling = backend.to_numpy(columns.coupling.up(backend.asarray(np.eye(2 * system.lattice.size[1]) + 0j)))
    singular = np.linalg.svd(coupling, compute_uv=False)
    return bool(singular[-1] > _SINGULAR * singular[0])


class UntouchedLevels:
    """Finds levels between the potentials that no reservoir touches.

    For the lowest potential mu_1 and the highest mu_2, ∫ de/2pi (f_2 - f_1) A from the Matsubara frequencies contains
    all levels. The integral of G 2 Gamma G† over the real axis, which equals A wherever G is finite, misses untouched
    levels: they are infinitely sharp, so that no node of the quadrature meets them.

    ``tolerance`` is the largest error of the field from each of the integrals that are compared; other arguments are
    those of `EquilibriumPart` and `WindowIntegral`.
    """

    def __init__(
        self, system: DrivenLattice, columns: ColumnTeam, scale: float, tolerance: float, batch: int, accuracy: float
    ) -> None:
        potentials = [group.potential for group in merge_potentials(system)]
        low, high = self._ends = min(potentials), max(potentials)
        everything = Group(high, list(range(len(system.reservoirs))), system.widths.sum(axis=0))
        source = GeneralSource(system, [everything], columns)
        self._window = WindowIntegral(source, low, system.temperature, scale, tolerance, batch, accuracy)
        self._whole = [EquilibriumPart(system, mu, columns, scale, tolerance, batch) for mu in (low, high)]
        self._slack = 4 * tolerance / scale

    def refuse(self, blocks: Array, spins: NDArray[np.float64], world: World, first: int) -> None:
        """Refuse snapshots with untouched levels; arguments as for `EquilibriumPart` and `WindowIntegral`.

        Raises HpcspinError, which names the first snapshot with such a level.
        """
        below, above = (part.solve(blocks, spins, world)[0] for part in self._whole)
        touched = self._window.integrate(blocks, [self._window.first_grid] * len(spins), world, first)
        missing = above - below - touched.values[:, : below[0].size].reshape(below.shape)
        found = np.flatnonzero(np.abs(missing).max(axis=(1, 2, 3)) > self._slack)
        if len(found):
            low, high = self._ends
            raise HpcspinError(f"snapshot {first + found[0]}: between the potentials {low:g} and {high:g} {SINGULAR}")
