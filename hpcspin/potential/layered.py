"""Potentials of several layers: sites exchange vectors before each of them says what its ε and χ are.

E = Σ_i ε_i and G = u Σ_i χ_i (Eq. 5 of arXiv:2112.12124) are sums over all sites, and the field
H_i = -∂E/∂S_i - S_i x ∂G/∂S_i (Eq. 3) takes their derivatives through all layers, by one reverse sweep of PyTorch for
each potential. Evaluation and training do the same; only how sites see each other differs, see `Surroundings`.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hpcspin.potential.architecture import Architecture
from hpcspin.potential.borders import Trade
from hpcspin.potential.covariant import CovariantField
from hpcspin.potential.host_adjoint import HostAdjoint, HostTables, derivatives_on_host, host_tables
from hpcspin.potential.host_library import usable
from hpcspin.potential.kinds import KINDS, Prediction
from hpcspin.potential.layers import WHOLE, Channels, Layer, Maps, Site
from hpcspin.potential.model import Part
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.slots import slot_inverse, with_zero
from hpcspin.potential.surroundings import Chained


class LayeredPotentials(CovariantField):
    """E, or E and G, of the last of several layers; see `CovariantField` for these.

    The field on a site depends on spins twice as far away as a centre sees, so that the halo is twice as wide as that
    of a `CovariantField` of the same layers: what crosses a border on the way back is computed on both sides.

    Parameters
    ----------
    architecture
        What to build, of two or more layers and of kind ``"pair"`` or ``"conservative"``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.kind = KINDS[architecture.kind](self.offsets, self.operations)
        self.reaches = (2 * self.reaches[0], 2 * self.reaches[1])
        self._tables: weakref.WeakKeyDictionary[Neighbourhood, dict[Any, list[DifferentiableTables]]] = (
            weakref.WeakKeyDictionary()
        )
        self._host_tables: weakref.WeakKeyDictionary[Neighbourhood, list[HostTables]] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: tables are made anew."""
        anew: dict[str, Any] = {name: weakref.WeakKeyDictionary() for name in ("_tables", "_host_tables")}
        return {**super().__getstate__(), **anew}

    def _last(self, architecture: Architecture) -> Channels:
        return Channels(0, KINDS[architecture.kind].potentials)

    def forward(
        self,
        spins: Tensor,
        neighbourhood: Neighbourhood,
        bias: Tensor,
        begun: Sequence[Part] = (),
        trade: Trade | None = None,
    ) -> Prediction:
        """See `ForceField`; E and G of a window are those of its centres."""
        self._require_halo(neighbourhood)
        if not self.training and usable(self.dtype, spins.device):
            each = [self._on_host_back(*of, neighbourhood) for of in zip(spins, bias[:, None], strict=True)]
            return Prediction(*(torch.stack(parts) for parts in zip(*each, strict=True)))
        batch, flat = len(spins), spins.detach().to(self.dtype).flatten(0, 1)
        inputs = self._inputs_of(spins, neighbourhood, bias)
        around: list[Chained]
        if self.training:
            around = [self._convolution(number, neighbourhood) for number in range(len(self._stack))]
            seen = [inputs] * len(around)
            maps = [layer.maps() for layer in self._stack]
            local, by_spin = (_compiled() if self.fused else _derivatives)(
                self._stack, around, flat, seen, self._factors(inputs), maps
            )
            equilibrium, nonequilibrium = self.kind.combine(torch.cat(by_spin, 1), flat)
        else:
            tables = self._around_all(batch, neighbourhood, spins.device)
            around, seen = list(tables), [inputs[:, : one.table.shape[1]] for one in tables]
            maps = [self._maps_of(number) for number in range(len(self._stack))]
            with torch.no_grad():
                local, by_spin = _derivatives(self._stack, around, flat, seen, self._factors(seen[-1]), maps)
                rows, _ = neighbourhood.outputs_of(batch, spins.device)
                equilibrium, nonequilibrium = self.kind.combine(torch.cat(by_spin, 1)[rows], flat[rows])
        equilibrium, nonequilibrium = (part.unflatten(0, (batch, -1)) for part in (equilibrium, nonequilibrium))
        totals = local[:, : batch * neighbourhood.stages[-1]].unflatten(1, (batch, -1)).sum(2)
        potentials = functional.pad(totals, (0, 0, 0, 2 - len(totals)))
        return Prediction(equilibrium + nonequilibrium, equilibrium, nonequilibrium, *potentials.unbind())

    @torch.no_grad()
    def _on_host_back(self, spins: Tensor, bias: Tensor, neighbourhood: Neighbourhood) -> Prediction:
        """`forward` for one configuration of shape (rows, 3), by the kernels."""
        known, inputs = self._host_start(spins, bias, neighbourhood)
        layers = [self._of_weights(number, HostAdjoint) for number in range(len(self._stack))]
        factors = self._factors(bias[None].to(self.dtype) / self.architecture.bias_reference)[:, 0]
        tables = self._host_tables.get(neighbourhood)
        if tables is None:
            tables = self._host_tables[neighbourhood] = host_tables(neighbourhood, self.architecture.layers)
        local, by_spin = derivatives_on_host(layers, tables, known, inputs, factors, torch.get_num_threads())
        rows, _ = neighbourhood.outputs_of(1, spins.device)
        sums = by_spin[:, rows].movedim(0, 1).flatten(1)
        equilibrium, nonequilibrium = self.kind.combine(sums, spins[rows].to(self.dtype))
        potentials = functional.pad((local * factors).sum(0), (0, 2 - len(factors)))
        return Prediction(equilibrium + nonequilibrium, equilibrium, nonequilibrium, *potentials.unbind())

    def _factors(self, inputs: Tensor) -> Tensor:
        return self.kind.factors(inputs[:1]) * self.field_scale

    def _around_all(self, batch: int, neighbourhood: Neighbourhood, device: torch.device) -> list[DifferentiableTables]:
        """How each layer sees the rows around the centres that it is asked for."""
        tables = self._tables.setdefault(neighbourhood, {})
        if (batch, device) not in tables:
            tile = self._tile(torch.empty(batch, 0, device=device), neighbourhood)
            tables[batch, device] = [
                DifferentiableTables.of(neighbourhood, batch, tile, device, stretch, number)
                for number, stretch in enumerate(self.architecture.layers)
            ]
        return tables[batch, device]


@dataclass(frozen=True)
class DifferentiableTables:
    """Surroundings by neighbour tables, whose sums, and those of their derivatives, have an order of their own.

    Attributes
    ----------
    table : Tensor
        Row in each slot of each centre, in whole tiles, shape (slots, centres); as many as there are rows where it is
        missing.
    inverse : Tensor
        The centre of which each row is the neighbour in a slot, shape (slots, rows); as many as there are centres where
        there is none.
    tile : int
        Centres in a tile of matrix products.
    """

    table: Tensor
    inverse: Tensor
    tile: int

    @classmethod
    def of(
        cls, neighbourhood: Neighbourhood, batch: int, tile: int, device: torch.device, stretch: int, number: int
    ) -> DifferentiableTables:
        """Tables of the centres that a layer is asked for: the first ones of a window, and all of a batch."""
        table = neighbourhood.table(device, stretch, batch).long()
        if batch == 1:
            table = table[:, : neighbourhood.stages[number]]
        rows = batch * neighbourhood.rows
        inverse = slot_inverse(table.int(), rows).long()
        padding = -table.shape[1] % tile
        inverse = torch.where(inverse == table.shape[1], table.shape[1] + padding, inverse)
        return cls(functional.pad(table, (0, padding), value=rows), inverse, tile)

    def own(self, x: Tensor) -> Tensor:
        """See `Surroundings`."""
        own: Tensor = _Gather.apply(x, self.table[:1], self.inverse[:1])
        return own.flatten(1, 2)

    def placed(self, x: Tensor) -> Tensor:
        """See `Surroundings`."""
        placed: Tensor = _Gather.apply(functional.pad(x, (0, 0, 0, 1)), self.inverse[:1], self.table[:1])
        return functional.pad(placed.flatten(1, 2), (0, 0, 0, 1))

    def sums(self, x: Tensor, kernels: Tensor) -> Tensor:
        """See `Surroundings`."""
        around: Tensor = _Gather.apply(x, self.table, self.inverse)
        return self.product(around.flatten(2), kernels)

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """See `Surroundings`."""
        product: Tensor = _TileProduct.apply(x, matrix, self.tile)
        return product


class _Gather(torch.autograd.Function):
    """Numbers of all slots, (k, rows + 1, width) to (k, centres, slots, width), and back by the inverse table.

    The derivative adds slot after slot, whichever window of the lattice the tables describe; that by the last row,
    which stands for what is missing, is zero.
    """

    @staticmethod
    def forward(x: Tensor, table: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(1, table.T.flatten()).unflatten(1, table.T.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        grad = functional.pad(grad, (0, 0, 0, 0, 0, 1))
        first, *others = (grad[:, :, slot].index_select(1, centres) for slot, centres in enumerate(inverse))
        return functional.pad(sum(others, first), (0, 0, 0, 1)), None, None


class _TileProduct(torch.autograd.Function):
    """Product with a constant matrix, tile by tile, there and back with columns of whole vectors."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, tile: int) -> Tensor:
        return _tile_product(x, matrix, tile)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.tile = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (matrix,) = ctx.saved_tensors
        back = functional.pad(matrix.T, (0, -len(matrix) % WHOLE))
        return _tile_product(grad, back, ctx.tile)[..., : len(matrix)], None, None


def _tile_product(x: Tensor, matrix: Tensor, tile: int) -> Tensor:
    tiles = x.reshape(-1, tile, x.shape[-1])
    return torch.bmm(tiles, matrix.expand(len(tiles), -1, -1)).view(*x.shape[:-1], matrix.shape[1])


def local_potentials(
    layers: Sequence[Layer],
    around: Sequence[Chained],
    spins: Tensor,
    inputs: Sequence[Tensor],
    maps: Sequence[Maps],
) -> Tensor:
    """ε and χ of the centres of the last layer, zero where one is missing, shape (potentials, centres).

    Parameters
    ----------
    layers
        One after the other.
    around
        The surroundings of the centres, as each layer sees them.
    spins
        Shape (rows, 3).
    inputs
        Of each layer the network's other inputs, shape (inputs, centres).
    maps
        Of each layer.
    """
    flat = with_zero(spins)
    known = Site(flat.T[:, :, None], flat[:, :0])
    for number, (layer, those) in enumerate(zip(layers[:-1], around[:-1], strict=True)):
        made = layer(known, those, inputs[number], maps[number])
        vectors, scalars = those.placed(made.vectors), those.placed(made.scalars[None])[0]
        if number:
            # Layers add to what was there: the first of them would hardly learn through many that replace it.
            vectors, scalars = vectors + known.vectors[:, :, 1:], scalars + known.scalars
        known = Site(torch.cat([flat.T[:, :, None], vectors], 2), scalars)
    return layers[-1](known, around[-1], inputs[-1], maps[-1]).scalars.T


def _derivatives(
    layers: Sequence[Layer],
    around: Sequence[Chained],
    spins: Tensor,
    inputs: Sequence[Tensor],
    factors: Tensor,
    maps: Sequence[Maps],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Potentials of each centre, and the derivatives of their sums by each spin, shapes (rows, 3)."""

    def sums(spins: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        local = local_potentials(layers, around, spins, inputs, maps).to(spins.dtype)
        local = local * factors
        return tuple(one.sum() for one in local), local

    totals, pull, local = torch.func.vjp(sums, spins, has_aux=True)  # type: ignore[misc]
    # One sweep back for each potential.
    seeds = [[torch.ones_like(one) if one is total else torch.zeros_like(one) for one in totals] for total in totals]
    return local.detach(), tuple(pull(tuple(seed))[0] for seed in seeds)


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, tuple[Tensor, ...]]]:
    return torch.compile(_derivatives, dynamic=False)
