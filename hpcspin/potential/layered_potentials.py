"""Potentials of message passing: E, or E and G, from the scalars of the last of several layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hpcspin.potential import host_library
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.equations import Prediction, exchange_field, global_potentials, local_factors, sum_of_terms
from hpcspin.potential.grand import TERMS
from hpcspin.potential.host_adjoint import ForwardPass, HostAdjoint, HostTables, derivatives_on_host, forward_on_host
from hpcspin.potential.layers import Channels, Layer, Maps
from hpcspin.potential.message_passing import MessagePassing, before, compiled
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.surroundings import Surroundings

_Pull = Callable[[Tensor], tuple[Tensor]]
"""From derivatives with respect to the terms, (all terms, centres), to those with respect to the spins, (rows, 3)."""


class LayeredPotentials(MessagePassing):
    """E, or E and G, from the scalars ε_i and χ_i of the last of several layers; see `MessagePassing`.

    E = Σ_i ε_i and G = Σ_r u_r Σ_i χ_ri (Eq. 5), with a term for each voltage u_r, are sums over all sites (for closed
    electrons at a chemical potential E = Σ_k T_k Σ_i ε_ki, see `GrandPotential`). H_i = -∂E/∂S_i - S_i x ∂G/∂S_i
    (Eq. 3) takes their derivatives through all layers, by one reverse sweep for each potential. Evaluation and training
    compute the same; they differ only in how the neighbours of a site are read, see `Surroundings`.

    The field on a site depends on spins twice as far away as the receptive field of a centre reaches, so that the halo
    is twice as wide as that of a `CovariantField` with the same layers: terms of the reverse sweep that cross a border
    are computed on both sides.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.reaches = (2 * self.reaches[0], 2 * self.reaches[1])

    def _last_writes(self) -> Channels:
        """See `MessagePassing`: no vectors; the terms of ε, and one χ for each voltage."""
        return Channels(0, sum(self._terms))

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Any] = ()
    ) -> Prediction:
        """See `ForceField`; E and G of a window are sums over its centres; ``interior`` is the pass of `terms`."""
        self._require_halo(neighbourhood)
        spins = self.placed(spins, neighbourhood, bias)
        if not self.training and host_library.usable(self.dtype, spins.device):
            forward_pass = interior or self._forward_on_host(spins, bias, neighbourhood, len(self._stack) - 1)
            each = [self._on_host(*of, neighbourhood) for of in zip(spins, bias[:, None], forward_pass, strict=True)]
            return Prediction(*(torch.stack(parts) for parts in zip(*each, strict=True)))
        batch, flat = len(spins), self._flat(spins)
        factors = self._of_centres(self._factors(bias), neighbourhood, self._tile(spins, neighbourhood))
        if self.training:
            run = compiled(_derivatives) if self.fused else _derivatives
            local, by_spin = run(self._stack, flat, *self._given(spins, neighbourhood, bias), factors, self._terms)
        else:
            ((local, pull),) = interior or [self._forward_pass(spins, bias, neighbourhood)]
            factors = factors[:, : local.shape[1]]
            with torch.no_grad():
                by_spin = _by_spin(pull, factors, self._terms)
        rows, _ = neighbourhood.outputs_of(batch, spins.device)
        parts = exchange_field(flat[rows], torch.cat(by_spin, 1)[rows])
        equilibrium, nonequilibrium = (part.unflatten(0, (batch, -1)) for part in parts)
        centres = neighbourhood.window.stages[-1]
        energy, toroidal = global_potentials(sum_of_terms(local * factors, self._terms)[:, : batch * centres], batch)
        sums = local[:, : batch * centres].unflatten(1, (batch, -1)).sum(2).T
        energy, terms = self._grand(energy, sums, bias, centres)
        return Prediction(equilibrium + nonequilibrium, equilibrium, nonequilibrium, energy, toroidal, terms)

    def terms(self, spins: Tensor, neighbourhood: Neighbourhood) -> tuple[Tensor, Sequence[Any]]:
        """See `Predictor`: terms and the forward pass, which does not depend on the chemical potential."""
        unknown, forward_pass = spins.new_zeros(len(spins), 2), list[Any]()
        if host_library.usable(self.dtype, spins.device):
            forward_pass += self._forward_on_host(spins, unknown, neighbourhood, len(self._stack))
            rows, _ = neighbourhood.outputs_of(1, spins.device)
            local = torch.stack([one.states[-1].scalars.index_select(0, rows) for one in forward_pass])
        else:
            forward_pass.append(self._forward_pass(spins, unknown, neighbourhood))
            _, places = neighbourhood.outputs_of(len(spins), spins.device)
            local = forward_pass[0][0][:, places].T.unflatten(0, (len(spins), -1))
        return (local * self.field_scale).double(), forward_pass

    @torch.no_grad()
    def _forward_pass(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> tuple[Tensor, _Pull]:
        """`_potentials` of all centres of a batch, in evaluation mode."""
        return _potentials(self._stack, self._flat(spins), *self._given(spins, neighbourhood, bias))

    @torch.no_grad()
    def _forward_on_host(
        self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood, through: int
    ) -> list[ForwardPass]:
        """The forward pass of each configuration of a batch through the first ``through`` layers, by the kernels."""
        given = self._host_stack(neighbourhood)
        starts = [self._host_start(*of, neighbourhood) for of in zip(spins, bias[:, None], strict=True)]
        return [forward_on_host(*given, *start, through) for start in starts]

    def _host_stack(self, neighbourhood: Neighbourhood) -> tuple[list[HostAdjoint], list[HostTables]]:
        """Layers of the kernels and the tables of their centres."""
        numbers = range(len(self.dilations))
        tables = [neighbourhood.host_tables(self.dilations[number], number) for number in numbers]
        return [self._of_weights(number, HostAdjoint) for number in numbers], tables

    @torch.no_grad()
    def _on_host(
        self, spins: Tensor, bias: Tensor, forward_pass: ForwardPass, neighbourhood: Neighbourhood
    ) -> Prediction:
        """`forward` for one configuration of shape (rows, 3), by the kernels."""
        factors, stack = self._factors(bias)[:, 0], self._host_stack(neighbourhood)
        local, by_spin = derivatives_on_host(*stack, forward_pass, factors, self._terms)
        rows, _ = neighbourhood.outputs_of(1, spins.device)
        by_output = by_spin[:, rows].movedim(0, 1).flatten(1)
        equilibrium, nonequilibrium = exchange_field(spins[rows].to(self.dtype), by_output)
        sums = (local * factors).sum(0).split(list(self._terms))
        totals = functional.pad(torch.stack([part.sum() for part in sums]), (0, 2 - len(sums)))
        energy, terms = self._grand(totals[:1], local.sum(0)[None], bias, neighbourhood.window.stages[-1])
        return Prediction(equilibrium + nonequilibrium, equilibrium, nonequilibrium, energy[0], totals[1], terms[0])

    @property
    def _terms(self) -> tuple[int, ...]:
        """Number of terms of each potential, see `sum_of_terms`."""
        if self.grand_potential is not None:
            return (TERMS,)
        return (1,) if self.architecture.settings.kind == "conservative" else (1, self.architecture.drives)

    def _factors(self, bias: Tensor) -> Tensor:
        """Factors of the terms in E and G, in units of the field, shape (all terms, batch)."""
        if self.grand_potential is None:
            values = local_factors(self._voltages_of(bias), sum(self._terms))
        else:
            values = self.grand_potential.polynomials(bias.reshape(len(bias), -1)[:, 0]).to(self.dtype)
        return values * self.field_scale

    def _grand(self, energy: Tensor, sums: Tensor, bias: Tensor, sites: int) -> tuple[Tensor, Tensor]:
        """Energy and terms of a grand potential from the sums of the network's outputs; no terms for other models."""
        if self.grand_potential is None:
            return energy, sums[:, :0].double()
        terms = sums.double() * self.field_scale
        return self.grand_potential.energy(terms, bias, sites), terms


def _derivatives(
    layers: Sequence[Layer],
    spins: Tensor,
    around: Sequence[Surroundings],
    inputs: Sequence[Tensor],
    maps: Sequence[Maps],
    factors: Tensor,
    terms: Sequence[int],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Terms of the potentials of each centre, and derivatives of their sums with respect to the spins, (rows, 3)."""
    local, pull = _potentials(layers, spins, around, inputs, maps)
    return local, _by_spin(pull, factors, terms)


def _potentials(
    layers: Sequence[Layer],
    spins: Tensor,
    around: Sequence[Surroundings],
    inputs: Sequence[Tensor],
    maps: Sequence[Maps],
) -> tuple[Tensor, _Pull]:
    """Terms of ε and each χ at the centres of the last layer, (all terms, centres), and their reverse sweep.

    They are zero where a centre is missing; the other arguments are those of `before`.
    """

    def terms(spins: Tensor) -> Tensor:
        sites = before(layers[:-1], around, spins, inputs, maps)
        return layers[-1](sites, around[-1], inputs[-1], maps[-1]).scalars.T.to(spins.dtype)

    local, pull = torch.func.vjp(terms, spins)  # type: ignore[misc]
    return local, pull


def _by_spin(pull: _Pull, factors: Tensor, terms: Sequence[int]) -> tuple[Tensor, ...]:
    """Derivatives of the sum of each potential with respect to the spins, (rows, 3): one reverse sweep for each."""
    parts = factors.split(list(terms))
    seeds = [torch.cat([part if part is one else torch.zeros_like(part) for part in parts]) for one in parts]
    return tuple(pull(seed)[0] for seed in seeds)
