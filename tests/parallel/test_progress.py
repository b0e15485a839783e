"""Lines of a batch job say how far the work is, how long it will take, and what it is about; they are sparse."""

from __future__ import annotations

import logging
import re

import pytest

from hpcspin.parallel import progress as module
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World


def test_lines_say_what_is_left_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "hpcspin"), progress(World(), "simulate", 100, done=20) as bar:
        for step in range(80):
            now[0] += 10.0
            bar.advance(note=f"wall at {step}")
    lines = caplog.messages
    assert len(lines) == 41  # One at the start, one every 20 s of work in units of 10 s.
    assert re.fullmatch(r"simulate: 21/100 in 0:00:10, 0:13:10 left, until \w{3} \d\d:\d\d, wall at 0", lines[0])
    assert lines[-1] == "simulate: 100/100 in 0:13:20, done, wall at 79"
