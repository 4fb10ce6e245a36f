"""What the SQL adapters decide without a database, and how their statements find rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.clock import SYSTEM
from agentkit_sql import Sql
from agentkit_sql.queue_turns import WEIGHTS, QueueState, attempt_of, choose, in_turn, row_of
from agentkit_sql.sqlite import connect
from agentkit_sql.values import after_prefix
from tests.adapters.statements import statements

NEW = QueueState(0, 0, (0, 0, 0), (0.0, 0.0, 0.0))
LARGE = ("runs", "journal", "inbox", "tickets")
WHOLE_PARTS = {"runs_untold", "tickets_ready", "tickets_leased", "tickets_delayed", "tickets_keyed"}
"""Partial indexes that hold just what the statement is about, so reading one from its start is no search through the table."""


def line(priority: int, length: int) -> list[tuple[int, float, int]]:
    return [(priority, float(turn), turn) for turn in range(1, length + 1)]


@given(st.tuples(*[st.integers(0, 30)] * 3), st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_priorities_take_turns_by_weight_and_none_is_starved(lengths: tuple[int, int, int], batches: list[int]) -> None:
    lines, state = [line(priority, length) for priority, length in enumerate(lengths)], NEW
    for n in batches:
        before = [bool(one) for one in lines]
        chosen, state = choose(lines, n, state)
        assert len(chosen) == min(n, sum(map(len, lines)))
        for row in chosen:
            priority: int = row[0]
            assert lines[priority].pop(0) == row, "first in, first out inside a priority"
        if all(before) and all(lines) and n >= sum(WEIGHTS):
            assert {row[0] for row in chosen} == {0, 1, 2}


def test_all_three_priorities_waiting_share_by_their_weights() -> None:
    chosen, _ = choose([line(priority, 100) for priority in range(3)], 24, NEW)
    assert [[row[0] for row in chosen].count(priority) for priority in range(3)] == [2, 6, 16]


@given(st.lists(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 99)))))
def test_lines_of_several_kinds_are_served_as_one_in_order(lines: list[list[tuple[float, int]]]) -> None:
    ordered: list[list[Any]] = [sorted(one) for one in lines]
    assert in_turn(ordered) == sorted(row for one in lines for row in one)


@given(st.integers(1, 1 << 38), st.integers(1, 1 << 20))
def test_an_attempt_names_its_row_and_grows_with_each_delivery(n: int, tries: int) -> None:
    assert row_of(attempt_of(n, tries)) == n
    assert attempt_of(n, tries) < attempt_of(n, tries + 1) < attempt_of(n + 1, 1)


@given(st.text(max_size=3), st.text(max_size=5))
def test_the_end_of_a_prefix_parts_those_that_have_it_from_those_beyond(prefix: str, key: str) -> None:
    end = after_prefix(prefix)
    inside = prefix.encode() <= key.encode() and (end is None or key.encode() < end.encode())
    assert inside == key.startswith(prefix)


@pytest.mark.parametrize("port", ["runs", "queue", "values", "limits"])
def test_no_statement_searches_through_a_large_table(port: str, tmp_path: Path) -> None:
    path = str(tmp_path / "agents.db")
    connection = connect(path, 1, SYSTEM)
    found = statements(getattr(Sql(f"sqlite:///{path}"), port))
    assert len(found) > 5
    for name, sql in found.items():
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ("[]",) * sql.count("?"))]
        for step in plan:
            words = step.split()
            if words[0] == "SCAN" and words[1] in LARGE:
                assert words[-1] in WHOLE_PARTS, f"{name}: {step}"
    connection.close()


def test_a_run_is_found_by_its_id_where_its_id_is_known(tmp_path: Path) -> None:
    path = str(tmp_path / "agents.db")
    connection = connect(path, 1, SYSTEM)
    by_id = [sql for sql in statements(Sql(f"sqlite:///{path}").runs).values() if "json_each" in sql and "run_id" in sql]
    assert len(by_id) > 10
    for sql in by_id:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ("[]",) * sql.count("?")))
        assert "sqlite_autoindex" in plan or "runs_by_id" in plan, sql
        assert "runs_owned" not in plan, sql
    connection.close()
