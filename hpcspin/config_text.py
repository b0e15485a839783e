"""The texts that a config is made of: a YAML file, and overrides ``key.path=value`` of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from hpcspin.errors import HpcspinError


class _Loader(yaml.SafeLoader):
    """YAML without keys that stand twice in a mapping, of which the last would count in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise HpcspinError(f"line {line}: the key {key.value!r} stands here a second time; keep one")
                seen.add(key.value)
        return node


def read_yaml(text: str) -> Any:
    """What a YAML text says.

    Raises
    ------
    HpcspinError
        If it is not valid, or a key stands twice in a mapping; the line is named.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as failure:
        where = f" in line {failure.problem_mark.line + 1}" if failure.problem_mark else ""
        raise HpcspinError(f"not valid YAML{where}: {failure.problem}") from failure
    except yaml.YAMLError as failure:
        raise HpcspinError(f"not valid YAML: {' '.join(str(failure).split())}") from failure


@dataclass(frozen=True)
class Override:
    """One ``key.path=value`` of the command line; numbers in the path are those of a list's entries.

    Attributes
    ----------
    text : str
        As it was given.
    keys : tuple of str
        Parts of the path.
    value
        What its YAML says.
    """

    text: str
    keys: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, text: str) -> Override:
        """Take an override apart.

        Raises
        ------
        HpcspinError
            If it has no path, or its value is no valid YAML.
        """
        path, separator, value = text.partition("=")
        if not separator or not path:
            raise HpcspinError(f"override {text!r}: write it as key.path=value")
        try:
            return cls(text, tuple(path.split(".")), read_yaml(value))
        except HpcspinError as failure:
            # A shell cuts at spaces.
            cut = any(value.count(opening) != value.count(closing) for opening, closing in ("[]", "{}"))
            hint = "; close its brackets, and put it in quotes if it has spaces" if cut else ""
            raise HpcspinError(f"override {text!r}: {failure}{hint}") from failure

    def apply(self, content: dict[str, Any]) -> None:
        """Set the value in a config; sections on the way are made.

        Raises
        ------
        HpcspinError
            If there is no such place.
        """
        node: Any = content
        for depth in range(len(self.keys) - 1):
            place = self._place(node, depth)
            node = node[place] if isinstance(node, list) else node.setdefault(place, {})
        place = self._place(node, len(self.keys) - 1)
        node[place] = self.value

    def shared(self, keys: Sequence[str | int]) -> int:
        """How many of the first keys of another path are those of mine."""
        same = [mine == str(other) for mine, other in zip(self.keys, keys, strict=False)]
        return [*same, False].index(False)

    def _place(self, node: Any, depth: int) -> Any:
        """Key or index in a node, which the first keys of the path have led to."""
        key, where = self.keys[depth], ".".join(self.keys[:depth])
        if isinstance(node, dict):
            return key
        if not isinstance(node, list):
            raise HpcspinError(f"override {self.text!r}: {where} has no keys, its value is {node!r}")
        if not key.isdecimal() or int(key) >= len(node):
            entries = f"the entries 0 to {len(node) - 1}" if node else "no entries"
            raise HpcspinError(f"override {self.text!r}: {where} has {entries}, and no {key}; give one of them")
        return int(key)
