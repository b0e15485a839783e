"""Force fields by differentiation: descriptor, network, potentials and their derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hpcspin.potential.architecture import Architecture
from hpcspin.potential.borders import Borders, Trade
from hpcspin.potential.descriptors import DESCRIPTORS
from hpcspin.potential.kinds import KINDS, Direct, Prediction
from hpcspin.potential.model import ForceField, Part
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.slots import with_zero
from hpcspin.potential.tiles import is_present, together


class PotentialField(ForceField):
    """A field of one layer, of the kind "pair" H_i = -∂E/∂S_i - S_i x ∂G/∂S_i.

    E = Σ_i ε(C_i) and G = u Σ_i χ(C_i) are sums over the real sites, C_i the
    spins within the cutoff radius and u the bias in its unit: without a bias G
    vanishes exactly. For the other kinds see their classes.

    Parameters
    ----------
    architecture
        What to build, of one layer.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        even = architecture.time_reversal == "even"
        self.descriptor = DESCRIPTORS[architecture.descriptor](self.geometry, self.offsets, self.operations, even)
        self.kind = KINDS[architecture.kind](self.offsets, self.operations)
        self.reaches = (1, 1)
        inputs = 3 if architecture.electrode_range else 1
        self.network = Network(len(self.descriptor.parity), inputs, architecture.hidden, self.kind.outputs)
        self.to(self.dtype)

    @property
    def networks(self) -> Sequence[Network]:
        """See `ForceField`."""
        return [self.network]

    def window(
        self,
        shape: tuple[int, int],
        whole: tuple[bool, bool],
        periodic: tuple[bool, bool],
        columns: tuple[int, int] | None = None,
    ) -> Neighbourhood:
        """See `ForceField`; with borders if centres act on spins of other blocks."""
        window = super().window(shape, whole, periodic, columns)
        if self.kind.reaches > 1 and self.reach and not all(whole):
            rows, centres = (part.numpy() for part in window.outputs_of(1, torch.device("cpu")))
            numbers = 3 * self.kind.potentials
            window.borders = Borders(shape, self.offsets, whole, periodic, rows.reshape(shape), centres, numbers)
        return window

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """See `ForceField`; there is one network."""
        tile = self._tile(spins, neighbourhood)
        gather = neighbourhood.gather(len(spins), tile, spins.device)
        described: Tensor = self.descriptor(gather.pull(self._source(spins), slice(-1)), tile)
        return described.T[: len(spins) * neighbourhood.centres]

    def forward(
        self,
        spins: Tensor,
        neighbourhood: Neighbourhood,
        bias: Tensor,
        begun: Sequence[Part] = (),
        trade: Trade | None = None,
    ) -> Prediction:
        """See `ForceField`."""
        self._require_halo(neighbourhood, self.kind.reaches - 1 if trade is None else 0)
        batch, centres, tile = len(spins), neighbourhood.centres, self._tile(spins, neighbourhood)
        rows, places = neighbourhood.outputs_of(batch, spins.device)
        with torch.enable_grad() if self.training else torch.inference_mode():
            parts = self._traded(spins, neighbourhood, bias, begun, trade)
            local = torch.cat([part for part, _ in parts], -1)
            missing = torch.zeros_like(parts[0][1][..., :1])
            partials = torch.cat([*(part for _, part in parts), missing], -1)
            if self.kind.reaches > 1:
                # The derivatives of all centres that see a spin are added through the inverse table.
                sums = neighbourhood.gather(batch, tile, spins.device).push(partials.flatten(1, 2))[rows]
            else:
                sums = partials[0].flatten(0, 1).T[places]
            equilibrium, nonequilibrium = self.kind.combine(sums, spins.detach().flatten(0, 1)[rows].to(self.dtype))
            totals = local[:, : batch * centres].unflatten(1, (batch, centres)).sum(2)
            potentials = functional.pad(totals[: self.kind.potentials], (0, 0, 0, 2 - self.kind.potentials))
            equilibrium, nonequilibrium = (part.unflatten(0, (batch, -1)) for part in (equilibrium, nonequilibrium))
            prediction = Prediction(equilibrium + nonequilibrium, equilibrium, nonequilibrium, *potentials.unbind())
        return prediction if self.training else Prediction(*(part.clone() for part in prediction))

    @torch.inference_mode()
    def begin(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> list[Part]:
        """See `ForceField`; of large blocks half, if as much is to be done while the terms of the borders travel."""
        tile, group = self._tile(spins, neighbourhood), self._group(spins)
        inside = neighbourhood.inner // tile * tile
        share = inside if neighbourhood.borders is None else inside // (2 * group) * group
        return list(self._parts(spins, neighbourhood, bias, 0, share or inside))

    def _traded(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, begun: Sequence[Part], trade: Trade | None
    ) -> list[Part]:
        """What has begun, and the rest: of all centres, and of foreign ones what came by trade."""
        done = sum(local.shape[-1] for local, _ in begun)
        if trade is None:
            return [*begun, *self._parts(spins, neighbourhood, bias, done)]
        assert neighbourhood.borders is not None
        borders, tile = neighbourhood.borders.to(spins.device), self._tile(spins, neighbourhood)
        # On the borders first: what lies inside is computed while their terms travel.
        inside = neighbourhood.inner // tile * tile
        outer = list(self._parts(spins, neighbourhood, bias, inside))
        partials = torch.cat([part for _, part in outer], -1).flatten(1, 2)
        trade.send(borders.outgoing(partials, inside))
        inner = list(self._parts(spins, neighbourhood, bias, done, inside))
        foreign = borders.incoming(trade.receive(), partials).unflatten(1, outer[0][1].shape[1:3])
        none = foreign.new_zeros(len(outer[0][0]), foreign.shape[-1])
        return [*begun, *inner, *outer, (none, foreign)]

    def _group(self, spins: Tensor) -> int:
        """Centres that are evaluated together, in whole tiles."""
        return together(len(self.network.mean), self.dtype, spins.device)

    def _source(self, spins: Tensor) -> Tensor:
        return with_zero(spins.detach().to(self.dtype).flatten(0, 1))

    def _parts(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, first: int, last: int | None = None
    ) -> Iterator[Part]:
        """`_partials` of a range of centres, one group of tiles after the other."""
        batch, tile = len(spins), self._tile(spins, neighbourhood)
        u = self._bias_of(bias, neighbourhood, tile)
        inputs = self._inputs(u, neighbourhood, batch, tile)
        gather, source = neighbourhood.gather(batch, tile, spins.device), self._source(spins)
        group = tile if self.training else self._group(spins)
        last = u.shape[1] if last is None else last
        for start in range(first, last, group):
            those = slice(start, min(start + group, last))
            yield self._partials(gather.pull(source, those), u[:, those], inputs[:, those], tile)

    def _partials(self, around: Tensor, u: Tensor, inputs: Tensor, tile: int) -> Part:
        """Potentials of each centre, and what it adds to the fields in its slots: see `Kind.combine`.

        In units of the field, and zero where the centre is missing; shapes
        (outputs, centres) and (slots, potentials, 3, centres).
        """
        factors = self.kind.factors(u) * is_present(around[:1]) * self.field_scale
        if isinstance(self.kind, Direct):
            local = self.network(self.descriptor(around, tile), inputs, tile) * factors
            return local, self.kind.field(local, around, tile)[None, None]
        if self.training:
            around.requires_grad_()
            local = self.network(self.descriptor(around, tile), inputs, tile) * factors
            by_spin = [torch.autograd.grad(one.sum(), around, create_graph=True)[0] for one in local]
            return local, torch.stack(by_spin, 1)[: self.kind.slots]
        outputs, cotangents = self.network.pull(self.descriptor(around, tile), inputs, factors, tile)
        return outputs * factors, self.descriptor.pull(around, cotangents, self.kind.slots, tile)
