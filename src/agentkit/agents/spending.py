"""What the model calls of a run cost, and who pays: the accounts of a run, and the meter that every call of its steps goes through."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio

from agentkit.agents.meta import meta_of
from agentkit.agents.services import services_of, tenant_of
from agentkit.errors import (
    AuthFailed,
    CircuitOpen,
    EngineBusy,
    InvalidSetting,
    Misuse,
    NoTimeLeft,
    NotRecorded,
    Overloaded,
    RateLimited,
    RequestRefused,
    ScriptExhausted,
    StoreError,
    Unreachable,
)
from agentkit.inference.budgets import Account, Budget
from agentkit.inference.pricing import Estimate, estimate
from agentkit.inference.spend import Spend
from agentkit.inference.usage import usage_account
from agentkit.ports.messages import Usage
from agentkit.ports.records import EntryKind
from agentkit.resilience.deadline import remaining_s

if TYPE_CHECKING:
    from agentkit.agents.meta import RunMeta
    from agentkit.agents.step_context import StepContext
    from agentkit.agents.tenants import Tenant
    from agentkit.ports.messages import Request
    from agentkit.ports.records import Run

MAX_ID_BYTES = 400  # of an account's id: what is longer is shortened by its digest
DAY_KEPT_S = 2 * 86_400.0  # a call that began before midnight is settled after it
PATIENCE_S = 60.0  # for calls under way to give back what they do not need: as long as most calls take
SETTLE_S = 5.0  # a step waits no longer for its settlement; the budgets keep it and make it later
NOTHING_COMPUTED = (
    *(Unreachable, RateLimited, EngineBusy, AuthFailed, RequestRefused, ScriptExhausted, NotRecorded),
    *(CircuitOpen, Overloaded, NoTimeLeft, StoreError, Misuse, InvalidSetting),
)
"""Errors after which nobody has anything to bill."""
logger = logging.getLogger(__name__)


def accounts_of(run: Run, meta: RunMeta, tenant: Tenant, now: float) -> list[Account]:
    """Who pays for a run: the budgets it was given and those it inherits, its session's, its tenant's of the day (UTC).

    Args:
        now: the store's clock.
    """
    found = [account_of_run(run_id, budget) for run_id, budget in meta.budgets.items()]
    if meta.session and tenant.budget_per_session is not None:
        found.append(_account(("session", run.tenant, meta.session), tenant.budget_per_session))
    if tenant.budget_per_day is not None:
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        found.append(_account(("tenant", run.tenant, day), tenant.budget_per_day, ttl_s=DAY_KEPT_S))
    return found


def account_of_run(run_id: str, limit: Budget) -> Account:
    """The account of a budget that a run was given."""
    return _account(("run", run_id), limit)


def _account(parts: Sequence[str], limit: Budget, ttl_s: float | None = None) -> Account:
    written = "/".join(quote(part, safe=" :=~") for part in parts)
    if len(written) > MAX_ID_BYTES:
        written = f"{parts[0]}/{blake2b(written.encode(), digest_size=16).hexdigest()}"
    return Account(id=written, limit=limit) if ttl_s is None else Account(id=written, limit=limit, ttl_s=ttl_s)


@dataclass(frozen=True, slots=True)
class Due:
    """What to book when a call is over: under its own key, or as one that failed. None of both: nothing."""

    spent: Spend | None = None
    failed: Spend | None = None
    stays: bool = False
    """The reservation is left as it is: the same call is made again under the same key."""


def due(expected: Estimate, told: Usage | None, error: BaseException | None, *, leaves: bool) -> Due:
    """What is to be booked. What the engine said it took is the truth; what may have been computed unseen is booked as its question alone.

    Args:
        leaves: the run is leaving this process, and will make the step again.
    """
    said = told is not None and bool(told.usd or told.input_tokens or told.output_tokens)
    cost = Spend.of(told) if told is not None and said else expected.question
    if error is None:
        return Due(spent=cost)
    if leaves and not isinstance(error, Exception):
        return Due(stays=True)
    return Due() if isinstance(error, NOTHING_COMPUTED) and not said else Due(failed=cost)


class StepMeter:
    """Accounts for the model calls of one attempt of a step.

    Each call reserves before it is sent, and settles under the step's idempotency key and its own number. What a failed call has cost is
    booked under a key of that attempt: the next one has the call's own key to itself.
    """

    def __init__(self, step: StepContext) -> None:
        self._step, self._ex = step, step.execution
        self._numbers = count(1)

    @asynccontextmanager
    async def __call__(self, model: str, request: Request, /) -> AsyncGenerator[Callable[[Usage], None]]:
        """The block in which a call is made; it is told what the call took.

        Raises:
            BudgetExceeded: nothing was sent.
            StoreUnavailable: nobody knows what is left. Nothing was sent.
        """
        ex, now = self._ex, self._ex.store_now()
        told: list[Usage] = []
        accounts = accounts_of(ex.run, meta_of(ex), tenant_of(ex), now)
        services, key = services_of(ex), f"{self._step.idempotency_key}~{next(self._numbers)}"
        price = services.models.prices.price(model, datetime.fromtimestamp(now, UTC).date())
        expected = estimate(request, price)
        if accounts:
            await services.budgets.reserve(accounts, key, expected.whole, wait_s=min(PATIENCE_S, remaining_s()), now=now)
        error: BaseException | None = None
        try:
            yield told.append
        except BaseException as exc:
            error = exc
            raise
        finally:
            if price is None and told and not told[-1].usd and any(account.limit.usd is not None for account in accounts):
                services.models.prices.missed(model)
            await self._over(accounts, key, due(expected, told[-1] if told else None, error, leaves=ex.leaving is not None))

    async def _over(self, accounts: Sequence[Account], key: str, due: Due) -> None:
        """Book what is due, also on the run's own account. A store that does not answer does not cost the step its answer."""
        if due.stays:
            return
        run, budgets, now = self._ex.run, services_of(self._ex).budgets, self._ex.store_now()
        payers = [*accounts, usage_account(run.run_id, run.keep_s)]
        with anyio.move_on_after(SETTLE_S, shield=True):
            try:
                if due.spent is not None:
                    self._warn(await budgets.settle(payers, key, due.spent, now=now))
                    return
                if due.failed is not None:
                    self._warn(await budgets.settle(payers, f"{key}!{self._step.attempt}", due.failed, now=now))
                await budgets.release(accounts, key, now=now)
            except StoreError as exc:
                logger.warning("run %r: a model call is not settled yet: %s", run.run_id, exc)

    def _warn(self, passed: Sequence[Account]) -> None:
        """Tell whoever follows the run that a soft limit was passed."""
        for account in passed:
            self._step.tell(EntryKind.BUDGET, {"account": account.id, "limit": account.limit.model_dump()})
