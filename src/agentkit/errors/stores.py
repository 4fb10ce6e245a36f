"""What a store did not do as asked. Each says whether a write may have happened."""

from __future__ import annotations

from typing import ClassVar

from agentkit.errors.base import AgentKitError


class StoreError(AgentKitError):
    """A store did not do as asked."""


class StoreUnavailable(StoreError):
    """The store did not answer. A write may have happened."""

    def __init__(self, store: str, problem: str) -> None:
        self.store, self.problem = store, problem
        super().__init__(f"{store}: {problem}")


class StoreBusy(StoreUnavailable):
    """The store was locked or full before anything began. Nothing was written; try again."""

    retry_safe: ClassVar[bool] = True


class StoreRefused(StoreError):
    """The store refused the data. Nothing was written."""


class EntryTooLarge(StoreRefused):
    """A value over the limit of a journal entry. Nothing was written; where it was a step's result, the step ran."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.what, self.size, self.limit = what, size, limit
        super().__init__(f"{what} is {size} bytes, the limit is {limit}: keep big data in a blob store and return its address")


class ValueTooLarge(StoreRefused):
    """Over `max_value_bytes`. Nothing was written."""

    def __init__(self, key: str, size: int, limit: int) -> None:
        self.key, self.size, self.limit = key, size, limit
        super().__init__(f"value of {key!r} is {size} bytes, the limit is {limit}: split it, or keep an address instead")


class InvalidKey(StoreRefused):
    """A key or id outside the rule. Nothing was written."""

    def __init__(self, key: str, rule: str) -> None:
        self.key, self.rule = key, rule
        super().__init__(f"key {key[:80]!r}: {rule}")


class InvalidLimit(StoreRefused):
    """A weight or amount that can never be granted. Nothing was written."""

    def __init__(self, name: str, asked: float, most: float) -> None:
        self.name, self.asked, self.most = name, asked, most
        super().__init__(f"limit {name!r}: {asked:g} asked, but it never has more than {most:g}: ask for less or raise the limit")


class ValueConflict(StoreRefused):
    """Another writer was first. Nothing was written."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        self.key, self.expected, self.found = key, expected, found
        super().__init__(f"{key!r}: expected version {expected}, found {found}; read it again and decide anew")


class SchemaTooNew(StoreRefused):
    """The store was migrated by a newer agentkit. Nothing was written."""

    def __init__(self, store: str, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(f"{store}: its schema is version {found}, this agentkit knows up to {known}: upgrade agentkit-async")


class StoreCorrupt(StoreRefused):
    """The store's file is damaged or no database. Nothing was written."""

    def __init__(self, store: str, problem: str) -> None:
        self.store, self.problem = store, problem
        super().__init__(f"{store}: {problem}. Restore it from a backup, or move it away to start empty")


class WorkerFenced(StoreError):
    """This worker was declared dead. Nothing was written; it registers anew."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        super().__init__(f"worker {worker_id} was declared dead by another process")


class ClaimLost(StoreError):
    """The run belongs to somebody else now. Nothing was written."""

    def __init__(self, run_id: str, fence: int) -> None:
        self.run_id, self.fence = run_id, fence
        super().__init__(f"run {run_id!r}: claim {fence} is no longer valid")
