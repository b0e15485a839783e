"""Classical terms of the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hpcspin.dynamics.fields import BoundField
from hpcspin.dynamics.stencil import neighbour_sum
from hpcspin.dynamics.torque import cross, dot
from hpcspin.parallel.domain import Domain

Vector = tuple[float, float, float]


def _vector(components: Vector, like: Tensor) -> Tensor:
    return torch.tensor(components, dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class Zeeman:
    """Uniform external field h: E = -sum_i h·S_i, H_i = h."""

    field: Vector
    halo: ClassVar[int] = 0
    degree: ClassVar[int] = 1

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""

        def evaluate(spins: Tensor, time: float) -> Tensor:
            return torch.zeros_like(spins) + _vector(self.field, spins)

        return evaluate


@dataclass(frozen=True)
class Anisotropy:
    """Single-ion anisotropy along the unit vector n: E = -K sum_i (S_i·n)^2, H_i = 2 K (S_i·n) n."""

    strength: float
    axis: Vector = (0.0, 0.0, 1.0)
    halo: ClassVar[int] = 0
    degree: ClassVar[int] = 2

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""

        def evaluate(spins: Tensor, time: float) -> Tensor:
            axis = _vector(self.axis, spins).expand_as(spins)
            return 2 * self.strength * dot(spins, axis) * axis

        return evaluate


@dataclass(frozen=True)
class Heisenberg:
    """Exchange over nearest neighbours: E = -J sum_<ij> S_i·S_j, H_i = J sum_j S_j."""

    exchange: float
    halo: ClassVar[int] = 1
    degree: ClassVar[int] = 2

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        offsets = [(sign * dx, sign * dy) for dx, dy in domain.lattice.bonds for sign in (1, -1)]

        def evaluate(spins: Tensor, time: float) -> Tensor:
            return neighbour_sum(spins, self.halo, offsets, self.exchange)

        return evaluate


@dataclass(frozen=True)
class Slonczewski:
    """Spin-transfer torque -S x (S x p) of a spin current polarised along p: H_i = S_i x p, from no energy."""

    polarization: Vector
    halo: ClassVar[int] = 0

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""

        def evaluate(spins: Tensor, time: float) -> Tensor:
            return cross(spins, _vector(self.polarization, spins).expand_as(spins))

        return evaluate
