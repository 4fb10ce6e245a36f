"""Guardrails: what looks at the content that goes into a model, comes out of it, or into a tool, and lets it pass, changes it or stops it.

`Policy` is about calls (time, retries, limits); a `Guardrail` is about what they say. Each look is a durable step, so a replay asks nobody
again, and what a guardrail answered once holds for the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from agentkit.agents.base import kebab
from agentkit.agents.step_context import StepContext
from agentkit.durable.steps import NOT_JOURNALLED
from agentkit.errors import GuardrailTripped, InvalidSetting
from agentkit.ports.messages import ToolCall, UserMessage
from agentkit.resilience.deadline import Within
from agentkit.resilience.policy import Policy

if TYPE_CHECKING:
    from agentkit.agents.context import Context

Hook = Literal["input", "output", "tool"]
V = TypeVar("V", str, UserMessage, ToolCall)

OWN_LIMIT = Policy()
"""A guardrail has its own time limit; the agent's policy is for its other steps."""
ANSWER_S = 5.0  # a rule takes no time and a small model a second; a guardrail that takes longer is felt in every turn
logger = logging.getLogger(__name__)


class Ruling(BaseModel):
    """What a guardrail says: `Ruling.passes()`, `Ruling.replace(value)` or `Ruling.block(reason)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    action: Literal["pass", "replace", "block"] = "pass"
    value: Any = None
    reason: str = ""

    @classmethod
    def passes(cls) -> Self:
        """Let it pass as it is."""
        return cls()

    @classmethod
    def replace(cls, value: str | Mapping[str, Any], reason: str = "") -> Self:
        """Go on with this text instead, or in `tool` with these arguments."""
        return cls(action="replace", value=value, reason=reason)

    @classmethod
    def block(cls, reason: str) -> Self:
        """Stop it. The reason is for people and for the model: `GuardrailTripped` says it."""
        return cls(action="block", reason=reason)


class Guardrail:
    """Override the hooks you need, and list instances of it in `ChatAgent.guardrails`: they look in that order, each at what the last left.

    A hook that raises, or takes longer than `timeout_s`, gives no answer. Then `fail` decides: `"closed"` blocks, `"open"` lets pass.
    """

    name: ClassVar[str]
    """Default: the class name in kebab-case. It is part of the steps' names."""
    timeout_s: float = ANSWER_S
    fail: Literal["open", "closed"] = "closed"  # who puts up a rail wants to know that it stands

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)
        if cls.fail not in ("open", "closed"):
            raise InvalidSetting(f"{cls.__qualname__}.fail", cls.fail, "must be 'open' or 'closed'")
        if not cls.timeout_s > 0:
            raise InvalidSetting(f"{cls.__qualname__}.timeout_s", cls.timeout_s, "must be above 0")

    async def input(self, ctx: StepContext, message: UserMessage, /) -> Ruling:
        """Look at what a user says, before a model reads it."""
        return Ruling.passes()

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        """Look at an answer, before anybody is given it."""
        return Ruling.passes()

    async def tool(self, ctx: StepContext, name: str, arguments: dict[str, Any], /) -> Ruling:
        """Look at the arguments that a model gives to a tool, before it is called."""
        return Ruling.passes()

    @classmethod
    def watches(cls, hook: Hook) -> bool:
        """Whether the class has that hook."""
        return getattr(cls, hook) is not getattr(Guardrail, hook)


def watched(guardrails: Sequence[Guardrail], hook: Hook) -> bool:
    """Whether any of them has that hook. A text that somebody looks at must not be streamed before."""
    return any(guardrail.watches(hook) for guardrail in guardrails)


async def guard(ctx: Context, guardrails: Sequence[Guardrail], hook: Hook, value: V) -> V:
    """What is left of a message (`input`), a text (`output`) or a tool call (`tool`) when all guardrails have seen it.

    Each look is one step, `guard:<hook>:<name>`. A tool call whose arguments are no JSON object is left to the tool, which refuses it.

    Raises:
        GuardrailTripped: one of them blocks it. Nobody was given it.
    """
    for guardrail in guardrails:
        looked_at = _shown(hook, value)
        if looked_at is not None and guardrail.watches(hook):
            look = _Look(guardrail, hook)
            ruling = await ctx.step(f"guard:{hook}:{guardrail.name}", look, *looked_at, policy=OWN_LIMIT, returns=Ruling)
            if ruling.action == "block":
                raise GuardrailTripped(guardrail.name, hook, ruling.reason, ctx.run_id)
            if ruling.action == "replace":
                value = _replaced(value, ruling.value)
    return value


class _Look:
    """One hook of one guardrail, as the body of a step: always a ruling."""

    def __init__(self, guardrail: Guardrail, hook: Hook) -> None:
        self._guardrail = guardrail
        self._hook: Hook = hook

    async def __call__(self, step: StepContext, *looked_at: Any) -> Ruling:
        guardrail = self._guardrail
        try:
            async with Within(f"guardrail {guardrail.name!r}", guardrail.timeout_s, step.clock) as within:
                within.sent = True
                ruling = await getattr(guardrail, self._hook)(step, *looked_at)
            return _checked(self._hook, ruling)
        except NOT_JOURNALLED:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever went wrong in it, `fail` says what that means
            return self._failed(exc)

    def _failed(self, exc: Exception) -> Ruling:
        guardrail = self._guardrail
        logger.warning("guardrail %r (fail=%r) gave no answer", guardrail.name, guardrail.fail, exc_info=exc)
        reason = f"it gave no answer ({type(exc).__name__}: {exc})"
        return Ruling(reason=reason) if guardrail.fail == "open" else Ruling.block(reason)


def _checked(hook: Hook, ruling: object) -> Ruling:
    """Raises TypeError for what is no ruling, or replaces by something else than was shown."""
    if not isinstance(ruling, Ruling):
        raise TypeError(f"{hook}() returned {ruling!r}: it must return a Ruling")
    fits = isinstance(ruling.value, Mapping) if hook == "tool" else isinstance(ruling.value, str)
    if ruling.action == "replace" and not fits:
        raise TypeError(f"{hook}() replaces by {ruling.value!r}: it must be {'arguments by name' if hook == 'tool' else 'a text'}")
    return ruling


def _shown(hook: Hook, value: str | UserMessage | ToolCall) -> tuple[Any, ...] | None:
    """What a hook is given; None when there is nothing that could be looked at."""
    if isinstance(value, ToolCall):
        try:
            arguments = json.loads(value.arguments or "{}")
        except ValueError:
            return None
        return (value.name, cast("dict[str, Any]", arguments)) if isinstance(arguments, dict) else None
    return (UserMessage(text=value),) if hook == "input" and isinstance(value, str) else (value,)


def _replaced(value: V, by: Any) -> V:
    if isinstance(value, ToolCall):
        return value.model_copy(update={"arguments": json.dumps(by)})
    if isinstance(value, UserMessage):
        return value.model_copy(update={"text": by})
    return cast("V", by)
