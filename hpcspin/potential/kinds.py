"""Kinds of force fields: from the potentials of the centres to fields on the spins.

Spins are free vectors in every derivative; what this adds along the spin itself
exerts no torque.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hpcspin.potential.gather import StaticGather

KINDS: dict[str, type[Kind]] = {}


class Prediction(NamedTuple):
    """What a force field says about a batch of configurations.

    Attributes
    ----------
    field : Tensor
        H = equilibrium + nonequilibrium, shape (batch, sites, 3).
    equilibrium, nonequilibrium : Tensor
        h^eq = -∂E/∂S and h^neq = -S x ∂G/∂S, shape (batch, sites, 3).
    energy, toroidal : Tensor
        The global potentials E and G, shape (batch,).
    """

    field: Tensor
    equilibrium: Tensor
    nonequilibrium: Tensor
    energy: Tensor
    toroidal: Tensor


class Kind:
    """Base of all kinds.

    Attributes
    ----------
    outputs : int
        Number of potentials a centre has.
    """

    name: ClassVar[str]
    outputs: ClassVar[int]

    def __init_subclass__(cls) -> None:
        KINDS[cls.name] = cls

    @staticmethod
    def gradients(
        potentials: Tensor, around: Tensor, gather: StaticGather, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients of E and G on every spin.

        Parameters
        ----------
        potentials
            Potentials of each centre, shape (centres, outputs).
        around
            Spins in the slots of each centre, of which the potentials are functions, (centres, slots, 3).
        gather
            The gather that made `around` out of the spins.
        create_graph
            Whether the gradients will be differentiated again.

        Returns
        -------
        tuple of Tensor
            ∂E/∂S and ∂G/∂S, shape (rows, 3) each.
        """
        raise NotImplementedError


class Conservative(Kind):
    """E alone: the field is a gradient."""

    name = "conservative"
    outputs = 1

    @staticmethod
    def gradients(
        potentials: Tensor, around: Tensor, gather: StaticGather, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        energy = _total_gradient(potentials[:, 0], around, gather, create_graph, keep=create_graph)
        return energy, torch.zeros_like(energy)


class Pair(Kind):
    """Global potentials E and G, the paper's Eq. (3)."""

    name = "pair"
    outputs = 2

    @staticmethod
    def gradients(
        potentials: Tensor, around: Tensor, gather: StaticGather, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Kind`."""
        energy = _total_gradient(potentials[:, 0], around, gather, create_graph, keep=True)
        return energy, _total_gradient(potentials[:, 1], around, gather, create_graph, keep=create_graph)


def _total_gradient(local: Tensor, around: Tensor, gather: StaticGather, create_graph: bool, keep: bool) -> Tensor:
    """Derivative of the sum of local potentials by every spin: each centre's, added through the inverse table."""
    (gradient,) = torch.autograd.grad(local.sum(), around, create_graph=create_graph, retain_graph=keep)
    return gather.transpose(gradient.flatten(0, 1))
