"""Where the state behind the names lives.

A semaphore, a rate, a circuit, a retry budget or what a hedge has seen belongs to its *name*: two policies that name the same one share
it. One `PolicyState` holds them all. A runtime has one of its own, with its clock and its stores, and whatever it runs finds it by context
(`using`). Outside of any runtime there is one per event loop, so a program has one, and each test that runs in a loop of its own starts
clean; a test that shares a loop starts clean with `with using(PolicyState()):`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
from anyio.lowlevel import RunVar

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    from agentkit.clock import Clock
    from agentkit.ports.limits import LimitStore
    from agentkit.ports.values import ValueStore

P = TypeVar("P")
logger = logging.getLogger(__name__)


class PolicyState:
    """The state behind the names of policies and their parts.

    Args:
        clock: the time of waits, windows and deadlines.
        limits: where shared semaphores and rates are counted; without one they count in this process, which is said once for each.
        values: where shared circuits are kept; without one they are known to this process only.
    """

    def __init__(self, clock: Clock = SYSTEM, *, limits: LimitStore | None = None, values: ValueStore | None = None) -> None:
        self.clock, self.limits, self.values = clock, limits, values
        self._parts: dict[tuple[str, str], tuple[Hashable, object]] = {}
        self._warned: set[str] = set()

    @cached_property
    def new_scope(self) -> type[anyio.CancelScope]:
        """The cancel scope of the event loop's library, which anyio would look up anew at every call."""
        return type(anyio.CancelScope())

    def part(self, kind: str, name: str, settings: Hashable, make: Callable[[], P]) -> P:
        """The part of that kind and name, made at its first use.

        Raises:
            InvalidSetting: it was made with other settings: one name has one state, so it has one set of settings.
        """
        found = self._parts.get((kind, name))
        if found is None:
            found = self._parts[kind, name] = (settings, make())
        if found[0] != settings:
            raise InvalidSetting(f"{kind} {name!r}", settings, f"has been used with {found[0]!r}: give all the same, or another name")
        return cast("P", found[1])

    def store_of(self, what: str) -> LimitStore | None:
        """The limit store; where there is none, says once that `what` counts here alone."""
        if self.limits is None and what not in self._warned:
            self._warned.add(what)
            logger.warning("%s is shared, but there is no limit store outside of a runtime: it counts in this process only", what)
        return self.limits


tenant: ContextVar[str] = ContextVar("agentkit_policy_tenant", default="")
"""For whom calls are made: shared limits serve those who wait fairly by it."""

_here: ContextVar[PolicyState | None] = ContextVar("agentkit_policy_state", default=None)
_of_the_loop: RunVar[Any] = RunVar("agentkit_policy_state")


def current() -> PolicyState:
    """The state that calls from here use."""
    state = _here.get()
    if state is not None:
        return state
    found: PolicyState | None = _of_the_loop.get(None)
    if found is None:
        found = PolicyState()
        _of_the_loop.set(found)
    return found


@contextmanager
def using(state: PolicyState, *, on_behalf_of: str | None = None) -> Generator[PolicyState]:
    """Use that state in the block and in all tasks started from it; calls there are made for that tenant, if one is named."""
    before, before_tenant = _here.get(), tenant.get()
    _here.set(state)
    if on_behalf_of is not None:
        tenant.set(on_behalf_of)
    try:
        yield state
    finally:
        _here.set(before)
        tenant.set(before_tenant)
