"""Kinds of force fields: from what the network says of each centre to fields on the spins.

Spins are free vectors in every derivative; what this adds along the spin itself
exerts no torque.
"""

from __future__ import annotations

import functools
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.potential.orbits import slot_permutations
from hpcspin.potential.tiles import cross, product

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
    slots : int
        Slots on whose spins a centre acts: all, or its own alone.
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
        self.slots = len(offsets) if self.reaches > 1 else 1

    def factors(self, u: Tensor) -> Tensor:
        """What the network's outputs are multiplied with at the bias u of each centre.

        G is proportional to the bias: without one it vanishes exactly.

        Parameters
        ----------
        u
            Shape (1, centres).

        Returns
        -------
        Tensor
            Shape (outputs, centres).
        """
        return torch.cat([torch.ones_like(u), u])[: self.outputs]

    def combine(self, sums: Tensor, spins: Tensor) -> tuple[Tensor, Tensor]:
        """Equilibrium and nonequilibrium field, shape (sites, 3) each.

        Parameters
        ----------
        sums
            Derivatives of the potentials by the spin of each site, summed over
            the centres that act on it, shape (sites, 3 potentials); of a kind
            without potentials the field.
        spins
            Spins of these sites, shape (sites, 3).
        """
        raise NotImplementedError


class Conservative(Kind):
    """E alone: the field is a gradient."""

    name = "conservative"
    potentials = 1
    reaches = 2

    def combine(self, sums: Tensor, spins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        return -sums, torch.zeros_like(sums)


class Pair(Kind):
    """Global potentials E and G, the paper's Eq. (3)."""

    name = "pair"
    potentials = 2
    reaches = 2

    def combine(self, sums: Tensor, spins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kind`; one vector product a site."""
        return -sums[:, :3], -torch.linalg.cross(spins, sums[:, 3:])


class Site(Pair):
    """A pair ε_i, χ_i of each site, of which its own spin alone takes derivatives.

    H_i = -∂ε_i/∂S_i - S_i x ∂χ_i/∂S_i is the most general field of the spins
    within the cutoff radius: on the sphere of each spin it is a
    Helmholtz-Hodge decomposition. In equilibrium H_i is a gradient on that
    sphere, so that χ_i, too, vanishes without a bias.
    """

    name = "site"
    reaches = 1


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
        return torch.ones_like(u).expand(self.outputs, -1)

    def field(self, weights: Tensor, spins: Tensor, tile: int) -> Tensor:
        """Field on each centre, shape (3, centres).

        Parameters
        ----------
        weights
            w and w', shape (outputs, centres).
        spins
            Spins in the slots, shape (slots, 3, centres).
        tile
            Centres in a tile of matrix products.
        """
        sums = product(self.shells, spins, tile)
        terms = torch.cat([sums, cross(spins[:1], sums)]) * weights[:, None]
        return functools.reduce(torch.add, terms.unbind())

    def combine(self, sums: Tensor, spins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        return sums, torch.zeros_like(sums)


def _shell_sums(offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> NDArray[np.float64]:
    """Normalised sums over the orbits of the neighbours, shape (shells, slots)."""
    permutations = slot_permutations(offsets, operations)
    orbits = sorted({tuple(sorted(set(permutations[:, slot].tolist()))) for slot in range(1, len(offsets))})
    sums = np.zeros((len(orbits), len(offsets)))
    for number, orbit in enumerate(orbits):
        sums[number, list(orbit)] = len(orbit) ** -0.5
    return sums
