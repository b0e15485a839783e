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

    def __init__(self, features: int, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        widths = [features + inputs, *hidden, outputs]
        # No bias in the last layer: potentials have no zero, and a weight without gradient would stall other ranks.
        last = len(widths) - 2
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=n < last) for n, (a, b) in enumerate(pairwise(widths)))

    @torch.no_grad()
    def normalise(self, mean: Tensor, variance: Tensor) -> None:
        """Set the features' normalisation from the moments of the training data.

        A feature that hardly varies there is not scaled up: a variation that the data lack must not dominate elsewhere.
        """
        self.mean.copy_(mean)
        self.scale.copy_(torch.rsqrt(variance + _SMALL_VARIANCE))

    def forward(self, features: Tensor, inputs: Tensor, tile: int) -> Tensor:
        """Potentials, (outputs, centres), from features and other inputs, (..., centres), by products of tiles."""
        x = self._first(features, inputs, tile)
        for layer in self.layers[1:]:
            x = _affine(layer, functional.silu(x))
        return untiled(x)

    def _first(self, features: Tensor, inputs: Tensor, tile: int) -> Tensor:
        # Weights for unscaled features.
        scaled = _weight(self.layers[0])[:, : len(self.scale)] * self.scale
        mapped = tile_product(scaled, tiled(features - self.mean[:, None], tile))
        driven = tile_product(_weight(self.layers[0])[:, len(self.scale) :], tiled(inputs, tile))
        return mapped.add_(driven).add_(self.layers[0].bias[:, None])  # type: ignore[index]


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return layer.weight


def _affine(layer: nn.Module, x: Tensor) -> Tensor:
    mapped = tile_product(_weight(layer), x)
    return mapped if layer.bias is None else mapped.add_(layer.bias[:, None])  # type: ignore[index]
