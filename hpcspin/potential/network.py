"""The network that turns the features of a centre into its potentials."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.potential.tiles import tile_product, tiled, untiled

_SMALL_VARIANCE = 1e-3
"""Variance that is added to that of each feature."""


class Network(nn.Module):
    """Normalisation of the features, hidden layers, and a linear output layer.

    Besides the features there are inputs that do not depend on the spins, such as the bias u.
    """

    mean: Tensor
    scale: Tensor
    layers: Sequence[nn.Linear]

    def __init__(self, features: int, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        widths = [features + inputs, *hidden, outputs]
        # No bias in the last layer: potentials have no zero, and a weight without gradient would stall other ranks.
        last = len(widths) - 2
        linears = (nn.Linear(a, b, bias=n < last) for n, (a, b) in enumerate(pairwise(widths)))
        self.layers = nn.ModuleList(linears)  # type: ignore[assignment]

    @torch.no_grad()
    def normalise(self, mean: Tensor, variance: Tensor) -> None:
        """Set the features' normalisation from the moments of the training data.

        A feature that hardly varies there is not scaled up: a variation that the data lack must not dominate elsewhere.
        """
        self.mean.copy_(mean)
        self.scale.copy_(torch.rsqrt(variance + _SMALL_VARIANCE))

    def forward(self, features: Tensor, inputs: Tensor, tile: int) -> Tensor:
        """Potentials, (outputs, centres), from features and other inputs, (..., centres), by products of tiles."""
        first, *others = self.layers
        of_features, of_inputs = first.weight.tensor_split([len(self.scale)], 1)
        x = tile_product(of_features * self.scale, tiled(features - self.mean[:, None], tile))
        x = x.add_(tile_product(of_inputs, tiled(inputs, tile))).add_(first.bias[:, None])
        for layer in others:
            x = tile_product(layer.weight, functional.silu(x))
            if layer.bias is not None:
                x = x.add_(layer.bias[:, None])
        return untiled(x)
