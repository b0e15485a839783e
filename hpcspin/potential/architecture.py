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


class _Given(Section):
    potential: PotentialSection
    bias_reference: Positive
    drives: Annotated[Count, Field(le=1024)]


@dataclass(init=False)
class Architecture:
    """Everything that defines a force field except its weights.

    ``radius``, ``hidden`` and all further arguments are keys of the section ``potential`` of a config. Raises
    HpcspinError if a name is unknown or a value invalid.
    """

    lattice: str
    """Kind of lattice."""
    settings: ForceFieldSettings
    """Settings of this kind of force field."""
    bias_reference: float
    """Unit V_ref of the voltages: the network sees u = V / V_ref."""
    drives: int
    """Number of voltages of a system: one, the bias, or one for each reservoir other than the bath."""
    grand_potential: GrandPotential | None
    """Reference values of the polynomials with ``drive: chemical_potential``; None with any other drive."""

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
        described = {"radius": radius, "hidden": hidden, **settings}
        try:
            given = _Given.model_validate({"potential": described, "bias_reference": bias_reference, "drives": drives})
        except ValidationError as failure:
            raise HpcspinError(first_mistake(failure).message) from failure
        if lattice not in LATTICES:
            raise HpcspinError(
                f"potential.lattice: {lattice!r} is unknown; choose one of {', '.join(sorted(LATTICES))}"
            )
        self.lattice, self.settings = lattice, given.potential
        self.bias_reference, self.drives = given.bias_reference, given.drives
        self.grand_potential = GrandPotential(*grand_potential) if self.drive == "chemical_potential" else None
        if drives > 1 and self.drive == "bias":
            raise HpcspinError(f"potential.drives: drive: bias does not allow {drives} voltages")
        # The mirror symmetry that remains under a bias along x must commute with a dilation along x.
        if max(self.layers) > 1 and make_lattice(lattice, (1, 1), (False, False)).mirror_y[1, 0] != 0:
            raise HpcspinError(
                f"potential.layers: {list(self.layers)} single out the x direction; that is for a lattice whose "
                f"mirror turns y into -y, such as the square one, others take {[1] * len(self.layers)}"
            )

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
