"""``perf/gpu.py`` on a machine without a card: figures, their process, their JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

PERF = Path(__file__).resolve().parents[2] / "perf"
sys.path[:0] = [str(PERF), str(Path(__file__).parent)]

import bad_figures  # noqa: E402
import gpu  # noqa: E402
import gpu_figures  # noqa: E402
import gpu_worker  # noqa: E402
from gpu_figures import FIGURES, Bench, Figure, figure  # noqa: E402
from gpu_results import Results, line  # noqa: E402
from gpu_worker import Worker  # noqa: E402

NAMES = ("passes", "measures", "misses", "raises", "cannot", "dies", "hangs", "is_slow", "ruins", "is_ruined")
BAD = {name: Figure(getattr(bad_figures, name), 1, 5.0) for name in NAMES}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(BAD, pretend=True)
    yield worker
    worker.stop()


@pytest.fixture
def bench() -> Bench:
    return Bench(torch.device("cpu"), True, time.monotonic() + 5)


def test_the_first_part_runs_without_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["rates", "noise", "singular_energy", "bits", "resume"]
    only = [word for name in names for word in ("--only", name)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--part", "1", "--pretend", "--output", str(tmp_path), *only])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert [text.split()[:2] for text in printed.splitlines()[:5]] == [["passed", name] for name in names]
    assert [path.name for path in tmp_path.iterdir()] == ["pretended_gpu.json"]
    content = json.loads((tmp_path / "pretended_gpu.json").read_text())
    assert list(content["figures"]) == names
    assert content["runs"][content["figures"]["noise"]["run"]]["versions"]["torch"]
    assert all(one["result"] == "passed" and one["checks"] for one in content["figures"].values())


def test_the_parts_have_figures_of_their_own() -> None:
    assert {one.part for one in FIGURES.values()} == {1, 2, 3}
    with pytest.raises(ValueError, match="passes"):
        figure(1, 1.0)(bad_figures.passes), figure(1, 1.0)(bad_figures.passes)
    del FIGURES["passes"]


def test_a_figure_that_fails_is_recorded_and_the_next_one_runs(worker: Worker) -> None:
    results = {name: worker.run(name, 5.0, 8.0) for name in NAMES[:6]}
    found = {name: one["result"] for name, one in results.items()}
    assert found == {"passes": "passed", "measures": "measured", "misses": "failed", "raises": "failed",
                     "cannot": "left out", "dies": "failed"}  # fmt: skip
    assert results["raises"]["message"] == "ValueError: a wrong value"
    assert results["raises"]["checks"][0]["passed"]
    assert "exit code -11" in results["dies"]["message"]
    assert "not a number nan" in line("misses", results["misses"])
    assert worker.run("passes", 5.0, 8.0)["result"] == "passed"


def test_a_figure_out_of_time_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    worker.run("passes", 5.0, 8.0)
    hung = worker.run("hangs", 0.1, 1.0)
    assert hung["result"] == "failed"
    assert "did not return" in hung["message"]
    monkeypatch.setattr(gpu_worker, "GRACE", 0.2)
    slow = gpu_worker.run(bad_figures.is_slow, True, 0.2)
    assert slow["result"] == "passed"
    assert slow["left_out"] == ["the rest: its 0 s were over"]
    assert time.monotonic() - start < 30


def test_a_process_whose_card_no_longer_answers_is_replaced(worker: Worker) -> None:
    assert [worker.run(name, 5.0, 8.0)["result"] for name in ("ruins", "is_ruined")] == ["passed", "passed"]


def test_what_was_found_before_memory_was_full_counts() -> None:
    found = gpu_worker.run(bad_figures.needs_much, True, 5.0)
    assert found["result"] == "passed"
    assert found["left_out"] == ["the rest: the memory of the card is full"]


def test_the_exit_code_tells_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "FIGURES", {name: BAD[name] for name in ("misses", "passes", "cannot")})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--part", "1", "--pretend", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    figures = json.loads((tmp_path / "pretended_gpu.json").read_text())["figures"]
    assert [one["result"] for one in figures.values()] == ["failed", "passed", "left out"]


def test_without_a_card_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--part", "2", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: torch finds no NVIDIA GPU"):
        gpu.main()
    (tmp_path / "pretended_gpu.json").write_text("not JSON")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--pretend"])
    with pytest.raises(SystemExit, match=r"pretended_gpu\.json: is not what this script has written"):
        gpu.main()
    assert (tmp_path / "pretended_gpu.json").read_text() == "not JSON"


def test_figures_keep_the_run_that_made_them(tmp_path: Path) -> None:
    path = tmp_path / "gpu_card.json"
    found = {"result": "passed", "seconds": 1.0, "checks": [], "numbers": {}}
    Results(path, {"driver": "1"}).write("one", 1, found)
    Results(path, {"driver": "2"}).write("other", 2, found)
    Results(path, {"driver": "1"}).write("third", 2, found)
    content = json.loads(path.read_text())
    assert [content["runs"][one["run"]]["driver"] for one in content["figures"].values()] == ["1", "2", "1"]


def test_cards_have_files_of_their_own() -> None:
    assert gpu.file_of("NVIDIA H100 80GB HBM3", False) == "gpu_nvidia_h100_80gb_hbm3.json"
    assert not gpu.file_of("NVIDIA H100 80GB HBM3", True).startswith("gpu_")


def test_what_no_time_is_left_for_is_named(bench: Bench) -> None:
    done = []
    for item in bench.while_time(range(5), growth=1e3):
        done.append(item)
        time.sleep(0.02)
    assert done == [0]
    assert bench.left_out == [f"{item}: no time was left" for item in range(1, 5)]


def test_pairs_find_the_ratio(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    monkeypatch.setattr(gpu_figures.time, "perf_counter", lambda: clock[0])

    def way(name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            order.append(name)
            # The machine slows down, for both alike.
            clock[0] += seconds * len(order)

        return work

    found = bench.paired(way("a", 1.0), way("b", 3.0), most=0.0, fewest=40)
    assert found["pairs"] == 40
    assert "".join(order[2:10]) == "abbaabba"
    assert found["ratio"] == pytest.approx(3.0, rel=0.05)
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
    assert found["first_interquartile"] > 0.2 * found["first_seconds"]
