"""The paper's field of two potentials (arXiv:2112.12124), equation by equation.

Derivatives treat the spins as unconstrained vectors; the component that this adds along a spin exerts no torque.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Prediction(NamedTuple):
    """Prediction of a force field for a batch of configurations."""

    field: Tensor
    """H = equilibrium + nonequilibrium, shape (batch, sites, 3)."""
    equilibrium: Tensor
    """h^eq = -∂E/∂S, shape (batch, sites, 3); the whole field of a model without potentials."""
    nonequilibrium: Tensor
    """h^neq = -S x ∂G/∂S, shape (batch, sites, 3)."""
    energy: Tensor
    """E, the sum of the potentials ε of all centres, shape (batch,); zero if the model has none."""
    toroidal: Tensor
    """G, the same of χ."""
    terms: Tensor
    """Sums C_k of the terms of a learned grand potential, in hoppings and in double precision, shape (batch, terms); no
    terms for any other model."""


def global_potentials(local: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """E = Σ_i ε_i and G = Σ_i χ_i, or 0, (Eq. 5) of each configuration, from (potentials, batch * centres)."""
    totals = local.unflatten(1, (batch, -1)).sum(2)
    energy, toroidal = functional.pad(totals, (0, 0, 0, 2 - len(totals))).unbind()
    return energy, toroidal


def local_factors(u: Tensor, potentials: int) -> Tensor:
    """Factors of the outputs, (potentials, n): 1 for ε and the voltage u for each χ, so that G = 0 without them.

    ``u`` are voltages in their unit, shape (drives, n); there are 1 + drives outputs, or 1 for ε alone.
    """
    return torch.cat([torch.ones_like(u[:1]), u])[:potentials]


def sum_of_terms(local: Tensor, terms: Sequence[int]) -> Tensor:
    """Sum terms along the first axis to ε, or to ε and χ = Σ_r u_r χ_r; ``terms`` is the number of terms of each."""
    return local if len(local) == len(terms) else torch.stack([part.sum(0) for part in local.split(list(terms))])


def exchange_field(spins: Tensor, by_spin: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts of H_i (Eq. 3) from ∂E/∂S_i and, if there is a G, ∂G/∂S_i, shape (sites, 3 potentials)."""
    equilibrium = -by_spin[:, :3]
    if by_spin.shape[1] == 3:
        return equilibrium, torch.zeros_like(equilibrium)
    return equilibrium, -torch.linalg.cross(spins, by_spin[:, 3:])
