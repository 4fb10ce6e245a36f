"""`Session`: one user's conversation with one agent, wherever it runs. Nothing of it stays in memory between two turns.

A session is an id. Whoever has it sends a message, and that is a run like any other; the runs of one session take turns. What was said, and
what the app wants to know next time, lies in the value store under the session's own keys, each kind with its own lifetime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import uuid4
from weakref import WeakValueDictionary

import anyio
from pydantic_core import PydanticSerializationError, to_json

from agentkit.agents.history import last as last_of
from agentkit.agents.meta import meta_of
from agentkit.agents.turns import SessionSettings, Turns
from agentkit.durable.codec import blame
from agentkit.durable.functions import codec_of
from agentkit.durable.secret import Secret
from agentkit.durable.secrets import secrets_in
from agentkit.errors import InvalidKey, Misuse, NotSerialisable
from agentkit.ports.messages import Message

if TYPE_CHECKING:
    from agentkit.agents.base import Agent, AnyAgent
    from agentkit.agents.context import Context
    from agentkit.agents.meta import Principal
    from agentkit.durable.execution import Execution
    from agentkit.inference.budgets import Budget
    from agentkit.ports.messages import UserMessage
    from agentkit.ports.values import ValueStore
    from agentkit.runtime.handle import RunHandle

T = TypeVar("T")
O_co = TypeVar("O_co", covariant=True)
Priority: TypeAlias = Literal["low", "normal", "high"]

PREFIX = "agentkit/session/"
MAX_ID_BYTES = 200  # of a session id: with tenant and agent it is part of every key
MAX_BASE_BYTES = 300  # of the 512 that a key may have: the rest is for the names of preferences


class Submit(Protocol):
    """What turns a message into a run that takes its turn."""

    async def __call__(
        self, session: Session[Any], run_id: str, message: str | UserMessage, priority: Priority, budget: Budget | None, /
    ) -> RunHandle[Any]: ...


class Sessions:
    """The sessions of a runtime.

    Args:
        values: where they are kept.
        find: the agent class of a name.
        submit: makes a message a run.
        cancel: cancels a run, if there is one.
    """

    def __init__(
        self, values: ValueStore, find: Callable[[str], AnyAgent], submit: Submit, cancel: Callable[[str], Awaitable[None]]
    ) -> None:
        self.values, self.submit, self.cancel = values, submit, cancel
        self._find = find
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    def open(
        self, agent: type[Agent[Any, O_co]], id: str, *, tenant: str, principal: Principal, ctx: Context | None = None
    ) -> Session[O_co]:
        """A session by its id; no I/O."""
        if not 0 < len(id.encode("utf-8", "replace")) <= MAX_ID_BYTES or not id.isprintable():
            raise InvalidKey(id, f"a session id is 1 to {MAX_ID_BYTES} bytes of printable text")
        return Session(self, agent, id, tenant=tenant, principal=principal, ctx=ctx)

    def of(self, ex: Execution, ctx: Context | None = None) -> Session[Any] | None:
        """The session that a run belongs to. With `ctx` its verbs are durable steps."""
        meta = meta_of(ex)
        if not meta.session:
            return None
        name, _, session_id = meta.session.partition("/")
        return self.open(self._find(name), session_id, tenant=ex.run.tenant, principal=meta.principal, ctx=ctx)

    def turns(self, base: str, settings: SessionSettings) -> Turns:
        """The turns under a base."""
        lock = self._locks.get(base)
        if lock is None:
            lock = self._locks[base] = anyio.Lock()
        return Turns(self.values, base, settings, lock)


class Shelf:
    """Small values of a session by key, with a time to live: its preferences, its scratchpad.

    In `run()` each verb is a durable step; elsewhere it asks the store.
    """

    def __init__(self, values: ValueStore, base: str, ttl_s: float | None, ctx: Context | None) -> None:
        self._values, self._base, self._ttl_s, self._ctx = values, base, ttl_s, ctx

    async def get(self, key: str, model: type[T], /) -> T | None:
        """The value under `key` as a `model`; None when there is none, or its time is over. Raises `NotSerialisable` when it is none."""
        ctx: Any = self._ctx
        if ctx is None:
            return await self._get(key, model)
        found: T | None = await ctx.step("session.get", self._get, key, model, returns=model | None)
        return found

    async def set(self, key: str, value: object, /, *, ttl_s: float | None = None) -> None:
        """Keep a value for `ttl_s` seconds; None: as long as its kind is kept.

        Raises:
            NotSerialisable: it does not survive JSON, or holds a secret. Nothing was written.
            ValueTooLarge: nothing was written.
        """
        body = _json(key, value)
        if self._ctx is not None:
            await self._ctx.step("session.set", self._set, key, body.decode(), ttl_s)
        else:
            await self._set(key, body.decode(), ttl_s)

    async def remove(self, key: str, /) -> None:
        """Forget it. There may be nothing."""
        if self._ctx is not None:
            await self._ctx.step("session.remove", self._remove, key)
        else:
            await self._remove(key)

    async def _get(self, key: str, model: type[T]) -> T | None:
        name = self._base + quote(key, safe="")
        value = (await self._values.get([name])).get(name)
        found: T | None = None if value is None else codec_of(model, key).decode(value.value, f"the session's {key!r}")
        return found

    async def _set(self, key: str, body: str, ttl_s: float | None) -> None:
        await self._values.put(self._base + quote(key, safe=""), body.encode(), ttl_s=self._ttl_s if ttl_s is None else ttl_s)

    async def _remove(self, key: str) -> None:
        await self._values.delete(self._base + quote(key, safe=""))


class Secrets:
    """Secrets of a session, a user's token for instance.

    They pass neither journal nor log nor span: read them inside the step or tool that needs them. In the value store they lie as they were
    given, so keep them short-lived, and use a store that is encrypted at rest and that only the app can read; or keep them in a vault, and
    here only the name under which the vault has them.
    """

    def __init__(self, values: ValueStore, base: str, ttl_s: float | None, ctx: Context | None) -> None:
        self._shelf, self._in_run = Shelf(values, base, ttl_s, None), ctx is not None

    async def get(self, key: str, /) -> Secret[str] | None:
        """None when there is none, or its time is over. Raises `Misuse` in `run()`: the answer would not be the same in every replay."""
        if self._in_run:
            raise Misuse(f"secret {key!r}: read it in a step or a tool (step.session.secrets), where no replay needs it again")
        text = await self._shelf.get(key, str)
        return None if text is None else Secret(text)

    async def set(self, key: str, value: Secret[str], /, *, ttl_s: float | None = None) -> None:
        """Keep a secret. Raises `Misuse` in `run()`, as `get`."""
        if self._in_run:
            raise Misuse(f"secret {key!r}: set it in a step or a tool (step.session.secrets), or outside of the run")
        await self._shelf.set(key, value.get_secret_value(), ttl_s=ttl_s)

    async def remove(self, key: str, /) -> None:
        """Forget it. There may be nothing."""
        await self._shelf.remove(key)


class Session(Generic[O_co]):
    """One conversation. Making one does no I/O: any process may, at any time, for the same id.

    `preferences`, `scratchpad` and `secrets` keep small values beside it; each kind has its own lifetime (`ChatAgent.session`).
    In `run()`, as `ctx.session`, every verb is a durable step.
    """

    def __init__(
        self, sessions: Sessions, agent: type[Agent[Any, O_co]], id: str, *, tenant: str, principal: Principal, ctx: Context | None
    ) -> None:
        self._sessions, self._id, self._ctx = sessions, id, ctx
        self.agent, self.tenant, self.principal = agent, tenant, principal
        settings: SessionSettings = getattr(agent, "session", SessionSettings())
        base = base_of(tenant, agent.name, id)
        self.turns = sessions.turns(base, settings)
        self.preferences = Shelf(sessions.values, f"{base}preference/", settings.preferences_s, ctx)
        self.scratchpad = Shelf(sessions.values, f"{base}scratch/", settings.scratchpad_s, ctx)
        self.secrets = Secrets(sessions.values, f"{base}secret/", settings.secrets_s, ctx)

    @property
    def id(self) -> str:
        return self._id

    @property
    def name(self) -> str:
        """The session as its runs know it: agent and id."""
        return f"{self.agent.name}/{self._id}"

    async def send(
        self,
        message: str | UserMessage,
        /,
        *,
        message_id: str | None = None,
        priority: Priority = "high",
        budget: Budget | None = None,
    ) -> RunHandle[O_co]:
        """Say something. The answer is the result of the run; it begins when the messages before it have been answered.

        Args:
            message_id: the same id again is the same message, however often it is sent. Default: random.
            priority: of the run in the queue; somebody waits for it.
            budget: what this turn may spend.

        Raises:
            Overloaded: too many messages of this session wait. Nothing was stored.
            RunConflict, InvalidInput: nothing was stored.
            QueueFull: the message is stored and is answered when there is room; sending it again under its id is safe.
        """
        run_id, ctx = self.run_id(message_id), self._ctx
        if ctx is None:
            return await self._sessions.submit(self, run_id, message, priority, budget)
        await ctx.step("session.send", self._send, run_id, message, priority, budget, effect="rerun")
        handle: RunHandle[O_co] = ctx.execution.host.handle(run_id, self.agent)
        return handle

    async def _send(self, run_id: str, message: str | UserMessage, priority: Priority, budget: Budget | None) -> None:
        await self._sessions.submit(self, run_id, message, priority, budget)

    def run_id(self, message_id: str | None = None) -> str:
        """The run that a message of that id is, or will be."""
        if message_id is None:
            message_id = (uuid4() if self._ctx is None else self._ctx.uuid4()).hex
        parts = "\0".join((self.tenant, self._id, message_id))
        return f"{self.agent.name}.{hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()}"

    async def history(self, *, last: int | None = None) -> list[Message]:
        """What was said in the turns that have ended, oldest first; with `last` at most so many of the newest messages."""
        if self._ctx is not None:
            return await self._ctx.step("session.history", self._history, last)
        return await self._history(last)

    async def _history(self, last: int | None) -> list[Message]:
        messages = await self.turns.messages(await self.turns.head(), last=last)
        return messages if last is None else last_of(messages, last)

    async def append(self, messages: Sequence[Message], /, *, key: str) -> None:
        """Add to the history what was not said in a turn: a note of a human agent, a message from another channel.

        Args:
            key: the same again changes nothing; in a step use its `idempotency_key`, in `run()` it comes from there.
        """
        if self._ctx is not None:
            await self._ctx.step("session.append", self._append, list(messages), key)
        else:
            await self._append(messages, key)

    async def _append(self, messages: Sequence[Message], key: str) -> None:
        await self.turns.append(key, messages)

    async def get(self, key: str, model: type[T], /) -> T | None:
        """A preference: `preferences.get`."""
        return await self.preferences.get(key, model)

    async def set(self, key: str, value: object, /, *, ttl_s: float | None = None) -> None:
        """A preference: `preferences.set`."""
        await self.preferences.set(key, value, ttl_s=ttl_s)

    async def delete(self) -> None:
        """Cancel what waits and is under way, and forget everything that is kept. The runs themselves stay for their `keep_s`."""
        if self._ctx is not None:
            raise Misuse("ctx.session.delete(): a turn cannot delete the session that it is part of; delete it from outside")
        for place in (await self.turns.head()).line:
            await self._sessions.cancel(place.run_id)
        await self.turns.delete()


def base_of(tenant: str, agent: str, id: str) -> str:
    """What the keys of a session begin with; of one with a very long id a digest stands there."""
    base = "/".join(quote(part, safe="") for part in (tenant, agent, id))
    if len(base) > MAX_BASE_BYTES:
        base = f"~/{hashlib.blake2b(base.encode(), digest_size=24).hexdigest()}"
    return f"{PREFIX}{base}/"


def _json(key: str, value: object) -> bytes:
    for path, _ in secrets_in(value):
        raise NotSerialisable(f"the session's {key!r}", path, "it is a secret, which belongs in `secrets`")
    try:
        return to_json(value)
    except PydanticSerializationError as exc:
        path, problem = blame(value)
        raise NotSerialisable(f"the session's {key!r}", path, problem or str(exc)) from exc
