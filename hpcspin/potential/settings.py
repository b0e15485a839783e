"""The section ``potential`` of a config: the kind of force field, and how it describes the spins around a site.

The ``kind`` of a force field determines its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from hpcspin.potential.descriptors import DESCRIPTORS
from hpcspin.registry import Registry
from hpcspin.settings import Count, NonNegative, Positive, Section

if TYPE_CHECKING:
    from hpcspin.potential.architecture import Architecture
    from hpcspin.potential.model import ForceField

_DEEPEST = 64
"""Most layers. This and the other upper limits are far beyond any use; a damaged or foreign card cannot ask for more
memory and time than there is before its weights are compared."""


class ForceFieldSettings(Section):
    """Base of the settings of all force fields; `FORCE_FIELDS` has the class of each kind."""

    kind: str
    radius: Annotated[Positive, Field(ge=1, le=20)] = 2.3
    """Cutoff radius R_c in lattice constants."""
    symmetry: Literal["full", "bias"] = "bias"
    """``full``: the point group of a site; ``bias``: the subgroup that a bias along x leaves (the y mirror)."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=_DEEPEST)] = (128, 128, 128, 128, 128)
    """Widths of the hidden layers of each network."""
    precision: Literal["float32", "float64"] = "float32"
    time_reversal: Literal["broken", "even", "driven"] = "broken"
    """``broken``: potentials may be odd under S -> -S, as the fields of a driven system require; ``even``: none is;
    ``driven``, for the kind ``direct``: a field without voltages changes its sign under S -> -S exactly, as in
    equilibrium, so that it exerts no damping-like torque; three evaluations instead of one."""
    electrode_range: NonNegative = 0.0
    """Length, in columns, of the inputs exp(-distance/length) for the electrodes at both ends of x; 0 for none."""

    @model_validator(mode="after")
    def _electrodes_along_x(self) -> ForceFieldSettings:
        if self.electrode_range and self.symmetry == "full":
            raise ValueError("electrode_range singles out the x direction; give symmetry: bias with it")
        return self

    def make(self, architecture: Architecture) -> ForceField:
        """A force field of these settings, with random weights."""
        raise NotImplementedError


class PotentialSettings(ForceFieldSettings):
    """Potentials of the spins within the cutoff radius, which a descriptor turns into invariants."""

    time_reversal: Literal["broken", "even"] = "broken"
    kind: Literal["pair", "conservative", "site"] = "pair"
    """``pair`` (E and G), ``conservative`` (E alone), ``site`` (a pair for each site)."""
    descriptor: Annotated[str, AfterValidator(DESCRIPTORS.check)] = "bonds"
    """``bonds`` (bonds and chiralities, as in the paper), ``bispectrum`` (their invariants of third order, for a full
    point group), ``densities`` (spin densities with learned kernels)."""

    def make(self, architecture: Architecture) -> ForceField:
        """See `ForceFieldSettings`."""
        from hpcspin.potential.potentials import PotentialField

        return PotentialField(architecture)


class MessagePassingSettings(ForceFieldSettings):
    """A field, or potentials, by message passing: sites exchange vectors in several layers."""

    kind: Literal["direct", "pair", "conservative"] = "direct"
    """``direct`` (a covariant field, no potentials), ``pair`` (E and G), ``conservative`` (E alone)."""
    layers: Annotated[tuple[Annotated[Count, Field(le=1024)], ...], Field(min_length=1, max_length=_DEEPEST)] = (1,)
    """Dilation along x, from electrode to electrode, of each message-passing layer; each has the same ``radius``."""
    channels: Annotated[Count, Field(ge=3, le=1024)] = 12
    """Number of vectors that sites exchange; those of scalars, densities and products are in proportion."""
    drive: Literal["bias", "potentials", "polarized", "chemical_potential"] = "bias"
    """Voltages that the network takes as input: ``bias``, the largest difference of the reservoirs' potentials;
    ``potentials``, the potential of each reservoir, signed and relative to the bath's; or ``polarized``, these and the
    polarisations of the electrodes at both ends of x, as frozen spins beyond them. With ``chemical_potential``, for the
    kind ``conservative`` and closed electrons, E is a grand potential; at a given filling the chemical potential of the
    whole lattice follows from it."""

    @model_validator(mode="after")
    def _dilated_along_x(self) -> MessagePassingSettings:
        if max(self.layers) > 1 and self.symmetry == "full":
            raise ValueError(
                f"layers {list(self.layers)} single out the x direction; give symmetry: bias, or layers: "
                f"{[1] * len(self.layers)}"
            )
        return self

    @model_validator(mode="after")
    def _driven_without_potentials(self) -> MessagePassingSettings:
        if self.time_reversal == "driven" and self.kind != "direct":
            raise ValueError(f"time_reversal: driven is that of kind: direct; give even or broken for {self.kind}")
        return self

    @model_validator(mode="after")
    def _energy_of_a_chemical_potential(self) -> MessagePassingSettings:
        if self.drive == "chemical_potential" and self.kind != "conservative":
            raise ValueError(
                f"drive: chemical_potential is that of an energy; give kind: conservative, not {self.kind}"
            )
        return self

    def make(self, architecture: Architecture) -> ForceField:
        """See `ForceFieldSettings`."""
        from hpcspin.potential.layered_potentials import LayeredPotentials
        from hpcspin.potential.message_passing import CovariantField

        return (CovariantField if self.kind == "direct" else LayeredPotentials)(architecture)


FORCE_FIELDS: Registry[type[ForceFieldSettings]] = Registry("potential.kind")
for _kind in ("pair", "conservative", "site"):
    FORCE_FIELDS.add(_kind, PotentialSettings)
FORCE_FIELDS.add("direct", MessagePassingSettings)


class _Kind(Section):
    kind: Annotated[str, AfterValidator(FORCE_FIELDS.check)]


def _of_its_kind(given: Any) -> Any:
    """Validate a section by the keys of its kind; with ``layers``, potentials are those of message passing."""
    if not isinstance(given, Mapping):
        return given
    chosen = FORCE_FIELDS[_Kind.model_validate({"kind": given.get("kind", "pair")}).kind]
    if chosen is PotentialSettings and "layers" in given:
        chosen = MessagePassingSettings
    return chosen.model_validate({"kind": "pair", **given})


PotentialSection = SerializeAsAny[Annotated[ForceFieldSettings, BeforeValidator(_of_its_kind)]]
"""The section ``potential``: a union of settings by their kind."""
