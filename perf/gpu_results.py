"""Results of ``perf/gpu.py``: one JSON a card, one line a figure, and the table of passes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from shared import table

from hpcspin.storage import write_json


class Results:
    """The JSON of one card, written anew after every figure.

    Parameters
    ----------
    path
        Where; what is there already stays, figure by figure.
    environment
        Of this run: card, driver, versions, commit.
    """

    def __init__(self, path: Path, environment: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"runs": [], "figures": {}}
        if path.exists():
            self.content = json.loads(path.read_text())
        if environment not in self.content["runs"]:
            self.content["runs"].append(environment)
        self._run = self.content["runs"].index(environment)

    def write(self, name: str, part: int, results: dict[str, Any]) -> None:
        """Keep a figure."""
        stamp = {"part": part, "run": self._run, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self.content["figures"][name] = stamp | results
        write_json(self.path, self.content)


def line(name: str, results: dict[str, Any]) -> str:
    """A figure in one line: the check that is nearest to its limit, the message, what was left out."""
    notes = []
    if failed := [check for check in results["checks"] if not check["passed"]]:
        notes.append("not so: " + ", ".join(map(_said, failed)))
    elif limited := [check for check in results["checks"] if check.get("limit")]:
        notes.append(_said(max(limited, key=lambda check: check["value"] / check["limit"])))
    if "message" in results:
        notes.append(results["message"])
    notes += [f"left out {part}" for part in results.get("left_out", ())]
    return f"{results['result']:<9} {name:<22} {results['seconds']:6.1f} s  {'; '.join(notes)}"


def _said(check: dict[str, Any]) -> str:
    if "value" not in check:
        return str(check["name"])
    return f"{check['name']} {check['value']:.2g} (at most {check['limit']:.2g})"


def passes(results: dict[str, dict[str, Any]]) -> str:
    """The table that ends a part."""
    rows = [
        [
            name,
            one["result"],
            f"{sum(check['passed'] for check in one['checks'])} of {len(one['checks'])}",
            f"{one['seconds']:.1f}",
        ]
        for name, one in results.items()
    ]
    return table(["figure", "result", "checks", "seconds"], rows)
