"""Potentials of the spins within the cutoff radius: descriptor, network, and the field by differentiation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hpcspin.potential import host_library
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.borders import Borders
from hpcspin.potential.descriptors import DESCRIPTORS
from hpcspin.potential.descriptors.base import require_features
from hpcspin.potential.equations import Prediction, exchange_field, global_potentials, local_factors
from hpcspin.potential.gather import with_zero
from hpcspin.potential.host_potentials import HostPotentials
from hpcspin.potential.model import ForceField, Part, weights_of
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.network import Network
from hpcspin.potential.settings import PotentialSettings
from hpcspin.potential.tiles import group_size, is_present
from hpcspin.potential.window import Block


class PotentialField(ForceField):
    """The field H_i = -∂E/∂S_i - S_i x ∂G/∂S_i (Eq. 3) of potentials that depend on descriptors.

    For the kind "pair", E = Σ_i ε(C_i) and G = u Σ_i χ(C_i) (Eq. 5) are sums over the existing sites, where C_i are the
    spins within the cutoff radius and u is the bias in its unit: without a bias G vanishes exactly. The kind
    "conservative" has E alone, and its field is a gradient.

    The kind "site" has a pair ε_i, χ_i for each site, differentiated only with respect to the spin of the site: H_i =
    -∂ε_i/∂S_i - S_i x ∂χ_i/∂S_i is the most general field that depends on the spins within the cutoff radius, a
    Helmholtz-Hodge decomposition on the sphere of each spin. In equilibrium H_i is a gradient on that sphere, so that
    χ_i also vanishes without a bias.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        settings = architecture.settings
        assert isinstance(settings, PotentialSettings)
        even = settings.time_reversal == "even"
        self.descriptor = DESCRIPTORS[settings.descriptor](self.geometry, self.offsets, self.operations, even)
        if not type(self.descriptor).__module__.startswith("hpcspin.") and not self.descriptor.presence_counts.is_meta:
            require_features(self.descriptor.to(self.dtype), len(self.offsets), self.dtype)
        self.num_potentials = 1 if settings.kind == "conservative" else 2
        """Number of potentials of a centre: ε, or ε and χ."""
        self.slots = 1 if settings.kind == "site" else len(self.offsets)
        """Number of slots on whose spins a centre acts: all, or only its own."""
        self.reaches = (1, 1)
        self.network = Network(len(self.descriptor.parity), self.inputs, settings.hidden, self.num_potentials)
        self.to(self.dtype)
        self._weights = weights_of(self, self.network)

    @property
    def networks(self) -> Sequence[Network]:
        """See `ForceField`."""
        return [self.network]

    def window(self, block: Block) -> Neighbourhood:
        """See `ForceField`; with borders if centres act on spins of other blocks."""
        window = super().window(block)
        if self.slots > 1 and not all(block.whole):
            rows, centres = (part.numpy() for part in window.outputs_of(1, torch.device("cpu")))
            window.borders = Borders(block, self.offsets, rows.reshape(block.shape), centres, 3 * self.num_potentials)
        return window

    def features(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, layer: int = -1) -> Tensor:
        """See `ForceField`; there is one network."""
        batch, tile = len(spins), self._tile(spins, neighbourhood)
        table = neighbourhood.table_of_slots(batch, tile, spins.device)
        centres = slice(-(-batch * neighbourhood.centres // tile) * tile)
        described = self.descriptor(table.gather(self._source(spins), centres), tile)
        return described.T[neighbourhood.outputs_of(batch, spins.device)[1]]

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Part] = ()
    ) -> Prediction:
        """See `ForceField`."""
        self._require_halo(neighbourhood, 1 if self.slots > 1 and neighbourhood.exchange is None else 0)
        batch, centres, tile = len(spins), neighbourhood.centres, self._tile(spins, neighbourhood)
        rows, places = neighbourhood.outputs_of(batch, spins.device)
        with torch.inference_mode(False), torch.enable_grad():
            parts = self._all_parts(spins, neighbourhood, bias, interior)
            local = torch.cat([part for part, _ in parts], -1)
            missing = torch.zeros_like(parts[0][1][..., :1])
            partials = torch.cat([*(part for _, part in parts), missing], -1)
            if self.slots > 1:
                # Add the derivatives of all centres that see a spin, through the inverse table.
                table = neighbourhood.table_of_slots(batch, tile, spins.device)
                by_spin = table.adjoint(partials.flatten(1, 2))[rows]
            else:
                by_spin = partials[0].flatten(0, 1).T[places]
            parts_of_field = exchange_field(spins.detach().flatten(0, 1)[rows].to(self.dtype), by_spin)
            equilibrium, nonequilibrium = (part.unflatten(0, (batch, -1)) for part in parts_of_field)
            energy, toroidal = global_potentials(local[:, : batch * centres], batch)
        none = spins.new_empty(batch, 0)
        return Prediction(equilibrium + nonequilibrium, equilibrium, nonequilibrium, energy, toroidal, none)

    @torch.inference_mode(False)
    def interior(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> list[Part]:
        """See `ForceField`; for large blocks half of it, so that as much is left to do while border terms are sent."""
        tile, group = self._tile(spins, neighbourhood), self._group(spins)
        inside = neighbourhood.window.inner // tile * tile
        share = inside if neighbourhood.borders is None else inside // (2 * group) * group
        return list(self._parts(spins, neighbourhood, bias, 0, share or inside))

    def _all_parts(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Part]
    ) -> list[Part]:
        """Parts of all centres, and those of foreign centres, which their blocks send."""
        done, exchange = sum(local.shape[-1] for local, _ in interior), neighbourhood.exchange
        if exchange is None or neighbourhood.borders is None:
            return [*interior, *self._parts(spins, neighbourhood, bias, done)]
        borders, tile = neighbourhood.borders.to(spins.device), self._tile(spins, neighbourhood)
        # Borders first: the inner centres are computed while the terms of the borders are sent.
        inside = neighbourhood.window.inner // tile * tile
        outer = list(self._parts(spins, neighbourhood, bias, inside))
        partials = torch.cat([part for _, part in outer], -1).flatten(1, 2)
        exchange.send(borders.outgoing(partials, inside))
        inner = list(self._parts(spins, neighbourhood, bias, done, inside))
        foreign = borders.incoming(exchange.receive(), partials).unflatten(1, outer[0][1].shape[1:3])
        none = foreign.new_zeros(len(outer[0][0]), foreign.shape[-1])
        return [*interior, *inner, *outer, (none, foreign)]

    def _group(self, spins: Tensor) -> int:
        """Number of centres in one evaluation, in whole tiles."""
        return group_size(len(self.network.mean), self.dtype, spins.device)

    def _host(self, device: torch.device) -> HostPotentials | None:
        """The kernel that evaluates this field, if there is one."""
        if self.training or not host_library.usable(self.dtype, device, host_library.POTENTIALS):
            return None
        return self.derived("host", self._weights, self._new_host)

    def _new_host(self) -> HostPotentials | None:
        polynomials = self.descriptor.polynomials()
        return None if polynomials is None else HostPotentials(self.network, polynomials)

    def _source(self, spins: Tensor) -> Tensor:
        return with_zero(spins.detach().to(self.dtype).flatten(0, 1))

    def _parts(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, first: int, last: int | None = None
    ) -> Iterator[Part]:
        """`_partials` of a range of centres, one group of tiles after the other."""
        batch, tile = len(spins), self._tile(spins, neighbourhood)
        inputs = self._inputs(bias, neighbourhood, tile)
        u = inputs[: self.architecture.drives]
        table, source = neighbourhood.table_of_slots(batch, tile, spins.device), self._source(spins)
        last = u.shape[1] if last is None else last
        host = self._host(spins.device) if first < last else None
        if host is not None:
            those, asked = slice(first, last), min(last, batch * neighbourhood.centres) - first
            factors = local_factors(u[:, those], self.num_potentials) * self.field_scale
            yield host(source, table.table[:, those], factors, inputs[:, those], self.slots, asked)
            return
        group = tile if self.training else self._group(spins)
        for start in range(first, last, group):
            those = slice(start, min(start + group, last))
            yield self._partials(table.gather(source, those), u[:, those], inputs[:, those], tile)

    def _partials(self, around: Tensor, u: Tensor, inputs: Tensor, tile: int) -> Part:
        """ε and χ of each centre, and their derivatives with respect to the spins in its slots.

        In units of the field, zero where the centre is missing; shapes (potentials, centres) and (slots, potentials, 3,
        centres).
        """
        with torch.enable_grad():
            factors = local_factors(u, self.num_potentials) * is_present(around[:1]) * self.field_scale
            around.requires_grad_()
            local = self.network(self.descriptor(around, tile), inputs, tile) * factors
            by_spin = [
                torch.autograd.grad(one.sum(), around, create_graph=self.training, retain_graph=True)[0]
                for one in local
            ]
        return local if self.training else local.detach(), torch.stack(by_spin, 1)[: self.slots]
