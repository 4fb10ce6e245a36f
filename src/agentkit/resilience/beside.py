"""Jobs that run beside a block and may cut it off: a timer on a clock that tests move, the renewal of a shared permit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup


class Beside:
    """An async context manager. A job that returns cuts the block off; errors of the block leave it as they are, in no group.

    A job must not raise.
    """

    struck: object = None
    """What the job that cut the block off returned."""

    _group: TaskGroup

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    def start(self, job: Callable[[], Awaitable[object]]) -> None:
        """Run one more job until the block ends."""
        self._group.start_soon(self._run, job)

    async def _run(self, job: Callable[[], Awaitable[object]]) -> None:
        self.struck = await job()
        self._group.cancel_scope.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        """Whether the block was cut off by a job: then its cancellation ends here."""
        self._group.cancel_scope.cancel()
        if _may_be_cancellation(exc):
            return bool(await self._group.__aexit__(kind, exc, tb))
        await self._group.__aexit__(None, None, None)
        return False


def _may_be_cancellation(exc: object) -> bool:
    return isinstance(exc, (anyio.get_cancelled_exc_class(), BaseExceptionGroup))
