"""Fallback: ordered alternatives, of which the next is asked when one fails by an error that says another may do better."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from typing_extensions import TypeVarTuple, Unpack

from agentkit import telemetry
from agentkit.errors import InvalidSetting
from agentkit.resilience.deadline import remaining_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


def moves_on(error: Exception, on: tuple[type[Exception], ...] = (), *, remaining_s: float = 1.0) -> bool:
    """Whether to ask the next one: time is left, and the error says so (`try_elsewhere`, else `retry_safe`) or is of a type in `on`."""
    says = getattr(error, "try_elsewhere", getattr(error, "retry_safe", False))
    return remaining_s > 0 and (bool(says) or isinstance(error, on))


async def fallback(alternatives: Sequence[Callable[[Unpack[Ts]], Awaitable[R]]], *args: *Ts, on: tuple[type[Exception], ...] = ()) -> R:
    """The answer of the first alternative that has one, asked in order and each with its own policy: `partial(policy.call, fn)`.

    Args:
        alternatives: at least one.
        args: what each is called with.
        on: further types of errors after which the next is asked.

    Raises:
        InvalidSetting: there is no alternative.
        Exception: the error of the last one asked, with a note for each before it.
    """
    if not alternatives:
        raise InvalidSetting("alternatives", alternatives, "needs one at least")
    failures: list[str] = []
    for number, ask in enumerate(alternatives, 1):
        try:
            return await ask(*args)
        except Exception as exc:
            if number == len(alternatives) or not moves_on(exc, on, remaining_s=remaining_s()):
                for failure in failures:
                    exc.add_note(failure)
                raise
            failures.append(f"alternative {number} before it: {type(exc).__name__}: {exc}")
        telemetry.FELL_BACK.say({}, {telemetry.ATTEMPT: number})
    raise AssertionError("the last alternative either answers or raises")
