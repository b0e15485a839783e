"""What the settings of all packages share: strict sections of a config, types of numbers, messages for mistakes."""

from __future__ import annotations

import functools
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hpcspin.errors import HpcspinError, nearest

Function = TypeVar("Function", bound=Callable[..., Any])

_WORDS = {
    "missing": "is missing; add it",
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
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le:g}",
}
"""Message for each of pydantic's types of errors."""
_UNKNOWN = "unknown_key"
_SHOWN_CHARACTERS = 60


def _only_number(value: Any) -> Any:
    """Refuse booleans and text: pydantic would read ``true`` as 1, and a quoted number as the number."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number, without quotes")
    return value


LARGEST = 10**15
"""Largest size of a number: squares and products of such numbers neither overflow nor lose what they are added to."""
Number = BeforeValidator(_only_number)
Flag = Annotated[bool, Strict()]
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False), Number]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False), Number]
Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False), Number]
Integer = Annotated[int, Field(ge=-LARGEST, le=LARGEST), Number]
Count = Annotated[int, Field(ge=1, le=LARGEST), Number]
Seed = Annotated[int, Field(ge=0, lt=2**32), Number]
Vector = tuple[Finite, Finite, Finite]
WIDEST = 10**6
"""Largest energy in hoppings, and longest step in ħ/t: the rounding errors of larger ones are above any tolerance."""
Energy = Annotated[float, Field(ge=-WIDEST, le=WIDEST, allow_inf_nan=False), Number]
PositiveEnergy = Annotated[float, Field(gt=0, le=WIDEST, allow_inf_nan=False), Number]


class Section(BaseModel):
    """Base of all settings: strict and immutable; an unknown key is refused with the nearest valid one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, cls):
            return given
        names = list(cls.model_fields)
        if not isinstance(given, Mapping):
            raise ValueError(f"must be a section of keys: {', '.join(names)}")
        for key in given:
            if key not in names:
                raise PydanticCustomError(_UNKNOWN, "{hint}", {"key": key, "hint": nearest(key, names)})
        return given


def checked(**types: Any) -> Callable[[Function], Function]:
    """Decorator of a function that refuses arguments, by their names, as a config refuses values of these types.

    The function receives them in their type; it raises HpcspinError for what it refuses.
    """
    fields: dict[str, Any] = {name: (kind, None) for name, kind in types.items()}
    arguments = create_model("Arguments", **fields)

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            given = {name: bound.arguments[name] for name in types if name in bound.arguments}
            try:
                valid = arguments.model_validate(given)
            except ValidationError as failure:
                raise HpcspinError(f"{function.__name__}: {first_mistake(failure).message}") from failure
            bound.arguments.update({name: getattr(valid, name) for name in given})
            return function(*bound.args, **bound.kwargs)

        return cast(Function, call)

    return decorate


@dataclass(frozen=True)
class Mistake:
    """Something wrong with settings."""

    keys: tuple[str | int, ...]
    """Keys and indices that lead to it from the root."""
    message: str
    """The key, what is wrong with it, and how to correct it."""


def first_mistake(failure: ValidationError) -> Mistake:
    """Choose the validation error to report: first an unknown key, since it may explain a missing one."""
    try:
        errors = [(_keys(error["loc"]), error) for error in failure.errors()]
    except UnicodeEncodeError:
        return Mistake((), "a key or a value has half of a UTF-16 pair (\\ud800 to \\udfff), which is no character")
    for section, error in errors:
        if error["type"] == _UNKNOWN:
            keys = (*section, error["ctx"]["key"])
            return Mistake(keys, f"unknown key {'.'.join(map(str, keys))!r}; {error['ctx']['hint']}")
    first, _ = errors[0]
    # Where a value may be of several types, report the error of the type that it fits best.
    keys, error = max(
        (candidate for candidate in errors if candidate[0][: len(first)] == first),
        key=lambda candidate: len(candidate[0]),
    )
    text = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    message = text.format_map(error.get("ctx", {})) if error["type"] in _WORDS else text
    where = ".".join(map(str, keys))
    shows_input = error["type"] == "missing" or repr(error["input"]) in message
    shown = "" if shows_input else _shown(error["input"])
    return Mistake(keys, f"{where}: {message}{shown}" if where else f"{message}{shown}")


def _keys(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Location of an error without the names of the types that pydantic tried there."""
    return tuple(part for part in location if isinstance(part, int) or not any(mark in part for mark in "[-("))


def _shown(given: Any) -> str:
    if isinstance(given, Mapping):  # A whole section: the message names it.
        return ""
    return f" (given: {textwrap.shorten(json.dumps(given, default=str), _SHOWN_CHARACTERS)})"
