"""What a config says of the electrons and of how their steady state is solved."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.steady_state import SOLVERS
from hpcspin.lattice import SHAPES
from hpcspin.settings import Finite, Integer, NonNegative, Positive, Section, Vector


class ReservoirSettings(Section):
    """A wide-band reservoir of electrons."""

    name: str
    sites: Annotated[str, AfterValidator(SHAPES.check)] | tuple[tuple[Integer, Integer], ...]
    """``left`` (column 0), ``right`` (column Lx - 1), ``all``, another registered shape, or a list of sites [x, y]."""
    width: NonNegative
    """Level width g of a site; the width matrix is g(1 + p·sigma), the self-energy minus i times it."""
    potential: Finite
    """Chemical potential mu in units of the hopping."""
    polarization: Vector = (0.0, 0.0, 0.0)
    """Polarisation p of a magnetised electrode, |p| <= 1."""

    @model_validator(mode="after")
    def _positive(self) -> ReservoirSettings:
        if math.hypot(*self.polarization) > 1 + 1e-12:
            raise ValueError("polarization is longer than 1; the width matrix would not be positive")
        return self


class ElectronsSettings(Section):
    """The electrons of the s-d model and how their steady state is solved."""

    hopping: Positive = 1.0
    exchange: Finite = 3.8
    temperature: Positive = 0.01
    tolerance: Positive = DrivenLattice.tolerance
    """Largest error of a field component; a label that misses it is an error."""
    solver: Annotated[str, AfterValidator(SOLVERS.check)] = DrivenLattice.solver
    """``negf`` (recursive Green's functions, any size), ``closed_form`` (one dense eigenproblem), or another registered
    solver."""
    precision: Literal["complex128", "complex64"] = DrivenLattice.precision  # type: ignore[assignment]
    """Of the Green's functions between the potentials; what complex64 costs is measured and counted as error."""
    reservoirs: Annotated[tuple[ReservoirSettings, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique(self) -> ElectronsSettings:
        names = [reservoir.name for reservoir in self.reservoirs]
        if len(set(names)) != len(names):
            raise ValueError("two reservoirs carry the same name")
        return self
