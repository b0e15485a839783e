"""Base class of all force fields."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.equations import Prediction
from hpcspin.potential.host_library import Numbers
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.prediction import Predictor
from hpcspin.potential.tiles import TILE

_FROZEN = 0.5
"""Length of the frozen spins of an electrode of polarisation 1."""
_ROUNDING = 1e-4
"""Excess over the envelope that the rounding of another device can cause."""
Derived = TypeVar("Derived")
Weight = tuple[dict[str, Any], str]
"""A parameter or buffer, as the mapping of a module that holds it and its name there."""
Part = tuple[Tensor, Tensor]
"""Potentials of some centres, and their derivatives with respect to the spins in their slots."""


def weights_of(module: nn.Module, network: Network) -> list[Weight]:
    """Where the parameters of a module are, and the normalisation of its network; others may take their places."""
    parameters = [(part._parameters, name) for part in module.modules() for name in part._parameters]
    return [
        *((owner, name) for owner, name in parameters if owner[name] is not None),
        *((network._buffers, name) for name in ("mean", "scale")),
    ]


class ForceField(Predictor):
    """A learned field on spins, of a given architecture; base class of all kinds."""

    field_scale: Tensor
    """Unit of the fields, shape ()."""
    envelope: Tensor | None
    """Smallest and largest value of each feature in the training data, shape (2, features); None for a model that has
    not stored them."""
    energy_offset: Tensor | None
    """Energy per site, in hoppings, that is added to that of the potentials, shape (), in double precision. Fields do
    not determine it, labels with energies do; None for a model trained without them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self._derived: dict[Hashable, tuple[Numbers, Any]] = {}
        dtype = torch.float32 if architecture.settings.precision == "float32" else torch.float64
        self.register_buffer("field_scale", torch.ones((), dtype=dtype))
        self.register_buffer("envelope", None)
        self.register_buffer("energy_offset", None)

    def __getstate__(self) -> dict[str, Any]:
        """State without derived data, which points into the memory of the weights: a copy recomputes it."""
        return {**self.__dict__, "_derived": {}}

    def derived(self, name: Hashable, weights: Sequence[Weight], make: Callable[[], Derived]) -> Derived:
        """Data derived from weights, recomputed if these have changed; see `weights_of`."""
        tensors, kept = [owner[key] for owner, key in weights], self._derived.get(name)
        if kept is None or not kept[0].are_in(tensors):
            kept = self._derived[name] = Numbers(tensors), make()
        found: Derived = kept[1]
        return found

    @property
    def networks(self) -> Sequence[Network]:
        """The networks of the field, in order of evaluation."""
        raise NotImplementedError

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """Features of all outputs, (batch * outputs, features), as input of a network, by default the last one.

        ``layer`` is the index of the network; the other arguments are those of `forward`.
        """
        raise NotImplementedError

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Part] = ()
    ) -> Prediction:
        """Fields on the outputs of a neighbourhood.

        In training mode the result can be differentiated with
        respect to the weights. In evaluation mode it cannot, and its bits do not
        depend on the batch.

        Parameters
        ----------
        spins
            Shape (batch, rows, 3); a row of zeros is a missing site.
        neighbourhood
            Table for these rows; for a window with `borders` also the exchange with the other blocks.
        bias
            Voltages of each configuration in hoppings, shape (batch, drives): the bias V, also of shape (batch,), or
            the potential of each reservoir relative to the bath's, see `Architecture`. For a learned grand potential
            the chemical potential, see `at_filling`, and electrons per site, NaN if not fixed: shape (batch, 2).
        interior
            Result of `interior` for the same arguments; it does not change a bit of the prediction.

        Returns
        -------
        Prediction
            In the precision of the model.

        Raises
        ------
        HpcspinError
            If the neighbourhood is a window whose halo is too narrow for this field, with or without an exchange.
        """
        raise NotImplementedError

    def interior(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> list[Part]:
        """Compute the part of `forward` that reads no spin of the halo, while the halo is exchanged.

        The arguments are those of `forward`, for a model in evaluation mode and one configuration; the result is its
        argument ``interior``, empty if everything depends on the halo.
        """
        return []

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network computes, that of its weights."""
        return self.field_scale.dtype

    def placed(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """Spins of all rows, (batch, rows, 3), with the polarisations of both electrodes if the model sees them.

        These are frozen spins beyond the ends of x, half as long as the polarisation, too short to count as sites of
        the lattice. The arguments are those of `forward`.
        """
        if self.sees != "polarized":
            return spins
        (left, right), (columns, across) = neighbourhood.beyond, neighbourhood.window.extended
        given = spins.unflatten(1, (-1, across))
        inside = given[:, left : columns - right] if given.shape[1] == columns else given
        ends = _FROZEN * bias[:, self.architecture.drives :].to(spins).view(len(bias), 2, 1, 1, 3)
        parts = [ends[:, 0].expand(-1, left, across, -1), inside, ends[:, 1].expand(-1, right, across, -1)]
        return torch.cat(parts, 1).flatten(1, 2)

    @property
    def energy_of_a_site(self) -> float | None:
        """See `Predictor`."""
        return None if self.energy_offset is None else float(self.energy_offset)

    @property
    def has_envelope(self) -> bool:
        """Whether the model has stored the range of its training data."""
        return self.envelope is not None

    @torch.inference_mode()
    def outside(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """How far the surroundings of each centre lie outside the training data, shape (batch, outputs); 0 inside.

        It is the largest excess of a feature of the last network over its range there, in the unit in which the network
        sees that feature (its standard deviation). The arguments are those of `forward`, for a model in evaluation mode
        with an `envelope`.
        """
        assert self.envelope is not None
        features = self.features(spins, neighbourhood, bias)
        excess = torch.maximum(self.envelope[0] - features, features - self.envelope[1]) * self.networks[-1].scale
        largest = excess.amax(1)
        return torch.where(largest > _ROUNDING, largest, 0).view(len(spins), -1)

    @property
    def inputs(self) -> int:
        """Number of inputs of a network that do not depend on the spins, see `_inputs`."""
        return self._voltages + (2 if self.architecture.settings.electrode_range else 0)

    @property
    def _voltages(self) -> int:
        """Number of voltages among the inputs; a chemical potential is none, its polynomials multiply the outputs."""
        return self.architecture.drives if self.grand_potential is None else 0

    def _tile(self, spins: Tensor, neighbourhood: Neighbourhood) -> int:
        return len(spins) * neighbourhood.centres if self.training else TILE[spins.device.type]

    def _voltages_of(self, bias: Tensor) -> Tensor:
        """The voltages u in their unit, of each configuration, shape (drives, batch)."""
        return (bias.reshape(len(bias), -1)[:, : self._voltages].to(self.dtype) / self.architecture.bias_reference).T

    def _of_centres(self, x: Tensor, neighbourhood: Neighbourhood, tile: int) -> Tensor:
        """Repeat numbers of each configuration, shape (k, batch), for its centres: shape (k, centres in tiles)."""
        repeated = x[:, :, None].expand(-1, -1, neighbourhood.centres).flatten(1)
        missing = -repeated.shape[1] % tile
        return functional.pad(repeated, (0, missing)) if missing else repeated

    def _require_halo(self, neighbourhood: Neighbourhood, further: int = 0) -> None:
        """Raise if the halo of a window is narrower than the receptive field plus so many further reaches."""
        if any(have < need + further for have, need in zip(neighbourhood.window.reaches, self.reaches, strict=True)):
            hx, hy = (width + further * self.reach for width in self.halo)
            alternative = " or an exchange with the other blocks" if further else ""
            raise HpcspinError(f"window: its halo is too narrow for this force field; give it {hx} x {hy}{alternative}")

    def _inputs(self, bias: Tensor, neighbourhood: Neighbourhood, tile: int) -> Tensor:
        """Inputs besides the features, shape (inputs, centres): the voltages u, and the nearness of both electrodes."""
        u = self._of_centres(self._voltages_of(bias), neighbourhood, tile)
        length = self.architecture.settings.electrode_range
        return torch.cat([u, neighbourhood.nearness_of(len(bias), tile, length, u.dtype, u.device)]) if length else u
