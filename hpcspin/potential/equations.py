"""The paper's field of two potentials (arXiv:2112.12124), equation by equation.

Spins are free vectors in every derivative; what this adds along the spin itself exerts no torque.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Prediction(NamedTuple):
    """What a force field says about a batch of configurations.

    Attributes
    ----------
    field : Tensor
        H = equilibrium + nonequilibrium, shape (batch, sites, 3).
    equilibrium, nonequilibrium : Tensor
        h^eq = -∂E/∂S and h^neq = -S x ∂G/∂S, shape (batch, sites, 3); of a
        field without potentials the first is the whole field.
    energy, toroidal : Tensor
        Sums E and G of the potentials of all centres, shape (batch,); zero where there is none.
    terms : Tensor
        Sums C_k of the terms of a learned grand potential, in hoppings and in double precision, shape (batch, terms);
        no terms of any other model.
    """

    field: Tensor
    equilibrium: Tensor
    nonequilibrium: Tensor
    energy: Tensor
    toroidal: Tensor
    terms: Tensor


def global_potentials(local: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """E = Σ_i ε_i and G = Σ_i χ_i (Eq. 5) of each configuration, shape (batch,); G is zero where there is no χ.

    The local ones are those of all centres of a batch laid end to end, shape (potentials, batch * centres).
    """
    totals = local.unflatten(1, (batch, -1)).sum(2)
    energy, toroidal = functional.pad(totals, (0, 0, 0, 2 - len(totals))).unbind()
    return energy, toroidal


def local_factors(u: Tensor, potentials: int) -> Tensor:
    """What the network's outputs are multiplied with: ε with 1, and each χ with its voltage u, so that G = 0 at none.

    Parameters
    ----------
    u
        The voltages of each centre in their unit, shape (drives, centres).
    potentials
        One, ε, or 1 + drives: ε, and χ = Σ_r u_r χ_r in its terms.

    Returns
    -------
    Tensor
        Shape (potentials, centres).
    """
    return torch.cat([torch.ones_like(u[:1]), u])[:potentials]


def sum_of_terms(local: Tensor, terms: Sequence[int]) -> Tensor:
    """ε, or ε and χ = Σ_r u_r χ_r, of the terms of each along the first axis: so many of ε, and of χ one a voltage."""
    return local if len(local) == len(terms) else torch.stack([part.sum(0) for part in local.split(list(terms))])


def exchange_field(spins: Tensor, by_spin: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts of H_i = -∂E/∂S_i - S_i x ∂G/∂S_i (Eq. 3), shape (sites, 3) each; one vector product a site.

    Parameters
    ----------
    spins
        Shape (sites, 3).
    by_spin
        ∂E/∂S_i, and ∂G/∂S_i if there is a G, shape (sites, 3 potentials).
    """
    equilibrium = -by_spin[:, :3]
    if by_spin.shape[1] == 3:
        return equilibrium, torch.zeros_like(equilibrium)
    return equilibrium, -torch.linalg.cross(spins, by_spin[:, 3:])
