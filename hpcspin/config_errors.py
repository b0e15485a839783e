"""What is wrong with a config, in one line."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(failure: ValidationError, root: type[BaseModel]) -> str:
    """One line for the first thing that is wrong with the content of a model: the key, what, the nearest known key."""
    error = failure.errors()[0]
    where = [part for part in error["loc"] if not (isinstance(part, str) and ("[" in part or "-" in part))]
    path = ".".join(str(part) for part in where)
    if error["type"] == "extra_forbidden":
        known = _keys_at(root, tuple(where[:-1]))
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {path!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float, bool, list)) else ""
    return f"{path or 'config'}: {message}{shown}"


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
