"""Inputs of a force field for the electrons beyond the bias: potentials of the reservoirs, or a chemical potential.

``potential.drive`` selects them: ``bias``, ``potentials``, ``polarized`` (potentials and polarisations) or, for closed
electrons, ``chemical_potential``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from hpcspin.errors import HpcspinError
from hpcspin.storage.agreement import (
    ENDS,
    Differences,
    Electrons,
    describe_differences,
    electron_differences,
    in_order_of,
    kinds_of_electrons,
)

POLARIZATIONS = 6
"""Number of entries of a drive with polarisations that are not voltages but the components of both polarisations."""


def voltages(reference: Electrons, given: Electrons, where: str, drive: str = "potentials") -> tuple[float, ...]:
    """Potential of each reservoir relative to that of the bath, the reservoir on all sites, which is left out.

    With ``polarized`` the polarisations of the electrodes at both ends of x follow, six numbers. The reservoirs are in
    the order of ``reference``, to which they are matched by their sites, widths and polarisations. Raises HpcspinError,
    which names ``where``, if there is not exactly one bath, no other reservoir, or one of the reference is missing.
    """
    reservoirs = in_order_of(without_drive(reference, drive), given).get("reservoirs") or []
    baths = [entry["potential"] for entry in reservoirs if entry.get("sites") == "all"]
    others = [entry["potential"] for entry in reservoirs if entry.get("sites") != "all"]
    if len(baths) != 1 or not others:
        raise HpcspinError(
            f"{where}: potential.drive: potentials are those of the reservoirs relative to one bath on all sites; "
            f"these electrons have {len(baths)} such baths and {len(others)} other reservoirs: take drive: bias"
        )
    wanted = sum(entry.get("sites") != "all" for entry in reference.get("reservoirs") or [])
    if len(others) != wanted:
        raise HpcspinError(
            f"{where}: potential.drive: potentials are those of {wanted} reservoirs besides the bath; these electrons "
            f"have {len(others)} of them: add the missing ones"
        )
    ends = [value for side in ENDS for value in _polarization(reservoirs, side, where)] if drive == "polarized" else []
    return (*(potential - baths[0] for potential in others), *ends)


def chemical_potential(electrons: Electrons, where: str) -> tuple[float, float]:
    """Chemical potential and electrons per site of closed electrons, NaN for the one that is not fixed."""
    fixed = [electrons.get(key) for key in ("potential", "filling")]
    if electrons.get("reservoirs") or fixed.count(None) != 1:
        raise HpcspinError(
            f"{where}: potential.drive: chemical_potential is for closed electrons, with either electrons.potential or "
            "electrons.filling, and without reservoirs; take drive: bias"
        )
    potential, filling = (math.nan if value is None else float(value) for value in fixed)
    return potential, filling


def _polarization(reservoirs: Sequence[dict[str, Any]], side: str, where: str) -> tuple[float, ...]:
    """Mean polarisation of the reservoirs at one end of x, weighted by their widths.

    Reservoirs at the same potential, or of the same polarisation, act as one of this mean; others are refused.
    """
    there = [one for one in reservoirs if one.get("sites") == side and one.get("width", 1.0)]
    vectors = [tuple(one.get("polarization") or (0.0, 0.0, 0.0)) for one in there]
    if len(set(vectors)) > 1 and len({one["potential"] for one in there}) > 1:
        raise HpcspinError(
            f"{where}: potential.drive: polarized sees the mean polarisation of the electrodes {side}, which have "
            "different polarisations at different potentials: give them one of both"
        )
    total = sum(one.get("width", 1.0) for one in there) or 1.0
    return tuple(
        sum(one.get("width", 1.0) * vector[axis] for one, vector in zip(there, vectors, strict=True)) / total
        for axis in range(3)
    )


def without_drive(electrons: Electrons, drive: str) -> Electrons:
    """The same electrons without the inputs of a model; what remains must agree with the model's labels.

    Potentials that are inputs, all but the bath's, are set to 0, and so are the polarisations of both electrodes.
    """
    if drive == "bias":
        return electrons
    if drive == "chemical_potential":
        return {key: value for key, value in electrons.items() if key not in ("potential", "filling")}

    def blank(entry: dict[str, Any]) -> dict[str, Any]:
        seen = drive == "polarized" and entry.get("sites") in ENDS
        potential = entry["potential"] if entry.get("sites") == "all" else 0.0
        return {**entry, "potential": potential, **({"polarization": [0.0, 0.0, 0.0]} if seen else {})}

    reservoirs = electrons.get("reservoirs")
    same = {} if reservoirs is None else {"reservoirs": [blank(entry) for entry in reservoirs]}
    return {**electrons, **same, "bias": 0.0}


def unseen_differences(
    learned: Sequence[Electrons], given: Electrons, drive: str, allow: Collection[str] = (), *, joined: bool = False
) -> Differences:
    """`electron_differences` in the properties of the reservoirs that are not inputs of a model."""
    rest = [without_drive(one, drive) for one in learned]
    return electron_differences(rest, without_drive(given, drive), allow, joined=joined)


def require_learned(
    learned: Sequence[Electrons],
    given: Electrons,
    drive: str,
    allow: Collection[str],
    names: tuple[str, str],
    *,
    in_config: bool = True,
) -> None:
    """Refuse a model for electrons that differ in more than its inputs, or that are driven beyond its training data.

    The error names the model, the electrons, the keys with both values, and how to allow them in a config or a call.
    """
    model, where = names

    def refusal(reason: str, keys: Collection[str]) -> HpcspinError:
        way = f"dynamics.allow=[{', '.join(keys)}]" if in_config else f"allow={list(keys)}"
        correct = "correct the config, take" if in_config else "take"
        return HpcspinError(f"{model}: {reason}; {correct} another model, or give {way}")

    if differences := unseen_differences(learned, given, drive, allow):
        described = describe_differences(differences)
        raise refusal(
            f"has learned from labels of other electrons than those of {where}, and has no input for them: {described}",
            differences,
        )
    outside = voltages_outside(given, learned, where, drive) if drive != "bias" else ""
    key = "electrons.filling" if drive == "chemical_potential" else "electrons.reservoirs"
    if outside and key not in allow:
        raise refusal(f"what drives the electrons of {where} lies outside what it has learned from: {outside}", [key])


def kinds_of_learned(electrons: Sequence[Electrons], drive: str) -> list[Electrons]:
    """Electrons for a model's card: those of `kinds_of_electrons`, or, if potentials are inputs, all that differ.

    Of electrons that differ only in voltages and polarisations, those that extend the range of the earlier ones.
    """
    if drive == "bias":
        return kinds_of_electrons(electrons)
    kinds: list[Electrons] = []
    for one in electrons:
        rest = without_drive(one, drive)
        alike = [kind for kind in kinds if without_drive(kind, drive) == rest] if drive != "chemical_potential" else []
        if one not in kinds and not (alike and not voltages_outside(one, alike, "the labels", drive)):
            kinds.append(one)
    return kinds


def voltages_outside(given: Electrons, learned: Sequence[Electrons], where: str, drive: str = "potentials") -> str:
    """Phrase that names the parts of the drive outside the range of a model's training data; empty if there are none.

    Polarisations, which rotate with the spins, lie outside if they are longer than all of that electrode. Fillings are
    compared with fillings, chemical potentials with chemical potentials.
    """
    if drive == "chemical_potential":
        return _outside_fixed(given, learned, where)
    ranges = [voltages(learned[0], entry, where) for entry in learned]
    names = [entry.get("name", entry.get("sites")) for entry in learned[0]["reservoirs"] if entry.get("sites") != "all"]
    outside = [
        f"{value:g} of {name}, learned from {min(seen) + 0.0:g} to {max(seen) + 0.0:g}"  # + 0.0, as -0.0 prints as -0.
        for name, value, seen in zip(names, voltages(learned[0], given, where), zip(*ranges, strict=True), strict=True)
        if not min(seen) - 1e-6 <= value <= max(seen) + 1e-6
    ]
    if drive == "polarized":
        for side in ENDS:
            length, longest = (
                max(math.hypot(*_polarization(one.get("reservoirs") or [], side, where)) for one in several)
                for several in ([given], learned)
            )
            if length > longest + 1e-6:
                outside.append(f"a polarisation of {length:g} of {side}, learned from up to {longest:g}")
    return "; ".join(outside)


def _outside_fixed(given: Electrons, learned: Sequence[Electrons], where: str) -> str:
    for name, value, *seen in zip(
        ("a chemical potential", "a filling"),
        chemical_potential(given, where),
        *(chemical_potential(entry, where) for entry in learned),
        strict=True,
    ):
        numbers = [number for number in seen if not math.isnan(number)]
        if numbers and not math.isnan(value) and not min(numbers) - 1e-6 <= value <= max(numbers) + 1e-6:
            return f"{name} of {value:g}, learned from {min(numbers):g} to {max(numbers):g}"
    return ""
