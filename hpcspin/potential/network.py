"""The network that turns the features of a centre into its potentials."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.potential.tiles import WHOLE, linear


class Network(nn.Module):
    """Normalisation of the features, hidden layers, linear output.

    Parameters
    ----------
    features
        Number of features; the bias u is one input more.
    hidden
        Widths of the hidden layers: five make the six-layer network of the paper.
    outputs
        Number of potentials.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        widths = [features + 1, *hidden, outputs]
        # No constant at the end: potentials have no zero, and a weight without gradient would stall other ranks.
        last = len(widths) - 2
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=n < last) for n, (a, b) in enumerate(pairwise(widths)))

    @torch.no_grad()
    def normalise(self, mean: Tensor, variance: Tensor) -> None:
        """Set the features' normalisation from the moments of the training data.

        A feature that hardly varies there is not blown up: what is not in the
        data must not decide elsewhere.
        """
        self.mean.copy_(mean)
        self.scale.copy_(torch.rsqrt(variance + _SMALL_VARIANCE))

    def forward(self, features: Tensor, bias: Tensor, tile: int = WHOLE) -> Tensor:
        """Potentials of each centre.

        Parameters
        ----------
        features
            Shape (centres, features).
        bias
            Bias u of each centre, shape (centres,).
        tile
            Centres in a tile of matrix products.

        Returns
        -------
        Tensor
            Shape (centres, outputs).
        """
        x = torch.cat([(features - self.mean) * self.scale, bias[:, None]], -1)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            x = linear(x if number == 0 else functional.silu(x), layer.weight, layer.bias, tile)
        return x


_SMALL_VARIANCE = 1e-3
