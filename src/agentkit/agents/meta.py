"""What belongs to a run beside its input: on whose behalf it runs, what it may spend, and in which session. Children inherit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from agentkit.inference.budgets import Budget

if TYPE_CHECKING:
    from agentkit.durable.execution import Execution


class Principal(BaseModel):
    """On whose behalf a run acts. Tools check its permissions at each call."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: str
    permissions: frozenset[str] = frozenset()


NOBODY = Principal.model_construct(id="")  # what needs no check needs no validator, which takes long to make
"""Of a run that was started without a principal: it may do what needs no permission."""


class RunMeta(BaseModel):
    """Stored with the run as JSON. What a newer version wrote and this one does not know is left alone."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    principal: Principal = NOBODY
    budgets: dict[str, Budget] = Field(default_factory=dict[str, Budget])
    """By the id of the run they were given to: its own, and those of the runs above it, which it spends from as well."""
    session: str = ""
    """The agent and the id of the session that it belongs to: `support/ann`."""
    turn: str = ""
    """The run whose turn in the session it is: its own id, but for what that run has others do for it."""

    def write(self) -> str:
        """As it is stored: nothing for a run that has nothing of all this."""
        return "" if self == PLAIN_META else self.model_dump_json(exclude_defaults=True)

    def with_budget(self, run_id: str, budget: Budget | None) -> RunMeta:
        """The same for a run with a budget of its own under those it inherits."""
        return self if budget is None else self.model_copy(update={"budgets": self.budgets | {run_id: budget}})


PLAIN_META = RunMeta.model_construct()


def read_meta(text: str) -> RunMeta:
    """What `write` wrote."""
    return RunMeta.model_validate_json(text) if text else PLAIN_META


def meta_of(ex: Execution) -> RunMeta:
    """Of a run that is at work, read once in its activation."""
    if ex.meta is None:
        ex.meta = read_meta(ex.run.meta)
    found: RunMeta = ex.meta
    return found
