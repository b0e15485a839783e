"""Classical terms of the field."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.energies import Conservative
from hpcspin.dynamics.fields import BoundField
from hpcspin.dynamics.torque import components_first, cross, dot
from hpcspin.dynamics.waveforms import Waveform
from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import Halo, Lattice
from hpcspin.parallel.domain import Domain

Vector = tuple[float, float, float]
Offset = tuple[int, int]

_CACHED = {"cpu": 1 << 19, "cuda": 1 << 62}
"""Bytes of the sum that are computed at a time, by device type, so that they stay in the cache.

On 512 x 512 sites a sum takes 2.0 times as long as one read and one write, a third of it for the halo; without this it
takes 4.7 times as long.
"""


def _require_number(name: str, value: Any) -> None:
    if np.ndim(value) or not isinstance(value, float | int | np.number):
        raise HpcspinError(f"{name} {shown(value)} must be a number")


def _uniform(components: Vector) -> Callable[[Tensor], Tensor]:
    """A vector that is the same everywhere, in the shape of given spins and copied to their device once."""
    if np.shape(components) != (3,):
        raise HpcspinError(f"field: {shown(components)} is no vector; give three components")

    @functools.cache
    def placed(dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.tensor(components, dtype=dtype, device=device)

    return lambda spins: placed(spins.dtype, spins.device).expand_as(spins)


@dataclass(frozen=True)
class Zeeman(Conservative):
    """Uniform external field h: E = -sum_i h(t)·S_i, H_i = h(t), constant or with a waveform's amplitude."""

    field: Vector
    amplitude: Waveform | None = None
    halo: ClassVar[Halo] = (0, 0)
    degree: ClassVar[int] = 1

    @property
    def strength(self) -> float:
        """Largest field of a drive; see :class:`hpcspin.dynamics.waveforms.Driven`."""
        return 0.0 if self.amplitude is None else math.hypot(*self.field)

    def rate(self, start: float, end: float) -> float:
        """See :class:`hpcspin.dynamics.waveforms.Driven`."""
        return self.amplitude.rate(start, end) if self.amplitude is not None and any(self.field) else 0.0

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        field = _uniform(self.field)

        def evaluate(spins: Tensor, time: float) -> Tensor:
            scale = 1.0 if self.amplitude is None else self.amplitude(time)
            return torch.zeros_like(spins) + scale * field(spins)

        return evaluate


@dataclass(frozen=True)
class Anisotropy(Conservative):
    """Single-ion anisotropy along the unit vector n: E = -K sum_i (S_i·n)^2, H_i = 2 K (S_i·n) n."""

    strength: float
    axis: Vector = (0.0, 0.0, 1.0)
    halo: ClassVar[Halo] = (0, 0)
    degree: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _require_number("Anisotropy: strength", self.strength)
        # Another length would change K without a word.
        if not math.isclose(math.hypot(*self.axis), 1.0, rel_tol=1e-6):
            raise HpcspinError(f"Anisotropy: the axis {self.axis} is no unit vector; divide it by its length")

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        along = _uniform(self.axis)

        def evaluate(spins: Tensor, time: float) -> Tensor:
            axis = along(spins)
            return 2 * self.strength * dot(spins, axis) * axis

        return evaluate

    def divergence(self, lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`hpcspin.dynamics.energies.Conservative`."""
        return 2 * self.strength * ((spins**2).sum(axis=-1) - (spins @ np.asarray(self.axis)) ** 2)


@dataclass(frozen=True)
class Heisenberg(Conservative):
    """Exchange E = -J sum_<ij> S_i·S_j, H_i = J sum_j S_j, over nearest neighbours or over another shell's bonds.

    Parameters
    ----------
    exchange
        J, positive for a ferromagnet.
    bonds
        Offsets of half of the neighbours, as from :meth:`hpcspin.lattice.Lattice.shell`; None: the lattice's nearest.
    """

    exchange: float
    bonds: tuple[Offset, ...] | None = None
    degree: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _require_number("Heisenberg: exchange of one shell", self.exchange)
        if self.bonds is not None and not len(self.bonds):
            raise HpcspinError(
                "Heisenberg: has no bonds; give at least one, or leave them out for the lattice's nearest"
            )

    @property
    def halo(self) -> Halo:
        """Reach of the bonds along x and y."""
        return (1, 1) if self.bonds is None else _reach(self.bonds)

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        bonds = domain.lattice.bonds if self.bonds is None else self.bonds
        _require_reach(bonds, self.halo)
        offsets = [(sign * dx, sign * dy) for dx, dy in bonds for sign in (1, -1)]

        def evaluate(spins: Tensor, time: float) -> Tensor:
            return neighbour_sum(spins, self.halo, offsets, self.exchange)

        return evaluate

    def divergence(self, lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `hpcspin.dynamics.energies.Conservative`; a bond around a periodic side may end where it begins."""
        bonds = lattice.bonds if self.bonds is None else self.bonds
        # From site 0 to itself; each bond has two ends, each with a divergence of 2 J.
        return 4 * self.exchange * np.count_nonzero(lattice.shift(bonds)[0] == 0) * (spins**2).sum(axis=-1)


def neighbour_sum(vectors: Tensor, halo: Halo, offsets: Sequence[Offset], factor: float) -> Tensor:
    """Sum of vectors at two or more offsets from each site, in their order, times a factor.

    From the shape (nx + 2 hx, ny + 2 hy, 3) to (nx, ny, 3), stored by components.
    """
    by_component = vectors.permute(2, 0, 1)
    (hx, hy), components = halo, len(by_component)
    nx, ny = by_component.shape[1] - 2 * hx, by_component.shape[2] - 2 * hy
    total = torch.empty((components, nx, ny), dtype=vectors.dtype, device=vectors.device)
    rows = max(1, _CACHED[vectors.device.type] // (components * ny * total.element_size()))
    for first in range(0, nx, rows):
        part = total[:, first : first + rows]
        shifted = [by_component[:, hx + first + dx :, hy + dy : hy + dy + ny][:, : part.shape[1]] for dx, dy in offsets]
        torch.add(shifted[0], shifted[1], out=part)
        for one in shifted[2:]:
            part.add_(one)
        part.mul_(factor)
    return total.permute(1, 2, 0)


def _reach(bonds: Sequence[Offset]) -> Halo:
    """Reach of the longest bonds along x and along y, in lattice steps."""
    return max(abs(dx) for dx, _ in bonds), max(abs(dy) for _, dy in bonds)


def _require_reach(bonds: Sequence[Offset], halo: Halo) -> None:
    if any(far > near for far, near in zip(_reach(bonds), halo, strict=True)):
        raise HpcspinError(
            f"the lattice's bonds {tuple(bonds)} reach farther than {halo[0]} x {halo[1]} sites, which this term sees; "
            "give the term these bonds, or their reach as its halo"
        )


@dataclass(frozen=True)
class DzyaloshinskiiMoriya(Conservative):
    """Antisymmetric exchange: E = sum_<ij> D_ij·(S_i x S_j), D_ji = -D_ij, H_i = sum_j D_ij x S_j.

    Parameters
    ----------
    vectors
        D of the bond along each of the lattice's `bonds`.
    halo
        Reach of these bonds along x and y.
    """

    vectors: tuple[Vector, ...]
    halo: Halo = (1, 1)
    degree: ClassVar[int] = 2

    @classmethod
    def interfacial(cls, lattice: Lattice, strength: float) -> DzyaloshinskiiMoriya:
        """D_ij = D z x r_ij of a film on a substrate, with r_ij from i to j: cycloids."""
        return cls(tuple((-strength * y, strength * x, 0.0) for x, y in _directions(lattice)), _reach(lattice.bonds))

    @classmethod
    def bulk(cls, lattice: Lattice, strength: float) -> DzyaloshinskiiMoriya:
        """D_ij = D r_ij of a crystal without inversion centre: helices."""
        return cls(tuple((strength * x, strength * y, 0.0) for x, y in _directions(lattice)), _reach(lattice.bonds))

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        (nx, ny), (hx, hy), bonds = domain.shape, self.halo, domain.lattice.bonds
        _require_reach(bonds, self.halo)
        if len(self.vectors) != len(bonds):
            raise HpcspinError(
                f"DzyaloshinskiiMoriya: has {len(self.vectors)} vectors for the {len(bonds)} bonds of the lattice "
                f"{domain.lattice.kind!r}; make it with interfacial or bulk of this lattice"
            )
        vectors = [_uniform(vector) for vector in self.vectors]

        def evaluate(spins: Tensor, time: float) -> Tensor:
            def shifted(dx: int, dy: int) -> Tensor:
                return spins[hx + dx : hx + dx + nx, hy + dy : hy + dy + ny]

            total = components_first(torch.zeros_like(shifted(0, 0)))
            for (dx, dy), vector in zip(bonds, vectors, strict=True):
                difference = shifted(-dx, -dy) - shifted(dx, dy)
                total += cross(difference, vector(difference))
            return total

        return evaluate


def _directions(lattice: Lattice) -> Sequence[tuple[float, float]]:
    """Unit vectors along the bonds."""
    vectors = lattice.cartesian(lattice.bonds)
    return [(float(x), float(y)) for x, y in vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)]


@dataclass(frozen=True)
class Slonczewski:
    """Spin-transfer torque -S x (S x p) of a spin current polarised along p: H_i = S_i x p, which has no energy."""

    polarization: Vector
    halo: ClassVar[Halo] = (0, 0)

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        polarization = _uniform(self.polarization)

        def evaluate(spins: Tensor, time: float) -> Tensor:
            return cross(spins, polarization(spins))

        return evaluate
