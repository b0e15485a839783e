"""Occupation that reservoirs inject relative to the reference potential: G (sum_s w_s 2 Gamma_s) G†.

A source collects reservoirs that need the same kind of sweep. Reservoirs on an end column need one block column of G;
reservoirs on arbitrary sites need the general recursion for G^<.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.fused import Autotuned, FusedSweep, Sweep, fused_sweep
from hpcspin.electrons.hamiltonian import block_diagonal, is_chain
from hpcspin.electrons.model import DrivenLattice, Group, merge_potentials, site_matrices
from hpcspin.electrons.onsite import hermitian_sites, occupation, spectral_sites
from hpcspin.electrons.recursion import GroupedColumns, group_length
from hpcspin.parallel.world import World

_SHARP = 0.01
"""Half width of a level, in hoppings, below which rounding errors of groups of columns must be smaller."""


class Source(ABC):
    """On-site response to reservoirs, grouped by potential, for a batch of energies.

    ``columns`` are not mirrored; ``accuracy`` is the largest rounding error, relative to the response.
    """

    def __init__(self, system: DrivenLattice, groups: list[Group], columns: ColumnTeam, accuracy: float) -> None:
        self.system = system
        self.accuracy = accuracy
        self.groups = groups
        self.columns = columns
        self.backend: Backend = columns.coupling.backend
        self.hopping = system.nearest_hopping
        self.level_width = max(0.0, float(least_widths(system)[system.occupied].min()))
        """Lower bound on the half width of all levels; 0 if a site has no reservoir."""
        self.autotuned = Autotuned(self.backend)
        self.members = [member for group in groups for member in group.members]
        self.group_of_member = [s for s, group in enumerate(groups) for _ in group.members]
        # tr(2 Gamma_r A) is twice the sum over sites and components of widths times components of A.
        self._traces = 2 * system.widths[self.members]
        count = len(system.reservoirs)
        self.currents = np.concatenate([-2 * system.widths.reshape(count, -1).T, np.eye(count)[self.members]])
        """Matrix of `reservoir_currents`, from components of all sites and traces of the members to reservoirs."""

    @property
    def potentials(self) -> NDArray[np.float64]:
        """Potential of each group."""
        return np.array([group.potential for group in self.groups])

    @abstractmethod
    def respond(self, blocks: Array, energies: Array, weights: Array, snapshots: Array | None) -> tuple[Array, Array]:
        """Injected occupation and spectral weight at the reservoirs.

        The arguments are those of `right_connected`, with the blocks of my columns, and w_s, real, shape (batch,
        groups). All blocks of G have the type of the blocks, complex128 or complex64; sums are always in double
        precision. Returns the components of sum_s w_s G 2 Gamma_s G† on every site, in units of 1/energy, shape (batch,
        Lx, Ly, 4), and tr(2 Gamma_r A) of every member, dimensionless, shape (batch, members).
        """

    def choose(self, blocks: Array, energies: Array, weights: Array, world: World) -> None:
        """Time the available ways to compute on an example and keep the fastest; a collective call."""
        return


class EndSource(Source):
    """Reservoirs on the first column, or on the last one, which is the first of the ``mirrored`` lattice."""

    def __init__(
        self, system: DrivenLattice, groups: list[Group], columns: ColumnTeam, accuracy: float, mirrored: bool
    ) -> None:
        super().__init__(system, groups, columns.mirrored() if mirrored else columns, accuracy)
        self.mirrored = mirrored
        end = -1 if mirrored else 0
        roots = [_root(2 * site_matrices(group.widths[end])) for group in groups]
        self._stops = np.cumsum([0, *[root.shape[1] for root in roots]])
        root = np.concatenate(roots, axis=1) / system.nearest_hopping
        scale = root[0, 0]
        # A uniform electrode needs no product, because its root is a multiple of the identity.
        self._scale = float(scale.real) if np.array_equal(root, scale * np.eye(*root.shape)) else None
        self._source = self.backend.asarray(root)
        self._end_traces = self.backend.asarray(self._traces[:, end].reshape(len(self.members), -1))
        self._fused: dict[str, FusedSweep] = {}
        groups_fit = columns.team.size == 1 and columns.coupling.is_identity and is_chain(system)
        # The sharper levels may be, the more the quadrature makes of what it sees: it would refine rounding errors.
        seen = accuracy * min(1.0, self.level_width / (_SHARP * self.hopping))
        self._group = group_length(_magnitude(system), seen) if groups_fit else 1

    def respond(self, blocks: Array, energies: Array, weights: Array, snapshots: Array | None) -> tuple[Array, Array]:
        """Injected occupation from one block column of G."""
        xp = self.backend.xp
        if self.mirrored:
            blocks = xp.flip(blocks, axis=1)
        if fused := self._fused.get(_precision(blocks)):
            response, ends = self.autotuned(*self._variants(fused, blocks, energies, weights, snapshots))
        else:
            response, ends = self._sweep(blocks, energies, weights, snapshots)
        traces = xp.reshape(ends * (-1 / self.hopping), (len(weights), -1)) @ self._end_traces.T
        if self._scale is not None:
            response = response * self._scale**2
        return (xp.flip(response, axis=1) if self.mirrored else response), traces

    def choose(self, blocks: Array, energies: Array, weights: Array, world: World) -> None:
        """Compile the fused kernel, if there is one, and compare it with batched routines.

        This happens here and not at the first sweep, where another worker's stream could read the kernel's arrays
        before they have been uploaded.
        """
        blocks = self.backend.xp.flip(blocks, axis=1) if self.mirrored else blocks
        precision, (columns, size) = _precision(blocks), blocks.shape[1:3]
        root = None if self._scale is not None else self.backend.to_numpy(self._source)
        groups = np.repeat(np.arange(len(self.groups)), np.diff(self._stops))
        whole = self.columns.team.size == 1
        fused = fused_sweep(self.columns.coupling, precision, size, root, groups) if whole else None
        everywhere = all(world.allgather(fused is not None))
        if fused is not None and everywhere:
            self._fused[precision] = fused
            case = (self.backend.device, fused.kernel, self._group, columns, len(energies), len(groups), root is None)
            self.autotuned.choose(*self._variants(fused, blocks, energies, weights, None), case, world)

    def _variants(
        self, fused: FusedSweep, blocks: Array, energies: Array, weights: Array, snapshots: Array | None
    ) -> tuple[str, Sweep, Sweep]:
        """Precision, batched routines and fused kernel."""
        return (
            _precision(blocks),
            lambda: self._sweep(blocks, energies, weights, snapshots),
            lambda: fused.respond(blocks, energies, weights, snapshots),
        )

    def _sweep(self, blocks: Array, energies: Array, weights: Array, snapshots: Array | None) -> tuple[Array, Array]:
        """Components of sum_s w_s Y Y† on every site, up to the scale, and of i (u - u†) on the end column."""
        xp = self.backend.xp
        source = None if self._scale is not None else xp.astype(self._source, blocks.dtype)
        if self._group > 1 and blocks.dtype == xp.complex128:
            grouped = GroupedColumns(blocks, energies, self.columns.coupling, snapshots, self._group)
            groups = grouped.connect()
            return grouped.occupations(groups, source, self._stops, weights), spectral_sites(xp, groups[0].first)
        slab = self.columns.connect(blocks, energies, snapshots)
        parts = [occupation(xp, column, self._stops, weights) for column in slab.first_columns(source)]
        ends = self.columns.gather(xp.astype(spectral_sites(xp, slab.connected[0])[:, None], xp.float64))
        return self.columns.gather(xp.stack(parts, axis=1)), ends[:, 0]


class GeneralSource(Source):
    """Reservoirs on arbitrary sites, by the general recursion."""

    def __init__(self, system: DrivenLattice, groups: list[Group], columns: ColumnTeam, accuracy: float) -> None:
        super().__init__(system, groups, columns, accuracy)
        full = block_diagonal(np.stack([2 * site_matrices(group.widths) for group in groups]))
        self._sources = self.backend.asarray(full[:, columns.own])
        self._site_traces = self.backend.asarray(self._traces.reshape(len(self.members), -1))

    def respond(self, blocks: Array, energies: Array, weights: Array, snapshots: Array | None) -> tuple[Array, Array]:
        """Injected occupation from the general recursion for G^<."""
        xp, scale = self.backend.xp, 1 / self.hopping
        slab = self.columns.connect(blocks, energies, snapshots)
        sources = [
            xp.astype(
                sum(weights[:, s, None, None] * self._sources[s, x] for s in range(len(self.groups))), blocks.dtype
            )
            for x in range(blocks.shape[1])
        ]
        pairs = list(slab.lesser(sources))
        response = xp.stack([hermitian_sites(xp, full) for full, _ in pairs], axis=1)
        spectral = xp.stack([spectral_sites(xp, diagonal) for _, diagonal in pairs], axis=1)
        response, spectral = xp.astype(response, xp.float64) * scale**2, xp.astype(spectral, xp.float64) * -scale
        response, spectral = self.columns.gather(response), self.columns.gather(spectral)
        return response, xp.reshape(spectral, (len(weights), -1)) @ self._site_traces.T


def _precision(blocks: Array) -> str:
    """``"complex128"`` or ``"complex64"``."""
    return str(blocks.dtype).split(".")[-1]


def _root(matrices: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """K, shape (2 Ly, rank), where K K† is the block-diagonal matrix of positive 2x2 blocks of shape (Ly, 2, 2)."""
    if np.allclose(matrices, matrices[..., :1, :1] * np.eye(2), rtol=0, atol=0):
        vectors, values = np.broadcast_to(np.eye(2), matrices.shape), np.einsum("yss->ys", matrices).real
    else:
        values, vectors = np.linalg.eigh(matrices)
    root = block_diagonal(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])
    return root[:, (values > 0).reshape(-1)].astype(np.complex128)


def _magnitude(system: DrivenLattice) -> float:
    """Upper bound on |H_x - i Gamma_x - z| / t for energies between the potentials, if the columns are chains."""
    width = np.abs(system.widths.sum(axis=0)).sum(axis=-1).max()
    local = system.largest_exchange + float(np.abs(system.site_levels).max())
    within = 2 * system.nearest_hopping + local + width + np.abs(system.potentials).max()
    return float(within / system.nearest_hopping)


def source_of(system: DrivenLattice, group: Group, columns: ColumnTeam, accuracy: float) -> Source:
    """The cheapest source for one group, with a relative rounding error of at most ``accuracy``."""
    end = _end_column(group)
    if end is None:
        return GeneralSource(system, [group], columns, accuracy)
    return EndSource(system, [group], columns, accuracy, end == "right")


def split_lesser(system: DrivenLattice, columns: ColumnTeam, accuracy: float) -> tuple[float, list[Source]]:
    """Split the lesser function G^< = G^R Sigma^< G^A of arXiv:2112.12124 (between Eqs. 6 and 7) at a potential mu_0.

    With the widths of all reservoirs, Gamma = sum_s Gamma_s, the spectral function is A = i (G^R - G^A) =
    G^R 2 Gamma G^A. The occupation at any potential mu_0 can therefore be split off,

        -i G^< = f_0 A + sum_s (f_s - f_0) G^R 2 Gamma_s G^A.

    mu_0 is chosen such that the sum is cheapest: its reservoirs should touch only the end columns.

    Parameters
    ----------
    system, columns
        The driven lattice, and the ranks that hold its columns of sites.
    accuracy
        Largest rounding error of the sources, relative to the response.

    Returns
    -------
    tuple
        mu_0 and the sources of the sum.
    """
    groups = merge_potentials(system)
    reference = min(groups, key=lambda group: _cost(groups, group))
    rest = [group for group in groups if group is not reference]
    ends = {end: [group for group in rest if _end_column(group) == end] for end in ("left", "right", None)}
    if ends[None]:
        return reference.potential, [GeneralSource(system, rest, columns, accuracy)]
    mirrored = {"left": False, "right": True}
    sources = [EndSource(system, ends[end], columns, accuracy, mirrored[end]) for end in mirrored if ends[end]]
    return reference.potential, list[Source](sources)


def least_widths(system: DrivenLattice) -> NDArray[np.float64]:
    """Smallest eigenvalue of sum_r Gamma_r on each site, shape (Lx, Ly)."""
    widths = system.widths.sum(axis=0)
    return np.asarray(widths[..., 0] - np.linalg.norm(widths[..., 1:], axis=-1))


def _end_column(group: Group) -> str | None:
    """Name of the end column that the group touches, if it touches nothing else; otherwise None."""
    touched = np.flatnonzero(group.widths[..., 0].any(axis=1))
    if len(touched) == 1 and touched[0] == 0:
        return "left"
    return "right" if len(touched) == 1 and touched[0] == len(group.widths) - 1 else None


def _cost(groups: list[Group], reference: Group) -> int:
    """Number of block operations per column of sites and energy for one choice of the reference."""
    ends = {_end_column(group) for group in groups if group is not reference}
    return 8 if None in ends else 2 * len(ends)
