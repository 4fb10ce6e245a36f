"""The two functions of a deployment on AWS Lambda: one that SQS triggers, and one on a schedule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from agentkit.errors import InvalidSetting, StoreCorrupt, StoreError
from agentkit_sqs.messages import read
from agentkit_sqs.queue import SqsQueue

if TYPE_CHECKING:
    from agentkit.ports.queue import Ticket
    from agentkit.runtime.runtime import Runtime

Handler: TypeAlias = Callable[[Mapping[str, Any], object], dict[str, Any]]

WITHOUT_A_LIMIT_S = 900.0  # where the context tells no time, as in a test: the longest that a Lambda runs
TICK_MARGIN_S = 2.0  # for the way back
LEASES_WATCHED = 1.5  # a dead worker is seen to be dead after one, in rounds of an eighth

log = logging.getLogger("agentkit.sqs")


def lambda_handler(runtime: Runtime, /, *, margin_s: float = 10.0) -> Handler:
    """The handler of a function that SQS triggers: it goes on with the runs whose tickets it is given.

    The runtime is opened at the first call, in a thread whose event loop lives as long as the process, so that a warm call finds its
    connections. Between calls Lambda freezes the process: others then take it for dead, which is safe, since nothing is at work in it;
    the next call finds out with its first claim and goes on under a new registration.

    `margin_s` seconds before the function's time is over no further step is started, and what is still at work half of them later is
    cut; such a run gets a new ticket, so the message that brought it is done with. Failures of the batch (the mapping needs
    `ReportBatchItemFailures`) are messages that are no tickets, of agents that this function does not serve, and those whose run could
    not be asked for or put back: SQS delivers them again, and gives them up after the receives that its redrive policy allows.

    Raises:
        InvalidSetting: the runtime's queue is not SQS, or the margin is not positive.
    """
    if not isinstance(runtime.tickets, SqsQueue):
        rule = "what SQS triggers puts its tickets back there: queue='sqs://REGION/PREFIX', or AGENTKIT_QUEUE"
        raise InvalidSetting("queue", type(runtime.tickets).__name__, rule)
    if margin_s <= 0:
        raise InvalidSetting("margin_s", margin_s, "more than 0: runs need time to leave")

    def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
        tickets = _tickets(event)
        answered = runtime.sync(_serve, runtime, tickets, context, margin_s) if tickets else {}
        failed = [message_id for message_id in _ids(event) if not answered.get(message_id)]
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    return handler


def tick_handler(runtime: Runtime, /) -> Handler:
    """The handler of a function on a schedule of a minute or so: nobody else is there to wake timers and to find what was lost.

    It rings the timers that are due and puts the tickets of runs that have none, until nothing is left; while other workers are silent it
    stays for up to 1.5 leases, to see which of them are dead. Answers `{"tickets": n}`: how many it put.
    """

    def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
        return {"tickets": runtime.sync(_tick, runtime, context)}

    return handler


async def _serve(runtime: Runtime, tickets: Mapping[str, Ticket], context: object, margin_s: float) -> dict[str, bool]:
    """By the id of its message, whether each ticket has done its work. The time is read here, for a cold start has taken some of it."""
    within_s = _left_s(context) - margin_s
    if within_s <= 0:
        log.error("nothing is left of the function's time beside margin_s=%g: give it a longer timeout", margin_s)
    try:
        done = await runtime.serve([*tickets.values()], within_s=within_s, grace_s=margin_s)
    except StoreError as exc:
        log.warning("%d tickets are to be delivered again: %s", len(tickets), exc)
        return {}
    return dict(zip(tickets, done, strict=True))


async def _tick(runtime: Runtime, context: object) -> int:
    watch_s = min(LEASES_WATCHED * runtime.engine.lease_s, _left_s(context) - TICK_MARGIN_S)
    return await runtime.tick(watch_s=watch_s)


def _ids(event: Mapping[str, Any]) -> list[str]:
    return [str(record["messageId"]) for record in event.get("Records", ())]


def _tickets(event: Mapping[str, Any]) -> dict[str, Ticket]:
    """The tickets of an event by the ids of their messages."""
    found: dict[str, Ticket] = {}
    for record in event.get("Records", ()):
        try:
            found[str(record["messageId"])] = read(record["body"]).ticket
        except StoreCorrupt as exc:
            log.error("%s", exc)
    return found


def _left_s(context: object) -> float:
    left_ms: Callable[[], float] | None = getattr(context, "get_remaining_time_in_millis", None)
    return WITHOUT_A_LIMIT_S if left_ms is None else left_ms() / 1000
