"""The learned force field: descriptor, network, and fields by differentiation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, Lattice, make_lattice
from hpcspin.potential.descriptors import DESCRIPTORS
from hpcspin.potential.irreps import symmetry_operations
from hpcspin.potential.kinds import KINDS, Direct, Prediction
from hpcspin.potential.neighbourhood import Neighbourhood, offsets_within, reach_of
from hpcspin.potential.network import Network
from hpcspin.potential.slots import with_zero
from hpcspin.potential.tiles import GROUP, TILE, is_present

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
_ROUNDING = 1e-4
"""Excess over the envelope that another device's rounding can make."""
Part = tuple[Tensor, Tensor]
"""Potentials of some centres, and what these centres add to the fields: see `ForceField._partials`."""


@dataclass(frozen=True)
class Architecture:
    """Everything that defines a force field but its weights.

    Attributes
    ----------
    lattice : str
        Kind of lattice.
    radius : float
        Cutoff radius R_c in lattice constants.
    hidden : tuple of int
        Widths of the hidden layers.
    kind : str
        ``"pair"`` (E and G), ``"conservative"`` (E alone), ``"site"`` (a pair of
        each site) or ``"direct"`` (no potentials).
    descriptor : str
        Name of the descriptor.
    symmetry : str
        ``"full"`` point group or the subgroup that a ``"bias"`` leaves.
    time_reversal : str
        ``"broken"``: features may be odd under S -> -S, as the fields of a
        driven system ask for. ``"even"``: they are not.
    bias_reference : float
        Unit V_ref of the bias: the network sees u = V / V_ref.
    precision : str
        ``"float32"`` or ``"float64"``.
    electrode_range : float
        Length ℓ, in steps along x, over which a centre notices the electrodes
        at both ends: the network sees exp(-d/ℓ) of its distances d to them,
        which says nothing far away, so that a model serves longer lattices.
        Zero: the electrodes are felt through the spins alone.

    Raises
    ------
    HpcspinError
        If a name is unknown or a number impossible.
    """

    lattice: str
    radius: float
    hidden: tuple[int, ...]
    kind: str = "pair"
    descriptor: str = "bonds"
    symmetry: str = "bias"
    time_reversal: str = "broken"
    bias_reference: float = 1.0
    precision: str = "float32"
    electrode_range: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))
        for key, known in (
            ("lattice", LATTICES),
            ("kind", KINDS),
            ("descriptor", DESCRIPTORS),
            ("time_reversal", ("broken", "even")),
            ("precision", PRECISIONS),
        ):
            if getattr(self, key) not in known:
                raise HpcspinError(
                    f"potential.{key}: {getattr(self, key)!r} is unknown; choose one of {', '.join(sorted(known))}"
                )
        if self.radius < 1:
            raise HpcspinError(f"potential.radius: {self.radius} reaches no neighbour; give at least 1")
        if not self.bias_reference > 0:
            raise HpcspinError(f"potential.bias_reference: {self.bias_reference} is not positive")
        if self.electrode_range < 0:
            raise HpcspinError(
                f"potential.electrode_range: {self.electrode_range} is negative; give a length, or 0 for none"
            )
        if self.electrode_range and self.symmetry == "full":
            raise HpcspinError(
                "potential.electrode_range: electrodes single out the x direction; give symmetry: bias with it"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a JSON file holds them."""
        return {**asdict(self), "hidden": list(self.hidden)}


class ForceField(nn.Module):
    """A learned field, of the kind "pair" H_i = -∂E/∂S_i - S_i x ∂G/∂S_i.

    E = Σ_i ε(C_i) and G = u Σ_i χ(C_i) are sums over the real sites, C_i the
    spins within the cutoff radius and u the bias in its unit: without a bias G
    vanishes exactly. For the other kinds see their classes.

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
    """

    field_scale: Tensor
    envelope: Tensor | None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        geometry = make_lattice(architecture.lattice, (1, 1), (False, False))
        operations = symmetry_operations(geometry, architecture.symmetry)
        self.offsets = offsets_within(geometry, architecture.radius)
        even = architecture.time_reversal == "even"
        self.descriptor = DESCRIPTORS[architecture.descriptor](geometry, self.offsets, operations, even)
        self.kind = KINDS[architecture.kind](self.offsets, operations)
        inputs = 3 if architecture.electrode_range else 1
        self.network = Network(len(self.descriptor.parity), inputs, architecture.hidden, self.kind.outputs)
        self.register_buffer("field_scale", torch.ones(()))
        self.register_buffer("envelope", None)
        self.to(PRECISIONS[architecture.precision])

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network computes."""
        return PRECISIONS[self.architecture.precision]

    @property
    def reach(self) -> int:
        """Lattice steps from a centre to its farthest neighbour."""
        return reach_of(self.offsets)

    @property
    def halo(self) -> int:
        """Lattice steps from a site to the farthest spin that decides on the field there.

        Where the field derives from the energies of all centres around the
        site, each of which sees as far again, that is twice the reach.
        """
        return self.kind.reaches * self.reach

    def require(self, lattice: Lattice, where: str) -> None:
        """Check that the model was made for this kind of lattice, and finds its electrodes there.

        Parameters
        ----------
        lattice
            The lattice to be used with.
        where
            What the error names: a file, a config key.

        Raises
        ------
        HpcspinError
            If it was not.
        """
        if lattice.kind != self.architecture.lattice:
            raise HpcspinError(
                f"{where}: the model was trained on a {self.architecture.lattice} lattice, this one is "
                f"{lattice.kind}; train a model for it"
            )
        if self.architecture.electrode_range and lattice.periodic[0]:
            raise HpcspinError(
                f"{where}: the model measures the distance to electrodes at the ends of x, this lattice is periodic "
                "there; train one with electrode_range: 0"
            )

    def neighbourhood(self, lattice: Lattice) -> Neighbourhood:
        """Neighbour table of a whole lattice for this model's cutoff."""
        return Neighbourhood.of_lattice(lattice, self.offsets)

    def features(self, spins: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """Features of all centres of a batch, shape (batch * centres, features)."""
        tile = self._tile(spins, neighbourhood)
        gather = neighbourhood.gather(len(spins), tile, spins.device)
        described: Tensor = self.descriptor(gather.pull(self._source(spins), slice(-1)), tile)
        return described.T[: len(spins) * len(neighbourhood.table)]

    @property
    def has_envelope(self) -> bool:
        """Whether the model knows the range of its training data."""
        return self.envelope is not None

    @torch.inference_mode()
    def outside(self, spins: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """How far the surroundings of each centre lie outside all that the model was trained on.

        Spins and open edges are judged, each feature by itself; the bias is not.

        Parameters
        ----------
        spins, neighbourhood
            As in `forward`, for a model in evaluation mode with an `envelope`.

        Returns
        -------
        Tensor
            Largest excess of a feature over its envelope, in the unit in which
            the network sees that feature (its standard deviation); 0 inside;
            shape (batch, centres).
        """
        assert self.envelope is not None
        features = self.features(spins, neighbourhood)
        excess = torch.maximum(self.envelope[0] - features, features - self.envelope[1]) * self.network.scale
        largest = excess.amax(1)
        return torch.where(largest > _ROUNDING, largest, 0).view(len(spins), -1)

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, begun: Sequence[Part] = ()
    ) -> Prediction:
        """Fields on the outputs of a neighbourhood.

        In training mode the result can be differentiated by the weights. In
        evaluation mode it cannot, and its bits do not depend on the batch.

        Parameters
        ----------
        spins
            Shape (batch, rows, 3); a row of zeros is a missing site.
        neighbourhood
            Table for these rows.
        bias
            Bias V of each configuration, shape (batch,), in units of the hopping.
        begun
            What `begin` has made of the same arguments; it changes no bit.

        Returns
        -------
        Prediction
            In the precision of the model.

        Raises
        ------
        HpcspinError
            If the neighbourhood is a window with a narrower halo than the kind asks for.
        """
        if neighbourhood.reaches < self.kind.reaches:
            raise HpcspinError(f"window: its halo is too narrow for the kind {self.kind.name!r}; give it {self.halo}")
        batch, centres, tile = len(spins), len(neighbourhood.table), self._tile(spins, neighbourhood)
        rows, places = neighbourhood.outputs_of(batch, spins.device)
        with torch.enable_grad() if self.training else torch.inference_mode():
            done = sum(local.shape[-1] for local, _ in begun)
            parts = [*begun, *self._parts(spins, neighbourhood, bias, done)]
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
        """The part of `forward` that reads no spin outside the block of a window, for one configuration.

        Parameters
        ----------
        spins, neighbourhood, bias
            As in `forward`, for a model in evaluation mode.

        Returns
        -------
        list
            For `forward`.
        """
        tile = self._tile(spins, neighbourhood)
        return list(self._parts(spins, neighbourhood, bias, 0, neighbourhood.inner // tile * tile))

    def _tile(self, spins: Tensor, neighbourhood: Neighbourhood) -> int:
        return len(spins) * len(neighbourhood.table) if self.training else TILE[spins.device.type]

    def _source(self, spins: Tensor) -> Tensor:
        return with_zero(spins.detach().to(self.dtype).flatten(0, 1))

    def _inputs(self, u: Tensor, neighbourhood: Neighbourhood, batch: int, tile: int) -> Tensor:
        """What the network sees besides features, shape (inputs, centres): u, and the nearness of both electrodes."""
        if not self.architecture.electrode_range:
            return u
        distances = neighbourhood.distances_of(batch, tile, u.device).to(u.dtype)
        return torch.cat([u, torch.exp(-distances / self.architecture.electrode_range)])

    def _parts(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, first: int, last: int | None = None
    ) -> Iterator[Part]:
        """`_partials` of a range of centres, one group of tiles after the other."""
        batch, tile = len(spins), self._tile(spins, neighbourhood)
        u = (bias.to(self.dtype) / self.architecture.bias_reference).repeat_interleave(len(neighbourhood.table))
        u = functional.pad(u, (0, -len(u) % tile))[None]
        inputs = self._inputs(u, neighbourhood, batch, tile)
        gather, source = neighbourhood.gather(batch, tile, spins.device), self._source(spins)
        group = tile if self.training else tile * GROUP[spins.device.type]
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
