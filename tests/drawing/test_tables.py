"""Tables on terminals of any width: no row loses its name, no cell a word."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcspin.drawing.tables import print_table
from hpcspin.parallel.world import World

words = st.text("abcxyz019.,_ħ", min_size=1, max_size=30)
cells = st.lists(words, min_size=1, max_size=4).map(" ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data(), width=st.sampled_from([20, 60, 80, 200]), whole=st.integers(1, 2))
def test_first_columns_are_whole_and_words_of_others_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, data: st.DataObject, width: int, whole: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = data.draw(st.integers(whole, 6))
    content = data.draw(st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=1, max_size=4))
    rows = [[f"<{number}> {first}", *others] for number, (first, *others) in enumerate(content)]
    head = [f"heading {number}" for number in range(columns)]
    caplog.clear()
    with caplog.at_level("INFO"):
        print_table("Errors", rows, World(), head, whole)
    (record,) = caplog.records
    assert record.name == "hpcspin.results"
    lines = record.getMessage().splitlines()
    starts = [[k for k, line in enumerate(lines) if line.startswith(row[0])] for row in rows]
    assert [len(found) for found in starts] == [1] * len(rows)
    for row, (start,), (end,) in zip(rows, starts, [*starts[1:], [len(lines)]], strict=True):
        assert all(cell in lines[start] for cell in row[:whole])
        shown = " ".join(lines[start:end]).split()
        assert all(word in shown for cell in row for word in cell.split())
    natural = [max(map(len, (f"heading {number}", *column))) for number, column in enumerate(zip(*rows, strict=True))]
    if sum(natural) + 2 * len(natural) <= width:
        assert len(lines) == 3 + len(rows)  # nothing folded
