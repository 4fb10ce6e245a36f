"""What the runtime needs to know of a function that is a step: looked up once, then remembered."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
import weakref
from typing import TYPE_CHECKING, Any

from agentkit.durable.codec import PLAIN, Codec
from agentkit.errors import NotSerialisable

if TYPE_CHECKING:
    from collections.abc import Callable


class Function:
    """A step's function: whether it is async, wants a `StepContext` first, and how its result is stored."""

    def __init__(self, fn: Callable[..., Any], context_types: tuple[type, ...]) -> None:
        target = _target(fn)
        self.is_tool = hasattr(inner(fn).__class__, "as_step")
        self.name = getattr(target, "__qualname__", type(target).__qualname__)
        self.is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
        hints = _hints(target)
        self.wants_context = _first_hint(fn, hints) in context_types
        self._declared = _result(hints)

    @functools.cached_property
    def codec(self) -> Codec:
        """Made when it is asked for: a probe, or a step with `returns=`, may declare what could not be stored."""
        return codec_of(self._declared, self.name)


_functions: dict[int, tuple[weakref.ref[Any], Function]] = {}
"""By the id of the function, which is forgotten with it: at each step a `WeakKeyDictionary` would take three times as long."""
_codecs: dict[Any, Codec] = {}


def function_of(fn: Callable[..., Any], context_types: tuple[type, ...]) -> Function:
    """The description of `fn`. Methods share that of their function; what cannot be remembered is described anew."""
    described = getattr(fn, "__func__", fn)
    found = _functions.get(id(described))
    if found is not None:
        return found[1]
    made = Function(fn, context_types)
    with contextlib.suppress(TypeError):
        _functions[id(described)] = weakref.ref(described, functools.partial(_forget, id(described))), made
    return made


def _forget(number: int, _: object) -> None:
    _functions.pop(number, None)


def codec_of(declared: Any, what: str) -> Codec:
    """The codec of a declared type, made once. Raises `NotSerialisable` when pydantic cannot make one."""
    if declared in (None, Any):
        return PLAIN
    try:
        if (found := _codecs.get(declared)) is not None:
            return found
        made = _codecs[declared] = Codec(declared)
    except TypeError:  # an unhashable annotation
        return Codec(declared)
    except Exception as exc:
        raise NotSerialisable(f"result type of {what}", "", str(exc).partition("\n")[0]) from exc
    return made


def inner(fn: Any) -> Any:
    """What partials are made of."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _target(fn: Any) -> Any:
    return inspect.unwrap(inner(fn))


def _hints(target: Any) -> dict[str, Any]:
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError, AttributeError):  # one of the names is of a local scope: the others still count
        names = getattr(target, "__globals__", {})
        return {
            name: found for name, text in getattr(target, "__annotations__", {}).items() if (found := _evaluated(text, names)) is not None
        }


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    """What an annotation names, or None: then nothing is declared, and only plain JSON is taken."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # noqa: S307 - the module's own source
    except (NameError, TypeError, AttributeError, SyntaxError):
        return None


def _result(hints: dict[str, Any]) -> Any:
    declared = hints.get("return")
    if declared is type(None):
        return None
    if typing.get_origin(declared) in (typing.get_origin(typing.Awaitable[Any]), typing.get_origin(typing.Coroutine[Any, Any, Any])):
        declared = typing.get_args(declared)[-1]
    return None if isinstance(declared, typing.TypeVar) else declared


def _first_hint(fn: Any, hints: dict[str, Any]) -> Any:
    """The annotation of the first parameter that a caller passes: not one that a partial has filled."""
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return None
    if names and names[0] == "self":
        names = names[1:]
    return hints.get(names[0]) if names else None
