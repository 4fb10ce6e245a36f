"""The connection to SQS: one client of the driver, the addresses of the queues, and nothing that the driver raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from agentkit.errors import InvalidSetting, StoreError, StoreUnavailable
from agentkit_sqs import driver, names
from agentkit_sqs.faults import NoSuchQueue, translated

if TYPE_CHECKING:
    from agentkit_sqs.settings import SqsSettings

T = TypeVar("T")
GIVE_UP_AFTER = 10  # receives, of SQS's own redrive policy: beyond the deliveries after which a worker buries, which buries the run too
PAGE = 1000  # names of queues of one request, the most


class Client:
    """Requests to SQS, in one event loop.

    Each raises `StoreUnavailable` (no answer, it may have happened), `StoreBusy` (throttled, nothing happened), `StoreRefused`.
    """

    def __init__(self, settings: SqsSettings) -> None:
        self.settings = settings
        self._users = 0
        self._stack = AsyncExitStack()
        self._raw: Any = None
        self._addresses: dict[str, str] = {}

    async def open(self) -> None:
        """Find credentials and ask for the queues, so that what is wrong with either shows now."""
        self._users += 1
        if self._users > 1:
            return
        try:
            self._check_loop()
            self._turns = anyio.Semaphore(self.settings.max_connections)
            await self._connect()
        except BaseException:
            await self.aclose()
            raise

    def _check_loop(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError as exc:
            rule = "the SQS driver needs asyncio and this is trio: run on asyncio, or choose another queue"
            raise InvalidSetting("url", self.settings.url, rule) from exc

    async def _connect(self) -> None:
        try:
            session = await anyio.to_thread.run_sync(driver.session)
            self._raw = await self._stack.enter_async_context(driver.client(session, self.settings))
        except Exception as exc:
            raise _or_itself(exc, translated(exc, self.settings, opening=True)) from exc
        await self.call("list_queues", opening=True, QueueNamePrefix=f"{self.settings.prefix}__", MaxResults=1)

    async def aclose(self) -> None:
        """The last one closes."""
        self._users -= 1
        if not self._users:
            stack, self._stack = self._stack, AsyncExitStack()
            self._raw = None
            with anyio.CancelScope(shield=True):
                await stack.aclose()

    async def call(self, operation: str, *, queue: str = "", wait_s: float = 0.0, opening: bool = False, **params: Any) -> dict[str, Any]:
        """The answer to one request, which the server may hold back for `wait_s`."""
        if self._raw is None:
            raise StoreUnavailable(self.settings.url, "it is not open")
        try:
            async with self._turns:
                with anyio.fail_after(self.settings.timeout_s + wait_s):
                    answer: dict[str, Any] = await getattr(self._raw, operation)(**params)
                    return answer
        except Exception as exc:
            raise _or_itself(exc, translated(exc, self.settings, queue=queue, opening=opening)) from exc

    async def on(self, queue: str, operation: str, **params: Any) -> dict[str, Any]:
        """The same for one queue, which is made where it is missing."""
        try:
            return await self.call(operation, queue=queue, QueueUrl=await self._address(queue), **params)
        except NoSuchQueue:
            if self._addresses.pop(queue, None) is None:
                raise
            return await self.call(operation, queue=queue, QueueUrl=await self._address(queue), **params)  # it was deleted

    async def each(self, queue: str, operation: str, entries: Sequence[dict[str, Any]]) -> list[str]:
        """One request for up to ten messages; for each the code of what went wrong, or nothing."""
        numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        answer = await self.on(queue, operation, Entries=numbered)
        faults = {fault["Id"]: str(fault.get("Code") or "failed") for fault in answer.get("Failed", ())}
        return [faults.get(entry["Id"], "") for entry in numbered]

    async def queues(self) -> dict[str, names.Place]:
        """The queues of this deployment, by their names."""
        found: dict[str, names.Place] = {}
        more: dict[str, Any] = {}
        while True:
            page = await self.call("list_queues", QueueNamePrefix=f"{self.settings.prefix}__", MaxResults=PAGE, **more)
            for address in page.get("QueueUrls", ()):
                name = address.rpartition("/")[2]
                place = names.place(self.settings.prefix, name)
                if place is not None:
                    self._addresses[name], found[name] = address, place
            if not page.get("NextToken"):
                return found
            more = {"NextToken": page["NextToken"]}

    async def attributes(self, queue: str) -> dict[str, str]:
        """Counts and settings of a queue. Raises `NoSuchQueue` where it was deleted: who counts must not bring it back."""
        answer = await self.call("get_queue_attributes", queue=queue, QueueUrl=await self._address(queue), AttributeNames=["All"])
        attributes: dict[str, str] = answer["Attributes"]
        return attributes

    async def _address(self, queue: str) -> str:
        found = self._addresses.get(queue)
        if found is None:
            try:
                answer = await self.call("get_queue_url", queue=queue, QueueName=queue)
            except NoSuchQueue:
                if not self.settings.create:
                    raise
                answer = await self._make(queue)
            found = self._addresses[queue] = answer["QueueUrl"]
        return found

    async def _make(self, queue: str) -> dict[str, Any]:
        attributes = {
            "MessageRetentionPeriod": str(self.settings.retention_s),
            "VisibilityTimeout": str(self.settings.visibility_s),
        }
        if not queue.endswith(names.DEAD):
            self._addresses.pop(queue + names.DEAD, None)  # who deleted the one may have deleted the other
            arn = (await self.attributes(queue + names.DEAD))["QueueArn"]
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": GIVE_UP_AFTER})
        return await self.call("create_queue", queue=queue, QueueName=queue, Attributes=attributes)


def _or_itself(exc: Exception, wanted: BaseException) -> BaseException:
    return exc if wanted is exc else wanted


async def side_by_side(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do all at once; their results in order. Raises the first `StoreError` when all have ended."""
    results: dict[int, T] = {}
    errors: list[StoreError] = []

    async def do(number: int, work: Callable[[], Awaitable[T]]) -> None:
        try:
            results[number] = await work()
        except StoreError as exc:
            errors.append(exc)

    async with anyio.create_task_group() as group:
        for number, work in enumerate(works):
            group.start_soon(do, number, work)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(works))]
