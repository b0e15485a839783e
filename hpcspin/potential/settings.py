"""The section ``potential`` of a config: what is learned, and how the spins around a site are described to it.

What a force field is asked to be, its ``kind``, decides which keys it has.
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


class ForceFieldSettings(Section):
    """Base of the settings of all force fields; one class a kind, registered in `FORCE_FIELDS`."""

    kind: str
    radius: Annotated[Positive, Field(ge=1)] = 2.3
    """Cutoff radius R_c in lattice constants."""
    symmetry: Literal["full", "bias"] = "bias"
    """``full`` point group of a site, or the subgroup that a bias along x leaves (the y mirror)."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 128, 128, 128, 128)
    """Widths of the hidden layers of each network."""
    precision: Literal["float32", "float64"] = "float32"
    time_reversal: Literal["broken", "even"] = "broken"
    """``broken``: potentials may be odd under S -> -S, as the fields of a driven system ask for; ``even``: none is."""
    electrode_range: NonNegative = 0.0
    """Length in columns over which the network sees the electrodes at both ends of x, exp(-distance/length); 0: not."""

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

    kind: Literal["pair", "conservative", "site"] = "pair"
    """``pair`` (E and G), ``conservative`` (E alone), ``site`` (a pair of each site)."""
    descriptor: Annotated[str, AfterValidator(DESCRIPTORS.check)] = "bonds"
    """``bonds`` (bonds and chiralities, the paper's), ``bispectrum`` (their invariants of third order, for a full
    point group), ``densities`` (spin densities with learned kernels)."""

    def make(self, architecture: Architecture) -> ForceField:
        """See `ForceFieldSettings`."""
        from hpcspin.potential.potentials import PotentialField

        return PotentialField(architecture)


class MessagePassingSettings(ForceFieldSettings):
    """A field, or potentials, of sites that exchange vectors layer after layer."""

    kind: Literal["direct", "pair", "conservative"] = "direct"
    """``direct`` (a covariant field, no potentials), ``pair`` (E and G), ``conservative`` (E alone)."""
    layers: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    """Dilation along x, from electrode to electrode, of each message-passing layer of this radius."""
    channels: Annotated[Count, Field(ge=3)] = 12
    """Vectors that sites exchange; scalars, densities and products are in proportion."""
    drive: Literal["bias", "potentials", "polarized", "chemical_potential"] = "bias"
    """What the network sees of the voltages: the ``bias``, the largest difference of the reservoirs' potentials, or the
    ``potentials``, of each reservoir its own, signed and relative to the bath's; ``polarized``: these, and the
    polarisations of the electrodes at both ends of x, as frozen spins beyond them. ``chemical_potential``, for the kind
    ``conservative`` and closed electrons: E is a grand potential, and at a filling the chemical potential follows from
    it and is that of all spins."""

    @model_validator(mode="after")
    def _dilated_along_x(self) -> MessagePassingSettings:
        if max(self.layers) > 1 and self.symmetry == "full":
            raise ValueError(
                f"layers {list(self.layers)} single out the x direction; give symmetry: bias, or layers: "
                f"{[1] * len(self.layers)}"
            )
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
    """Validate a section by the keys of its kind; ``layers`` make potentials those of message passing."""
    if not isinstance(given, Mapping):
        return given
    chosen = FORCE_FIELDS[_Kind.model_validate({"kind": given.get("kind", "pair")}).kind]
    if chosen is PotentialSettings and "layers" in given:
        chosen = MessagePassingSettings
    return chosen.model_validate({"kind": "pair", **given})


PotentialSection = SerializeAsAny[Annotated[ForceFieldSettings, BeforeValidator(_of_its_kind)]]
"""The section ``potential``: a union of settings by their kind."""
