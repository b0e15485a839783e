"""README and pages: short, links that lead somewhere, verbs that exist, an example that runs."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hpcspin.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "perf" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text().splitlines()
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= set(contents)


def test_functions_that_the_pages_name_are_there() -> None:
    names = {name for page in PAGES for name in re.findall(r"`(hpcspin\.[\w.]+)`", page.read_text())}
    assert len(names) > 20
    for name in names:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert link.startswith("generated/") or (page.parent / link).exists(), link  # Sphinx checks what it makes.
    # perf/results/gpu_CARD.json is a pattern; what a script writes need not be there.
    for path in re.findall(
        r"\b(?:perf|configs|launch|examples|docs|tests)/[\w/.-]*\w\.(?:py|yaml|sh|md|h5|safetensors)\b", text
    ):
        assert (ROOT / path).exists(), path


def test_the_readme_lists_the_verbs() -> None:
    listed = set(re.findall(r"^hpcspin ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert listed == set(typer.main.get_command(app).commands)


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 12
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_figure_has_a_command_that_makes_it() -> None:
    rows = re.findall(r"^\| (`.*\.png`) \| (.*) \|$", (ROOT / "docs" / "report.md").read_text(), re.MULTILINE)
    listed = {name for figures, _ in rows for name in re.findall(r"`([^`]+)`", figures)}
    pictures = {path for folder in ("docs/figures", "perf/results") for path in (ROOT / folder).rglob("*.png")}
    assert listed == {str(path.relative_to(ROOT)) for path in pictures}
    for _, command in rows:
        for kind, script in re.findall(r"python perf/(benchmark|study)\.py (\w+)", command):
            folder = "benchmarks" if kind == "benchmark" else "studies"
            assert (ROOT / "perf" / folder / f"{script}.py").exists()
