"""Registries of what a config chooses by name, one for each kind of entry, and plugins that add to them.

A lattice, texture, reservoir shape, solver, descriptor, force field, classical term, drive, integrator or observer is
one class or function in one of these registries. Users add their own in a module that the config names under
``plugins``. It is imported when that config is read, and never because a data file, a model or a checkpoint names it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model, model_serializer, model_validator

from hpcspin.errors import PLUGINS, HpcspinError, nearest, shown
from hpcspin.settings import Finite, Flag, Integer, Section, first_mistake

Entry = TypeVar("Entry")
_STRICT = {float: Finite, int: Integer, bool: Flag}
"""Config types for annotations of parameters; unlike the plain types they refuse a number given as text."""


class Registry(dict[str, Entry]):
    """Entries of one kind by name; ``registry[name]`` raises a one-line error for an unknown name.

    ``key`` is the key of the config that chooses one. ``given`` is the number of leading arguments that the program
    passes to an entry; the others are the entry's own parameters in the config. ``call`` returns the callable of an
    entry that is not called itself.
    """

    def __init__(self, key: str, given: int = 0, call: Callable[[Entry], Callable[..., Any]] | None = None) -> None:
        super().__init__()
        self.key, self._given, self._call = key, given, call

    def add(self, name: str, entry: Entry) -> None:
        """Register an entry; raises HpcspinError if another entry already has the name."""
        if name in self and (before := self._home(self[name])) != self._home(entry):  # equal: a notebook cell run again
            raise HpcspinError(f"{self.key}: {name!r} is registered already, by {before}; choose another name")
        self[name] = entry

    def adding(self, name: str) -> Callable[[Entry], Entry]:
        """Register as a decorator; see `add`."""

        def register(entry: Entry) -> Entry:
            self.add(name, entry)
            return entry

        return register

    def __getitem__(self, name: str) -> Entry:
        if not isinstance(name, str):  # It may be one that cannot be sought.
            raise HpcspinError(f"{self.key}: {shown(name)} is unknown; give a name")
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Entry:
        raise HpcspinError(f"{self.key}: {self._unknown(name)}")

    def check(self, name: str) -> str:
        """Return the name if it is registered; raise ValueError, as pydantic expects, if not."""
        if name not in self:
            raise ValueError(self._unknown(name))
        return name

    def parameters(self, name: str) -> type[Section]:
        """The settings of an entry: its parameters with their types and defaults, from its signature."""
        own = self._own(name)
        fields = {p.name: (self.type_of(name, p.name), ... if p.default is p.empty else p.default) for p in own}
        return create_model(name, __base__=Section, **fields)  # type: ignore[call-overload]

    def type_of(self, name: str, parameter: str | None = None) -> Any:
        """The type of one of an entry's own parameters, by default the first."""
        called, own = self._called(self[name]), self._own(name)
        if not own:
            raise HpcspinError(f"{self.key}: {name}: its function needs a parameter more, the value of its key")
        annotation = next(p.annotation for p in own if parameter in (None, p.name))
        # Resolve this annotation alone, in the entry's module: others there need not be importable.
        stub = SimpleNamespace(__annotations__={} if annotation is inspect.Parameter.empty else {"it": annotation})
        hints = get_type_hints(stub, vars(sys.modules[called.__module__]), include_extras=True)
        return _strict(hints.get("it", Any))

    def make(self, name: str, *given: Any, **parameters: Any) -> Any:
        """Call an entry with the program's arguments and its own parameters by name, or raise HpcspinError."""
        called = self._called(self[name])
        try:
            inspect.signature(called).bind(*given, **parameters)
        except TypeError as failure:
            takes = ", ".join(p.name for p in self._own(name)) or "none"
            raise HpcspinError(f"{self.key}: {name}: {failure}; its parameters: {takes}") from failure
        plain = {
            key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in parameters.items()
        }
        try:
            checked = dict(self.parameters(name).model_validate(plain))
        except ValidationError as failure:
            section = self.key.rpartition(".")[0]
            raise HpcspinError(f"{section}.{first_mistake(failure).message}") from failure
        return called(*given, **checked)

    def _own(self, name: str) -> list[inspect.Parameter]:
        return list(inspect.signature(self._called(self[name])).parameters.values())[self._given :]

    def _home(self, entry: Any) -> str:
        return f"{self._called(entry).__module__}.{self._called(entry).__qualname__}"

    def _called(self, entry: Any) -> Any:
        return self._call(entry) if self._call else entry

    def _unknown(self, name: str) -> str:
        hint = nearest(name, sorted(self)).replace("known keys:", "choose one of")
        return f"{name!r} is unknown; {hint}; your own needs its module under plugins, or in --plugin"


class Choice(Section):
    """A section that names an entry of a registry; its other keys are the parameters of that entry."""

    model_config = ConfigDict(extra="allow", frozen=True)
    registry: ClassVar[Registry[Any]]
    selector: ClassVar[str] = "kind"
    """The key that holds the name."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the chosen entry, defaults included."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, str) and cls.selector == "name":
            given = {"name": given}
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise ValueError(f"must be a section of {cls.selector} and parameters")
        own = {key: value for key, value in given.items() if key in cls.model_fields}
        name = given.get(cls.selector)
        if not isinstance(name, str) or name not in cls.registry:
            return own  # The validator of the name reports it.
        rest = {key: value for key, value in given.items() if key not in own}
        return {**own, **dict(cls.registry.parameters(name).model_validate(rest))}

    @model_serializer(mode="wrap")
    def _as_written(self, dump: Callable[[Any], dict[str, Any]]) -> Any:
        content = dump(self)
        return content[self.selector] if self.selector == "name" and list(content) == ["name"] else content


def load_plugins(names: Sequence[str], folder: Path) -> None:
    """Import plugin modules: Python files in a folder, which take precedence, or modules by name."""
    for name in names:
        file = folder / (name if name.endswith(".py") else f"{name.replace('.', '/')}.py")
        load = partial(_load_file, file.resolve()) if file.is_file() else partial(importlib.import_module, name)
        try:
            PLUGINS.add(load().__name__)
        except HpcspinError as failure:
            raise HpcspinError(f"plugins: {name}: {failure}") from failure
        except (Exception, SystemExit) as failure:
            if isinstance(failure, ModuleNotFoundError) and failure.name == name.partition(".")[0]:
                reason = f"there is neither a file {file} nor a module of this name that Python finds"
            else:
                reason = f"fails with {type(failure).__name__}: {' '.join(str(failure).split())}"
            raise HpcspinError(f"plugins: {name}: {reason}; correct the module, or its name") from failure


def _load_file(file: Path) -> ModuleType:
    if str(file) in sys.modules:  # Keyed by path: two configs may have plugins of the same name.
        return sys.modules[str(file)]
    spec = importlib.util.spec_from_file_location(str(file), file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[str(file)] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[str(file)]
        raise
    return module


def _strict(annotation: Any) -> Any:
    if get_origin(annotation) is tuple:
        return tuple[tuple(_strict(inner) for inner in get_args(annotation))]  # type: ignore[misc]
    return _STRICT.get(annotation, annotation) if isinstance(annotation, type) else annotation
