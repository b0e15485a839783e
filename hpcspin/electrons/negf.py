"""Production solver: recursive Green's functions, Matsubara frequencies and an adaptive window integral.

The density matrix rho = -i ∫ de/2pi G^<(e), from which Eq. 7 of arXiv:2112.12124 gives the field, is integrated in the
two terms of `split_lesser`: the first becomes a sum over Matsubara frequencies, the second an integral over energies
between the potentials.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR, Array, Backend, make_backend
from hpcspin.electrons.columns import ColumnTeam, split_ranks
from hpcspin.electrons.equilibrium import EquilibriumPart
from hpcspin.electrons.hamiltonian import layer_blocks, make_coupling
from hpcspin.electrons.memory import plan_batches
from hpcspin.electrons.model import (
    DrivenLattice,
    Group,
    SteadyState,
    SteadyStateSolver,
    merge_potentials,
    reservoir_currents,
)
from hpcspin.electrons.quadrature import coarsened
from hpcspin.electrons.solver import FINEST_TOLERANCE
from hpcspin.electrons.sources import GeneralSource, least_widths, split_lesser
from hpcspin.electrons.window import WindowIntegral
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

FINEST_SINGLE = 5e-5
"""Smallest tolerance in complex64: below it the quadrature would refine rounding errors as if they were structure."""
_EQUILIBRIUM_SHARE = 0.2
"""Fraction of the tolerance for the equilibrium part; the window integrals share the rest."""
_ROUNDING = 0.01
"""Fraction of the tolerance reserved for rounding."""
_VANISHING = 1e-9
"""Singular value of W, relative to the largest one, that counts as 0."""


class RecursiveSolver(SteadyStateSolver):
    """Nonequilibrium Green's functions, linear in Lx; for lattices that are open along x.

    Parameters
    ----------
    system, tolerance, world, device, precision
        As for every solver; complex64 applies to energies between the potentials,
        where nearly all of the work is; the equilibrium part stays in complex128.
    backend
        Array library, see `make_backend`.
    column_ranks
        Number of ranks that together hold the columns of one lattice; None for as few as have enough memory, see
        `plan_batches`.
    """

    name: ClassVar[str] = "negf"
    finest: ClassVar[dict[str, float]] = {"complex128": FINEST_TOLERANCE, "complex64": FINEST_SINGLE}

    def __init__(
        self,
        system: DrivenLattice,
        tolerance: float,
        world: World | None = None,
        device: Any = "cpu",
        precision: str = "complex128",
        backend: str = "auto",
        column_ranks: int | None = None,
    ) -> None:
        super().__init__(system, tolerance, world, device, precision)
        self.backend: Backend = make_backend(backend, device)
        batches = plan_batches(system, self.backend, self.world, column_ranks)
        self._snapshots_at_once, batch = batches.snapshots, batches.energies
        self._teams, team = split_ranks(self.world, batches.column_ranks)
        self.backend = replace(self.backend, most_sweeps=1 if team.size > 1 else batches.sweeps)
        self.columns = ColumnTeam(team, system.lattice.size[0], make_coupling(system, self.backend))
        accuracy = _ROUNDING * self.tolerance / system.scale
        reference, sources = split_lesser(system, self.columns, accuracy)
        share = _EQUILIBRIUM_SHARE if sources else 1.0
        self.equilibrium = EquilibriumPart(system, reference, self.columns, share * self.tolerance, batch)
        self.windows = [
            WindowIntegral(source, reference, (1 - share) * self.tolerance / len(sources), batch, precision)
            for source in sources
        ]
        # With a single potential untouched levels are in equilibrium with all others.
        self._untouched = (
            UntouchedLevels(system, self.columns, share * self.tolerance, batch, accuracy)
            if sources and not touches_all_levels(system, self.columns)
            else None
        )
        self._tune()
        self._grids: list[list[NDArray[np.float64]]] = [[] for _ in self.windows]
        self.evaluations = 0
        """Number of energies at which all ranks have evaluated windows since the solver was created."""

    @classmethod
    def ranks_needed(cls, system: DrivenLattice, world: World, device: Any) -> int:
        """Number of ranks over which the columns of sites must be divided."""
        return plan_batches(system, make_backend("auto", device), world).column_ranks

    def _tune(self) -> None:
        """On a GPU, find the fastest way to compute each window, with random spins."""
        if self.backend.name == "cupy":
            spins = np.random.default_rng(0).standard_normal((1, *self.system.lattice.size, 3))
            spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
            blocks = layer_blocks(self.system, spins, self.backend, self.columns.own)
            for window in self.windows:
                window.choose(blocks, self.world)

    def _solve(self, spins: NDArray[np.float64]) -> SteadyState:
        step = self._snapshots_at_once
        parts = [self._solve_batch(spins[i : i + step], i) for i in range(0, len(spins), step)]
        self._grids = [grids[: len(spins)] for grids in self._grids]
        components, error, current, uncertain = (np.concatenate(part) for part in zip(*parts, strict=True))
        return SteadyState.from_components(self.system, components, error, current=current, current_error=uncertain)

    def _solve_batch(
        self, spins: NDArray[np.float64], first: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Components and their errors, currents and theirs, of the snapshots in slots first, first + 1, ..."""
        blocks = layer_blocks(self.system, spins, self.backend, self.columns.own)
        if self._untouched:
            self._untouched.refuse(blocks, spins, self._teams, first)
        components, error = self.equilibrium.solve(blocks, spins, self._teams)
        filled = np.zeros((len(spins), len(self.system.reservoirs)))
        injected, uncertain = np.zeros_like(components), np.zeros(len(spins))
        slots = slice(first, first + len(spins))
        for window, grids in zip(self.windows, self._grids, strict=True):
            refined = grids[slots]
            edges = refined + [window.first_grid] * (len(spins) - len(refined))
            result = window.integrate(blocks, edges, self._teams, first)
            grids[slots] = coarsened(result.intervals, window.tolerance)
            self.evaluations += result.evaluations
            members = len(window.source.members)
            injected += result.values[:, :-members].reshape(components.shape)
            filled[:, window.source.members] += result.values[:, -members:]
            error = error + result.errors + window.truncation
            uncertain += result.derived + window.current_truncation
        return components + injected, error, reservoir_currents(self.system, filled, injected), uncertain

    def reset(self) -> None:
        """Forget the energy grids of earlier snapshots."""
        self._grids = [[] for _ in self.windows]

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Energy grids from which the next call starts, and the chosen ways to compute.

        Slot i of `solve` continues slot i of the call before.
        """
        state: dict[str, NDArray[Any]] = {
            f"grid_{window}_{slot}": edges
            for window, grids in enumerate(self._grids)
            for slot, edges in enumerate(grids)
        }
        for number, window in enumerate(self.windows):
            if self.precision in window.source.autotuned.use_second:
                state[f"fused_{number}"] = np.array(window.source.autotuned.use_second[self.precision])
        return state

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Start the next call from these grids: it then repeats, bit for bit, the call after `get_state`.

        Raises ValueError if a grid does not belong to its window.
        """
        self.reset()
        for number, (window, grids) in enumerate(zip(self.windows, self._grids, strict=True)):
            while (key := f"grid_{number}_{len(grids)}") in state:
                grids.append(_grid_of(window, state[key], key))
            if (key := f"fused_{number}") in state:
                window.source.autotuned.use_second[self.precision] = bool(state[key])


def _grid_of(window: WindowIntegral, edges: NDArray[Any], key: str) -> NDArray[np.float64]:
    """A stored grid, checked to cover exactly its window; the integral over any other interval would be wrong."""
    ends = window.first_grid[[0, -1]]
    if edges.ndim != 1 or len(edges) < 2 or not (np.allclose(edges[[0, -1]], ends) and np.all(np.diff(edges) > 0)):
        raise ValueError(f"{key} does not cover the energies from {ends[0]:.6g} to {ends[1]:.6g}")
    return np.array(edges, dtype=np.float64)


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
    return bool(singular[-1] > _VANISHING * singular[0])


class UntouchedLevels:
    """Finds levels between the potentials that no reservoir touches.

    For the lowest potential mu_1 and the highest mu_2, ∫ de/2pi (f_2 - f_1) A from the Matsubara frequencies contains
    all levels. The integral of G 2 Gamma G† over the real axis, which equals A wherever G is finite, misses untouched
    levels: they are infinitely sharp, so that no node of the quadrature meets them.

    ``tolerance`` is the largest error of the field from each of the integrals that are compared, ``accuracy`` that of
    the `Source`; other arguments are those of `EquilibriumPart`.
    """

    def __init__(
        self, system: DrivenLattice, columns: ColumnTeam, tolerance: float, batch: int, accuracy: float
    ) -> None:
        potentials = [group.potential for group in merge_potentials(system)]
        low, high = self._ends = min(potentials), max(potentials)
        everything = Group(high, list(range(len(system.reservoirs))), system.widths.sum(axis=0))
        source = GeneralSource(system, [everything], columns, accuracy)
        self._window = WindowIntegral(source, low, tolerance, batch)
        self._whole = [EquilibriumPart(system, mu, columns, tolerance, batch) for mu in (low, high)]
        self._slack = 4 * tolerance / system.scale

    def refuse(self, blocks: Array, spins: NDArray[np.float64], world: World, first: int) -> None:
        """Refuse snapshots with untouched levels; arguments as for `EquilibriumPart` and `WindowIntegral`."""
        below, above = (part.solve(blocks, spins, world)[0] for part in self._whole)
        touched = self._window.integrate(blocks, [self._window.first_grid] * len(spins), world, first)
        missing = above - below - touched.values[:, : below[0].size].reshape(below.shape)
        found = np.flatnonzero(np.abs(missing).max(axis=(1, 2, 3)) > self._slack)
        if len(found):
            low, high = self._ends
            raise HpcspinError(f"snapshot {first + found[0]}: between the potentials {low:g} and {high:g} {SINGULAR}")
