"""What each run has spent on models: an account without a limit, kept beside those of its budgets, and how it is read.

A run counts its own calls alone. So the runs of a list add up, and no two runs write to one account: a thousand children cost their parent
nothing. What a run spent with everything below it is added up when somebody asks, for the ids of children begin with their parent's.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from agentkit.inference.budgets import Account, Budget
from agentkit.ports.messages import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.inference.budgets import Budgets
    from agentkit.inference.spend import Spend

NO_LIMIT = Budget.model_construct()
KEPT_S = 90 * 86_400.0  # beside the time that the run is kept after its end: it may wait for a human for weeks after its last call
MAX_ID_BYTES = 440  # of the 512 of a key: longer than any root's id, so that those of its children begin with it however they are cut
PREFIX = "usage/"


def usage_account(run_id: str, keep_s: float = 0.0) -> Account:
    """Where a run's calls are counted.

    Args:
        keep_s: how long the run is kept after its end.
    """
    return Account(id=PREFIX + _cut(run_id), limit=NO_LIMIT, ttl_s=KEPT_S + keep_s)


def _cut(run_id: str) -> str:
    whole = run_id.encode()
    if len(whole) <= MAX_ID_BYTES:
        return run_id
    return f"{whole[:MAX_ID_BYTES].decode(errors='ignore')}~{blake2b(whole, digest_size=8).hexdigest()}"


async def own_usage(budgets: Budgets, run_ids: Sequence[str]) -> list[Usage]:
    """What the calls of each of these runs took so far, in one round trip. Raises `StoreUnavailable`."""
    return [_usage(ledger.spent) for ledger in await budgets.look([usage_account(run_id) for run_id in run_ids])]


async def whole_usage(budgets: Budgets, run_id: str) -> Usage:
    """What the calls of a run and of all below it took so far. Raises `StoreUnavailable`."""
    (own,) = await budgets.look([usage_account(run_id)])
    return _usage(own.spent.plus(await budgets.below(f"{PREFIX}{run_id}/")))


def _usage(spent: Spend) -> Usage:
    return Usage(input_tokens=spent.tokens - spent.written, output_tokens=spent.written, usd=spent.usd, cached_input_tokens=spent.cached)
