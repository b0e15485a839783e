"""The architecture of a force field: everything that defines it except its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, make_lattice
from hpcspin.potential.grand import GrandPotential
from hpcspin.potential.settings import ForceFieldSettings, PotentialSection
from hpcspin.settings import Count, Positive, Section, first_mistake

if TYPE_CHECKING:
    from hpcspin.potential.model import ForceField


class _Config(Section):
    potential: PotentialSection


class _Units(Section):
    bias_reference: Positive
    drives: Annotated[Count, Field(le=1024)]


@dataclass(frozen=True, init=False)
class Architecture:
    """Everything that defines a force field except its weights.

    Parameters
    ----------
    lattice
        Kind of lattice.
    radius, hidden
        See `ForceFieldSettings`.
    bias_reference
        Unit V_ref of the voltages: the network sees u = V / V_ref.
    drives
        Number of voltages of a system: one, the bias, or one for each reservoir other than the bath.
    grand_potential
        Values of `GrandPotential`, used with ``drive: chemical_potential``.
    **settings
        Further keys of the section ``potential`` of a config.

    Attributes
    ----------
    settings : ForceFieldSettings
        Settings of this kind of force field.

    Raises
    ------
    HpcspinError
        If a name is unknown or a value invalid.
    """

    lattice: str
    settings: ForceFieldSettings
    bias_reference: float
    drives: int
    grand_potential: GrandPotential | None

    def __init__(
        self,
        lattice: str,
        radius: float,
        hidden: tuple[int, ...],
        bias_reference: float = 1.0,
        drives: int = 1,
        grand_potential: Sequence[float] = GrandPotential(),
        **settings: Any,
    ) -> None:
        given = {"potential": {"radius": radius, "hidden": hidden, **settings}}
        try:
            section = _Config.model_validate(given).potential
            units = _Units.model_validate({"bias_reference": bias_reference, "drives": drives})
        except ValidationError as failure:
            raise HpcspinError(first_mistake(failure).message) from failure
        if lattice not in LATTICES:
            raise HpcspinError(
                f"potential.lattice: {lattice!r} is unknown; choose one of {', '.join(sorted(LATTICES))}"
            )
        drive = getattr(section, "drive", "bias")
        if drives > 1 and drive == "bias":
            raise HpcspinError(f"potential.drives: drive: {drive} does not allow {drives} voltages")
        dilations = getattr(section, "layers", (1,))
        # The mirror symmetry that remains under a bias along x must commute with a dilation along x.
        if max(dilations) > 1 and make_lattice(lattice, (1, 1), (False, False)).mirror_y[1, 0] != 0:
            raise HpcspinError(
                f"potential.layers: {list(dilations)} single out the x direction; that is for a lattice whose "
                f"mirror turns y into -y, such as the square one, others take {[1] * len(dilations)}"
            )
        values = {"lattice": lattice, "settings": section, **dict(units)}
        values["grand_potential"] = GrandPotential(*grand_potential) if drive == "chemical_potential" else None
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def changed(self, **changes: Any) -> Architecture:
        """A copy with other values of some keys."""
        return Architecture(**{**self.as_dict(), **changes})

    @property
    def layers(self) -> tuple[int, ...]:
        """Dilation of each message-passing layer; ``(1,)`` for potentials of a descriptor."""
        return getattr(self.settings, "layers", (1,))

    @property
    def drive(self) -> str:
        """Voltages or chemical potential that the force field takes as input; see `MessagePassingSettings`."""
        return getattr(self.settings, "drive", "bias")

    def as_dict(self) -> dict[str, Any]:
        """The architecture as plain values for a JSON file."""
        settings = self.settings.model_dump(mode="json")
        drives = {"drives": self.drives} if self.drive != "bias" else {}
        grand = {"grand_potential": list(self.grand_potential)} if self.grand_potential else {}
        return {"lattice": self.lattice, "bias_reference": self.bias_reference, **drives, **grand, **settings}


def make_force_field(architecture: Architecture) -> ForceField:
    """Create the force field of an architecture, with random weights."""
    return architecture.settings.make(architecture)
