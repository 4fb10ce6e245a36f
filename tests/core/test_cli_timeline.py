"""A journal as bars on one axis."""

from __future__ import annotations

import io
import json
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agentkit.cli import timeline as tl
from agentkit.cli.timeline import ASCII, UNICODE, Activation, Bar, Timeline, axis, line, timeline
from agentkit.cli.view import children_data, event_line, labelled, run_data, runs_table, show_data, show_parts
from agentkit.ports.messages import UNUSED
from agentkit.ports.records import Entry, EntryKind
from agentkit.runtime.events import StatusChanged, StepEvent
from agentkit.runtime.handle import RunInfo

T0 = 1_700_000_000_000


class Book:
    """Writes journals as the runtime does."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.fence = 1

    def add(self, kind: EntryKind, key: str, at_ms: int, body: object = None, *, took_ms: int = 0, attempt: int = 1) -> Book:
        packed = b"" if body is None else json.dumps(body).encode()
        self.entries.append(Entry(len(self.entries) + 1, kind, key, attempt, "", 0, packed, T0 + at_ms, took_ms * 1000, self.fence))
        return self

    def claim(self, at_ms: int, worker: str) -> Book:
        self.fence += 1
        return self.add(EntryKind.STATUS, "", at_ms, {"status": "running", "worker": worker})

    def left(self, at_ms: int, status: str, waited_for: str | None = None) -> Book:
        return self.add(EntryKind.STATUS, "", at_ms, {"status": status} | ({"for": waited_for} if waited_for else {}))


def bar(found: Timeline, key: str) -> Bar:
    return next(bar for bar in found.bars if bar.key == key)


def test_a_step_is_a_bar_from_its_beginning_to_its_result() -> None:
    found = timeline(Book().add(EntryKind.RESULT, "extract#1", 500, 1, took_ms=400).entries)
    extract = bar(found, "extract#1")
    assert (extract.kind, extract.outcome, extract.start_ms - T0, extract.end_ms - T0) == ("step", "ok", 100, 500)


def test_an_effect_begins_at_its_intent_and_is_unknown_until_it_has_an_outcome() -> None:
    book = Book().add(EntryKind.INTENT, "file#1", 100)
    assert bar(timeline(book.entries), "file#1").outcome == "unknown"
    filed = bar(timeline(book.add(EntryKind.RESULT, "file#1", 300, 1, took_ms=50).entries), "file#1")
    assert (filed.kind, filed.outcome, filed.start_ms - T0, filed.end_ms - T0) == ("effect", "ok", 100, 300)


def test_attempts_errors_and_claims_of_one_step_are_on_its_bar() -> None:
    book = Book().add(EntryKind.INTENT, "pay#1", 0).claim(5_000, "w2").add(EntryKind.INTENT, "pay#1", 5_010, attempt=2)
    book.add(EntryKind.ERROR, "pay#1", 5_100, {"kind": "CardDeclined", "message": "no funds"}, attempt=2)
    paid = bar(timeline(book.entries), "pay#1")
    assert (paid.attempts, paid.fences, paid.outcome, paid.note) == (2, [1, 2], "error", "CardDeclined: no funds")


def test_an_effect_that_was_not_started_after_all_is_void() -> None:
    assert bar(timeline(Book().add(EntryKind.INTENT, "a#1", 0).add(EntryKind.VOID, "a#1", 1).entries), "a#1").outcome == "void"


def test_a_timer_and_children_are_waits_until_their_result() -> None:
    book = Book().add(EntryKind.TIMER, "sleep#1", 0).add(EntryKind.CHILD, "map#1", 10)
    waiting = timeline(book.entries)
    assert [(b.kind, b.outcome, b.waits) for b in waiting.bars] == [("wait", "open", True), ("children", "open", True)]
    book.add(EntryKind.RESULT, "sleep#1", 9_000)
    assert bar(timeline(book.entries), "sleep#1").end_ms - T0 == 9_000


def test_a_signal_was_waited_for_since_the_park_before_it() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 100).left(120, "waiting", "signal:approval").claim(60_000, "w2")
    approval = bar(timeline(book.add(EntryKind.SIGNAL, "wait:approval#1", 60_001, {}).entries), "wait:approval#1")
    assert (approval.start_ms - T0, approval.end_ms - T0, approval.outcome) == (120, 60_001, "ok")


def test_progress_is_counted_and_a_saved_state_is_a_point_of_its_own_each_time() -> None:
    book = (
        Book()
        .add(EntryKind.PROGRESS, "a#1", 1)
        .add(EntryKind.PROGRESS, "a#1", 2)
        .add(EntryKind.SNAPSHOT, "state", 3)
        .add(EntryKind.SNAPSHOT, "state", 4)
    )
    found = timeline(book.entries)
    assert (found.progress, [b.key for b in found.bars]) == (2, ["state (3)", "state (4)"])


def test_each_claim_is_told_with_how_it_came_and_how_it_left() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 100, took_ms=100).left(120, "waiting", "timer:sleep#1")
    book.claim(5_000, "w2").add(EntryKind.RESULT, "b#1", 5_100, took_ms=50).claim(17_000, "w3").left(17_100, "done")
    first, second, third = timeline(book.entries).activations
    assert first == Activation(1, T0, T0 + 120, "", "waiting", "timer:sleep#1")
    assert (second.worker, second.left, second.end_ms - T0) == ("w2", "", 5_100)
    assert (third.worker, third.left, third.fence) == ("w3", "done", 3)


def test_a_packed_or_damaged_body_never_breaks_the_picture() -> None:
    packed = zlib.compress(json.dumps({"kind": "X", "message": "y"}).encode())
    entries = [
        Entry(1, EntryKind.ERROR, "a#1", 1, "", 1, packed, T0, 0, 1),
        Entry(2, EntryKind.ERROR, "b#1", 1, "", 0, b"\xff{", T0, 0, 1),
        Entry(3, EntryKind.ERROR, "c#1", 1, "", 1, b"no zlib", T0, 0, 1),
    ]
    assert [b.note for b in timeline(entries).bars] == ["X: y", "error: ", "error: "]


def drawn(book: Book, width: int) -> list[str]:
    found = timeline(book.entries)
    scale = axis(found, width)
    return [line(bar, scale, found.activations, ASCII) for bar in found.bars]


def test_steps_are_drawn_to_scale() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 100, took_ms=100).add(EntryKind.RESULT, "b#1", 400, took_ms=300)
    assert drawn(book, 20) == ["#####               ", "     ###############"]


def test_steps_side_by_side_overlap() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 100, took_ms=100).add(EntryKind.RESULT, "b#1", 200, took_ms=200)
    assert drawn(book, 10) == ["#####     ", "##########"]


def test_a_long_park_is_cut_and_the_claim_after_it_is_marked() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 100, took_ms=100).add(EntryKind.TIMER, "sleep#1", 100).left(100, "waiting")
    book.claim(600_000, "w2").add(EntryKind.RESULT, "sleep#1", 600_000).add(EntryKind.RESULT, "b#1", 600_100, took_ms=100)
    assert drawn(book, 23) == [
        "########## : |         ",
        "          ---|         "[:10] + "---|         ",
        "           : ##########",
    ]


def test_a_step_too_short_for_a_cell_is_seen_all_the_same() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 1_000, took_ms=1_000).add(EntryKind.RESULT, "b#1", 1_000)
    assert drawn(book, 10)[1] == "         #"


@given(
    st.lists(st.tuples(st.sampled_from(list(EntryKind)), st.integers(0, 10**9), st.integers(0, 10**6), st.booleans()), max_size=40),
    st.integers(20, 120),
)
def test_any_journal_can_be_drawn(script: list[tuple[EntryKind, int, int, bool]], width: int) -> None:
    book = Book()
    for i, (kind, at_ms, took_ms, claims) in enumerate(script):
        if claims:
            book.claim(at_ms, "w")
        book.add(kind, f"s#{i % 7}", at_ms, took_ms=took_ms)
    found = timeline(book.entries)
    scale = axis(found, width)
    for each in found.bars:
        assert len(line(each, scale, found.activations, UNICODE)) == width
        assert scale.at(each.start_ms) <= scale.at(each.end_ms) <= width + 1e-6


def info(**changes: object) -> RunInfo:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    fields: dict[str, object] = {
        "run_id": "contract-17", "agent": "review", "version": "3", "tenant": "acme", "status": "waiting", "waiting_for": "signal:approval",
        "attempts": 2, "crashes": 0, "parent_id": None, "created_at": now, "updated_at": now, "error": None, "usage": UNUSED,
    }  # fmt: skip
    return RunInfo.model_validate(fields | changes)


def printed(*parts: object, width: int = 140) -> str:
    written = io.StringIO()
    console = Console(file=written, width=width, color_system=None)
    for part in parts:
        console.print(part)
    return written.getvalue()


def test_runs_are_a_table_and_a_list_for_machines() -> None:
    later = datetime(2026, 11, 21, 13, 30, tzinfo=UTC)
    text = printed(
        runs_table([info(), info(run_id="contract-18", status="failed", waiting_for=None, error="StepError: no")], later), width=200
    )
    assert "contract-17" in text
    assert "1 h 30 min" in text
    assert "StepError: no" in text
    assert set(run_data(info())) >= {
        "run_id",
        "agent",
        "version",
        "tenant",
        "status",
        "waiting_for",
        "attempts",
        "created_at",
        "updated_at",
        "error",
    }


def test_show_tells_the_run_its_steps_and_its_claims() -> None:
    book = Book().add(EntryKind.RESULT, "extract#1", 100, took_ms=100).add(EntryKind.RESULT, "extract#1/fetch#1", 90, took_ms=50)
    book.claim(12_600, "0123456789abcdef").add(EntryKind.INTENT, "file#1", 12_700).left(12_800, "waiting", "operator:file")
    found = timeline(book.entries)
    text = printed(*show_parts(info(), found, {"total": 3, "done": 2, "failed": 1}, UNUSED, width=140, unicode=True))
    assert "waiting for  signal:approval" in text
    assert "children     3: 2 done, 1 failed" in text
    assert "\n  fetch#1 " in text
    assert "an effect without an outcome yet" in text
    assert (
        "claim 2  taken over by worker 0123456789ab 12.5 s after the last entry of claim 1, worked 200 ms, then waiting for operator:file"
        in text
    )
    assert "█" not in printed(*show_parts(info(), found, {"total": 0}, UNUSED, width=140, unicode=False))


def test_a_step_stands_above_the_steps_inside_it_although_it_ends_after_them() -> None:
    book = Book().add(EntryKind.RESULT, "a#1", 10, took_ms=10).add(EntryKind.RESULT, "b#1/c#1", 50, took_ms=20)
    book.add(EntryKind.RESULT, "b#1", 80, took_ms=60).add(EntryKind.RESULT, "gather#1/2/c#1", 90, took_ms=5)
    keys = [b.key for b in timeline(book.entries).bars]
    assert keys == ["a#1", "b#1", "b#1/c#1", "gather#1/2/c#1"]
    assert labelled(keys) == ["a#1", "b#1", "  c#1", "gather#1/2/c#1"]


def test_show_for_machines_has_stable_keys() -> None:
    data = show_data(info(), timeline(Book().add(EntryKind.RESULT, "a#1", 10, took_ms=5).entries), {"total": 0}, UNUSED)
    assert set(data) == {"run", "steps", "activations", "children", "usage", "progress_events"}
    (step,) = json.loads(json.dumps(data))["steps"]
    assert set(step) == {"key", "kind", "outcome", "attempts", "claims", "start_ms", "end_ms", "took_us", "note"}


def test_a_run_that_has_not_begun_is_shown_without_a_picture() -> None:
    assert len(show_parts(info(status="queued"), timeline([]), {"total": 0}, UNUSED, width=100, unicode=True)) == 1
    assert children_data([]) == {"total": 0}


NOON = datetime(2026, 1, 1, 12, 0, 0, 5_000, UTC)
FAILED = StepEvent(offset=7, at=NOON, run_id="r", step="extract#1", phase="failed", attempt=2)
PARKED = StatusChanged(offset=8, at=NOON, run_id="r", status="waiting", waiting_for="timer:a")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (FAILED, "12:00:00.005      7  step     extract#1  failed  attempt 2"),
        (FAILED.model_copy(update={"attempt": 1}), "12:00:00.005      7  step     extract#1  failed"),
        (PARKED, "12:00:00.005      8  status   waiting  timer:a"),
    ],
)
def test_an_event_is_a_line_with_its_offset(event: StepEvent | StatusChanged, said: str) -> None:
    assert event_line(event).plain == said


def test_the_axis_cuts_no_more_than_it_has_room_for() -> None:
    bars = [Bar(f"s#{i}", "step", i * 1e6, i * 1e6 + 1, "ok") for i in range(200)]
    scale = axis(Timeline(bars, [], 0), 60)
    assert sum(segment.cut for segment in scale.segments) <= 60 // (3 * tl.GAP_CELLS)
    assert scale.at(bars[-1].end_ms) <= 60 + 1e-6
