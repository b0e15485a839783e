"""Fields as a call from Python gives them, in the form of a config and in that of the dynamics."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from hpcspin.assembly.agreement import require_electrons
from hpcspin.assembly.fields import SolverField, exact_field, learned_field
from hpcspin.config import DynamicsSection
from hpcspin.dynamics import DynamicsSettings, Field, SumField
from hpcspin.dynamics.fields import is_field
from hpcspin.electrons import ElectronSystem, Solver
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.lattice.settings import maps_fit
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, load_force
from hpcspin.settings import first_mistake

FieldLike = Field | Solver[Any, Any] | ForceField | Committee | str | Path | Sequence[Any] | None
_INTERVALS = ("exact_interval", "check_interval")


class GivenFields:
    """Fields of a call, and the section ``dynamics`` of a config that means the same.

    The fields are those of `hpcspin.simulate`, the settings attributes of `hpcspin.dynamics.DynamicsSettings`, all
    else keys of the section; ``verb`` is the called function, in messages. The section's field is that of the system's
    own electrons, exact or learned; all others count as classical. Raises HpcspinError if a setting is wrong, there is
    no such model, an interval is given without a model, or a sum has more than one field of electrons.
    """

    def __init__(
        self, verb: str, field: FieldLike, system: ElectronSystem | Lattice, settings: Mapping[str, Any], **more: Any
    ) -> None:
        given = list(field) if isinstance(field, list | tuple) else [field]
        if not given:
            raise HpcspinError(f"{verb}: field: the list is empty; give fields, or leave it out for the exact one")
        self._terms = [load_force(term) if isinstance(term, str | Path) else term for term in given]
        self._texts = [_text(term) for term in self._terms]
        self._names = [
            str(term) if isinstance(term, str | Path) else text for term, text in zip(given, self._texts, strict=True)
        ]
        self._system = system
        _require_one_of_electrons(verb, self._terms)
        electronic = [number for number, term in enumerate(self._terms) if self._is_electronic(term)]
        self._first = electronic[0] if electronic else None
        model = self._first is not None and isinstance(self._terms[self._first], ForceField | Committee)
        intervals = [key for key in _INTERVALS if more.get(key) is not None]
        if intervals and not model:
            raise HpcspinError(f"{verb}: {intervals[0]} is for the field of one model; leave it out")
        more["field"] = "classical" if self._first is None else "electrons"
        if model:
            more["field"] = "corrected" if "exact_interval" in intervals else "learned"
            more["model"] = self._names[electronic[0]]
        try:
            DynamicsSettings(**settings)  # The other keys of the section are no settings here.
            size = (system.lattice if isinstance(system, ElectronSystem) else system).size
            self.dynamics = DynamicsSection.model_validate({**settings, **more}, context=maps_fit(size))
        except ValidationError as failure:
            raise HpcspinError(f"{verb}: {first_mistake(failure).message}") from failure

    def build(self, world: World, device: torch.device) -> Field:
        """The sum of the fields; raises HpcspinError if one is no field, or does not fit the system."""
        parts = [self._build(term, world, device) for term in self._terms]
        return parts[0] if len(parts) == 1 else SumField(parts)

    @property
    def config(self) -> dict[str, Any]:
        """The config that is stored with a run, as JSON values."""
        system = self._system
        if isinstance(system, ElectronSystem):
            about = system.as_config()
            term = None if self._first is None else self._terms[self._first]
            if isinstance(term, Solver):  # The system may name another solver, or another tolerance.
                about["electrons"] |= {key: getattr(term, key) for key in ("tolerance", "precision")}
                about["electrons"]["solver"] = term.name
        else:
            about = {"lattice": {"kind": system.kind, "size": list(system.size), "periodic": list(system.periodic)}}
        classical = {name: True for number, name in enumerate(self._names) if number != self._first}
        return {**about, "dynamics": {**self.dynamics.model_dump(mode="json"), "classical": classical}}

    @property
    def identity(self) -> dict[str, Any]:
        """The same for a run that resumes, with a text for each field by which it can be told from others."""
        config = self.config
        kept = {
            key: value
            for key, value in config["dynamics"].items()
            if key in DynamicsSettings.model_fields or (key in _INTERVALS and value is not None)
        }
        return {**config, "dynamics": {**kept, "field": self._texts}}

    def _is_electronic(self, term: Any) -> bool:
        if isinstance(term, Solver):
            system = self._system
            return isinstance(system, ElectronSystem) and term.system.as_config() == system.as_config()
        return term is None or isinstance(term, ForceField | Committee)

    def _build(self, term: Any, world: World, device: torch.device) -> Field:
        system, dynamics = self._system, self.dynamics
        if isinstance(term, Solver):
            return SolverField(term)
        if term is None or isinstance(term, ForceField | Committee):
            if not isinstance(system, ElectronSystem):
                raise HpcspinError("field: this field needs electrons; give a DrivenLattice or a ClosedLattice")
            if term is None:
                return exact_field(system, dynamics, world, device)
            term.require(system.lattice, "field")
            require_electrons(system.as_config(), term.card, ("the model", "the system"), dynamics.allow, world)
            return learned_field(term, system, dynamics, world, device)
        if not is_field(term):
            raise HpcspinError(
                f"field: a {type(term).__name__} is no field; give None for the exact field of the system, a solver, a "
                "force field, the name of one, or an object with halo and bind as hpcspin.dynamics.Field has them"
            )
        return term


def _require_one_of_electrons(verb: str, terms: Sequence[Any]) -> None:
    """Refuse a second field of electrons: a run records one density, one current and one energy of electrons."""
    found = sum(term is None or isinstance(term, Solver | ForceField | Committee) for term in terms)
    if found > 1:
        raise HpcspinError(
            f"{verb}: {found} fields in the sum are of electrons, whose densities and energies would be mixed up; give "
            "one solver or model, and classical terms"
        )


def _text(term: Any) -> str:
    """A text that identifies a field: equal for equal fields, different for different ones."""
    if term is None:
        return "electrons"
    if isinstance(term, ForceField | Committee):
        weights = hashlib.sha256(b"".join(w.detach().cpu().numpy().tobytes() for w in term.state_dict().values()))
        return f"learned {weights.hexdigest()[:16]}"
    if isinstance(term, Solver):
        parts = json.dumps([term.system.as_config(), term.tolerance, term.precision, term.seed])
        return f"{type(term).__name__} {hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    if dataclasses.is_dataclass(term):
        return _without_addresses(_content(term))
    name, state = f"{type(term).__module__}.{type(term).__qualname__}", getattr(term, "__dict__", {})
    return f"{name} {_digest(state)}" if state else name


def _digest(state: Mapping[str, Any]) -> str:
    """Digest of the attributes of an object, whose `repr` need not show them."""
    try:
        content = pickle.dumps(dict(state))
    except Exception:  # Some objects, such as functions in functions, cannot be pickled.
        content = _without_addresses(_content(dict(state))).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _without_addresses(words: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", words)


def _content(value: Any) -> str:
    """The repr of a value, with checksums in place of arrays, whose repr leaves out digits and most of the entries."""
    if isinstance(value, ForceField | Committee | Solver):
        return _text(value)
    if isinstance(value, Tensor):
        return _content(np.asarray(value.tolist()))  # NumPy has no bfloat16.
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_content(one)}' for key, one in value.items())}}}"
    if type(value) in (list, tuple):
        parts = ", ".join(map(_content, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' * (len(value) == 1)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compared = (one.name for one in dataclasses.fields(value) if one.compare)
        return (
            f"{type(value).__qualname__}({', '.join(f'{name}={_content(getattr(value, name))}' for name in compared)})"
        )
    return repr(value)
