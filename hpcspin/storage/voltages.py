"""What a force field sees of the reservoirs beside the bias: the potential of each, and the electrodes' polarisations.

Its ``potential.drive`` says how much of it: ``bias``, ``potentials`` or ``polarized``, potentials and polarisations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hpcspin.errors import HpcspinError
from hpcspin.storage.agreement import Electrons, in_order_of, kinds_of_electrons

VOLTAGES = "electrons.reservoirs"
"""Key that allows voltages which a model that sees the potentials has not learned from."""


POLARIZATIONS = 6
"""Numbers of a drive that are no voltages but the components of both polarisations, where it has these."""
_ENDS = ("left", "right")
"""Shapes of the electrodes whose polarisations a force field can see."""


def voltages(reference: Electrons, given: Electrons, where: str, drive: str = "potentials") -> tuple[float, ...]:
    """Potential of each reservoir relative to that of the bath, the one on all sites, which is left out.

    With ``polarized`` the polarisations of the electrodes at the left and at the right end of x follow, six numbers.

    Parameters
    ----------
    reference
        Electrons whose reservoirs give the order.
    given
        Electrons with the same reservoirs, matched by their sites, widths and polarisations.
    where
        What the error names: a file, a model.
    drive
        What the model sees.

    Raises
    ------
    HpcspinError
        If there is no bath, or more than one, or no other reservoir.
    """
    reservoirs = in_order_of(without_drive(reference, drive), given).get("reservoirs") or []
    baths = [entry["potential"] for entry in reservoirs if entry.get("sites") == "all"]
    others = [entry["potential"] for entry in reservoirs if entry.get("sites") != "all"]
    if len(baths) != 1 or not others:
        raise HpcspinError(
            f"{where}: potential.drive: potentials are those of the reservoirs relative to one bath on all sites; "
            f"these electrons have {len(baths)} such baths and {len(others)} other reservoirs: take drive: bias"
        )
    ends = [value for side in _ENDS for value in _polarization(reservoirs, side)] if drive == "polarized" else []
    return (*(potential - baths[0] for potential in others), *ends)


def _polarization(reservoirs: Sequence[dict[str, Any]], side: str) -> tuple[float, ...]:
    """Mean over the reservoirs on one end of x, weighted with their widths."""
    there = [one for one in reservoirs if one.get("sites") == side]
    total = sum(one.get("width", 1.0) for one in there) or 1.0
    return tuple(
        sum(one.get("width", 1.0) * one.get("polarization", (0.0, 0.0, 0.0))[axis] for one in there) / total
        for axis in range(3)
    )


def without_drive(electrons: Electrons, drive: str) -> Electrons:
    """The same electrons without what a model sees of the reservoirs: what is left has to agree with its labels.

    All potentials but the bath's are 0 where it sees them, and so are the polarisations of both electrodes.
    """
    if drive == "bias":
        return electrons

    def blank(entry: dict[str, Any]) -> dict[str, Any]:
        seen = drive == "polarized" and entry.get("sites") in _ENDS
        potential = entry["potential"] if entry.get("sites") == "all" else 0.0
        return {**entry, "potential": potential, **({"polarization": [0.0, 0.0, 0.0]} if seen else {})}

    reservoirs = electrons.get("reservoirs")
    same = {} if reservoirs is None else {"reservoirs": [blank(entry) for entry in reservoirs]}
    return {**electrons, **same, "bias": 0.0}


def kinds_of_learned(electrons: Sequence[Electrons], potentials: bool) -> list[Electrons]:
    """Electrons in a model's card: those at all voltages if it sees the potentials, else as `kinds_of_electrons`."""
    if not potentials:
        return kinds_of_electrons(electrons)
    return [one for number, one in enumerate(electrons) if one not in electrons[:number]]


def voltages_outside(given: Electrons, learned: Sequence[Electrons], where: str, drive: str = "potentials") -> str:
    """Which voltages lie below or above all that a model has learned from, in words; empty where none does.

    Polarisations, which turn with the spins, lie outside where they are longer than all of that electrode.
    """
    known = [voltages(learned[0], entry, where) for entry in learned]
    names = [entry.get("name", entry.get("sites")) for entry in learned[0]["reservoirs"] if entry.get("sites") != "all"]
    outside = [
        f"{value:g} of {name}, learned from {min(seen):g} to {max(seen):g}"
        for name, value, seen in zip(names, voltages(learned[0], given, where), zip(*known, strict=True), strict=True)
        if not min(seen) - 1e-6 <= value <= max(seen) + 1e-6
    ]
    if drive == "polarized":
        for side in _ENDS:
            length, longest = (
                max(math.hypot(*_polarization(one.get("reservoirs") or [], side)) for one in several)
                for several in ([given], learned)
            )
            if length > longest + 1e-6:
                outside.append(f"a polarisation of {length:g} of {side}, learned from up to {longest:g}")
    return "; ".join(outside)
