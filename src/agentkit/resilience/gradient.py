"""How many calls at a time a backend bears, found out from how long they take.

After the gradient limits of Netflix's concurrency-limits: while calls take about as long as they do on a quiet backend, a little more is
let through; when they take longer, something queues up behind the limit, and it goes down in proportion. How long they take on a quiet
backend is measured now and then with few calls at a time, as Envoy's adaptive concurrency does: an average that is merely carried on would
come to take the queue for normal. Pure functions of state and event.
"""

from __future__ import annotations

import math
from typing import NamedTuple

TOLERANCE = 1.5  # calls may take half as long again before that counts as queueing: no two are alike
LATELY = 0.1  # weight of one call in what calls take now: about the last twenty count
SMOOTHING = 0.2  # of a step towards the new limit: one slow call shall not halve it
AFTER_FAILURE = 0.9  # of the limit stays when a call failed: a server that refuses work says it has too much
QUIET = 2.0  # calls at a time while measuring: the fewest that do not stand still while one of them hangs
MEASURED = 20  # calls on a quiet backend: enough for an average
MEASURE_EVERY = 1000  # calls that the limit held up: measuring then costs a fiftieth of them


class Load(NamedTuple):
    """What is known of a backend.

    Args:
        limit: calls at a time, in fractions.
        now_s: what calls take now, 0 before the first.
        quiet_s: what they take on a quiet backend.
        calls: since a measurement began, or ended.
        resume: the limit after the measurement that is going on; 0 when none is.
    """

    limit: float
    now_s: float = 0.0
    quiet_s: float = 0.0
    calls: int = 0
    resume: float = 0.0


def unknown(most: int) -> Load:
    """A backend of which nothing is known: it is measured first."""
    return Load(limit=min(QUIET, most), resume=math.sqrt(most))


def answered(load: Load, took_s: float, *, in_flight: int, most: int) -> Load:
    """The load after a call that succeeded.

    Args:
        load: before it.
        took_s: how long it took.
        in_flight: calls at its end, itself included.
        most: the highest limit.
    """
    if load.resume:
        return _measured(load, took_s, in_flight)
    now_s = took_s if not load.now_s else load.now_s + LATELY * (took_s - load.now_s)
    if in_flight < load.limit / 2:  # the limit was not what bounded them, so nothing is learned about it
        return load._replace(now_s=now_s)
    gradient = max(0.5, min(1.0, TOLERANCE * load.quiet_s / now_s)) if now_s else 1.0
    wanted = load.limit * gradient + math.sqrt(load.limit)  # the root: room to try more, small beside a large limit
    limit = _bounded(load.limit + SMOOTHING * (wanted - load.limit), most)
    if load.calls + 1 < MEASURE_EVERY:
        return Load(limit, now_s, load.quiet_s, load.calls + 1)
    return Load(min(QUIET, limit), 0.0, load.quiet_s, resume=limit)


def _measured(load: Load, took_s: float, in_flight: int) -> Load:
    if in_flight > load.limit:  # it began when the backend was not quiet yet
        return load
    calls = load.calls + 1
    mean_s = load.now_s + (took_s - load.now_s) / calls
    if calls < MEASURED:
        return load._replace(now_s=mean_s, calls=calls)
    return Load(load.resume, mean_s, mean_s)


def failed(load: Load, *, most: int) -> Load:
    """The load after a call that the backend failed."""
    resume = load.resume and _bounded(load.resume * AFTER_FAILURE, most)
    return load._replace(limit=_bounded(load.limit * AFTER_FAILURE, most), resume=resume)


def _bounded(limit: float, most: int) -> float:
    return max(1.0, min(float(most), limit))
