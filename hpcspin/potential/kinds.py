"""Kinds of force fields: from what the network says of each centre to fields on the spins.

Spins are free vectors in every derivative; what this adds along the spin itself
exerts no torque.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.potential.gather import StaticGather
from hpcspin.potential.orbits import slot_permutations
from hpcspin.potential.tiles import WHOLE, linear

KINDS: dict[str, type[Kind]] = {}


class Prediction(NamedTuple):
    """What a force field says about a batch of configurations.

    Attributes
    ----------
    field : Tensor
        H = equilibrium + nonequilibrium, shape (batch, sites, 3).
    equilibrium, nonequilibrium : Tensor
        h^eq = -∂E/∂S and h^neq = -S x ∂G/∂S, shape (batch, sites, 3); of a
        kind without potentials the first is the whole field.
    energy, toroidal : Tensor
        Sums E and G of the potentials of all centres, shape (batch,); zero where there is none.
    """

    field: Tensor
    equilibrium: Tensor
    nonequilibrium: Tensor
    energy: Tensor
    toroidal: Tensor


@dataclass(frozen=True)
class Surroundings:
    """The spins around the centres of a batch, and which centres and rows the field is asked for.

    Attributes
    ----------
    around : Tensor
        Spins in the slots of each centre, its own first, shape (centres, slots, 3).
    gather : StaticGather
        The gather that made `around` out of the rows of spins.
    rows, centres : Tensor
        Row and centre of each site on which the field is asked for, shape (sites,).
    tile : int
        Centres in a tile of matrix products.
    """

    around: Tensor
    gather: StaticGather
    rows: Tensor
    centres: Tensor
    tile: int

    @property
    def spins(self) -> Tensor:
        """Spins on which the field is asked for, shape (sites, 3)."""
        return self.around.detach()[self.centres, 0]


class Kind(nn.Module):
    """Base of all kinds.

    Parameters
    ----------
    offsets
        Lattice offset of each slot, the centre first, shape (slots, 2).
    operations
        Symmetry operations, shape (operations, 2, 2).

    Attributes
    ----------
    potentials : int
        Number of potentials a centre has: none, E, or E and G.
    reaches : int
        How many times the reach of a neighbourhood the field on a site sees.
    outputs : int
        Numbers that the network gives a centre.
    """

    name: ClassVar[str]
    potentials: ClassVar[int]
    reaches: ClassVar[int]
    outputs: int

    def __init_subclass__(cls) -> None:
        KINDS[cls.name] = cls

    def __init__(self, offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> None:
        super().__init__()
        self.outputs = self.potentials

    def factors(self, u: Tensor) -> Tensor:
        """What the network's outputs are multiplied with at the bias u of each centre, (centres, outputs).

        G is proportional to the bias: without one it vanishes exactly.
        """
        return torch.stack([torch.ones_like(u), u], -1)[:, : self.outputs]

    def fields(self, local: Tensor, at: Surroundings, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Equilibrium and nonequilibrium field.

        Parameters
        ----------
        local
            The network's outputs times `factors`, functions of ``at.around``, shape (centres, outputs).
        at
            Where.
        create_graph
            Whether the fields will be differentiated by the weights.

        Returns
        -------
        tuple of Tensor
            Shape (sites, 3) each.
        """
        raise NotImplementedError


class Conservative(Kind):
    """E alone: the field is a gradient."""

    name = "conservative"
    potentials = 1
    reaches = 2

    def fields(self, local: Tensor, at: Surroundings, create_graph: bool) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        equilibrium = -_global_gradient(local[:, 0], at, create_graph, keep=create_graph)
        return equilibrium, torch.zeros_like(equilibrium)


class Pair(Kind):
    """Global potentials E and G, the paper's Eq. (3)."""

    name = "pair"
    potentials = 2
    reaches = 2

    def fields(self, local: Tensor, at: Surroundings, create_graph: bool) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        energy = _global_gradient(local[:, 0], at, create_graph, keep=True)
        toroidal = _global_gradient(local[:, 1], at, create_graph, keep=create_graph)
        return -energy, -torch.linalg.cross(at.spins, toroidal)


class Site(Kind):
    """A pair ε_i, χ_i of each site, of which its own spin alone takes derivatives.

    H_i = -∂ε_i/∂S_i - S_i x ∂χ_i/∂S_i is the most general field of the spins
    within the cutoff radius: on the sphere of each spin it is a
    Helmholtz-Hodge decomposition. In equilibrium H_i is a gradient on that
    sphere, so that χ_i, too, vanishes without a bias.
    """

    name = "site"
    potentials = 2
    reaches = 1

    def fields(self, local: Tensor, at: Surroundings, create_graph: bool) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        energy = _gradient(local[:, 0], at, create_graph, keep=True)[:, 0][at.centres]
        toroidal = _gradient(local[:, 1], at, create_graph, keep=create_graph)[:, 0][at.centres]
        return -energy, -torch.linalg.cross(at.spins, toroidal)


class Direct(Kind):
    """A covariant field without potentials, a baseline.

    H_i = Σ_c w_c A_c + Σ_c w'_c S_i x A_c with A_c the sum of the spins of a
    shell, an orbit of the site symmetry, over the root of their number; the
    invariant weights w are the network's outputs.
    """

    name = "direct"
    potentials = 0
    reaches = 1

    shells: Tensor

    def __init__(self, offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> None:
        super().__init__(offsets, operations)
        shells = _shell_sums(offsets, operations)
        self.register_buffer("shells", torch.from_numpy(shells), persistent=False)
        self.outputs = 2 * len(shells)

    def factors(self, u: Tensor) -> Tensor:
        """See `Kind`; even in equilibrium S x A takes part, through weights that are odd under time reversal."""
        return torch.ones_like(u)[:, None]

    def fields(self, local: Tensor, at: Surroundings, create_graph: bool) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        around = at.around.detach()
        by_component = around.transpose(1, 2).flatten(0, 1)
        tile = at.tile if at.tile == WHOLE else 3 * at.tile
        sums = linear(by_component, self.shells, None, tile).unflatten(0, (-1, 3)).transpose(1, 2)
        vectors = torch.cat([sums, torch.linalg.cross(around[:, :1].expand_as(sums), sums)], 1)
        field = torch.bmm(local[:, None], vectors)[:, 0][at.centres]
        return field, torch.zeros_like(field)


def _gradient(local: Tensor, at: Surroundings, create_graph: bool, keep: bool) -> Tensor:
    """Derivative of each centre's potential by the spins around it, shape (centres, slots, 3)."""
    (gradient,) = torch.autograd.grad(local.sum(), at.around, create_graph=create_graph, retain_graph=keep)
    return gradient


def _global_gradient(local: Tensor, at: Surroundings, create_graph: bool, keep: bool) -> Tensor:
    """Derivative of the sum of local potentials by the spins: each centre's, added through the inverse table."""
    return at.gather.transpose(_gradient(local, at, create_graph, keep).flatten(0, 1))[at.rows]


def _shell_sums(offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> NDArray[np.float64]:
    """Normalised sums over the orbits of the neighbours, shape (shells, slots)."""
    permutations = slot_permutations(offsets, operations)
    orbits = sorted({tuple(sorted(set(permutations[:, slot].tolist()))) for slot in range(1, len(offsets))})
    sums = np.zeros((len(orbits), len(offsets)))
    for number, orbit in enumerate(orbits):
        sums[number, list(orbit)] = len(orbit) ** -0.5
    return sums
