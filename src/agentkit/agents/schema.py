"""A tool's arguments, from the signature of its function: a pydantic model that checks them and the closed schema that a model is shown."""

from __future__ import annotations

import inspect
import json
import re
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from agentkit.errors import ToolArguments, nearest
from agentkit.inference.schema import NotClosed, Schema, closed, filled

GIVEN_CHARS = 80  # of text that is no JSON: enough to recognise it
SHOWN_CHARS = 500  # of a wrong value, and of the schema of an argument: a model that made a mistake has the whole schema already
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SECTION = re.compile(r"^Args:[ ]*\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"(\w+)(?: \([^)]*\))?:\s+(.*)")


class Arguments(BaseModel):
    """The base of the models of arguments: nothing unknown, and a null that stands for a default is one."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=False, defer_build=True)
    __schema__: ClassVar[Schema] = {}

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_defaults(cls, given: Any) -> Any:
        return filled(given, cls.__schema__)


class Parameters(NamedTuple):
    """How a function is to be called by names.

    `context`: it wants a `StepContext` first, which is none of its arguments. `positional` and `named` are the others.
    """

    context: bool
    positional: tuple[str, ...]
    named: tuple[str, ...]
    defaults: Mapping[str, Any]

    def split(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by name as the function takes them. Raises TypeError for a name too many or too few."""
        whole = self._whole(arguments)
        return tuple(whole[name] for name in self.positional), {name: whole[name] for name in self.named}

    def by_name(self, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The other way round, defaults included."""
        if len(args) > len(self.positional):
            raise TypeError(f"{len(args)} arguments, there are only {list(self.positional)}")
        return self._whole({**dict(zip(self.positional, args, strict=False)), **named})

    def _whole(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known = (*self.positional, *self.named)
        whole = {**self.defaults, **arguments}
        if whole.keys() != set(known):
            unknown, missing = sorted(whole.keys() - set(known)), sorted(set(known) - whole.keys())
            raise TypeError(f"the arguments are {list(known)}; unknown: {unknown}, missing: {missing}")
        return {name: whole[name] for name in known}


class Signature(NamedTuple):
    """What a tool takes and gives, and what a model is told of it."""

    parameters: Parameters
    model: type[Arguments]
    schema: Schema
    returns: Any
    description: str


def signature_of(fn: Callable[..., Any], tool: str, context: type) -> Signature:
    """Read a function's signature. Raises TypeError, which names the parameter, where no model could call it."""
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except NameError as exc:
        raise TypeError(f"tool {tool!r}: {exc}; the types of a tool must be known to its module when it is made") from exc
    taken = _taken(fn, hints, context)
    for parameter in taken:
        _check(tool, parameter, hints)
    description, told = _docstring(fn)
    model = _model(tool, taken, hints, told)
    try:
        schema = closed(model.__schema__)
    except NotClosed as exc:
        raise TypeError(f"tool {tool!r}: argument {exc}") from exc
    return Signature(_parameters(fn, taken), model, schema, _returned(hints), description)


def parameters_of(fn: Callable[..., Any], what: str, context: type) -> Parameters:
    """How to call a function that belongs to a tool. Raises TypeError for one that takes any number of arguments."""
    try:
        hints = typing.get_type_hints(fn)
    except NameError:  # of a local scope: then the annotation must do
        hints = dict(getattr(fn, "__annotations__", {}))
    taken = _taken(fn, hints, context)
    if any(parameter.kind in _VARIADIC for parameter in taken):
        raise TypeError(f"{what}: name its arguments")
    return _parameters(fn, taken)


def _taken(fn: Callable[..., Any], hints: Mapping[str, Any], context: type) -> list[inspect.Parameter]:
    """The parameters without the context."""
    parameters = list(inspect.signature(fn).parameters.values())
    return parameters[1:] if parameters and hints.get(parameters[0].name) in (context, context.__name__) else parameters


def _parameters(fn: Callable[..., Any], taken: Sequence[inspect.Parameter]) -> Parameters:
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    return Parameters(
        len(taken) < len(inspect.signature(fn).parameters),
        tuple(p.name for p in taken if p.kind is not keyword_only),
        tuple(p.name for p in taken if p.kind is keyword_only),
        {p.name: p.default for p in taken if p.default is not p.empty},
    )


def _check(tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
    what = f"tool {tool!r}, parameter {parameter.name!r}"
    if parameter.kind in _VARIADIC:
        raise TypeError(f"{what}: a model must be told of each argument; name them")
    if parameter.name not in hints:
        raise TypeError(f"{what}: needs a type (and a tool is a function, not a method)")
    if parameter.name.startswith("_"):
        raise TypeError(f"{what}: its name must not start with an underscore")
    if isinstance(parameter.default, FieldInfo):
        raise TypeError(f"{what}: its default is the function's too; write {parameter.name}: Annotated[…, Field(…)] = …")


def _model(tool: str, parameters: Iterable[inspect.Parameter], hints: Mapping[str, Any], told: Mapping[str, str]) -> type[Arguments]:
    fields: dict[str, Any] = {}
    for parameter in parameters:
        said: dict[str, Any] = {"description": told[parameter.name]} if parameter.name in told else {}
        default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], Field(default, **said))
    try:
        with warnings.catch_warnings():  # an argument may be called `copy` or `json`
            warnings.filterwarnings("ignore", message='Field name ".*" .*shadows')
            model = create_model(f"{tool}_arguments", __base__=Arguments, **fields)
        model.__schema__ = model.model_json_schema()
    except Exception as exc:
        raise TypeError(f"tool {tool!r}: pydantic makes no model of its arguments: {str(exc).partition(chr(10))[0]}") from exc
    return model


def _returned(hints: Mapping[str, Any]) -> Any:
    declared = hints.get("return")
    return None if declared is type(None) or isinstance(declared, typing.TypeVar) else declared


def _docstring(fn: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What the docstring says of the tool, and in its section `Args:` of each argument."""
    text = inspect.getdoc(fn) or ""
    found = _SECTION.search(text)
    if found is None:
        return text.strip(), {}
    told: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(found[1]).splitlines():
        if (argument := _ARGUMENT.match(line)) is not None:
            name, told[argument[1]] = argument[1], argument[2]
        elif name:
            told[name] += f" {line.strip()}"
    return (text[: found.start()] + text[found.end() :]).strip(), told


def parsed(tool: str, signature: Signature, given: str | Mapping[str, object]) -> dict[str, Any]:
    """Checked Python values by name. Raises `ToolArguments`."""
    fields = signature.model.model_fields
    try:
        values = signature.model.model_validate(_object(given)).__dict__
    except _Unreadable as exc:
        faults = [str(exc)]
    except ValidationError as exc:
        faults = [_fault(one, signature.model) for one in exc.errors(include_url=False)]
    else:
        return {name: values[name] for name in fields}
    raise ToolArguments(tool, faults, [f"{name}: {_shown(one)}" for name, one in signature.schema["properties"].items()])


class _Unreadable(ValueError):
    """What was given is no JSON object."""


def _object(given: str | Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(given, str):
        return dict(given)
    text = given.strip() or "{}"  # what models write that call a tool without arguments
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as exc:
        raise _Unreadable(f"not JSON: {exc.msg} at character {exc.pos}, in {text[max(0, exc.pos - 20) : exc.pos + 20]!r}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; brackets without end
        raise _Unreadable("JSON that nobody can read") from None
    if rest := text[end:].strip():
        raise _Unreadable(f"more text after the JSON, from character {end}: {rest[:GIVEN_CHARS]!r}")
    if not isinstance(value, dict):
        raise _Unreadable(f"a JSON {_kind(value)}, not an object")
    return cast("dict[str, object]", value)


def _fault(error: ErrorDetails, model: type[Arguments]) -> str:
    """One line: where, what is wrong, what was given."""
    path, given = _path(error["loc"]), error["input"]
    top = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "missing":
        return f"{path}: is missing"
    if error["type"] == "extra_forbidden":
        known = model.model_fields if len(error["loc"]) == 1 else ()
        return f"{path}: there is no such argument{nearest(top, known)}"
    if holds_secret(model, top):
        return f"{path}: {error['msg'].replace(str(given), '**********')}"
    kind = _kind(given)
    return f"{path}: {error['msg']}; given {f'an {kind}' if kind in ('object', 'array') else _shown(given)}"


def _path(loc: Iterable[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or "the object"


def holds_secret(model: type[Arguments], name: str) -> bool:
    """Whether a secret stands anywhere in that argument."""
    secret, text = '"writeOnly": true', json.dumps(model.__schema__["properties"].get(name))
    return secret in text or ("$ref" in text and secret in json.dumps(model.__schema__["$defs"]))


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=lambda one: f"<{type(one).__qualname__}>")
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _kind(value: object) -> str:
    names = {"dict": "object", "list": "array", "str": "string", "bool": "boolean", "NoneType": "null"}
    return names.get(type(value).__name__, "number")
