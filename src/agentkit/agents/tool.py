"""`@tool`: a typed function that models, plans and code call as one durable step."""

from __future__ import annotations

import re
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

from pydantic_core import to_jsonable_python

from agentkit import telemetry
from agentkit.agents.bounded import under
from agentkit.agents.executors import Executor, executor_of
from agentkit.agents.generation import tell_tool
from agentkit.agents.meta import meta_of
from agentkit.agents.schema import holds_secret, parameters_of, parsed, signature_of
from agentkit.agents.services import services_of
from agentkit.agents.step_context import StepContext
from agentkit.agents.tool_cache import Cache, Kept
from agentkit.durable.approval import approved
from agentkit.durable.functions import codec_of
from agentkit.durable.steps import fail
from agentkit.ports.messages import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from pydantic import BaseModel

    from agentkit.agents.context import Context
    from agentkit.agents.schema import Parameters
    from agentkit.durable.execution import Execution
    from agentkit.durable.journal import Record
    from agentkit.durable.steps import Call, Done, Effect
    from agentkit.resilience.policy import Policy

P = ParamSpec("P")
R = TypeVar("R")
Undo = TypeVar("Undo", bound="Callable[..., Awaitable[None]]")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what every model's server takes


class Tool(Generic[P, R]):
    """A typed function that models, plans and code call as one durable step. Made by `@tool`.

    Called as the function it is (`await refund(step, "17", 300)`) it runs where its executor says and nothing else happens: that is for
    tests, and for the bodies of other steps. `ctx.step(name, refund, "17", 300)` and `perform` are the durable call, with everything that
    the tool declares.
    """

    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        name: str | None = None,
        effect: Effect | None = None,
        probe: Callable[..., Awaitable[Done[Any] | None]] | None = None,
        undo: Callable[..., Awaitable[None]] | None = None,
        cache: Cache | None = None,
        policy: Policy | None = None,
        executor: Executor | None = None,
        requires: Iterable[str] = (),
        approve: bool = False,
    ) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        self.name: str = getattr(fn, "__name__", type(fn).__name__) if name is None else name
        if not _NAME.fullmatch(self.name):
            raise TypeError(f"tool {self.name!r}: a name has 1 to 64 letters, digits, '_' or '-'; give it one with @tool(name=…)")
        self._signature = signature_of(fn, self.name, StepContext)
        self._parameters = self._signature.parameters
        codec_of(self._signature.returns, f"tool {self.name!r}")  # made now, so that a type that cannot be stored is told here
        self._run = executor_of(self.name, fn, executor, context=self._parameters.context, effect=effect is not None)
        self.effect: Effect | None = effect
        self.probe, self.policy = probe, policy
        self.requires = frozenset([requires] if isinstance(requires, str) else requires)
        self.approve = approve
        self.cache = None if cache is None else self._checked(cache)
        self._undo: tuple[Callable[..., Awaitable[None]], Parameters] | None = None
        if undo is not None:
            self.undo(undo)

    @property
    def description(self) -> str:
        """What the function's docstring says, without its `Args:`, which describe the arguments."""
        return self._signature.description

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model is shown it. The schema is closed: fit for strict structured output."""
        return ToolSpec(self.name, self.description, self._signature.schema)

    @property
    def arguments(self) -> type[BaseModel]:
        """The pydantic model of its arguments."""
        return self._signature.model

    @property
    def returns(self) -> Any:
        """The declared type of its result; None when it declares none."""
        return self._signature.returns

    @property
    def has_undo(self) -> bool:
        return self._undo is not None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """Run the function, and no more than that."""
        return self._run(self.fn, args, kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    def undo(self, fn: Undo, /) -> Undo:
        """Declare how the tool's effect is taken back: `@refund.undo`.

        The function may take a `StepContext` first; it gets by name `result`, the tool's result, and the arguments that it names.
        """
        parameters = parameters_of(fn, f"undo of tool {self.name!r}", StepContext)
        known = {"result", *self.arguments.model_fields}
        if unknown := [name for name in (*parameters.positional, *parameters.named) if name not in known]:
            raise TypeError(f"tool {self.name!r}: its undo asks for {unknown}; there is only {sorted(known)}")
        self._undo = fn, parameters
        return fn

    def parse(self, arguments: str | Mapping[str, object]) -> dict[str, Any]:
        """Check what a model wrote; Python values by name. Raises `ToolArguments`, whose text tells a model how to mend its call."""
        return parsed(self.name, self._signature, arguments)

    async def perform(
        self,
        ctx: Context,
        arguments: Mapping[str, Any],
        /,
        *,
        name: str | None = None,
        key: str | None = None,
        policy: Policy | None = None,
    ) -> R:
        """Call the tool as one durable step: permission, approval, cache, policy, executor, in this order.

        Args:
            arguments: checked values by name, as `parse` gives them; one that has a default may be missing.
            name: of the step; default: the tool's.
            key: as for `ctx.step`.
            policy: instead of the tool's.

        Raises:
            PermissionDenied: the run's principal lacks what `requires` names. Nothing was started.
            StepError: the tool failed, now or when it was recorded (its effect may have happened), or a human refused it (`NotApproved`).
        """
        args, named = self._parameters.split(arguments)
        fn = cast("Callable[..., Awaitable[R]]", partial(self, **named) if named else self)
        return await ctx.step(name or self.name, fn, *args, key=key, policy=policy)

    async def take_back(self, ctx: Context, arguments: Mapping[str, Any], result: object, /, *, name: str, key: str | None = None) -> None:
        """Undo one call as a durable step of its own.

        Args:
            arguments: of the call; `result`: what came of it.

        Raises:
            StepError: the undo failed; it may have happened.
            TypeError: the tool has no undo.
        """
        if self._undo is None:
            raise TypeError(f"tool {self.name!r} has no undo")
        fn, parameters = self._undo
        whole = {**self._parameters.defaults, **arguments, "result": result}
        args, named = parameters.split({name: whole[name] for name in (*parameters.positional, *parameters.named)})
        await ctx.step(name, partial(fn, **named) if named else fn, *args, key=key, effect="rerun", policy=self.policy)

    def as_step(self, ex: Execution, call: Call, policy: Policy | None, otherwise: Policy | None) -> Call:
        """A step that calls this tool, with all that the tool declares; what the step itself declares comes first.

        Args:
            policy: the step's own; `otherwise`: the agent's, where the tool has none either.
        """
        arguments = self.by_name(call.fn, call.args)
        call.is_async = True
        call.effect = call.effect or self.effect
        call.probe = call.probe or self._probing(ex, call, arguments)
        if self.requires or self.approve:
            call.gate = partial(self._gate, arguments)
        policy = policy or self.policy or otherwise
        ready = call if policy is None or policy.bounds_nothing else under(ex, policy, call)
        if self.cache is not None:
            address = self.cache.address(self.name, ex.run.tenant, arguments)
            ready.fn = partial(_from, Kept(self.name, services_of(ex).values, address, call.codec, self.cache.ttl_s), ready.fn)
        ready.fn = partial(_told, StepContext(ex, call.key), self.name, ready.fn)
        return ready

    def by_name(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
        """The arguments of a call of this tool, or of a partial of it."""
        named: dict[str, Any] = {}
        while isinstance(fn, partial):
            args, named, fn = (*fn.args, *args), {**fn.keywords, **named}, fn.func
        return self._parameters.by_name(args, named)

    def _probing(self, ex: Execution, call: Call, arguments: Mapping[str, Any]) -> Callable[..., Awaitable[Done[Any] | None]] | None:
        if self.probe is None:
            return None
        args, named = self._parameters.split(arguments)
        wants_context = parameters_of(self.probe, f"probe of tool {self.name!r}", StepContext).context
        asked = partial(self.probe, *((StepContext(ex, call.key),) if wants_context else ()), *args, **named)
        return lambda *_: asked()

    def _checked(self, cache: Cache) -> Cache:
        if self.effect is not None:
            raise TypeError(f"tool {self.name!r}: an effect cannot come from a cache; leave out one of effect= and cache=")
        names = tuple(self.arguments.model_fields) if cache.key is None else cache.key
        for name in names:
            if name not in self.arguments.model_fields:
                raise TypeError(f"tool {self.name!r}: it has no argument {name!r}, which its Cache(key=…) names")
            if holds_secret(self._signature.model, name):
                what = f"tool {self.name!r}: argument {name!r} is secret and cannot tell calls apart"
                raise TypeError(f"{what}; name the others in Cache(key=…)")
        return cache

    async def _gate(self, arguments: Mapping[str, Any], ex: Execution, call: Call, record: Record | None) -> Done[Any] | None:
        principal = meta_of(ex).principal
        if missing := sorted(self.requires - principal.permissions):
            telemetry.TOOL_DENIED.say({telemetry.TOOL: self.name})
            who = f"principal {principal.id!r}" if principal.id else "a run without a principal"
            raise fail(ex, call, "PermissionDenied", f"tool {self.name!r}: {who} lacks {', '.join(map(repr, missing))}")
        if not self.approve:
            return None
        return await approved(ex, call, record, to_jsonable_python(arguments, fallback=_by_type))


def _by_type(value: object) -> str:
    return f"<{type(value).__qualname__}>"


async def _told(step: StepContext, tool: str, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run the body, all its attempts, and tell whoever follows the run."""
    tell_tool(step, tool, "called")
    try:
        value = await fn(*args)
    except Exception:
        tell_tool(step, tool, "failed")
        raise
    tell_tool(step, tool, "returned")
    return value


async def _from(kept: Kept, make: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return await kept.or_made(partial(make, *args))


AnyTool: TypeAlias = Tool[..., Any]


class ToolDecorator(Protocol):
    """What `tool(…)` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(fn: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    effect: Effect | None = None,
    probe: Callable[..., Awaitable[Done[Any] | None]] | None = None,
    undo: Callable[..., Awaitable[None]] | None = None,
    cache: Cache | None = None,
    policy: Policy | None = None,
    executor: Executor | None = None,
    requires: Iterable[str] = (),
    approve: bool = False,
) -> ToolDecorator: ...
def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function, sync or async. What its docstring says is what a model reads.

    Args:
        name: what models call; default: the function's.
        effect: it touches the outside world; if a crash leaves unknown whether it did: run it again, ask an operator, or fail.
        probe: gets the same arguments and says `Done(value)` if the effect happened, None if not. Asked before `effect` decides.
        undo: takes the effect back; see `Tool.undo`.
        cache: keep its results for a while.
        policy: what bounds its calls: time limit, retries, circuit, limits.
        executor: where it runs: `async`, in the event loop (async functions; a plain one must not block), `thread` (other functions), or
            `process`: a process of its own, which a cancellation really ends.
        requires: permissions that the run's principal must have, checked at each call.
        approve: a human is asked before each call starts: the run parks until `handle.resolve(step, …)`.

    Raises:
        TypeError: no model could call it; the text names the parameter.
        NotSerialisable: its result could not be kept.
    """
    if fn is None:
        return cast("ToolDecorator", partial(tool, **options))
    return Tool[Any, Any](fn, **options)
