"""What defines a force field but its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, make_lattice
from hpcspin.potential.descriptors import DESCRIPTORS
from hpcspin.potential.kinds import KINDS

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


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
    layers : tuple of int
        Of a field of ``"densities"`` that is not of kind ``"site"``: a number
        for each layer of neighbourhoods, one seen through the other, by which
        its offsets are stretched along x. See `CovariantField` and
        `LayeredPotentials`. One layer, ``(1,)``, for all other fields.
    channels : int
        Of a field of several layers: vectors that its sites exchange. What else a layer makes is in proportion.

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
    layers: tuple[int, ...] = (1,)
    channels: int = 12

    def __post_init__(self) -> None:
        for key in ("hidden", "layers"):
            object.__setattr__(self, key, tuple(int(number) for number in getattr(self, key)))
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
        self._check_layers()

    def _check_layers(self) -> None:
        layers = list(self.layers)
        if not layers or min(layers) < 1:
            raise HpcspinError(f"potential.layers: {layers} stretch nothing; give a number from 1 on for each layer")
        if self.channels < 3:
            raise HpcspinError(f"potential.channels: {self.channels} vectors are too few; give at least 3")
        if layers == [1]:
            return
        if len(layers) == 1:
            raise HpcspinError(f"potential.layers: {layers} is one layer, which is not stretched; give [1]")
        if self.kind == "site" or (self.descriptor, self.time_reversal) != ("densities", "broken"):
            raise HpcspinError(
                f"potential.layers: {len(layers)} layers are for kind: conservative, direct or pair, descriptor: "
                "densities and time_reversal: broken; give these, or layers: [1]"
            )
        if max(layers) > 1 and not (self.symmetry == "bias" and self._mirrors_along_y()):
            raise HpcspinError(
                f"potential.layers: {layers} single out the x direction; that is for symmetry: bias on a lattice whose "
                f"mirror turns y into -y, such as the square one, others take {[1] * len(layers)}"
            )

    def _mirrors_along_y(self) -> bool:
        """Whether the mirror that a bias along x leaves commutes with a stretch along x."""
        return bool(make_lattice(self.lattice, (1, 1), (False, False)).mirror_y[1, 0] == 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a JSON file holds them."""
        return json.loads(json.dumps(asdict(self)))
