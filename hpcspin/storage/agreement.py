"""Differences between configs, and whether labels, models and systems have the same electrons for a force field.

The input of a force field is the spins and one number for the electrons, the bias: the largest minus the smallest
potential of the reservoirs that have a width. Exchange, hopping, temperature, the sites, widths and polarisations of
the reservoirs, and each single potential are not part of the input: they must be the same wherever the force field is
used. The bands do not move with the potentials, so (-3.2, 0, 0) and (1.6, -1.6, 0) are two systems with the same bias.

Potentials follow from the bias V if they are mu + V v with the same mu for all reservoirs. Labels of two biases
determine mu and the vector v; for labels of a single bias mu is taken as 0, so that the potentials are proportional to
the bias.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hpcspin.errors import HpcspinError

Electrons = dict[str, Any]
"""``bias`` and the keys of the section ``electrons`` of a config that describe the system; only ``bias`` for labels
without a config."""
Differences = dict[str, tuple[Any, Any]]
"""Pairs (stored value, given value) by the dotted key of the config."""

NUMERICS = frozenset({"solver", "tolerance", "precision", "transport"})
"""Keys of the section ``electrons`` that specify the computation and not the system."""
_ZERO_IF_ABSENT = ("on_site", "rashba")
"""Terms of the Hamiltonian that are 0 if a config leaves them out; the values of all other absent keys are unknown."""
_WIDEST = 200
"""Largest number of characters of a value in a message; a map over the sites would have thousands."""
ENDS = ("left", "right")
"""Shapes of the electrodes whose polarisations can be inputs of a force field."""
_CLOSE = 1e-6
_ABSENT = "absent"


def config_differences(
    stored: Mapping[str, Any], given: Mapping[str, Any], ignore: Collection[str] = ()
) -> Differences:
    """Dotted keys in which two nested configs of JSON values differ, with the pair (stored value, given value).

    Lists of mappings are compared entry by entry. Ignored keys may differ; the name of a section covers all its keys.
    """
    left, right = _flatten(stored), _flatten(given)
    pairs = {key: (left.get(key, _ABSENT), right.get(key, _ABSENT)) for key in sorted(left.keys() | right.keys())}
    return _without({key: pair for key, pair in pairs.items() if pair[0] != pair[1]}, ignore)


def require_same_config(
    stored: Mapping[str, Any], given: Mapping[str, Any], where: object, advice: str, ignore: Collection[str] = ()
) -> None:
    """Refuse output that belongs to another config, with both values of the keys; see `config_differences`.

    ``advice`` says what to do instead of restoring the keys.
    """
    if differences := config_differences(stored, given, ignore):
        described = describe_differences(differences)
        raise HpcspinError(f"{where}: belongs to another config: {described}; restore these keys or {advice}")


def describe_differences(differences: Differences) -> str:
    """Describe the differences in one phrase: ``key (stored -> given), ...``."""
    short = {key: [textwrap.shorten(str(value), _WIDEST) for value in pair] for key, pair in differences.items()}
    return ", ".join(f"{key} ({stored} -> {given})" for key, (stored, given) in short.items())


def electrons_of(config: Any, where: str) -> Electrons | None:
    """Electrons of a config as stored in files; None if it has none. Missing keys agree with every value."""
    try:
        section = (config or {}).get("electrons")
        if section is None:
            return None
        size = (config.get("lattice") or {}).get("size")
        reservoirs = [_reservoir(entry, size) for entry in section.get("reservoirs") or ()]
        potentials = [entry["potential"] for entry in reservoirs if entry.get("width", 1.0)] or [0.0]
        system = {key: value for key, value in section.items() if key not in NUMERICS}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise HpcspinError(
            f"{where}: the attribute config is not one of hpcspin ({type(error).__name__} in the electrons); "
            "label the spins again, or delete the attribute"
        ) from error
    return {**system, "reservoirs": reservoirs, "bias": max(potentials) - min(potentials)}


def require_spin_rotations(electrons: Electrons | None, where: str, drive: str) -> None:
    """Refuse electrons that force fields cannot represent: with Rashba coupling, vacancies, or polarised reservoirs.

    A model sees the polarisations that are inputs of its ``drive``.
    """
    if electrons is None:
        return
    if electrons.get("vacancies"):
        raise HpcspinError(
            f"{where}: electrons.vacancies: force fields cannot represent sites without a spin; they can neither learn "
            "such labels nor replace such electrons: leave vacancies out"
        )
    if electrons.get("rashba"):
        raise HpcspinError(
            f"{where}: electrons.rashba {electrons['rashba']:g} ties the spins to the lattice, and force fields are "
            "covariant under rotations of the spins alone; they can neither learn such labels nor replace such "
            "electrons: leave rashba out"
        )
    for number, one in enumerate(electrons.get("reservoirs") or ()):
        seen = drive == "polarized" and one.get("sites") in ENDS
        if not seen and one.get("width", 1.0) and any(one.get("polarization") or ()):
            raise HpcspinError(
                f"{where}: electrons.reservoirs.{number}.polarization has a fixed direction, and force fields are "
                "covariant under rotations of the spins; take potential.drive: polarized, which sees the polarisations "
                "of the electrodes left and right, or leave the polarization out"
            )


def stored_electrons(content: Any, where: str) -> list[Electrons] | None:
    """Electrons in the card of a model, checked; None if the card does not state them."""
    if content is None:
        return None
    try:
        electrons = [
            {**entry, "bias": float(entry["bias"])}
            | ({"reservoirs": [_reservoir(one, None) for one in entry["reservoirs"]]} if "reservoirs" in entry else {})
            for entry in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HpcspinError(f"{where}: its list of electrons is invalid; copy the model again, or train it") from error
    if not electrons:
        raise HpcspinError(f"{where}: its list of electrons is empty; copy the model again, or train it")
    return electrons


def electron_differences(
    learned: Sequence[Electrons], given: Electrons, allow: Collection[str] = (), *, joined: bool = False
) -> Differences:
    """Differences between electrons and the most similar ones of a model's training data, compared at the same bias.

    They are empty if only the bias and the keys in ``allow`` differ; the name of a section covers all its keys.
    ``joined`` means that ``given`` also belongs to the training data, and may determine how the potentials follow from
    the bias.
    """
    return min((_without(_differences(group, given, joined=joined), allow) for group in _groups(learned)), key=len)


def kinds_of_electrons(electrons: Sequence[Electrons]) -> list[Electrons]:
    """The entries with the smallest and the largest bias among all entries that differ only in the bias."""
    return [entry for group in _groups(electrons) for entry in group]


def differ_among_themselves(learned: Sequence[Electrons]) -> Differences:
    """Keys in which a model's training data differed from each other, as the user allowed."""
    first, *others = _groups(learned)
    return {key: pair for group in others for key, pair in _differences(first, group[0]).items()}


def bias_range(electrons: Sequence[Electrons]) -> tuple[float, float]:
    """Smallest and largest bias."""
    biases = [float(entry["bias"]) for entry in electrons]
    return min(biases), max(biases)


def is_outside(bias: float, learned: Sequence[Electrons]) -> bool:
    """Whether a bias is smaller or larger than all biases in a model's training data."""
    low, high = bias_range(learned)
    return not low - _CLOSE <= bias <= high + _CLOSE


def _reservoir(entry: Mapping[str, Any], size: Sequence[int] | None) -> dict[str, Any]:
    reservoir = {**entry, "potential": float(entry["potential"])}
    if not isinstance(entry.get("sites", ""), str):
        reservoir["sites"] = _named(sorted({(int(x), int(y)) for x, y in entry["sites"]}), size)
    return reservoir


def _named(sites: list[tuple[int, int]], size: Sequence[int] | None) -> str | list[list[int]]:
    """``left``, ``right`` or ``all`` if the list contains the same sites, otherwise the list."""
    if size is not None:
        columns = {"left": range(1), "right": range(size[0] - 1, size[0]), "all": range(size[0])}
        for name, inside in columns.items():
            if sites == [(x, y) for x in inside for y in range(size[1])]:
                return name
    return [list(site) for site in sites]


def _groups(electrons: Sequence[Electrons]) -> list[list[Electrons]]:
    """Groups of electrons that differ only in the bias, each reduced to the smallest and the largest bias."""
    groups: list[list[Electrons]] = []
    # Entries without reservoirs agree with every entry of the same bias and would hide differences between the others.
    for entry in [one for one in electrons if "reservoirs" in one] or electrons:
        for group in groups:
            if not _differences(group, entry, joined=True):
                group.append(in_order_of(group[0], entry))
                group.sort(key=lambda member: float(member["bias"]))
                group[:] = group[:1] if group[0]["bias"] == group[-1]["bias"] else [group[0], group[-1]]
                break
        else:
            groups.append([entry])
    return groups


def _differences(group: Sequence[Electrons], given: Electrons, *, joined: bool = False) -> Differences:
    first, bias = group[0], given["bias"]
    if ("reservoirs" in first) != ("reservoirs" in given):
        return {} if _same(first["bias"], bias) else {"electrons.reservoirs": _biases(first, given)}
    keys = (first.keys() & given.keys()) - {"bias", "reservoirs"}
    pairs_of_keys = {key: (first[key], given[key]) for key in sorted(keys)}
    pairs_of_keys |= {key: (first.get(key, 0.0), given.get(key, 0.0)) for key in _ZERO_IF_ABSENT}
    differences = {f"electrons.{key}": pair for key, pair in pairs_of_keys.items() if not _same(*pair)}
    if "reservoirs" not in first:
        return differences if _same(first["bias"], bias) else {"electrons.reservoirs": _biases(first, given)}
    expected, reservoirs = _at(group, bias), given["reservoirs"]
    pairs = _pairs(expected, reservoirs)
    line_fixed = joined and len(group) == 1 and _fixes_the_line(first, given, pairs)
    for i, j in pairs:
        if i is None or j is None:
            one, two = (_ABSENT if at is None else _in_words(side[at]) for side, at in ((expected, i), (reservoirs, j)))
            differences[f"electrons.reservoirs.{i if j is None else j}"] = (one, two)
            continue
        differences |= {
            f"electrons.reservoirs.{j}.{key}": (expected[i][key], reservoirs[j][key])
            for key in _unlike(expected[i], reservoirs[j])
            if key != "potential" or (not line_fixed and reservoirs[j].get("width", 1.0))
        }
    return dict(sorted(differences.items()))


def _at(group: Sequence[Electrons], bias: float) -> list[dict[str, Any]]:
    """Reservoirs of a group of electrons with the potentials that follow from a bias."""
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


def _fixes_the_line(first: Electrons, given: Electrons, pairs: Sequence[tuple[int | None, int | None]]) -> bool:
    """Whether electrons of two biases determine mu + V v: extrapolated to zero bias all potentials must be equal."""
    near, far = first["bias"], given["bias"]
    if _same(near, far):
        return False
    ends = [
        (first["reservoirs"][i]["potential"], given["reservoirs"][j]["potential"])
        for i, j in pairs
        if i is not None and j is not None and first["reservoirs"][i].get("width", 1.0)
    ]
    unbiased = [(far * one - near * two) / (far - near) for one, two in ends]
    return max(unbiased, default=0.0) - min(unbiased, default=0.0) <= _CLOSE * max(1.0, near, far)


def _pairs(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> list[tuple[int | None, int | None]]:
    """Match reservoirs by their properties, not by name or order; most similar pairs first, unmatched ones last."""
    likeness = sorted(
        ("sites" in unlike, len(unlike), abs(one["potential"] - two["potential"]), i, j)
        for i, one in enumerate(first)
        for j, two in enumerate(second)
        for unlike in [_unlike(one, two)]
    )
    left, right = set(range(len(first))), set(range(len(second)))
    pairs: list[tuple[int | None, int | None]] = []
    for *_, i, j in likeness:
        if i in left and j in right:
            pairs.append((i, j))
            left.remove(i)
            right.remove(j)
    return [*pairs, *((i, None) for i in sorted(left)), *((None, j) for j in sorted(right))]


def in_order_of(first: Electrons, electrons: Electrons) -> Electrons:
    """The same electrons with their reservoirs in the order of others."""
    if "reservoirs" not in electrons or "reservoirs" not in first:
        return electrons
    pairs = dict(_pairs(_at([first], electrons["bias"]), electrons["reservoirs"]))
    order = [pairs[i] for i in range(len(first["reservoirs"]))]
    return {**electrons, "reservoirs": [electrons["reservoirs"][j] for j in order if j is not None]}


def _unlike(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted((one.keys() & two.keys()) - {"name"}) if not _same(one[key], two[key])]


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, int | float) and isinstance(two, int | float):
        return math.isclose(one, two, rel_tol=_CLOSE, abs_tol=_CLOSE * _CLOSE)
    return bool(one == two)


def _without(differences: Differences, ignored: Collection[str]) -> Differences:
    """The differences in other keys; the name of a section covers all its keys."""
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


def _biases(first: Electrons, given: Electrons) -> tuple[str, str]:
    one, two = (f"bias {electrons['bias']:g}" for electrons in (first, given))
    return one, two


def _in_words(reservoir: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {reservoir[key]}" for key in ("sites", "width", "potential") if key in reservoir)
