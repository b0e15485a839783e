"""Which keys of two configs differ, and whether labels, models and systems have the same electrons for a force field.

A force field sees the spins and one number of the electrons, the bias: the largest minus the smallest potential of
the reservoirs. Exchange, hopping, temperature, the reservoirs' sites, widths and polarisations, and each single
potential it does not see: they have to be the same wherever it is used. The bands do not move with the potentials, so
(-3.2, 0, 0) and (1.6, -1.6, 0) are two systems of one bias.

Potentials follow from the bias V where they are mu + V v with one mu for all reservoirs. Labels of two biases tell mu
and the vector v; of labels of a single bias mu is taken as 0, so that the potentials are in proportion to the bias.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hpcspin.errors import HpcspinError

Electrons = dict[str, Any]
"""``bias`` and what the section ``electrons`` of a config says of the system. Electrons that nothing is known about
have a ``bias`` alone."""
Differences = dict[str, tuple[Any, Any]]
"""Dotted key of the config to the pair (known value, given value)."""

NUMERICS = frozenset({"solver", "tolerance", "precision"})
"""Keys of the section ``electrons`` that say how the steady state is computed, and nothing about the system."""
_CLOSE = 1e-6
_ABSENT = "absent"


def config_differences(
    stored: Mapping[str, Any], given: Mapping[str, Any], ignore: Collection[str] = ()
) -> Differences:
    """List the keys in which two nested configurations differ.

    Parameters
    ----------
    stored, given
        Nested mappings of JSON values; lists of mappings are compared entry by entry.
    ignore
        Dotted keys that may differ; a section's name covers the section.

    Returns
    -------
    dict
        Dotted key to the pair (stored value, given value).
    """
    left, right = _flatten(stored), _flatten(given)
    pairs = {key: (left.get(key, _ABSENT), right.get(key, _ABSENT)) for key in sorted(left.keys() | right.keys())}
    return _without({key: pair for key, pair in pairs.items() if pair[0] != pair[1]}, ignore)


def describe_differences(differences: Differences) -> str:
    """Put differing keys in one phrase: ``key (stored -> given), ...``."""
    return ", ".join(f"{key} ({stored} -> {given})" for key, (stored, given) in differences.items())


def electrons_of(config: Any, where: str) -> Electrons | None:
    """Electrons of a config, as files store it.

    Parameters
    ----------
    config
        The stored config; it may be incomplete, and keys that it lacks agree with everything.
    where
        What the error names: the file.

    Returns
    -------
    dict or None
        None where it says nothing about them.

    Raises
    ------
    HpcspinError
        If the section is not one of electrons.
    """
    try:
        section = (config or {}).get("electrons")
        if section is None:
            return None
        size = (config.get("lattice") or {}).get("size")
        reservoirs = [_reservoir(entry, size) for entry in section.get("reservoirs") or ()]
        potentials = [entry["potential"] for entry in reservoirs] or [0.0]
        system = {key: value for key, value in section.items() if key not in NUMERICS}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise HpcspinError(
            f"{where}: the attribute config is none of hpcspin ({type(error).__name__} in the electrons); "
            "label the spins again, or delete the attribute"
        ) from error
    return {**system, "reservoirs": reservoirs, "bias": max(potentials) - min(potentials)}


def require_spin_rotations(electrons: Electrons | None, where: str) -> None:
    """Refuse electrons whose fields do not turn with the spins, as those of force fields do.

    Raises
    ------
    HpcspinError
        If they have Rashba coupling.
    """
    if electrons is not None and electrons.get("rashba"):
        raise HpcspinError(
            f"{where}: electrons.rashba {electrons['rashba']:g} ties the spins to the lattice, and force fields turn "
            "with the spins; they cannot learn such labels, nor stand for such electrons: leave rashba out"
        )


def stored_electrons(content: Any, where: str) -> list[Electrons] | None:
    """Electrons in the card of a model, checked; None where the card does not say which.

    Raises
    ------
    HpcspinError
        If they are not what `kinds_of_electrons` gives.
    """
    if content is None:
        return None
    try:
        found = [
            {**entry, "bias": float(entry["bias"])}
            | ({"reservoirs": [_reservoir(one, None) for one in entry["reservoirs"]]} if "reservoirs" in entry else {})
            for entry in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HpcspinError(f"{where}: its electrons are not in order; copy the model again, or train it") from error
    if not found:
        raise HpcspinError(f"{where}: its list of electrons is empty; copy the model again, or train it")
    return found


def electron_differences(known: Sequence[Electrons], given: Electrons, allow: Collection[str] = ()) -> Differences:
    """In what electrons differ from known ones, at their own bias.

    Parameters
    ----------
    known
        What a model has learned from; at least one.
    given
        What it meets.
    allow
        Dotted keys that may differ; a section's name covers the section.

    Returns
    -------
    dict
        Empty if they agree with some of the known ones but for the bias.
    """
    return min((_without(_differences(group, given), allow) for group in _groups(known)), key=len)


def joined_differences(known: Sequence[Electrons], given: Electrons, allow: Collection[str] = ()) -> Differences:
    """The same where both are learned from: the given ones may then tell how the potentials follow from the bias."""
    return min((_without(_differences(group, given, joined=True), allow) for group in _groups(known)), key=len)


def kinds_of_electrons(found: Sequence[Electrons]) -> list[Electrons]:
    """The fewest that say the same: those of the smallest and of the largest bias of each kind of electrons."""
    return [electrons for group in _groups(found) for electrons in group]


def differ_among_themselves(known: Sequence[Electrons]) -> Differences:
    """Keys in which a model's training data differed, which the user has allowed."""
    first, *others = _groups(known)
    return {key: pair for group in others for key, pair in _differences(first, group[0]).items()}


def bias_range(known: Sequence[Electrons]) -> tuple[float, float]:
    """Smallest and largest bias."""
    biases = [float(electrons["bias"]) for electrons in known]
    return min(biases), max(biases)


def is_outside(bias: float, known: Sequence[Electrons]) -> bool:
    """Whether a bias is smaller or larger than all known ones."""
    low, high = bias_range(known)
    return not low - _CLOSE <= bias <= high + _CLOSE


def _reservoir(entry: Mapping[str, Any], size: Sequence[int] | None) -> dict[str, Any]:
    found = {**entry, "potential": float(entry["potential"])}
    if not isinstance(entry.get("sites", ""), str):
        found["sites"] = _named(sorted({(int(x), int(y)) for x, y in entry["sites"]}), size)
    return found


def _named(sites: list[tuple[int, int]], size: Sequence[int] | None) -> str | list[list[int]]:
    """``left``, ``right`` or ``all`` where a list says the same."""
    if size is not None:
        columns = {"left": range(1), "right": range(size[0] - 1, size[0]), "all": range(size[0])}
        for name, inside in columns.items():
            if sites == [(x, y) for x in inside for y in range(size[1])]:
                return name
    return [list(site) for site in sites]


def _groups(found: Sequence[Electrons]) -> list[list[Electrons]]:
    """Electrons that differ in the bias alone, those of the smallest and of the largest one."""
    groups: list[list[Electrons]] = []
    # What nothing is known about agrees with everything of its bias, and would hide what is known.
    for electrons in [one for one in found if "reservoirs" in one] or found:
        for group in groups:
            if not _differences(group, electrons, joined=True):
                group.append(_in_order_of(group[0], electrons))
                group.sort(key=lambda member: float(member["bias"]))
                group[:] = group[:1] if group[0]["bias"] == group[-1]["bias"] else [group[0], group[-1]]
                break
        else:
            groups.append([electrons])
    return groups


def _differences(group: Sequence[Electrons], given: Electrons, *, joined: bool = False) -> Differences:
    first, bias = group[0], given["bias"]
    if ("reservoirs" in first) != ("reservoirs" in given):
        return {} if _same(first["bias"], bias) else {"electrons.reservoirs": _biases(first, given)}
    keys = (first.keys() & given.keys()) - {"bias", "reservoirs"}
    found = {f"electrons.{key}": (first[key], given[key]) for key in keys if not _same(first[key], given[key])}
    if "reservoirs" not in first:
        return found if _same(first["bias"], bias) else {"electrons.reservoirs": _biases(first, given)}
    expected, met = _at(group, bias), given["reservoirs"]
    pairs = _pairs(expected, met)
    told = joined and len(group) == 1 and _tell_a_line(first, given, pairs)
    for mine, other in pairs:
        if mine is None or other is None:
            one, two = (_ABSENT if at is None else _in_words(side[at]) for side, at in ((expected, mine), (met, other)))
            found[f"electrons.reservoirs.{mine if other is None else other}"] = (one, two)
            continue
        found |= {
            f"electrons.reservoirs.{other}.{key}": (expected[mine][key], met[other][key])
            for key in _unlike(expected[mine], met[other])
            if not (told and key == "potential")
        }
    return dict(sorted(found.items()))


def _at(group: Sequence[Electrons], bias: float) -> list[dict[str, Any]]:
    """Reservoirs of a kind of electrons with the potentials that follow from a bias."""
    low, high = group[0], group[-1]
    span = high["bias"] - low["bias"]
    if span:
        share = (bias - low["bias"]) / span
        ends = zip(low["reservoirs"], high["reservoirs"], strict=True)
        potentials = [(1 - share) * one["potential"] + share * two["potential"] for one, two in ends]
    else:
        factor = bias / low["bias"] if low["bias"] else 1.0
        potentials = [factor * entry["potential"] for entry in low["reservoirs"]]
    return [{**entry, "potential": value} for entry, value in zip(low["reservoirs"], potentials, strict=True)]


def _tell_a_line(first: Electrons, given: Electrons, pairs: Sequence[tuple[int | None, int | None]]) -> bool:
    """Whether electrons of two biases fix how the potentials follow: all reservoirs meet where the bias vanishes."""
    near, far = first["bias"], given["bias"]
    if _same(near, far):
        return False
    ends = [
        (first["reservoirs"][mine]["potential"], given["reservoirs"][other]["potential"])
        for mine, other in pairs
        if mine is not None and other is not None
    ]
    unbiased = [(far * one - near * two) / (far - near) for one, two in ends]
    return max(unbiased, default=0.0) - min(unbiased, default=0.0) <= _CLOSE * max(1.0, near, far)


def _pairs(
    known: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]]
) -> list[tuple[int | None, int | None]]:
    """Which reservoir is which, by what they are and not by name or order; the likest first, the lonely ones last."""
    likeness = sorted(
        ("sites" in unlike, len(unlike), abs(one["potential"] - two["potential"]), mine, other)
        for mine, one in enumerate(known)
        for other, two in enumerate(given)
        for unlike in [_unlike(one, two)]
    )
    left, right = set(range(len(known))), set(range(len(given)))
    pairs: list[tuple[int | None, int | None]] = []
    for *_, mine, other in likeness:
        if mine in left and other in right:
            pairs.append((mine, other))
            left.remove(mine)
            right.remove(other)
    return [*pairs, *((mine, None) for mine in sorted(left)), *((None, other) for other in sorted(right))]


def _in_order_of(first: Electrons, electrons: Electrons) -> Electrons:
    """The same electrons with their reservoirs in the order of others."""
    if "reservoirs" not in electrons or "reservoirs" not in first:
        return electrons
    pairs = dict(_pairs(_at([first], electrons["bias"]), electrons["reservoirs"]))
    order = [pairs[mine] for mine in range(len(first["reservoirs"]))]
    return {**electrons, "reservoirs": [electrons["reservoirs"][other] for other in order if other is not None]}


def _unlike(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted((one.keys() & two.keys()) - {"name"}) if not _same(one[key], two[key])]


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, int | float) and isinstance(two, int | float):
        return math.isclose(one, two, rel_tol=_CLOSE, abs_tol=_CLOSE * _CLOSE)
    return bool(one == two)


def _without(differences: Differences, ignored: Collection[str]) -> Differences:
    """Those of other keys; the name of a section ignores all of its keys."""
    return {
        key: pair
        for key, pair in differences.items()
        if not any(key == name or key.startswith(f"{name}.") for name in ignored)
    }


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {prefix: list(value) if isinstance(value, tuple) else value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def _biases(known: Electrons, given: Electrons) -> tuple[str, str]:
    one, two = (f"bias {electrons['bias']:g}" for electrons in (known, given))
    return one, two


def _in_words(reservoir: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {reservoir[key]}" for key in ("sites", "width", "potential") if key in reservoir)
