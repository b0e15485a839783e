"""What all force fields share."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.equations import Prediction
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.prediction import Predictor
from hpcspin.potential.tiles import TILE

_FROZEN = 0.5
"""Length of a frozen spin of an electrode of the polarisation 1."""
_ROUNDING = 1e-4
"""Excess over the envelope that another device's rounding can make."""
Derived = TypeVar("Derived")
_version = operator.attrgetter("_version")
Part = tuple[Tensor, Tensor]
"""Potentials of some centres, and their derivatives by the spins in their slots."""


class ForceField(Predictor):
    """A learned field on spins, whichever way it is made.

    Parameters
    ----------
    architecture
        What to build.

    Attributes
    ----------
    field_scale : Tensor
        Unit of the fields, shape ().
    envelope : Tensor or None
        Smallest and largest value of each feature in the training data, shape
        (2, features); None of a model that has not kept them.
    energy_offset : Tensor or None
        Energy of a site, in hoppings, that is to be added to those of the potentials, shape (), in double precision:
        no field decides it, labels with energies do. None of a model that knows none.
    """

    field_scale: Tensor
    envelope: Tensor | None
    energy_offset: Tensor | None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self._derived: dict[Hashable, tuple[tuple[tuple[int, ...], tuple[int, ...]], Any]] = {}
        self.register_buffer("field_scale", torch.ones(()))
        self.register_buffer("envelope", None)
        self.register_buffer("energy_offset", None)

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: what is derived from the weights points into the memory of these, and is made anew."""
        return {**self.__dict__, "_derived": {}}

    def derived(self, name: Hashable, weights: Sequence[Tensor], make: Callable[[], Derived]) -> Derived:
        """What is derived from weights, made anew where these have changed."""
        state = tuple(map(Tensor.data_ptr, weights)), tuple(map(_version, weights))
        kept = self._derived.get(name)
        if kept is None or kept[0] != state:
            kept = self._derived[name] = state, make()
        found: Derived = kept[1]
        return found

    @property
    def networks(self) -> Sequence[Network]:
        """The networks through which the field goes, one after the other."""
        raise NotImplementedError

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """What one of the networks, by default the last one, sees of all outputs of a batch.

        Parameters
        ----------
        spins, neighbourhood, bias
            As in `forward`.
        layer
            Which network.

        Returns
        -------
        Tensor
            Shape (batch * outputs, features).
        """
        raise NotImplementedError

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Part] = ()
    ) -> Prediction:
        """Fields on the outputs of a neighbourhood.

        In training mode the result can be differentiated by the weights. In
        evaluation mode it cannot, and its bits do not depend on the batch.

        Parameters
        ----------
        spins
            Shape (batch, rows, 3); a row of zeros is a missing site.
        neighbourhood
            Table for these rows; of a window with `borders` also the exchange with the other blocks.
        bias
            Voltages of each configuration in hoppings, shape (batch, drives): the bias V, also of shape (batch,), or
            the potential of each reservoir relative to the bath's, see `Architecture`. Of a learned grand potential
            the chemical potential, see `at_filling`, and electrons a site, NaN where it is not fixed: (batch, 2).
        interior
            What `interior` has computed of the same arguments; it changes no bit.

        Returns
        -------
        Prediction
            In the precision of the model.

        Raises
        ------
        HpcspinError
            If the neighbourhood is a window with a narrower halo than the field asks for, or exchanges with no one.
        """
        raise NotImplementedError

    def interior(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> list[Part]:
        """The part of `forward` that reads no spin of the halo: it is computed while the halo travels.

        Parameters
        ----------
        spins, neighbourhood, bias
            As in `forward`, for a model in evaluation mode and one configuration.

        Returns
        -------
        list
            For `forward`; empty where everything waits for the halo.
        """
        return []

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network computes."""
        return torch.float32 if self.architecture.settings.precision == "float32" else torch.float64

    def placed(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """Spins with the polarisations of both electrodes as frozen ones beyond the ends of x; or as they are.

        A frozen spin is half the polarisation, too short to be taken for a site of the lattice.

        Parameters
        ----------
        spins, neighbourhood, bias
            As in `forward`.

        Returns
        -------
        Tensor
            Of all rows of the table, shape (batch, rows, 3).
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
        """Whether the model knows the range of its training data."""
        return self.envelope is not None

    @torch.inference_mode()
    def outside(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """How far the surroundings of each centre lie outside all that the model was trained on.

        The features of the last network are judged, each by itself.

        Parameters
        ----------
        spins, neighbourhood, bias
            As in `forward`, for a model in evaluation mode with an `envelope`.

        Returns
        -------
        Tensor
            Largest excess of a feature over its envelope, in the unit in which the network sees that feature (its
            standard deviation); 0 inside; shape (batch, outputs).
        """
        assert self.envelope is not None
        features = self.features(spins, neighbourhood, bias)
        excess = torch.maximum(self.envelope[0] - features, features - self.envelope[1]) * self.networks[-1].scale
        largest = excess.amax(1)
        return torch.where(largest > _ROUNDING, largest, 0).view(len(spins), -1)

    @property
    def inputs(self) -> int:
        """Number of inputs of a network that no spin decides: see `_inputs`."""
        return self._voltages + (2 if self.architecture.settings.electrode_range else 0)

    @property
    def _voltages(self) -> int:
        """Those that the networks see; a chemical potential they do not, its polynomials multiply what they make."""
        return self.architecture.drives if self.grand_potential is None else 0

    def _tile(self, spins: Tensor, neighbourhood: Neighbourhood) -> int:
        return len(spins) * neighbourhood.centres if self.training else TILE[spins.device.type]

    def _bias_of(self, bias: Tensor, neighbourhood: Neighbourhood, tile: int) -> Tensor:
        """The voltages u in their unit, of each centre of a batch, shape (drives, centres)."""
        u = bias.reshape(len(bias), -1)[:, : self._voltages].to(self.dtype) / self.architecture.bias_reference
        return self._of_centres(u.T, neighbourhood, tile)

    def _of_centres(self, x: Tensor, neighbourhood: Neighbourhood, tile: int) -> Tensor:
        """Numbers of each configuration, shape (k, batch), for each of its centres: shape (k, centres in tiles)."""
        repeated = x[:, :, None].expand(-1, -1, neighbourhood.centres).flatten(1)
        return functional.pad(repeated, (0, -repeated.shape[1] % tile))

    def _require_halo(self, neighbourhood: Neighbourhood, further: int = 0) -> None:
        """Raise if the spins of a window do not reach as far as the centres see, and so many reaches further."""
        if any(have < need + further for have, need in zip(neighbourhood.window.reaches, self.reaches, strict=True)):
            hx, hy = (width + further * self.reach for width in self.halo)
            alternative = " or an exchange with the other blocks" if further else ""
            raise HpcspinError(f"window: its halo is too narrow for this force field; give it {hx} x {hy}{alternative}")

    def _inputs(self, u: Tensor, neighbourhood: Neighbourhood, batch: int, tile: int) -> Tensor:
        """What the network sees besides features, shape (inputs, centres): u, and the nearness of both electrodes."""
        length = self.architecture.settings.electrode_range
        return torch.cat([u, neighbourhood.nearness_of(batch, tile, length, u.dtype, u.device)]) if length else u
