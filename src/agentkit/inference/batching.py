"""Micro-batching: many small calls, each with its own caller, made as one.

A batch is sent when it has `max_size` items, or when its oldest item has waited `max_wait_s`, and one of `max_parallel` places is free:
while all are taken the next batch grows, so the busier the backend, the larger the batches. Every item has its own end: an answer, an
error, or the cancellation of its caller, which takes it out of the batch and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from agentkit.clock import SYSTEM, Clock, wait_for
from agentkit.errors import BatchClosed, Misuse, Overloaded
from agentkit.resilience.settings import above_zero, at_least

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741


class _Item(Generic[I, O]):
    """One call on its way."""

    __slots__ = ("answer", "batch", "error", "over", "value")

    def __init__(self, value: I) -> None:
        self.value = value
        self.over = anyio.Event()
        self.answer: list[O] = []
        self.error: Exception | None = None
        self.batch: _Batch[I, O] | None = None
        """The one it was sent with."""

    def end(self, answer: O | Exception) -> None:
        if isinstance(answer, Exception):
            self.error = answer
        else:
            self.answer = [answer]
        self.over.set()


class _Batch(Generic[I, O]):
    """Items that were sent together. When the last of their callers has gone nobody needs the answer, and the call is cancelled."""

    def __init__(self, items: list[_Item[I, O]]) -> None:
        self.items = items
        self.scope = anyio.CancelScope()
        self._left = len(items)

    def leave(self) -> None:
        self._left -= 1
        if not self._left:
            self.scope.cancel()


class MicroBatch(Generic[I, O]):
    """Calls `fn` with many items at a time, for callers that have one each: `async with MicroBatch(embed) as batch: await batch(text)`.

    Args:
        fn: gets the items in the order in which they came, and returns as many results in that order. An Exception among them is raised to
            that item's caller; one that `fn` raises, to all.
        max_size: items in one call, as the backend takes them.
        max_wait_s: how long the first item waits for others.
        max_waiting: items not yet sent; a caller beyond is refused with `Overloaded` at once.
        max_parallel: calls of `fn` at a time.
        name: for errors.
    """

    def __init__(
        self,
        fn: Callable[[Sequence[I]], Awaitable[Sequence[O | Exception]]],
        *,
        max_size: int = 64,  # most embedding servers take that much, and gain little by more
        max_wait_s: float = 0.01,  # small against any model call
        max_waiting: int = 4096,
        max_parallel: int = 2,  # one is computed while the next is on its way
        name: str = "micro-batch",
        clock: Clock = SYSTEM,
    ) -> None:
        for setting, value in (("max_size", max_size), ("max_waiting", max_waiting), ("max_parallel", max_parallel)):
            at_least(f"MicroBatch.{setting}", value, 1)
        above_zero("MicroBatch.max_wait_s", max_wait_s)
        self._fn, self._clock, self._name = fn, clock, name
        self._max_size, self._max_wait_s, self._max_waiting = max_size, max_wait_s, max_waiting
        self._free = max_parallel
        self._waiting: dict[_Item[I, O], None] = {}
        self._open = False
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise Misuse(f"this {self._name} is entered already: enter it once and share it")
        self._changed, self._full = anyio.Event(), anyio.Event()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._collect, self._tasks)
        self._open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Send what waits and return with the last answer; after an error, which stays as it is, cut everything off."""
        self._open = False
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        if exc is not None:
            tasks.cancel_scope.cancel()
        self._note()
        self._full.set()
        try:
            if _may_be_cancellation(exc):
                await tasks.__aexit__(kind, exc, tb)
            else:
                await tasks.__aexit__(None, None, None)
        finally:
            for item in self._waiting:
                item.end(BatchClosed(self._name))
            self._waiting.clear()

    async def __call__(self, value: I, /) -> O:
        """The result for one item, made together with those of others.

        Raises:
            Overloaded: `max_waiting` items wait. This one was not sent.
            BatchClosed: outside of the `async with` block, or cut off by its end; it says whether it was sent.
            Exception: what `fn` raised, or gave for this item.
        """
        if not self._open:
            raise BatchClosed(self._name)
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(self._name, self._max_waiting, self._max_wait_s)
        item = _Item[I, O](value)
        self._waiting[item] = None
        self._note()
        try:
            await item.over.wait()
        finally:
            if not item.over.is_set():
                self._leave(item)
        if item.error is not None:
            raise item.error
        return item.answer[0]

    def _leave(self, item: _Item[I, O]) -> None:
        self._waiting.pop(item, None)
        if item.batch is not None:
            item.batch.leave()

    def _note(self) -> None:
        """Something came, or a place became free."""
        self._changed.set()
        if len(self._waiting) >= self._max_size:
            self._full.set()

    async def _collect(self, tasks: anyio.abc.TaskGroup) -> None:
        """Make batches until it is closed and nothing waits any more."""
        while True:
            while self._open and not self._waiting:
                await self._wait()
            if self._open and len(self._waiting) < self._max_size:
                self._full = anyio.Event()
                await wait_for(self._clock, self._full, self._max_wait_s)
            while not self._free:
                await self._wait()
            if not self._waiting:
                if not self._open:
                    return
                continue
            batch = _Batch([self._take() for _ in range(min(self._max_size, len(self._waiting)))])
            for item in batch.items:
                item.batch = batch
            self._free -= 1
            tasks.start_soon(self._send, batch)

    async def _wait(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()

    def _take(self) -> _Item[I, O]:
        item = next(iter(self._waiting))
        del self._waiting[item]
        return item

    async def _send(self, batch: _Batch[I, O]) -> None:
        try:
            with batch.scope:
                answers = await self._answers(batch)
                for item, answer in zip(batch.items, answers, strict=True):
                    item.end(answer)
        finally:
            self._free += 1
            self._note()
            for item in batch.items:
                if not item.over.is_set():
                    item.end(BatchClosed(self._name, sent=True))

    async def _answers(self, batch: _Batch[I, O]) -> Sequence[O | Exception]:
        """One for each item, whatever `fn` does."""
        try:
            answers = await self._fn([item.value for item in batch.items])
            if len(answers) == len(batch.items):
                return answers
            raise Misuse(f"{self._name}: the function gave {len(answers)} results for {len(batch.items)} items; it must give one for each")
        except Exception as exc:  # noqa: BLE001 - raised to the callers, whose it is
            return [exc] * len(batch.items)


def _may_be_cancellation(exc: object) -> bool:
    return isinstance(exc, (anyio.get_cancelled_exc_class(), BaseExceptionGroup))
