"""Part 1 of ``perf/gpu.py``, last: the tests marked gpu, and the fused kernel under compute-sanitizer."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_checks import ORBITALS
from gpu_figures import Bench, LeftOut, figure
from gpu_systems import ROOT


@figure(1, 120)
def gpu_tests(bench: Bench) -> None:
    """The tests marked gpu."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    several = importlib.util.find_spec("xdist") is not None and not bench.pretend
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rs", "--tb=short"]
    done = _run([*command, *(("-n", "4") if several else ()), *map(str, files)], bench.left - 2)
    bench.numbers["output"] = done.stdout.splitlines()[-40:]
    results = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    bench.numbers.update(results)
    bench.require("pytest ended with 0", done.returncode == 0)
    ran = "skipped" if bench.pretend else "passed"
    bench.require(f"some tests {ran}", results.get(ran, 0) > 0)
    if "skipped" in results and not bench.pretend:
        bench.skip(f"{results['skipped']} tests", "they skipped themselves; see the output")


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """A command in the root of the project; where it takes too long, its exit code is 124."""
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=max(1.0, seconds), check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
        output.seek(0)
        return subprocess.CompletedProcess(command, code, output.read())


@figure(1, 120)
def sanitizer(bench: Bench) -> None:
    """compute-sanitizer on the fused kernel: accesses beyond memory, and races for shared memory."""
    script = str(Path(__file__).with_name("gpu_sanitized.py"))
    clean = {"memcheck": "ERROR SUMMARY: 0 errors", "racecheck": "RACECHECK SUMMARY: 0 hazards"}
    if bench.pretend:
        done = _run([sys.executable, script, "--pretend", str(ORBITALS[0])], bench.left - 2)
        bench.numbers["script"] = done.stdout.splitlines()[-5:]
        bench.require("the script ran", done.returncode == 0)
        bench.skip("compute-sanitizer", "needs a card")
        return
    places = (os.environ.get("PATH", ""), "/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
    program = shutil.which("compute-sanitizer", path=os.pathsep.join(places))
    if program is None:
        raise LeftOut("there is no compute-sanitizer")
    runs = [(tool, m) for m in ORBITALS for tool in clean]
    for tool, m in bench.while_time(runs):
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, script, str(m)]
        done = _run(command, bench.left - 2)
        bench.numbers[f"{tool}, m = {m}"] = done.stdout.splitlines()[-40:]
        bench.require(f"{tool} is clean at m = {m}", done.returncode == 0 and clean[tool] in done.stdout)
