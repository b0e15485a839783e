"""Potentials of reservoirs as a force field sees them that has learned from many voltages."""

from __future__ import annotations

from collections.abc import Sequence

from hpcspin.errors import HpcspinError
from hpcspin.storage.agreement import Electrons, in_order_of, kinds_of_electrons

VOLTAGES = "electrons.reservoirs"
"""Key that allows voltages which a model that sees the potentials has not learned from."""


def voltages(reference: Electrons, given: Electrons, where: str) -> tuple[float, ...]:
    """Potential of each reservoir relative to that of the bath, the one on all sites, which is left out.

    Parameters
    ----------
    reference
        Electrons whose reservoirs give the order.
    given
        Electrons with the same reservoirs, matched by their sites, widths and polarisations.
    where
        What the error names: a file, a model.

    Raises
    ------
    HpcspinError
        If there is no bath, or more than one, or no other reservoir.
    """
    reservoirs = in_order_of(without_voltages(reference), given).get("reservoirs") or []
    baths = [entry["potential"] for entry in reservoirs if entry.get("sites") == "all"]
    others = [entry["potential"] for entry in reservoirs if entry.get("sites") != "all"]
    if len(baths) != 1 or not others:
        raise HpcspinError(
            f"{where}: potential.drive: potentials are those of the reservoirs relative to one bath on all sites; "
            f"these electrons have {len(baths)} such baths and {len(others)} other reservoirs: take drive: bias"
        )
    return tuple(potential - baths[0] for potential in others)


def without_voltages(electrons: Electrons) -> Electrons:
    """The same electrons with all reservoirs at potential 0: what has to agree where a model sees the potentials."""
    reservoirs = electrons.get("reservoirs")
    same = {} if reservoirs is None else {"reservoirs": [{**entry, "potential": 0.0} for entry in reservoirs]}
    return {**electrons, **same, "bias": 0.0}


def kinds_of_learned(electrons: Sequence[Electrons], potentials: bool) -> list[Electrons]:
    """Electrons in a model's card: those at all voltages if it sees the potentials, else as `kinds_of_electrons`."""
    if not potentials:
        return kinds_of_electrons(electrons)
    return [one for number, one in enumerate(electrons) if one not in electrons[:number]]


def voltages_outside(given: Electrons, learned: Sequence[Electrons], where: str) -> str:
    """Which voltages lie below or above all that a model has learned from, in words; empty where none does."""
    known = [voltages(learned[0], entry, where) for entry in learned]
    names = [entry.get("name", entry.get("sites")) for entry in learned[0]["reservoirs"] if entry.get("sites") != "all"]
    outside = [
        f"{value:g} of {name}, learned from {min(seen):g} to {max(seen):g}"
        for name, value, seen in zip(names, voltages(learned[0], given, where), zip(*known, strict=True), strict=True)
        if not min(seen) - 1e-6 <= value <= max(seen) + 1e-6
    ]
    return "; ".join(outside)
