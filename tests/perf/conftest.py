"""The study that a module of tests is named after."""

import runpy
import sys
from pathlib import Path

import pytest

PERF = Path(__file__).parents[2] / "perf"


@pytest.fixture(scope="module")
def study(request: pytest.FixtureRequest) -> dict:
    """The names of ``perf/studies/NAME.py`` in ``test_NAME.py``."""
    name = request.path.stem.removeprefix("test_")
    sys.path.insert(0, str(PERF))
    try:
        return runpy.run_path(str(PERF / "studies" / f"{name}.py"), run_name="imported")
    finally:
        sys.path.remove(str(PERF))
