"""Whether a result fits where a plan puts it, told from the JSON schemas of both types.

What a schema leaves open fits everything: only what cannot work is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError

Schema: TypeAlias = Mapping[str, Any]
MAX_DEPTH = 8  # of recursive models
OPEN: Schema = {}


class Part(NamedTuple):
    """A schema, and the definitions that it refers to."""

    schema: Schema
    definitions: Schema = OPEN


def of_result(declared: Any) -> Part:
    """What a result of that type looks like; anything, where it is not declared."""
    if declared in (None, Any):
        return Part(OPEN)
    try:
        made = TypeAdapter(declared).json_schema(mode="serialization", by_alias=False)
    except PydanticUserError:
        return Part(OPEN)
    return Part(made, made.get("$defs", OPEN))


def of_arguments(arguments: type[BaseModel]) -> Part:
    """What the arguments of a tool look like."""
    try:
        made = arguments.model_json_schema(mode="validation", by_alias=False)
    except PydanticUserError:
        return Part(OPEN)
    return Part(made, made.get("$defs", OPEN))


def inside(part: Part, path: Sequence[str]) -> Part | None:
    """The part at a path; None when no value of that schema has it."""
    if not path:
        return part
    found = [deeper for one in alternatives(part) if (deeper := _step(one, path[0])) is not None]
    ends = [end for deeper in found if (end := inside(deeper, path[1:])) is not None]
    if not ends:
        return None
    return ends[0] if len(ends) == 1 else Part({"anyOf": [end.schema for end in ends]}, part.definitions)


def fields_of(part: Part) -> list[str]:
    """The fields that a value may have, for error messages."""
    return [name for one in alternatives(part) for name in one.schema.get("properties", ())]


def fits(source: Part, target: Part, depth: int = 0) -> bool:
    """Whether some value of `source` is one of `target`."""
    if depth > MAX_DEPTH:
        return True
    return any(_fits(s, t, depth) for s in alternatives(source) for t in alternatives(target))


def kind_of(part: Part) -> str:
    """A schema in a word or two, for error messages."""
    kinds = [
        str(one.schema.get("title") if "properties" in one.schema else one.schema.get("type", "anything")) for one in alternatives(part)
    ]
    return " or ".join(dict.fromkeys(kinds))


def alternatives(part: Part) -> Iterator[Part]:
    """The schemas of which a value satisfies one, without references and unions."""
    schema = part.schema
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        yield from alternatives(Part(part.definitions.get(name, OPEN), part.definitions))
        return
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices is None:
        yield part
        return
    for choice in cast("list[Schema]", choices):
        yield from alternatives(Part(choice, part.definitions))


def _step(part: Part, name: str) -> Part | None:
    schema, kind = part.schema, part.schema.get("type")
    if kind is None and "properties" not in schema:
        return Part(OPEN)
    if kind == "object":
        if name in schema.get("properties", OPEN):
            return Part(schema["properties"][name], part.definitions)
        return _rest(part, schema.get("additionalProperties", "properties" not in schema))
    if kind == "array" and name.isdigit():
        first: list[Schema] = schema.get("prefixItems", [])
        return Part(first[int(name)], part.definitions) if int(name) < len(first) else _rest(part, schema.get("items", not first))
    return None


def _rest(part: Part, said: bool | Schema) -> Part | None:
    """What a schema says of what it does not name: nothing (False), anything (True), or how it looks."""
    if isinstance(said, bool):
        return Part(OPEN) if said else None
    return Part(said, part.definitions)


def _fits(source: Part, target: Part, depth: int) -> bool:
    s, t = source.schema, target.schema
    kinds = s.get("type"), t.get("type")
    if None in kinds:
        return True
    if kinds[0] != kinds[1]:
        return kinds == ("integer", "number")
    if kinds[0] == "object":
        return _fits_object(source, target, depth)
    if kinds[0] == "array":
        return "items" not in s or "items" not in t or fits(_at(source, "items"), _at(target, "items"), depth + 1)
    values = _values(s), _values(t)
    return None in values or bool(set(map(repr, values[0] or ())) & set(map(repr, values[1] or ())))


def _fits_object(source: Part, target: Part, depth: int) -> bool:
    for name in target.schema.get("required", ()):
        found = _step(source, name)
        wanted = _step(target, name)
        if found is None or (wanted is not None and not fits(found, wanted, depth + 1)):
            return False
    return True


def _at(part: Part, name: str) -> Part:
    said = part.schema[name]
    return Part(OPEN if isinstance(said, bool) else said, part.definitions)


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def shown(part: Part, depth: int = 0) -> str:
    """A schema in the words in which a model is told of it: `{id: string, rooms: [{number: integer}]}`."""
    if depth > MAX_DEPTH:
        return "…"
    return " | ".join(dict.fromkeys(_shown(one, depth) for one in alternatives(part)))


def _shown(part: Part, depth: int) -> str:
    schema = part.schema
    values = _values(schema)
    if values is not None:
        return " | ".join(map(repr, values))
    if "properties" in schema:
        fields = [f"{name}: {shown(Part(one, part.definitions), depth + 1)}" for name, one in schema["properties"].items()]
        return f"{{{', '.join(fields)}}}"
    if schema.get("type") == "array" and "items" in schema:
        return f"[{shown(_at(part, 'items'), depth + 1)}]"
    return str(schema.get("type", "anything"))
