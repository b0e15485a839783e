"""Parsing of config text: a YAML file, overrides ``key.path=value`` of the command line, and values to sweep over."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.resolver import BaseResolver

from hpcspin.errors import HpcspinError

Choice = dict[str, Any]
"""Dotted key to value."""
_DEEPEST = 40
_MOST_VALUES = 100_000
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Patterns of scalars that are not text in the core schema of YAML 1.2, and the characters that they start with."""


class _CoreSchema(BaseResolver):
    """The core schema of YAML 1.2 to the letter: ``1:30``, ``on``, ``1_000`` and dates are text."""

    processing_version = (1, 2)
    """A %YAML directive does not change it."""

    def __init__(self, version: object = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loadumper if loader is None else loader)


for _kind, (_pattern, _firsts) in _SCALARS.items():
    _CoreSchema.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), [*_firsts, *([""] if _kind == "null" else [])]
    )


def read_yaml(text: str) -> Any:
    """Parse YAML 1.2, or raise HpcspinError: mappings with text keys, lists, text, numbers, true, false and null.

    The home directory takes the place of the ~ at the beginning of text such as ~/models/mine.
    """
    reader = YAML(typ="safe", pure=True, plug_ins=[])
    reader.Resolver = _CoreSchema
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = reader.load(text)
    except MarkedYAMLError as failure:
        where = f" in line {failure.problem_mark.line + 1}" if failure.problem_mark else ""
        raise HpcspinError(f"not valid YAML{where}: {' '.join(str(failure.problem).split())}") from failure
    except RecursionError as failure:
        raise HpcspinError("not valid YAML: nested too deeply for a config") from failure
    # The constructors of explicit tags, as in `!!float abc`, raise whatever Python does.
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError) as failure:
        raise HpcspinError(f"not valid YAML: {' '.join(str(failure).split())}") from failure
    _require_plain(content)
    return _at_home(content)


def _at_home(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _at_home(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_at_home(value) for value in content]
    return os.path.expanduser(content) if isinstance(content, str) and content.startswith("~/") else content


def _require_plain(content: Any) -> None:
    """Refuse values that no config holds; each use of an alias counts, since later code copies its content."""
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise HpcspinError(
                f"nested deeper than {_DEEPEST} levels, or over {_MOST_VALUES} values: no config needs that"
            )
        if isinstance(value, dict):
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise HpcspinError(f"the key {wrong[0]!r} is no text; keys are words such as 'lattice'")
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        elif value is not None and not isinstance(value, str | int | float):
            raise HpcspinError(f"a value of type {type(value).__name__} has no place in a config; leave out its tag")


@dataclass(frozen=True)
class Override:
    """One ``key.path=value`` of the command line; the path gives an entry of a list by its name or index."""

    text: str
    """The override as given."""
    keys: tuple[str, ...]
    """Parts of the path."""
    value: Any
    """The value, parsed as YAML."""

    @classmethod
    def parse(cls, text: str) -> Override:
        """Split an override into its path and its value; raises HpcspinError if it has another form."""
        path, separator, value = text.partition("=")
        if not separator or not path:
            raise HpcspinError(f"override {text!r}: write it as key.path=value")
        try:
            return cls(text, tuple(path.split(".")), read_yaml(value))
        except HpcspinError as failure:
            # The shell splits at spaces.
            cut = any(value.count(opening) != value.count(closing) for opening, closing in ("[]", "{}"))
            hint = "; close its brackets, and put it in quotes if it has spaces" if cut else ""
            raise HpcspinError(f"override {text!r}: {failure}{hint}") from failure

    def apply(self, content: dict[str, Any]) -> list[str | int]:
        """Set the value in a config, creating missing sections; return the keys and indices that lead to it."""
        node: Any = content
        places = []
        for depth in range(len(self.keys)):
            places.append(place := self._place(node, depth))
            if depth == len(self.keys) - 1:
                node[place] = self.value
            else:
                node = node[place] if isinstance(node, list) else node.setdefault(place, {})
        return places

    def _place(self, node: Any, depth: int) -> Any:
        """Key or index for the next step of the path in a node, which the first ``depth`` keys have led to."""
        key, where = self.keys[depth], ".".join(self.keys[:depth])
        if isinstance(node, dict):
            return key
        if not isinstance(node, list):
            raise HpcspinError(f"override {self.text!r}: {where} has no keys, its value is {node!r}")
        names = [entry.get("name") if isinstance(entry, dict) else entry for entry in node]
        if key in names:
            return names.index(key)
        # Python refuses to parse numbers of thousands of digits.
        if not key.isdecimal() or len(key) > 9 or int(key) >= len(node):
            entries = f"the entries 0 to {len(node) - 1}" if node else "no entries"
            named = [name for name in names if isinstance(name, str)]
            called = f", called {', '.join(named)}" if named else ""
            raise HpcspinError(f"override {self.text!r}: {where} has {entries}{called}, and no {key}; give one of them")
        return int(key)


def combinations(vary: Sequence[str], name: str = "--vary", chain: str | None = None) -> list[Choice]:
    """All combinations of the values of several keys, each given as ``KEY=V1,V2,...``.

    Keys joined by commas change together: ``A,B=[a1,b1],[a2,b2]``. Raises HpcspinError, which names the option, if one
    has another form, or a key appears twice, or one of its values other than those of ``chain``.
    """
    values: dict[tuple[str, ...], list[Sequence[Any]]] = {}
    for given in vary:
        left, separator, text = given.partition("=")
        keys = tuple(left.split(","))
        try:
            parsed = read_yaml(f"[{text}]")
        except HpcspinError:
            parsed = None
        together = [value if len(keys) > 1 else [value] for value in parsed or ()]
        fits = all(isinstance(value, list) and len(value) == len(keys) for value in together)
        known = [key for other in values for key in other]
        if not all(keys) or not separator or not parsed or not fits or len({*known, *keys}) < len(known) + len(keys):
            raise HpcspinError(
                f"{name} {given!r}: write it as KEY=V1,V2,... or KEY1,KEY2=[A1,A2],[B1,B2],... and name each key once"
            )
        texts = [json.dumps(value) for value in together]
        if chain not in keys and len(set(texts)) < len(texts):
            again = max(texts, key=texts.count)
            raise HpcspinError(f"{name} {given!r}: the value {again.strip('[]')} would count twice; give it once")
        values[keys] = together
    names = [key for keys in values for key in keys]
    return [dict(zip(names, (v for part in parts for v in part), strict=True)) for parts in product(*values.values())]


def as_overrides(choice: Choice) -> list[str]:
    """A combination as overrides of the command line."""
    return [f"{key}={json.dumps(value)}" for key, value in choice.items()]
