"""The classical terms of the field that a config names under ``dynamics.classical``, registered by their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, create_model, model_validator

from hpcspin.dynamics.classical import Anisotropy, DzyaloshinskiiMoriya, Heisenberg, Slonczewski, Zeeman
from hpcspin.dynamics.fields import Field, is_field
from hpcspin.dynamics.waveforms import WAVEFORMS, make_waveform
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.registry import Choice, Registry
from hpcspin.settings import Finite, Section, Vector

TERMS: Registry[Callable[..., Field | Sequence[Field]]] = Registry("dynamics.classical", given=1)
"""Functions from a lattice and the value of their key, whose type they annotate, to one or more terms of the field."""


class DriveSettings(Choice):
    """A uniform field whose amplitude varies with time; the other keys are the parameters of its kind."""

    registry = WAVEFORMS
    kind: Annotated[str, AfterValidator(WAVEFORMS.check)]
    """``sinusoid`` (frequency, phase), ``pulse`` (centre, width: a Gaussian), ``sinc`` (centre, frequency)."""
    field: Vector
    """Field at amplitude 1."""


class ClassicalSettings(Section):
    """Classical terms added to the field: keys in `TERMS`; a value of zeros, or an empty one, adds nothing."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, cls):
            return given
        types: dict[str, Any] = {name: (TERMS.type_of(name), 0.0) for name in TERMS}
        values = create_model(cls.__name__, __base__=Section, **types).model_validate(given)
        return {name: value for name, value in values if not _is_zero(value)}

    def terms(self, lattice: Lattice) -> list[Field]:
        """The terms on a lattice, in the order in which their kinds were registered."""
        values, terms = self.model_extra or {}, list[Field]()
        for name, make in TERMS.items():
            if name in values:
                given = make(lattice, values[name])
                found = list(given) if isinstance(given, Sequence) else [given]
                if not all(map(is_field, found)):
                    raise HpcspinError(
                        f"dynamics.classical: {name}: its function gives no field; return an object with halo, (hx, "
                        "hy) or None, and bind"
                    )
                terms.extend(found)
        return terms


def _is_zero(value: Any) -> bool:
    return all(map(_is_zero, value)) if isinstance(value, tuple) else bool(value == 0)


@TERMS.adding("zeeman")
def zeeman(lattice: Lattice, field: Vector) -> Field:
    """Uniform external field."""
    return Zeeman(field)


@TERMS.adding("drives")
def drives(lattice: Lattice, drives: tuple[DriveSettings, ...]) -> list[Field]:
    """Uniform fields that vary with time."""
    return [Zeeman(drive.field, make_waveform(drive.kind, **drive.parameters)) for drive in drives]


@TERMS.adding("anisotropy")
def anisotropy(lattice: Lattice, constant: Finite) -> Field:
    """Single-ion anisotropy K of the energy -K (S·z)^2."""
    return Anisotropy(constant)


@TERMS.adding("heisenberg")
def heisenberg(lattice: Lattice, exchange: Finite | tuple[Finite, ...]) -> list[Field]:
    """Exchange J of the energy -J sum S_i·S_j over nearest neighbours, or [J_1, J_2, ...], one per shell."""
    shells = exchange if isinstance(exchange, tuple) else (exchange,)
    return [Heisenberg(value, lattice.shell(number)) for number, value in enumerate(shells, 1) if value]


@TERMS.adding("dmi_interfacial")
def dmi_interfacial(lattice: Lattice, strength: Finite) -> Field:
    """Dzyaloshinskii-Moriya D of the energy sum D_ij·(S_i x S_j), D_ij = D z x r_ij."""
    return DzyaloshinskiiMoriya.interfacial(lattice, strength)


@TERMS.adding("dmi_bulk")
def dmi_bulk(lattice: Lattice, strength: Finite) -> Field:
    """Dzyaloshinskii-Moriya D of the energy sum D_ij·(S_i x S_j), D_ij = D r_ij."""
    return DzyaloshinskiiMoriya.bulk(lattice, strength)


@TERMS.adding("slonczewski")
def slonczewski(lattice: Lattice, vector: Vector) -> Field:
    """Spin-transfer vector p: adds the torque -S x (S x p)."""
    return Slonczewski(vector)
