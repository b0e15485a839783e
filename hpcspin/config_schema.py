"""The JSON schema of a config, used by editors and to generate the reference of all keys."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from hpcspin.config import Config
from hpcspin.dynamics import TERMS, ClassicalSettings
from hpcspin.potential.settings import FORCE_FIELDS, ForceFieldSettings, MessagePassingSettings
from hpcspin.registry import Choice, Registry


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a config; names that plugins register later, and their keys, remain valid."""
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **Config.model_json_schema(schema_generator=_Generator),
        "title": "hpcspin config",
    }


class _Generator(GenerateJsonSchema):
    """Adds what pydantic does not see: docstrings of attributes, and names and parameters of registered entries."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        cls = schema["cls"]
        if cls is ForceFieldSettings:
            kinds: set[type[BaseModel]] = {*FORCE_FIELDS.values(), MessagePassingSettings}
            return {
                "anyOf": [
                    self.generate_inner(kind.__pydantic_core_schema__)
                    for kind in sorted(kinds, key=lambda kind: kind.__name__)
                ]
            }
        found = super().model_schema(schema)
        properties = found.setdefault("properties", {})
        if issubclass(cls, Choice):
            for name in cls.registry:
                parameters = cls.registry.parameters(name).model_json_schema()
                for key, value in parameters.get("properties", {}).items():
                    properties.setdefault(key, value | {"description": f"Of {cls.selector} {name}."})
        if cls is ClassicalSettings:
            for name, term in TERMS.items():
                value = self.generate_inner(TypeAdapter(TERMS.type_of(name)).core_schema)
                properties[name] = value | {"description": inspect.getdoc(term)}
        for name, text in _attribute_docstrings(cls).items():
            if name in properties:
                properties[name] = properties[name] | {"description": text}
        for name, registry in _registries(cls).items():
            properties[name]["examples"] = sorted(registry)
        # An observer without parameters may be given by its name alone.
        name_alone = issubclass(cls, Choice) and cls.selector == "name"
        return {"anyOf": [properties["name"], found]} if name_alone else found


def _attribute_docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """Docstrings below the attributes of a class and of its bases, by attribute."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel or owner.__module__.startswith("pydantic"):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def _registries(cls: type[BaseModel]) -> dict[str, Registry[Any]]:
    """The registries that check a field, by the names of the fields."""
    checks = {
        name: getattr(getattr(part, "func", None), "__self__", None)
        for name, field in cls.model_fields.items()
        for part in field.metadata
    }
    return {name: registry for name, registry in checks.items() if isinstance(registry, Registry)}
