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


def steps(hpcspin: Cli, config: Path, *overrides: str) -> dict[str, tuple[float, str]]:
    """Longest step of each integrator and what bounds it."""
    field = ["dynamics.field=classical", "dynamics.classical.zeeman=[0, 0, 0.2]", "initial={kind: random}"]
    result = hpcspin("suggest-step", config, *field, "dynamics.temperature=0", *overrides)
    assert result.returncode == 0, result.stderr
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines() if line.startswith("  ")]
    return {name: (float(step), cause) for name, step, cause in rows}


def test_suggest_step_counts_drives_and_noise(hpcspin: Cli, config: Path) -> None:
    pulse = "dynamics.classical.drives=[{kind: pulse, field: [0.1, 0, 0], centre: 20.5, width: 0.03}]"
    for name, (step, cause) in steps(hpcspin, config, pulse, "dynamics.duration=60").items():
        assert 0.01 < step <= 0.061, name
        assert cause == "the drives"
    hot = steps(hpcspin, config, "dynamics.temperature=2", "dynamics.damping=0.5")
    hotter = steps(hpcspin, config, "dynamics.temperature=8", "dynamics.damping=0.5")
    for name in ("heun", "sib", "depondt_mertens", "midpoint"):
        assert hot[name][1] == "the noise"
        assert abs(hot[name][0] / hotter[name][0] - 4) < 0.1
    assert hot["rk4"] == hotter["rk4"] == (hot["rk4"][0], "the motion of the spins  (not with noise)")


def test_vacancies_turn_no_spin(hpcspin: Cli, config: Path) -> None:
    empty = [[x, y] for x in range(6) for y in range(4) if (x, y) != (2, 1)]
    field = ["dynamics.field=classical", "dynamics.classical={heisenberg: 1.0}", f"electrons.vacancies={empty}"]
    result = hpcspin("suggest-step", config, *field, "initial={kind: random}", "electrons.reservoirs.left.sites=all")
    assert result.returncode == 0, result.stderr
    assert "nothing moves" in result.stdout
