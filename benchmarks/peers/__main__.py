"""`python -m benchmarks.peers [--quick] [--only NAME] [--json FILE]`: make the missing environments, run all in turns, print the ratios."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.peers.contest import Contest, Place, hold, show
from benchmarks.peers.environments import Peer
from benchmarks.peers.places import database, emptied, file, lasting_postgresql, plain_redis, running
from tests.servers.process import ServerMissing, leave

ROUNDS = {"sqlite": 5, "postgresql": 3, "redis-queue": 3, "postgresql-queue": 3}  # three: a turn of all takes minutes there
AGENTKIT = Peer("agentkit", "ours.py", times=10)
RAW = Peer("raw", "raw_commit.py", times=3)
LANGGRAPH = Peer(
    "langgraph",
    "langgraph_plan.py",
    ("langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg[binary,pool]"),
)
DBOS = Peer("dbos", "dbos_plan.py", ("dbos", "psycopg[binary]"), ("pysqlite3-binary",))
OUR_QUEUE = Peer("queue", "ours_queue.py", times=5)
OUR_RUNS = Peer("runs", "ours_runs.py")
PLANS = (AGENTKIT, RAW, LANGGRAPH, DBOS)
ON_REDIS = (
    OUR_QUEUE,
    OUR_RUNS,
    Peer("raw", "raw_streams.py", times=5),
    Peer("taskiq", "taskiq_tasks.py", ("taskiq", "taskiq-redis", "hiredis")),
    Peer("arq", "arq_tasks.py", ("arq", "hiredis")),
    Peer("saq", "saq_tasks.py", ("saq[redis]", "hiredis", "typing_extensions")),
    Peer("streaq", "streaq_tasks.py", ("streaq",)),
)
ON_POSTGRESQL = (
    OUR_QUEUE,
    OUR_RUNS,
    Peer("raw", "raw_skip_locked.py", times=5),
    Peer("pgqueuer", "pgqueuer_tasks.py", ("pgqueuer[asyncpg]",), times=3),
)


def plans(where: str, place: Place, quick: bool) -> list[Contest]:
    """Durable steps: many plans side by side, and one after the other."""
    return [
        Contest(f"plans of 10 steps, {at_once} at a time, {where}", "step", PLANS, place, amount, at_once, {"agentkit is": "agentkit"})
        for at_once, amount in ((50, 10 if quick else 50), (1, 3 if quick else 10))
    ]


def tasks(where: str, place: Place, peers: Sequence[Peer], quick: bool) -> list[Contest]:
    """Tasks that do nothing: put, then drained by one worker."""
    amount = 300 if quick else 3000
    ours = {"our queue is": OUR_QUEUE.name, "our runs are": OUR_RUNS.name}
    title = f"{amount:,} waiting tasks that do nothing, 100 at a time, one worker process, {where}"
    return [Contest(title, "task", peers, place, amount, 100, ours, {"put one by one/s": "put_rate"})]


@contextmanager
def on_sqlite(quick: bool) -> Generator[list[Contest]]:
    yield plans("SQLite", file, quick)


@contextmanager
def on_postgresql(quick: bool) -> Generator[list[Contest]]:
    with running(lasting_postgresql) as server:
        yield plans("PostgreSQL", partial(database, server), quick)


@contextmanager
def queues_on_redis(quick: bool) -> Generator[list[Contest]]:
    with running(plain_redis) as server:
        yield tasks("Redis", partial(emptied, server), ON_REDIS, quick)


@contextmanager
def queues_on_postgresql(quick: bool) -> Generator[list[Contest]]:
    with running(lasting_postgresql) as server:
        yield tasks("PostgreSQL", partial(database, server), ON_POSTGRESQL, quick)


CONTESTS = {
    "sqlite": on_sqlite,
    "postgresql": on_postgresql,
    "redis-queue": queues_on_redis,
    "postgresql-queue": queues_on_postgresql,
}


def measure(console: Console, name: str, quick: bool, kept: dict[str, object]) -> bool:
    """Hold the contests of one store; False when we ourselves or the raw limit did not run."""
    ok = True
    try:
        with CONTESTS[name](quick) as contests:
            for contest in contests:
                answers = hold(console, contest, 1 if quick else ROUNDS[name])
                show(console, contest, answers)
                kept[contest.title] = {name: vars(found) for name, found in answers.items()}
                ok = ok and not any(answers[must].problem for must in ("raw", *contest.ours.values()))
    except ServerMissing as exc:
        console.print(f"{name}: {exc}", style="red")
        ok = False
    return ok


def main() -> int:
    """Measure and print; 1 when we ourselves or a raw limit did not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="The same work done by other libraries.")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast it is")
    parser.add_argument("--only", choices=CONTESTS, action="append", help="these alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    kept: dict[str, object] = {}
    try:
        held = [measure(console, name, options.quick, kept) for name in options.only or CONTESTS]
    finally:
        leave()
    about = machine.describe()
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), style="dim", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about, "peers": kept}, indent=2) + "\n")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
