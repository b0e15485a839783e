"""The classical terms that a config names."""

from __future__ import annotations

from hpcspin.config import ClassicalSection, DriveSection
from hpcspin.dynamics import Anisotropy, DzyaloshinskiiMoriya, Field, Heisenberg, Slonczewski, Zeeman, make_waveform
from hpcspin.lattice import Lattice


def classical_terms(section: ClassicalSection, lattice: Lattice) -> list[Field]:
    """Terms of ``dynamics.classical`` that are not zero.

    Raises
    ------
    HpcspinError
        If a drive is unknown or has parameters of another.
    """
    terms: list[Field] = []
    if any(section.zeeman):
        terms.append(Zeeman(section.zeeman))
    terms.extend(_drive(drive) for drive in section.drives)
    if section.anisotropy:
        terms.append(Anisotropy(section.anisotropy))
    shells = section.heisenberg if isinstance(section.heisenberg, tuple) else (section.heisenberg,)
    terms.extend(Heisenberg(exchange, lattice.shell(n)) for n, exchange in enumerate(shells, 1) if exchange)
    if section.dmi_interfacial:
        terms.append(DzyaloshinskiiMoriya.interfacial(lattice, section.dmi_interfacial))
    if section.dmi_bulk:
        terms.append(DzyaloshinskiiMoriya.bulk(lattice, section.dmi_bulk))
    if any(section.slonczewski):
        terms.append(Slonczewski(section.slonczewski))
    return terms


def _drive(section: DriveSection) -> Field:
    parameters = section.model_dump(exclude={"kind", "field"}, exclude_none=True)
    return Zeeman(section.field, make_waveform(section.kind, **parameters))
