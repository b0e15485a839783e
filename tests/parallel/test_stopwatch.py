"""The record of a rank's time adds up, costs next to nothing, and is written once for all ranks."""

import json
import logging
import time

import pytest

from hpcspin.parallel.stopwatch import PACKING, WAITING, Stopwatch, report
from hpcspin.parallel.world import World
from hpcspin.storage import write_json


def test_seconds_add_up_to_the_whole():
    start = time.perf_counter()
    watch = Stopwatch()
    for what, pause in ((PACKING, 0.01), (WAITING, 0.02), (WAITING, 0.02)):
        with watch.measure(what):
            time.sleep(pause)
    time.sleep(0.03)
    found = watch.read()
    elapsed = time.perf_counter() - start
    assert found[PACKING] >= 0.01
    assert found[WAITING] >= 0.04
    assert found["computing"] >= 0.03
    assert 0.08 <= sum(found.values()) <= elapsed
    watch.restart()
    assert sum(watch.read().values()) < 0.01


def test_an_interval_costs_microseconds():
    watch = Stopwatch()

    def cost():
        start = time.perf_counter()
        for _ in range(1000):
            with watch.measure(PACKING):
                pass
        return (time.perf_counter() - start) / 1000

    assert min(cost() for _ in range(5)) < 2e-5


def test_report_says_one_line_and_writes_every_rank(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="hpcspin"):
        report(Stopwatch(), World(), tmp_path / "times.json", write_json)
    assert [set(rank) for rank in json.loads((tmp_path / "times.json").read_text())] == [
        {"computing", PACKING, WAITING}
    ]
    (line,) = caplog.messages
    assert "computing" in line
    assert "waiting" in line
    assert "1 rank:" in line


def test_a_failing_block_is_not_hidden():
    with pytest.raises(ZeroDivisionError), Stopwatch().measure(WAITING):
        raise ZeroDivisionError
