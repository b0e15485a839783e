"""Sphinx makes the documentation from these pages, the docstrings and the settings: ``bash launch/docs.sh``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

from hpcspin import __version__
from hpcspin.config_schema import json_schema
from hpcspin.settings import LARGEST
from hpcspin.storage.datasets import ANALYSED, DATASETS, Described

project, version = "hpcspin", __version__
author = "The hpcspin developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"hpcspin {version}"
html_show_copyright = False
html_math_renderer = "mathml"
html_extra_path = ["generated/config.schema.json"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

default_role = "py:obj"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "exclude-members": "model_config, registry, selector"}
napoleon_use_ivar = True
# Attributes of several classes share a name, as `field`, so that the bare name is ambiguous.
suppress_warnings = ["ref.python"]


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows])


def _kind(schema: dict[str, Any]) -> str:
    """A type in words; sections are links."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if schema.get("type") == "array":
        inner = schema.get("prefixItems") or [schema.get("items", {})]
        return f"[{', '.join(map(_kind, inner))}{'' if 'prefixItems' in schema else ', ...'}]"
    # The first of each pair is the tighter one.
    names = {
        "≥": ("ge", "minimum"),
        ">": ("gt", "exclusiveMinimum"),
        "≤": ("le", "maximum"),
        "<": ("lt", "exclusiveMaximum"),
    }
    bounds = {sign: next((schema[name] for name in pair if name in schema), LARGEST) for sign, pair in names.items()}
    words = {"integer": "whole number", "boolean": "true or false", "string": "word", "null": "none"}
    limits = [f"{sign} {bound:g}" for sign, bound in bounds.items() if abs(bound) != LARGEST]
    return " ".join([words.get(schema.get("type", ""), schema.get("type", "any")), " and ".join(limits)]).strip()


def _section(name: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    rows = [
        (
            f"`{key}`",
            _cell(_kind(value)),
            "needed" if key in needed else f"`{json.dumps(value['default'])}`" if "default" in value else "",
            _cell(" ".join([value.get("description", ""), *_choices(value)]).strip()),
        )
        for key, value in schema.get("properties", {}).items()
    ]
    about = _cell(schema.get("description", "").partition("\n")[0])
    return f"## {name}\n\n{about}\n\n{_table(('key', 'value', 'default', 'meaning'), rows)}\n"


def _choices(schema: dict[str, Any]) -> list[str]:
    names = [name for name in schema.get("examples", ()) if f"``{name}``" not in schema.get("description", "")]
    return [f"Also {', '.join(f'`{name}`' for name in names)}."] if names else []


def _keys(schema: dict[str, Any]) -> str:
    sections = {"config": schema, **schema["$defs"]}
    parts = [_section(name, part) for name, part in sections.items() if "properties" in part]
    unions = [
        f"## {name}\n\n{_cell(_kind({'anyOf': [one for one in part['anyOf'] if '$ref' in one]}))}.\n"
        if all("$ref" in one for one in part["anyOf"])
        else _section(name, next(one for one in part["anyOf"] if "properties" in one))
        for name, part in sections.items()
        if "anyOf" in part
    ]
    return (
        "# All keys of a config\n\nMade from the settings in the source. `hpcspin schema` prints the same as a JSON "
        "schema, by which editors complete and check a config ([how](../configuration.md#in-an-editor)).\n\n"
        + "\n".join([*parts, *unions])
    )


def _datasets() -> str:
    head = ("dataset", "unit", "meaning", "a NaN means")
    analysed = [(f"`{quantity}`", *row) for quantity, known in ANALYSED.items() for row in _described(known)]
    return (
        "# All datasets\n\nThe first axis counts the frames. The same words are attributes of the datasets in each "
        "file: `units`, `meaning`, `nan`; `/current` has `reservoirs`, the names of its columns.\n\n"
        + _table(head, _described(DATASETS))
        + "\n\n## Of analyses\n\nThe datasets of each `--quantity` of `hpcspin analyse`, with the same attributes; for "
        "their axes see [analysis](../analysis.md).\n\n" + _table(("quantity", *head), analysed) + "\n"
    )


def _described(known: Mapping[str, Described]) -> list[tuple[str, ...]]:
    return [(f"`/{name}`", one.units, _cell(one.meaning), _cell(one.nan)) for name, one in known.items()]


def _generate() -> None:
    folder = Path(__file__).parent / "generated"
    folder.mkdir(exist_ok=True)
    schema = json_schema()
    pages = {"keys.md": _keys(schema), "datasets.md": _datasets(), "config.schema.json": json.dumps(schema, indent=1)}
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # An unchanged page is not read again.
            path.write_text(text)


def _plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written to be read in a terminal: bars and stars stand for themselves."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``|`.*?`|:math:`.*?`)", line)
        parts[::2] = [re.sub(r"(?<![\\*])([|*])(?!\*)", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)


def _benchmarks(app: Any, page: str, source: list[str]) -> None:
    """Links to the README of perf lead, here, to the page that includes it."""
    source[0] = source[0].replace("](../perf/README.md", "](benchmarks.md")


def _mathml(display: str) -> Any:
    """Equations as MathML, which browsers draw by themselves: the site needs no network and no script for them."""

    def visit(writer: Any, node: nodes.math) -> None:
        # Browsers know bold Greek as letters of its own, and not by an attribute.
        text = node.astext().replace(r"\boldsymbol\sigma", "𝝈").replace(r"\boldsymbol\Omega", "𝛀")
        writer.body.append(f'<span class="math {display}">{convert(text, display=display)}</span>')
        raise nodes.SkipNode

    return visit, None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", _mathml("inline"), _mathml("block"))
    app.connect("source-read", _benchmarks)
    app.connect("autodoc-process-docstring", _plain, priority=400)  # Before napoleon, which adds markup.


_generate()
