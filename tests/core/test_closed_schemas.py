"""Any type that has a closed schema: what a strict model may write of a value fits the schema, and is read back as that value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Union, cast, get_args, get_origin

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, create_model

from agentkit.agents.tool import Tool, tool
from agentkit.inference.schema import nullable

NAMES = ("a", "b", "c")


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Any:
    """A model with some fields, some of them with a default."""
    fields: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        kind = draw(inner)
        default = draw(st.one_of(st.just(...), values(kind)))
        fields[name] = (kind, default)
    return create_model(f"Model{draw(st.integers(0, 10**9))}", **fields)


def types() -> st.SearchStrategy[Any]:
    leaves = st.sampled_from([int, str, bool, float, Literal["x", "y"], Literal[1, 2]])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            models(inner),
            inner.map(lambda kind: list[kind]),  # type: ignore[valid-type]
            inner.map(lambda kind: kind | None),
            st.tuples(inner, inner).map(lambda kinds: tuple[kinds]),  # type: ignore[valid-type]
        ),
        max_leaves=6,
    )


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of such a type."""
    if hasattr(kind, "model_fields"):
        return st.builds(kind, **{name: values(field.annotation) for name, field in kind.model_fields.items()})
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**53), 2**53),
        str: st.text(max_size=5),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        type(None): st.none(),
    }
    if kind in plain:
        return plain[kind]
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(inside)
    if origin is list:
        return st.lists(values(inside[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(values, inside))
    return st.one_of(*map(values, inside))


def written(data: st.DataObject, value: Any) -> Any:
    """The value as a strict model may write it: where it is the default, perhaps as null."""
    if isinstance(value, BaseModel):
        schema = type(value).model_json_schema()
        said: dict[str, Any] = {}
        for name, field in type(value).model_fields.items():
            part = getattr(value, name)
            means_none = nullable(schema["properties"][name], schema.get("$defs", {}))
            default = not field.is_required() and same(part, field.default) and not means_none
            said[name] = None if default and data.draw(st.booleans()) else written(data, part)
        return said
    if isinstance(value, list | tuple):
        return [written(data, part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def fits(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    """What a strict server checks."""
    if "$ref" in node:
        return fits(value, root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in node:
        return any(fits(value, one, root) for one in node["anyOf"])
    if "const" in node:
        return same(value, node["const"])
    if "enum" in node:
        return any(same(value, one) for one in node["enum"])
    match node["type"]:
        case "object":
            properties = node["properties"]
            known = isinstance(value, dict) and value.keys() == set(node["required"]) == properties.keys()
            return known and all(fits(value[name], one, root) for name, one in properties.items())
        case "array":
            parts = cast("Sequence[Any]", value) if isinstance(value, list) else None
            right = parts is not None and node.get("minItems", 0) <= len(parts) <= node.get("maxItems", 99)
            return right and all(fits(one, node["items"], root) for one in parts or ())
        case kind:
            classes: dict[str, Any] = {"integer": int, "string": str, "boolean": bool, "number": (int, float), "null": type(None)}
            return isinstance(value, classes[kind]) and (kind == "boolean" or not isinstance(value, bool))


def tool_of(kind: Any) -> Tool[..., None]:
    def fn(value: Any) -> None: ...

    fn.__annotations__["value"] = kind
    return tool(name="any")(fn)


@settings(max_examples=500)
@given(data=st.data(), kind=types())
def test_what_a_strict_model_writes_fits_and_is_read_back(data: st.DataObject, kind: Any) -> None:
    value = data.draw(values(kind))
    expected = TypeAdapter(kind).validate_python(value)
    one = tool_of(kind)

    said = {"value": written(data, expected)}

    schema = dict(one.spec.parameters)
    assert fits(said, schema, schema), (said, schema)
    assert one.parse(said)["value"] == expected


Shape = Union["Circle", "Square"]


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    r: int = 1


class Square(BaseModel):
    kind: Literal["square"] = "square"
    a: int = 1
    inside: list[Shape] = []


def test_a_null_is_read_by_the_variant_that_its_tag_names() -> None:
    one = tool_of(list[Circle | Square])
    said = [{"kind": "square", "a": None, "inside": [{"kind": "circle", "r": None}]}, {"kind": "circle", "r": 2}]
    assert one.parse({"value": said})["value"] == [Square(inside=[Circle()]), Circle(r=2)]
