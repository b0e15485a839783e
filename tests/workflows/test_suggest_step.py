"""The verb that says how long a step may be."""

import subprocess
from collections.abc import Callable
from pathlib import Path

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_suggest_step_tables_the_integrators(hpcspin: Cli, config: Path) -> None:
    """A uniform field h turns spins at the rate h, so that each step is a pure number over h."""
    steps = {}
    for strength in (1.0, 4.0):
        field = ["dynamics.field=classical", "dynamics.damping=0", f"dynamics.classical.zeeman=[0, 0, {strength}]"]
        result = hpcspin("suggest-step", config, *field, "initial={kind: random}")
        assert result.returncode == 0, result.stderr
        rows = [line.split() for line in result.stdout.splitlines() if line.startswith("  ")]
        steps[strength] = {row[0]: float(row[1]) for row in rows}
        assert "rk4" in result.stdout
        assert "(not with noise)" in result.stdout
    for name, step in steps[1.0].items():
        assert abs(step / steps[4.0][name] - 4) < 0.2
