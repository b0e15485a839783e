"""Fields and potentials by message passing: sites exchange vectors in several layers, and the last gives the result.

Each layer extends the receptive field by one reach, so that L layers extend it L times as far at a cost that grows
linearly with L. A layer that is dilated n times along x, from electrode to electrode, extends it by n reaches there at
the same cost: it reads every n-th column, where earlier layers have gathered the surroundings of each site. See
`Layer`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.potential import host_library
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.equations import Prediction
from hpcspin.potential.host_layers import ROOM, HostLayer, RowData
from hpcspin.potential.layers import Channels, Layer, Maps, SiteData, Width
from hpcspin.potential.model import Derived, ForceField, Part
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.settings import MessagePassingSettings
from hpcspin.potential.slots import with_zero
from hpcspin.potential.surroundings import Convolution, Tables
from hpcspin.potential.tiles import group_size, is_present

_SMALL = 0.1
_COMPILED = 64
"""Most variants of layers, by position and size of the lattice, that are compiled; others run uncompiled."""


class MessagePassing(ForceField):
    """Base of all force fields of message-passing layers.

    Parameters
    ----------
    architecture
        Architecture with `MessagePassingSettings`.

    Attributes
    ----------
    fused : bool
        Whether training mode uses torch.compile; each shape of a batch is compiled once.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        settings = architecture.settings
        assert isinstance(settings, MessagePassingSettings)
        self.fused = False
        self.dilations = settings.layers
        self.reaches = (sum(self.dilations), len(self.dilations))
        width = Width(settings.channels)
        reads, layers = Channels(1, 0), []
        for writes in [width.between] * (len(self.dilations) - 1) + [self.last_writes(architecture)]:
            of = self.geometry, self.offsets, self.operations, reads, writes, width, self.inputs, settings.hidden
            layers.append(Layer(*of, settings.time_reversal == "even"))
            reads = Channels(1 + writes.vectors, writes.scalars)
        self.layers = nn.ModuleList(layers)
        # Collecting the parameters from the modules takes longer than a narrow layer.
        self._weights = [tuple(layer.parameters()) for layer in layers]
        # Training starts near zero field; random fields would first have to be unlearned.
        with torch.no_grad():
            self.networks[-1].layers[-1].weight.mul_(_SMALL)  # type: ignore[operator]
        self.to(self.dtype)

    @staticmethod
    def last_writes(architecture: Architecture) -> Channels:
        """Numbers of vectors and scalars that the last layer writes."""
        raise NotImplementedError

    @property
    def networks(self) -> Sequence[Network]:
        """See `ForceField`."""
        return [layer.network for layer in self._stack]

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """See `ForceField`."""
        spins, number = self.placed(spins, neighbourhood, bias), layer % len(self._stack)
        inputs, tile = self._inputs_of(spins, neighbourhood, bias), self._tile(spins, neighbourhood)
        sites, chosen = self._before(number, spins, neighbourhood, inputs), self._stack[number]
        centres = slice(-(-_evaluated(number, len(spins), neighbourhood) // tile) * tile)
        around = self._around(number, spins, neighbourhood, centres)
        features, _ = chosen.features(sites, around, chosen.whole_maps())
        return features[neighbourhood.outputs_of(len(spins), spins.device)[1]]

    @property
    def _stack(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _inputs_of(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """`_inputs` of all networks."""
        tile = self._tile(spins, neighbourhood)
        return self._inputs(self._bias_of(bias, neighbourhood, tile), neighbourhood, len(spins), tile)

    def _before(self, number: int, spins: Tensor, neighbourhood: Neighbourhood, inputs: Tensor) -> SiteData:
        """Input of a layer: vectors and scalars of all rows, zero where there are none, then a row of zeros."""
        flat = with_zero(spins.detach().to(self.dtype).flatten(0, 1))
        sites = SiteData(flat.T[:, :, None], flat[:, :0])
        for earlier in range(number):
            vectors, scalars = self._layer(earlier, sites, spins, neighbourhood, inputs)
            rows = neighbourhood.centre_rows(len(spins), spins.device)[: len(scalars)]
            if earlier:
                # Layers add their output to their input: the first would hardly learn if others replaced it.
                vectors = vectors + sites.vectors[:, rows, 1:]
                scalars = scalars + sites.scalars[rows]
            vectors, scalars = (
                new.new_zeros(*new.shape[:-2], len(flat), new.shape[-1]).index_copy(-2, rows, new)
                for new in (vectors, scalars)
            )
            sites = SiteData(torch.cat([flat.T[:, :, None], vectors], 2), scalars)
        return sites

    def _layer(
        self, number: int, sites: SiteData, spins: Tensor, neighbourhood: Neighbourhood, inputs: Tensor
    ) -> SiteData:
        """Output of a layer for all centres on which later layers depend."""
        batch, tile, layer = len(spins), self._tile(spins, neighbourhood), self._stack[number]
        if self.training:
            run = compiled(_run_layer) if self.fused else _run_layer
            output = run(layer, sites, self._convolution(number, neighbourhood), inputs)
            return SiteData(output.vectors.to(self.dtype), output.scalars.to(self.dtype))
        centres = _evaluated(number, batch, neighbourhood)
        group, end = group_size(len(self.networks[number].mean), self.dtype, spins.device), -(-centres // tile) * tile
        parts, maps = [], self._maps_of(number)
        for start in range(0, end, group):
            those = slice(start, min(start + group, end))
            around = self._around(number, spins, neighbourhood, those)
            parts.append(layer(sites, around, inputs[:, those], maps))
        joined = parts[0] if len(parts) == 1 else SiteData(*(torch.cat(one, -2) for one in zip(*parts, strict=True)))
        return SiteData(*(part[..., :centres, :] for part in joined))

    def _maps_of(self, number: int) -> Maps:
        """Matrices of a layer for evaluation, not for training."""
        return self._of_weights(number, Layer.whole_maps)

    def _of_weights(self, number: int, make: Callable[[Layer], Derived]) -> Derived:
        """Data derived from a layer's weights, recomputed if these have changed."""
        return self.derived((number, make), self._weights[number], lambda: make(self._stack[number]))

    def _host_start(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> tuple[RowData, Tensor]:
        """Input of the first layer for the kernels, and the networks' other inputs, shape (centres, inputs)."""
        spins = functional.pad(spins.to(self.dtype), (0, 0, 0, ROOM))
        # The input scalar of the first layer says where spins are.
        rows = RowData(spins[..., None], is_present(spins, 1)[:, None])
        return rows, self._inputs(self._bias_of(bias, neighbourhood, 1), neighbourhood, 1, 1).T.contiguous()

    def _around(self, number: int, spins: Tensor, neighbourhood: Neighbourhood, those: slice) -> Tables:
        tile = self._tile(spins, neighbourhood)
        slots = neighbourhood.table_of_slots(len(spins), tile, spins.device, self.dilations[number])
        return Tables(slots.table[:, those], tile)

    def _convolution(self, number: int, neighbourhood: Neighbourhood) -> Convolution:
        if neighbourhood.grid is None:
            raise HpcspinError("training: fields of several layers learn from whole lattices, not from a window of one")
        return Convolution(neighbourhood.grid, self.dilations[number])


class CovariantField(MessagePassing):
    """A covariant field without potentials: the sum of the last layer's vectors; see `MessagePassing`."""

    @staticmethod
    def last_writes(architecture: Architecture) -> Channels:
        """See `MessagePassing`: vectors, whose sum is the field."""
        assert isinstance(architecture.settings, MessagePassingSettings)
        return Channels(architecture.settings.channels, 0)

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Part] = ()
    ) -> Prediction:
        """See `ForceField`."""
        self._require_halo(neighbourhood)
        spins = self.placed(spins, neighbourhood, bias)
        if not self.training and host_library.usable(self.dtype, spins.device):
            field = torch.stack([self._on_host(*of, neighbourhood) for of in zip(spins, bias[:, None], strict=True)])
        else:
            _, places = neighbourhood.outputs_of(len(spins), spins.device)
            with torch.enable_grad() if self.training else torch.inference_mode():
                inputs, last = self._inputs_of(spins, neighbourhood, bias), len(self._stack) - 1
                sites = self._before(last, spins, neighbourhood, inputs)
                first, *others = self._layer(last, sites, spins, neighbourhood, inputs).vectors.unbind(2)
                field = (sum(others, first) * self.field_scale)[:, places].T.unflatten(0, (len(spins), -1))
        none = field.new_zeros(len(field))
        return Prediction(field, field, torch.zeros_like(field), none, none, none.new_zeros(len(none), 0))

    def _on_host(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """Field on the outputs for one configuration of shape (rows, 3)."""
        rows, inputs = self._host_start(spins, bias, neighbourhood)
        for number, dilation in enumerate(self.dilations):
            table, centres = neighbourhood.padded(dilation), neighbourhood.window.stages[number]
            adds = 0 < number < len(self.dilations) - 1
            rows = self._of_weights(number, HostLayer)(rows, table, inputs, centres, adds, torch.get_num_threads())
        outputs, _ = neighbourhood.outputs_of(1, spins.device)
        return rows.vectors.squeeze(2).index_select(0, outputs) * self.field_scale


def _evaluated(number: int, batch: int, neighbourhood: Neighbourhood) -> int:
    """Number of centres, the first ones, that a layer evaluates: in one window those that later layers depend on."""
    return neighbourhood.window.stages[number] if batch == 1 else batch * neighbourhood.centres


def _run_layer(layer: Layer, sites: SiteData, around: Convolution, inputs: Tensor) -> SiteData:
    """Output of a layer for all centres of a batch."""
    output: SiteData = layer(sites, around, inputs, layer.maps())
    return output


@functools.cache
def compiled(run: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by torch.compile, separately for each layer and each size of the lattice."""
    torch._dynamo.config.recompile_limit = _COMPILED
    return torch.compile(run, dynamic=False)
