"""`Agent`: the class a user subclasses, `Signal`: a typed door into a run, `Child`: an agent and its input, not started."""

from __future__ import annotations

import re
import typing
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from agentkit.durable.functions import codec_of
from agentkit.errors import InvalidInput, NotSerialisable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.agents.context import Context
    from agentkit.durable.codec import Codec
    from agentkit.durable.group_commit import Durability
    from agentkit.inference.budgets import Budget
    from agentkit.ports.records import Entry
    from agentkit.resilience.policy import Policy

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741
I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)

WEEK_S = 7 * 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Signal(Generic[T]):
    """A typed door into a run: declare it on the agent class; its name is the attribute's."""

    name: str

    def __init__(self, model: type[T], /) -> None:
        self.model = model
        self.name = ""

    def __set_name__(self, owner: type[object], name: str) -> None:
        self.name = name

    @property
    def codec(self) -> Codec:
        return codec_of(self.model, f"signal {self.name!r}")

    def topic(self, key: str) -> str:
        """Where its messages lie in the inbox."""
        return f"signal:{self.name}:{key}"


class Agent(Generic[I_contra, O_co]):
    """A durable program: subclass it with the types of its input and result, and write `run`.

    After a crash or a park `run` starts again from its top and finished steps answer from the journal, so whatever is not a step may
    run twice; attributes set on `self` do not survive. One instance is made per activation.
    """

    name: ClassVar[str]
    """Default: the class name in kebab-case. It is stored, so renaming a class needs `name = "the-old-one"`."""
    version: ClassVar[str] = "1"
    continues: ClassVar[Sequence[str]] = ()
    """Older versions whose journals this code resumes, unchanged or through `upcast`."""
    durability: ClassVar[Durability] = "durable"
    policy: ClassVar[Policy | None] = None
    """What bounds the steps that have no policy of their own. Models and tools have theirs."""
    keep_s: ClassVar[float] = WEEK_S
    """How long an ended run is kept, seconds."""
    input_type: ClassVar[Any] = None
    output_type: ClassVar[Any] = None

    async def run(self, ctx: Context, input: I_contra, /) -> O_co:
        """The program. It awaits only verbs of `ctx`."""
        raise TypeError(f"{type(self).__qualname__} must define `async def run(self, ctx, input)`")

    @classmethod
    def of(cls: type[Agent[I, O]], input: I, /, *, budget: Budget | None = None, tenant: str | None = None) -> Child[O]:
        """This agent with an input, not started: for `ctx.join`.

        Args:
            budget: of the child and all under it; what it spends counts in the budgets above it too.
            tenant: whose run it is; None: its parent's.
        """
        return Child(cls, input, budget, tenant)

    @classmethod
    def upcast(cls, version: str, entry: Entry, /) -> Entry | None:
        """An entry of an older version of the journal as today's code expects it (`entry._replace(key=…, body=…)`); None drops it."""
        return entry

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)
        if not _NAME.fullmatch(cls.name):
            raise TypeError(
                f"{cls.__qualname__}.name = {cls.name!r}: 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit"
            )
        if not _NAME.fullmatch(cls.version):
            raise TypeError(f"{cls.__qualname__}.version = {cls.version!r}: a string of 1 to 100 letters, digits, '.', '_' or '-'")
        found = type_arguments(cls)
        if found is None:
            raise TypeError(f"class {cls.__name__}(Agent): write its types, as in class {cls.__name__}(Agent[Question, Answer])")
        cls.input_type, cls.output_type = found


AnyAgent: TypeAlias = type[Agent[Any, Any]]


class Child(Generic[O_co]):
    """An agent and its input, not started: what `Law.of(question)` gives."""

    __slots__ = ("agent", "budget", "input", "tenant")

    def __init__(self, agent: type[Agent[Any, O_co]], input: object, budget: Budget | None = None, tenant: str | None = None) -> None:
        self.agent, self.input, self.budget, self.tenant = agent, input, budget, tenant


def kebab(name: str) -> str:
    """`ReviewClause` -> `review-clause`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def served_by(agent: AnyAgent) -> str:
    """The ticket kind: `review@3`."""
    return f"{agent.name}@{agent.version}"


def type_arguments(cls: type[Any]) -> tuple[Any, Any] | None:
    """(input, output) of an agent class, through generic bases; None when the bases say nothing."""
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if origin is Agent:
            found = typing.get_args(base)
            return found[0], found[1]
        if isinstance(origin, type) and issubclass(origin, Agent):
            generic = cast("Any", origin)
            inner = type_arguments(generic)
            if inner is not None:
                bound: dict[Any, Any] = dict(zip(generic.__parameters__, typing.get_args(base), strict=False))
                return _fill(inner[0], bound), _fill(inner[1], bound)
    for base in cls.__bases__:
        if issubclass(base, Agent) and base is not Agent:
            return base.input_type, base.output_type
    return None


def _fill(declared: Any, bound: dict[Any, Any]) -> Any:
    if isinstance(declared, typing.TypeVar):
        return bound.get(declared, declared)
    parameters = getattr(declared, "__parameters__", ())
    return declared[tuple(bound.get(p, p) for p in parameters)] if parameters else declared


def input_codec(agent: AnyAgent) -> Codec:
    return _codec(agent, agent.input_type, "input")


def output_codec(agent: AnyAgent) -> Codec:
    return _codec(agent, agent.output_type, "result")


def _codec(agent: AnyAgent, declared: Any, what: str) -> Codec:
    if isinstance(declared, typing.TypeVar):
        raise TypeError(f"{agent.__qualname__} is generic: its {what} type is still {declared}; subclass it with a type")
    return codec_of(None if declared is type(None) else declared, f"{what} of {agent.name}")


def encode_input(agent: AnyAgent, value: object) -> bytes:
    """The stored input. Raises `InvalidInput` when it does not fit the agent's type: nothing was written."""
    codec = input_codec(agent)
    try:
        body = codec.encode(value, f"input of {agent.name!r}")
        codec.decode(body, f"input of {agent.name!r}")
    except NotSerialisable as exc:
        raise InvalidInput(agent.name, f"{exc.path or 'the value'}: {exc.problem}") from exc
    return body
