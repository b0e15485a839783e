"""Two configurations side by side: which keys differ, in the words of the YAML file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_ABSENT = "absent"


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


def config_differences(
    stored: Mapping[str, Any], given: Mapping[str, Any], ignore: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
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
    return {
        key: (left.get(key, _ABSENT), right.get(key, _ABSENT))
        for key in sorted(left.keys() | right.keys())
        if left.get(key, _ABSENT) != right.get(key, _ABSENT)
        and not any(key == name or key.startswith(f"{name}.") for name in ignore)
    }


def describe_differences(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """Put differing keys in one phrase: ``key (stored -> given), ...``."""
    return ", ".join(f"{key} ({stored} -> {given})" for key, (stored, given) in differences.items())
