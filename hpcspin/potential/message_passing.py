"""Fields and potentials by message passing: sites exchange vectors in several layers, and the last gives the result.

Each layer extends the receptive field by one reach, so that L layers extend it L times as far at a cost that grows
linearly with L. A layer that is dilated n times along x, from electrode to electrode, extends it by n reaches there at
the same cost: it reads every n-th column, where earlier layers have gathered the surroundings of each site. See
`Layer`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.potential import host_library
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.equations import Prediction
from hpcspin.potential.gather import with_zero
from hpcspin.potential.host_layers import ROOM, HostLayer, RowData
from hpcspin.potential.layers import Channels, Layer, Maps, SiteData, Width
from hpcspin.potential.model import Derived, ForceField, Part, weights_of
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.settings import MessagePassingSettings
from hpcspin.potential.surroundings import Convolution, Surroundings, Tables
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
        """Whether training mode uses torch.compile; each shape of a batch is compiled once."""
        self.dilations = settings.layers
        self.reaches = (sum(self.dilations), len(self.dilations))
        width = Width(settings.channels)
        reads, layers = Channels(1, 0), list[Layer]()
        for writes in [width.between] * (len(self.dilations) - 1) + [self._last_writes()]:
            of = self.geometry, self.offsets, self.operations, reads, writes, width, self.inputs, settings.hidden
            layers.append(Layer(*of, settings.time_reversal == "even"))
            reads = Channels(1 + writes.vectors, writes.scalars)
        self.layers, self._stack = nn.ModuleList(layers), layers
        # Collecting the parameters from the modules takes longer than a narrow layer.
        self._weights = [weights_of(layer, layer.network) for layer in layers]
        # Training starts near zero field; random fields would first have to be unlearned.
        with torch.no_grad():
            self.networks[-1].layers[-1].weight.mul_(_SMALL)
        self.to(self.dtype)

    def _last_writes(self) -> Channels:
        """Numbers of vectors and scalars that the last layer writes."""
        raise NotImplementedError

    @property
    def networks(self) -> Sequence[Network]:
        """See `ForceField`."""
        return [layer.network for layer in self._stack]

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """See `ForceField`."""
        spins, number = self.placed(spins, neighbourhood, bias), layer % len(self._stack)
        around, inputs, maps = self._given(spins, neighbourhood, bias)
        run: Callable[..., SiteData] = Layer.forward if self.training else _in_groups
        sites = before(self._stack[:number], around, self._flat(spins), inputs, maps, run)
        features, _ = self._stack[number].features(sites, around[number], maps[number])
        return features[neighbourhood.outputs_of(len(spins), spins.device)[1]]

    def _flat(self, spins: Tensor) -> Tensor:
        """Spins of all rows of a batch, in the precision of the model."""
        return spins.detach().to(self.dtype).flatten(0, 1)

    def _given(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor
    ) -> tuple[Sequence[Surroundings], list[Tensor], list[Maps]]:
        """What each layer takes besides spins: its surroundings, the other inputs of its network, its matrices."""
        batch, tile, numbered = len(spins), self._tile(spins, neighbourhood), list(enumerate(self.dilations))
        inputs = self._inputs(bias, neighbourhood, tile)
        if self.training:
            if neighbourhood.grid is None:
                raise HpcspinError(
                    "training: fields of several layers learn from whole lattices, not from a window of one"
                )
            convolutions = [Convolution(neighbourhood.grid, dilation) for dilation in self.dilations]
            return convolutions, [inputs] * len(numbered), [layer.maps() for layer in self._stack]
        tables = [neighbourhood.tables(batch, tile, spins.device, dilation, number) for number, dilation in numbered]
        maps = [self._of_weights(number, Layer.whole_maps) for number, _ in numbered]
        return tables, [inputs[:, : len(table)] for table in tables], maps

    def _of_weights(self, number: int, make: Callable[[Layer], Derived]) -> Derived:
        """Data derived from a layer's weights, recomputed if these have changed."""
        return self.derived((number, make), self._weights[number], lambda: make(self._stack[number]))

    def _host_start(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> tuple[RowData, Tensor]:
        """Input of the first layer for the kernels, and the networks' other inputs, shape (centres, inputs)."""
        spins = functional.pad(spins.to(self.dtype), (0, 0, 0, ROOM))
        # The input scalar of the first layer says where spins are.
        rows = RowData(spins[..., None], is_present(spins, 1)[:, None])
        return rows, self._inputs(bias, neighbourhood, 1).T.contiguous()


class CovariantField(MessagePassing):
    """A covariant field without potentials: the sum of the last layer's vectors; see `MessagePassing`.

    Without voltages the field is the gradient of an energy, and changes its sign with all spins and polarisations p.
    With ``time_reversal: driven`` it does so exactly: the sums F give the field

        H(S, p, u) = F(S, p, u) - [F(S, p, 0) + F(-S, -p, 0)] / 2,

    which then lies in the plane of S and p if all spins do: a damping-like torque needs a voltage.
    """

    def _last_writes(self) -> Channels:
        """See `MessagePassing`: vectors, whose sum is the field."""
        assert isinstance(self.architecture.settings, MessagePassingSettings)
        return Channels(self.architecture.settings.channels, 0)

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Part] = ()
    ) -> Prediction:
        """See `ForceField`."""
        self._require_halo(neighbourhood)
        if self.architecture.settings.time_reversal == "driven":
            bias = bias.reshape(len(bias), -1)
            rest = functional.pad(bias[:, self.architecture.drives :], (self.architecture.drives, 0))
            three = torch.cat([spins, spins, -spins]), neighbourhood, torch.cat([bias, rest, -rest])
            field, still, turned = self._sums(*three).chunk(3)
            field = field - (still + turned) / 2
        else:
            field = self._sums(spins, neighbourhood, bias)
        none = field.new_zeros(len(field))
        return Prediction(field, field, torch.zeros_like(field), none, none, none.new_zeros(len(none), 0))

    def _sums(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """Sums of the vectors on the outputs, shape (batch, outputs, 3)."""
        spins = self.placed(spins, neighbourhood, bias)
        if not self.training and host_library.usable(self.dtype, spins.device):
            field = torch.stack([self._on_host(*of, neighbourhood) for of in zip(spins, bias[:, None], strict=True)])
        else:
            _, places = neighbourhood.outputs_of(len(spins), spins.device)
            with torch.enable_grad() if self.training else torch.inference_mode():
                around, inputs, maps = self._given(spins, neighbourhood, bias)
                run: Callable[..., SiteData] = Layer.forward if self.training else _in_groups
                if self.training and self.fused:
                    run = compiled(Layer.forward)
                sites = before(self._stack[:-1], around, self._flat(spins), inputs, maps, run)
                output = run(self._stack[-1], sites, around[-1], inputs[-1], maps[-1])
                first, *others = output.vectors.to(self.dtype).unbind(2)
                field = (sum(others, first) * self.field_scale)[:, places].T.unflatten(0, (len(spins), -1))
        return field

    def _on_host(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """Field on the outputs for one configuration of shape (rows, 3)."""
        rows, inputs = self._host_start(spins, bias, neighbourhood)
        for number, dilation in enumerate(self.dilations):
            table, centres = neighbourhood.padded(dilation), neighbourhood.window.stages[number]
            adds = 0 < number < len(self.dilations) - 1
            rows = self._of_weights(number, HostLayer)(rows, table, inputs, centres, adds)
        outputs, _ = neighbourhood.outputs_of(1, spins.device)
        return rows.vectors.squeeze(2).index_select(0, outputs) * self.field_scale


def _in_groups(layer: Layer, sites: SiteData, around: Tables, inputs: Tensor, maps: Maps) -> SiteData:
    """`Layer.forward`, for a few tiles of the centres at a time."""
    group = group_size(len(layer.network.mean), inputs.dtype, inputs.device)
    those = [slice(start, start + group) for start in range(0, len(around), group)]
    parts = [layer(sites, replace(around, table=around.table[:, n]), inputs[:, n], maps) for n in those]
    return parts[0] if len(parts) == 1 else SiteData(*(torch.cat(one, -2) for one in zip(*parts, strict=True)))


def before(
    layers: Sequence[Layer],
    around: Sequence[Surroundings],
    spins: Tensor,
    inputs: Sequence[Tensor],
    maps: Sequence[Maps],
    run: Callable[..., SiteData] = Layer.forward,
) -> SiteData:
    """Input of the layer that follows the given ones, for spins of the shape (rows, 3); see `MessagePassing._given`.

    It has the vectors and scalars of all rows, zero where there are none, then a row of zeros.
    """
    flat = with_zero(spins)
    sites = SiteData(flat.T[:, :, None], flat[:, :0])
    for number, layer in enumerate(layers):
        output = run(layer, sites, around[number], inputs[number], maps[number])
        vectors, scalars = (around[number].placed(part.to(spins.dtype)) for part in (output.vectors, output.scalars))
        if number:
            # Layers add their output to their input: the first would hardly learn if others replaced it.
            vectors, scalars = vectors + sites.vectors[:, :, 1:], scalars + sites.scalars
        sites = SiteData(torch.cat([flat.T[:, :, None], vectors], 2), scalars)
    return sites


@functools.cache
def compiled(run: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by torch.compile, separately for each layer and each size of the lattice."""
    torch._dynamo.config.recompile_limit = _COMPILED
    return torch.compile(run, dynamic=False)
