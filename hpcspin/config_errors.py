"""What is wrong with a config, in one line of plain words."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_WORDS = {
    "missing": "is missing; add it",
    "model_type": "must be a section of keys: {keys}",
    "tuple_type": "must be a list in [ ]",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} entries",
    "string_type": "must be a word",
    "literal_error": "must be {expected}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}
"""Kind of a mistake, as pydantic calls it, to what a user is told about a key."""
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Mistake:
    """Something wrong with a config.

    Attributes
    ----------
    keys : tuple
        Where: keys and indices, from the root.
    message : str
        The key, what is wrong with it, and how to mend that.
    """

    keys: tuple[str | int, ...]
    message: str


def first_mistake(failure: ValidationError, root: type[BaseModel]) -> Mistake:
    """Choose one of the things that are wrong with the content of a model; an unknown key explains a missing one."""
    unknown = next((error["loc"] for error in failure.errors() if error["type"] == "extra_forbidden"), None)
    if unknown is not None:
        keys = (*_keys(unknown[:-1]), unknown[-1])
        return Mistake(keys, _unknown_key(keys, root))
    errors = [(_keys(error["loc"]), error) for error in failure.errors()]
    first, _ = errors[0]
    # Where a value may be of several kinds, the one that it fits best is told about.
    keys, error = max((found for found in errors if found[0][: len(first)] == first), key=lambda found: len(found[0]))
    told = _WORDS.get(error["type"])
    if told is None:
        message = error["msg"].removeprefix("Value error, ")
    else:
        message = told.format_map({"keys": ", ".join(_keys_at(root, keys)), **error.get("ctx", {})})
    where = ".".join(map(str, keys))
    shown = _shown(error["input"]) if error["type"] != "missing" else ""
    return Mistake(keys, f"{where}: {message}{shown}" if where else f"{message}{shown}")


def _unknown_key(keys: tuple[str | int, ...], root: type[BaseModel]) -> str:
    known = _keys_at(root, keys[:-1])
    hint = nearest(str(keys[-1]), known)
    return f"unknown key {'.'.join(map(str, keys))!r}; {hint}"


def _keys(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Location of an error without the names of the types that were tried there."""
    return tuple(part for part in location if isinstance(part, int) or not any(mark in part for mark in "[-("))


def _shown(given: Any) -> str:
    if isinstance(given, Mapping):  # A whole section: the message says what it is about.
        return ""
    return f" (given: {textwrap.shorten(json.dumps(given, default=str), _SHOWN_CHARACTERS)})"


def _keys_at(root: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the section that a path of keys and indices leads to."""
    model = root
    for key in path:
        if isinstance(key, int) or key not in model.model_fields:
            continue
        model = _section_in(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section class inside an annotation such as ``tuple[Section, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner))), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to tell somebody who gave a name that is not among the known ones."""
    near = difflib.get_close_matches(name, known := list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
