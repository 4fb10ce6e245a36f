"""What runs tell each other: messages, and the ends of children counted for their parents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.ports.records import Message, RunStatus, Signalled
from agentkit_sql.dialect import Statement
from agentkit_sql.rows import CANCEL, CANCELLED, COMPLETED, PARKED, Changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentkit.ports.queue import Ticket
    from agentkit_sql.dialect import Dialect, Script

JOINED = b"null"
"""The body of the message that says that a join is over."""


class JoinScripts:
    """The scripts of `signal`, `cancel_children` and `tell`."""

    def __init__(self, dialect: Dialect, changes: Changes) -> None:
        self._dialect, self._changes = dialect, changes
        among = dialect.among("run_id")
        self._inbox = Statement("SELECT seq, id, topic, body, taken_seq FROM inbox WHERE run_id = ? ORDER BY seq")
        self._message = Statement("SELECT 1 FROM inbox WHERE run_id = ? AND id = ?")
        live = "parent_id = ? AND parent_key = coalesce(?, parent_key)"
        self._unstarted = Statement(
            f"SELECT run_id, parent_id, parent_key, {int(CANCELLED)}, holds_slot FROM runs "
            f"WHERE {live} AND status IN (1, 3) AND fence = 0{dialect.exclusive}"
        )
        self._started = Statement(
            f"SELECT run_id, inbox_seq, status FROM runs WHERE {live} AND status IN (1, 2, 3) AND fence > 0 "
            f"AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.run_id = runs.run_id AND id = ?) ORDER BY run_id{dialect.exclusive}"
        )
        self._ended = Statement(
            "SELECT run_id, parent_id, parent_key, status, holds_slot FROM runs "
            f"WHERE notify = 1 AND {among} ORDER BY run_id{dialect.exclusive}"
        )
        self._told = Statement(f"UPDATE runs SET notify = 2 WHERE {among}")
        self._count = Statement('UPDATE joins SET good = good + ?, bad = bad + ?, active = active - ? WHERE run_id = ? AND "key" = ?')
        self._join = Statement(
            "SELECT total, need_good, max_bad, slots, good, bad, active, fired FROM joins "
            f'WHERE run_id = ? AND "key" = ?{dialect.exclusive}'
        )
        self._fire = Statement('UPDATE joins SET fired = 1 WHERE run_id = ? AND "key" = ?')
        self._next = Statement(
            "SELECT run_id FROM runs WHERE status = 3 AND waiting_for = 'window' AND parent_id = ? AND parent_key = ? "
            f"ORDER BY idx LIMIT ?{dialect.exclusive}"
        )
        self._living = Statement("SELECT 1 FROM runs WHERE run_id = ? AND status IN (1, 2, 3)")

    def inbox(self, run_id: str) -> Script[list[Message]]:
        return [Message(*row) for row in (yield self._inbox(run_id))]

    def signal(self, run_id: str, message_id: str, topic: str, body: bytes) -> Script[Signalled]:
        found = yield self._changes.inbox_of(run_id)
        if not found:
            return Signalled("unknown")
        if (yield self._message(run_id, message_id)):
            return Signalled("duplicate")
        [(status, fence, inbox_seq, _)] = found
        if RunStatus(status).ended:
            return Signalled("ended")
        now = yield from self._dialect.now()
        if topic == CANCEL and fence == 0:
            yield self._changes.add_message(run_id, message_id, inbox_seq + 1, topic, body)
            yield self._changes.count_message(inbox_seq + 1, now, run_id)
            yield from self._changes.end([run_id], CANCELLED, body, now)
            return Signalled("accepted", ended_now=True)
        tickets = yield from self._changes.deliver(run_id, message_id, topic, body, now)
        return Signalled("accepted", tickets[0] if tickets else None)

    def cancel_children(self, run_id: str, join_key: str | None, body: bytes) -> Script[list[Ticket]]:
        now = yield from self._dialect.now()
        unstarted = yield self._unstarted(run_id, join_key)
        tickets: list[Ticket] = []
        if unstarted:
            yield from self._changes.end([row[0] for row in unstarted], CANCELLED, body, now)
            # Counted here and now, in one go: told one by one, 10,000 that never started would keep the parent waiting.
            tickets += yield from self._told_ends(unstarted, now)
        message_id = f"{CANCEL}:{run_id}"
        started = yield self._started(run_id, join_key, message_id)
        if started:
            yield self._changes.add_message.many([(child, message_id, seq + 1, CANCEL, body) for child, seq, _ in started])
            yield self._changes.count_message.many([(seq + 1, now, child) for child, seq, _ in started])
            parked = [child for child, _, status in started if status == PARKED]
            tickets += yield from self._changes.wake_up(parked, now)
        return tickets

    def tell(self, child_ids: Sequence[str]) -> Script[list[Ticket]]:
        ended = yield self._ended(self._dialect.listed(child_ids))
        if not ended:
            return []
        now = yield from self._dialect.now()
        return (yield from self._told_ends(ended, now))

    def _told_ends(self, ended: Sequence[Sequence[Any]], now: float) -> Script[list[Ticket]]:
        """Count ended children, rows of `_ended`, in their joins, and do what follows from it."""
        yield self._told(self._dialect.listed(row[0] for row in ended))
        tickets: list[Ticket] = []
        for (parent_id, key), (good, bad, active) in sorted(tally(ended).items()):
            yield self._count(good, bad, active, parent_id, key)
            tickets += yield from self._settle(parent_id, key, now)
        return tickets

    def _settle(self, parent_id: str, key: str, now: float) -> Script[list[Ticket]]:
        """Wake the parent when its condition holds; start the next children."""
        tickets: list[Ticket] = []
        for total, need_good, max_bad, slots, good, bad, active, fired in (yield self._join(parent_id, key)):
            decided = bad > max_bad or good >= need_good or good + bad >= total
            if decided and not fired:
                yield self._fire(parent_id, key)
                if (yield self._living(parent_id)):
                    tickets += (yield from self._changes.deliver(parent_id, f"join:{key}", f"join:{key}", JOINED, now)) or []
            if not decided and active < slots:
                tickets += yield from self._start_next(parent_id, key, slots - active, now)
        return tickets

    def _start_next(self, parent_id: str, key: str, free: int, now: float) -> Script[list[Ticket]]:
        following = [row[0] for row in (yield self._next(parent_id, key, free))]
        if not following:
            return []
        yield self._count(0, 0, -len(following), parent_id, key)
        return (yield from self._changes.wake_up(following, now))


def tally(ended: Iterable[Sequence[Any]]) -> dict[tuple[str, str], list[int]]:
    """Of each join: how many ended well, how many did not, and how many slots of its window they leave."""
    joins: dict[tuple[str, str], list[int]] = {}
    for _, parent_id, key, status, holds_slot in ended:
        counts = joins.setdefault((parent_id, key), [0, 0, 0])
        counts[status != COMPLETED] += 1
        counts[2] += holds_slot
    return joins
