"""Direct fields of several layers: sites exchange vectors before the last of them says what the field is."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.borders import Trade
from hpcspin.potential.host_layers import EMPTY, ROOM, HostLayer, Known
from hpcspin.potential.host_library import usable
from hpcspin.potential.kinds import Prediction
from hpcspin.potential.layers import Channels, Layer, Maps, Site, Width
from hpcspin.potential.model import ForceField, Part
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.slots import with_zero
from hpcspin.potential.surroundings import Convolution, Tables
from hpcspin.potential.tiles import is_present, together

_Made = TypeVar("_Made")
_version = operator.attrgetter("_version")
_SMALL = 0.1
_COMPILED = 64
"""Variants of a layer, by its place and the sizes of lattices, that are compiled before the rest runs as it is."""


class CovariantField(ForceField):
    """The field of the last of several layers, a covariant vector without potentials.

    Layer after layer a site learns what lies one reach farther: the field of L
    layers sees spins as far as L times the reach, at a cost that grows with L
    alone. A layer whose neighbourhood is stretched n times along x, from
    electrode to electrode, sees n reaches farther there at the same cost: it reads
    every n-th column of what layers before it have gathered around each site.
    See `Layer`.

    Parameters
    ----------
    architecture
        What to build, of two or more layers.

    Attributes
    ----------
    fused : bool
        Whether layers go through torch.compile in training mode; each shape of a batch is compiled once.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.fused = False
        self._derived: dict[Any, tuple[tuple[tuple[int, ...], tuple[int, ...]], Any]] = {}
        self.reaches = (sum(architecture.layers), len(architecture.layers))
        inputs, width = 3 if architecture.electrode_range else 1, Width(architecture.channels)
        reads, layers = Channels(1, 0), []
        for number in range(len(architecture.layers)):
            writes = self._last(architecture) if number == len(architecture.layers) - 1 else width.between
            layers.append(
                Layer(self.geometry, self.offsets, self.operations, reads, writes, width, inputs, architecture.hidden)
            )
            reads = Channels(1 + writes.vectors, writes.scalars)
        self.layers = nn.ModuleList(layers)
        # To walk through modules for these takes longer than a narrow layer.
        self._weights = [tuple(layer.parameters()) for layer in layers]
        # Training begins near no field; many wrong ones would be unlearned first.
        with torch.no_grad():
            self.networks[-1].layers[-1].weight.mul_(_SMALL)  # type: ignore[operator]
        self.to(self.dtype)

    def _last(self, architecture: Architecture) -> Channels:
        """What the last layer writes."""
        return Width(architecture.channels).last

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: what is made of the weights points into the memory of these, and is made anew."""
        return {**self.__dict__, "_derived": {}}

    @property
    def networks(self) -> Sequence[Network]:
        """See `ForceField`."""
        return [layer.network for layer in self._stack]

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """See `ForceField`."""
        number = layer % len(self._stack)
        inputs = self._inputs_of(spins, neighbourhood, bias)
        known, chosen = self._through(number, spins, neighbourhood, inputs), self._stack[number]
        around = self._around(number, spins, neighbourhood, slice(-1))
        return chosen.features(known, around, chosen.maps().in_whole_vectors())[0][: len(spins) * neighbourhood.centres]

    def forward(
        self,
        spins: Tensor,
        neighbourhood: Neighbourhood,
        bias: Tensor,
        begun: Sequence[Part] = (),
        trade: Trade | None = None,
    ) -> Prediction:
        """See `ForceField`."""
        self._require_halo(neighbourhood)
        if not self.training and usable(self.dtype, spins.device):
            field = torch.stack([self._on_host(*of, neighbourhood) for of in zip(spins, bias[:, None], strict=True)])
            return self._prediction(field)
        _, places = neighbourhood.outputs_of(len(spins), spins.device)
        with torch.enable_grad() if self.training else torch.inference_mode():
            inputs, last = self._inputs_of(spins, neighbourhood, bias), len(self._stack) - 1
            known = self._through(last, spins, neighbourhood, inputs)
            first, *others = self._made(last, known, spins, neighbourhood, inputs).vectors.unbind(2)
            field = (sum(others, first) * self.field_scale)[:, places].T.unflatten(0, (len(spins), -1))
        return self._prediction(field)

    def begin(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> list[Part]:
        """See `ForceField`; all layers wait for the halo."""
        return []

    @staticmethod
    def _prediction(field: Tensor) -> Prediction:
        none = field.new_zeros(len(field))
        return Prediction(field, field, torch.zeros_like(field), none, none)

    def _on_host(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """Field on the outputs for one configuration of shape (rows, 3)."""
        known, inputs = self._host_start(spins, bias, neighbourhood)
        last = len(self._stack) - 1
        for number, stretch in enumerate(self.architecture.layers):
            table, centres = neighbourhood.padded(stretch, EMPTY), neighbourhood.stages[number]
            known = self._host_layer(number)(known, table, inputs, centres, 0 < number < last, torch.get_num_threads())
        rows, _ = neighbourhood.outputs_of(1, spins.device)
        return known.vectors.squeeze(2).index_select(0, rows) * self.field_scale

    def _host_start(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> tuple[Known, Tensor]:
        """What the kernels know before the first layer, and the networks' other inputs, shape (centres, inputs)."""
        spins = spins.to(self.dtype)
        # The scalar before the first layer says where spins are.
        scalars = is_present(spins.T)[:, None]
        known = Known(functional.pad(spins[..., None], (0, 0, 0, 0, 0, ROOM)), functional.pad(scalars, (0, 0, 0, ROOM)))
        return known, self._inputs(self._bias_of(bias, neighbourhood, 1), neighbourhood, 1, 1).T.contiguous()

    @property
    def _stack(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _inputs_of(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """`_inputs` of all networks."""
        tile = self._tile(spins, neighbourhood)
        return self._inputs(self._bias_of(bias, neighbourhood, tile), neighbourhood, len(spins), tile)

    def _through(self, layers: int, spins: Tensor, neighbourhood: Neighbourhood, inputs: Tensor) -> Site:
        """What is known of all rows after some layers, zero where nothing is, and a row of zeros after them."""
        flat = with_zero(spins.detach().to(self.dtype).flatten(0, 1))
        known = Site(flat.T[:, :, None], flat[:, :0])
        for number in range(layers):
            made = self._made(number, known, spins, neighbourhood, inputs)
            rows = neighbourhood.centre_rows(len(spins), spins.device)[: len(made.scalars)]
            vectors, scalars = made
            if number:
                # Layers add to what was known: the first of them would hardly learn through many that replace it.
                vectors = vectors + known.vectors[:, rows, 1:]
                scalars = scalars + known.scalars[rows]
            vectors, scalars = (
                new.new_zeros(*new.shape[:-2], len(flat), new.shape[-1]).index_copy(-2, rows, new)
                for new in (vectors, scalars)
            )
            known = Site(torch.cat([flat.T[:, :, None], vectors], 2), scalars)
        return known

    def _made(self, number: int, known: Site, spins: Tensor, neighbourhood: Neighbourhood, inputs: Tensor) -> Site:
        """What a layer makes of all centres on which later ones depend."""
        batch, tile, layer = len(spins), self._tile(spins, neighbourhood), self._stack[number]
        if self.training:
            run = _compiled() if self.fused else _trained
            made = run(layer, known, self._convolution(number, neighbourhood), inputs)
            return Site(made.vectors.to(self.dtype), made.scalars.to(self.dtype))
        centres = neighbourhood.stages[number] if batch == 1 else batch * neighbourhood.centres
        group, end = together(len(self.networks[number].mean), self.dtype, spins.device), -(-centres // tile) * tile
        parts, maps = [], self._maps_of(number)
        for start in range(0, end, group):
            those = slice(start, min(start + group, end))
            around = self._around(number, spins, neighbourhood, those)
            parts.append(layer(known, around, inputs[:, those], maps))
        joined = parts[0] if len(parts) == 1 else Site(*(torch.cat(column, -2) for column in zip(*parts, strict=True)))
        return Site(*(part[..., :centres, :] for part in joined))

    def _maps_of(self, number: int) -> Maps:
        """Matrices of a layer; to evaluate, not to learn."""
        return self._of_weights(number, _maps)

    def _host_layer(self, number: int) -> HostLayer:
        return self._of_weights(number, HostLayer)

    def _of_weights(self, number: int, make: Callable[[Layer], _Made]) -> _Made:
        """What is made of a layer's weights, anew where these have changed."""
        weights = tuple(map(Tensor.data_ptr, self._weights[number])), tuple(map(_version, self._weights[number]))
        known = self._derived.get((number, make))
        if known is None or known[0] != weights:
            known = self._derived[number, make] = weights, make(self._stack[number])
        return known[1]

    def _around(self, number: int, spins: Tensor, neighbourhood: Neighbourhood, those: slice) -> Tables:
        stretch, tile = self.architecture.layers[number], self._tile(spins, neighbourhood)
        return Tables(neighbourhood.gather(len(spins), tile, spins.device, stretch), those, tile)

    def _convolution(self, number: int, neighbourhood: Neighbourhood) -> Convolution:
        if neighbourhood.grid is None:
            raise HpcspinError("training: fields of several layers learn from whole lattices, not from a window of one")
        return Convolution(neighbourhood.grid, self.architecture.layers[number])


def _maps(layer: Layer) -> Maps:
    return layer.maps().in_whole_vectors()


def _trained(layer: Layer, known: Site, around: Convolution, inputs: Tensor) -> Site:
    """What a layer makes of all centres of a batch."""
    made: Site = layer(known, around, inputs, layer.maps())
    return made


@functools.cache
def _compiled() -> Callable[..., Site]:
    # Each layer is compiled for each size of the lattice.
    torch._dynamo.config.recompile_limit = _COMPILED
    return torch.compile(_trained, dynamic=False)
