"""What a model is shown of a tool, and what it is told when its arguments do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, cast

import pytest
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

from agentkit import StepContext
from agentkit.agents.tool import tool
from agentkit.errors import ToolArguments
from agentkit.inference.schema import NotClosed, closed, filled


class Line(BaseModel):
    sku: str
    n: int = 1


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None


@dataclass
class Point:
    x: float
    y: float = 0.0


class Window(TypedDict):
    start: date


@tool
async def order(  # noqa: PLR0917 - one of each kind
    step: StepContext,
    customer: str,
    lines: list[Line],
    colour: Colour = Colour.RED,
    note: Annotated[str, Field(max_length=10)] = "",
    gift: bool | None = None,
) -> str:
    """Put an order.

    It is sent on the next day.

    Args:
        customer: who it is for,
            by number.
        lines (list of Line): at least one.

    Returns:
        The number of the order.
    """
    return customer


@tool
def pet(pet: Annotated[Cat | Dog, Field(discriminator="kind")], at: Point | None = None, pair: tuple[int, str] = (1, "a")) -> None: ...


@tool
def grow(tree: Tree, window: Window) -> None: ...


@tool
def nothing() -> None: ...


@tool
def sign_in(user: str, password: Annotated[SecretStr, Field(min_length=8)]) -> None: ...


@tool
def awkward(copy: int, json: int = 3, schema: str = "", *, self: bool = False) -> None: ...


# What a model is shown


def test_a_tool_is_shown_by_its_name_and_its_docstring_without_what_describes_arguments() -> None:
    assert order.spec.name == "order"
    assert order.spec.description == "Put an order.\n\nIt is sent on the next day.\n\nReturns:\n    The number of the order."
    assert order.description == order.spec.description


def test_each_argument_carries_what_the_docstring_says_of_it() -> None:
    shown = properties(order.spec.parameters)
    assert shown["customer"] == {"type": "string", "description": "who it is for, by number."}
    assert shown["lines"]["description"] == "at least one."


def test_the_step_context_is_no_argument() -> None:
    assert list(properties(order.spec.parameters)) == ["customer", "lines", "colour", "note", "gift"]


def test_an_argument_with_a_default_is_required_and_may_be_null() -> None:
    shown = properties(order.spec.parameters)
    assert shown["colour"] == {
        "anyOf": [{"type": "string", "enum": ["red", "blue"]}, {"type": "null"}],
        "description": 'null for the default, "red"',
    }
    assert shown["gift"] == {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
    assert order.spec.parameters["required"] == list(shown)


def test_what_a_strict_server_would_refuse_is_told_in_words() -> None:
    assert properties(order.spec.parameters)["note"]["description"] == 'at most 10 characters; null for the default, ""'


def test_a_description_in_the_annotation_is_shown_too() -> None:
    @tool
    def one(n: Annotated[int, Field(description="how many", ge=1)]) -> None: ...

    assert properties(one.spec.parameters)["n"] == {"type": "integer", "description": "how many", "minimum": 1}


REFUSED = {
    "title",
    "default",
    "oneOf",
    "allOf",
    "not",
    "discriminator",
    "minLength",
    "maxLength",
    "uniqueItems",
    "prefixItems",
    "writeOnly",
}


def faults(node: Any) -> list[str]:
    """What strict structured output refuses in a schema."""
    if isinstance(node, list):
        return [fault for part in cast("Iterable[Any]", node) for fault in faults(part)]
    if not isinstance(node, dict):
        return []
    node = cast("dict[str, Any]", node)
    found = [word for word in node if word in REFUSED]
    if node.get("type") == "object":
        closed_well = node["additionalProperties"] is False and node["required"] == list(node["properties"])
        found += [] if closed_well else [f"not closed: {node}"]
    if "$ref" in node and len(node) > 1:
        found.append(f"beside a reference: {node}")
    inside = [*node.get("properties", {}).values(), *node.get("$defs", {}).values()]
    return found + faults(inside) + faults([node.get("items")]) + faults(node.get("anyOf", []))


@pytest.mark.parametrize("one", [order, pet, grow, nothing, sign_in, awkward], ids=lambda one: one.name)
def test_every_schema_is_closed_down_to_its_leaves(one: Any) -> None:
    assert faults(one.spec.parameters) == []
    assert one.spec.parameters["type"] == "object"


def test_a_type_that_holds_itself_is_kept_as_a_reference() -> None:
    shown = grow.spec.parameters
    assert properties(shown)["tree"] == {"$ref": "#/$defs/Tree"}
    assert properties(shown["$defs"]["Tree"])["children"]["anyOf"][0]["items"] == {"$ref": "#/$defs/Tree"}  # type: ignore[index]


def test_the_outermost_of_a_schema_is_an_object_even_if_its_type_holds_itself() -> None:
    made = closed(Tree.model_json_schema())
    assert made["type"] == "object"
    assert faults(made) == []


@pytest.mark.parametrize("schema", [{}, {"type": "array", "items": {}}, {"type": "object", "additionalProperties": {"type": "string"}}])
def test_what_may_hold_anything_has_no_closed_schema(schema: dict[str, Any]) -> None:
    with pytest.raises(NotClosed):
        closed({"type": "object", "properties": {"a": schema}})


# Null stands for a default


def test_null_stands_for_the_default_at_any_depth() -> None:
    said = {"customer": "a", "lines": [{"sku": "x", "n": None}], "colour": None, "note": None, "gift": None}
    assert order.parse(json.dumps(said)) == {
        "customer": "a",
        "lines": [Line(sku="x", n=1)],
        "colour": Colour.RED,
        "note": "",
        "gift": None,
    }


def test_null_in_a_variant_is_that_variants_default() -> None:
    assert pet.parse({"pet": {"kind": "cat", "lives": None}, "at": {"x": 1, "y": None}, "pair": None}) == {
        "pet": Cat(kind="cat", lives=9),
        "at": Point(1.0, 0.0),
        "pair": (1, "a"),
    }
    assert pet.parse({"pet": {"kind": "dog", "name": None}})["pet"] == Dog(kind="dog")


def test_null_in_a_type_that_holds_itself() -> None:
    said = {"tree": {"name": "a", "children": [{"name": "b", "children": None}]}, "window": {"start": "2026-01-02"}}
    assert grow.parse(said) == {"tree": Tree(name="a", children=[Tree(name="b")]), "window": {"start": date(2026, 1, 2)}}


def test_a_null_that_means_null_stays() -> None:
    assert filled({"name": None, "kind": "dog"}, Dog.model_json_schema()) == {"name": None, "kind": "dog"}


def test_a_null_where_a_value_is_needed_is_a_fault() -> None:
    with pytest.raises(ToolArguments, match="customer: Input should be a valid string; given null"):
        order.parse({"customer": None, "lines": []})


# What is taken


@pytest.mark.parametrize("said", ["", " ", "{}"])
def test_a_tool_without_arguments_takes_what_models_write_then(said: str) -> None:
    assert nothing.parse(said) == {}


def test_values_are_those_of_the_types_in_the_signature() -> None:
    @tool
    def at(when: datetime, n: int) -> None: ...

    assert at.parse('{"when": "2026-01-02T03:04:05Z", "n": "3"}') == {"when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "n": 3}


def test_arguments_may_be_called_as_the_methods_of_a_model() -> None:
    assert awkward.parse('{"copy": 1}') == {"copy": 1, "json": 3, "schema": "", "self": False}


# What a model is told


def told(one: Any, said: Any) -> list[str]:
    with pytest.raises(ToolArguments) as caught:
        one.parse(said)
    return caught.value.faults


FAULTS: list[tuple[Any, list[str]]] = [
    ('{"customer": "a", "lines": []} and so on', ["more text after the JSON, from character 30: 'and so on'"]),
    ('[{"customer": "a"}]', ["a JSON array, not an object"]),
    ('"a"', ["a JSON string, not an object"]),
    ("null", ["a JSON null, not an object"]),
    ('{"customer": "a"', ["not JSON: Expecting ',' delimiter at character 16, in '{\"customer\": \"a\"'"]),
    ("9" * 5000, ["JSON that nobody can read"]),
    ("[" * 200_000, ["JSON that nobody can read"]),
    ("{}", ["customer: is missing", "lines: is missing"]),
    ({"customer": "a", "lines": [], "clour": "red"}, ["clour: there is no such argument; did you mean 'colour'?"]),
    ({"customer": "a", "lines": [{"sku": 3}]}, ["lines[0].sku: Input should be a valid string; given 3"]),
    ({"customer": "a", "lines": [{}]}, ["lines[0].sku: is missing"]),
    ({"customer": ["a"], "lines": []}, ["customer: Input should be a valid string; given an array"]),
    ({"customer": "a", "lines": [], "colour": "green"}, ["colour: Input should be 'red' or 'blue'; given \"green\""]),
    ({"customer": "a", "lines": [], "note": "x" * 11}, [f'note: String should have at most 10 characters; given "{"x" * 11}"']),
]


@pytest.mark.parametrize(("said", "faults"), FAULTS)
def test_a_model_is_told_what_is_wrong_and_what_it_gave(said: Any, faults: list[str]) -> None:
    assert told(order, said) == faults


def test_all_faults_are_told_at_once_with_what_is_allowed() -> None:
    with pytest.raises(ToolArguments) as caught:
        order.parse('{"customer": 3, "colour": "green"}')
    assert str(caught.value).splitlines() == [
        "order was not called, for its arguments do not fit:",
        "- customer: Input should be a valid string; given 3",
        "- lines: is missing",
        "- colour: Input should be 'red' or 'blue'; given \"green\"",
        "Give it one JSON object with:",
        '- customer: {"type": "string", "description": "who it is for, by number."}',
        *str(caught.value).splitlines()[6:],
    ]
    assert len(caught.value.allowed) == 5


def test_no_address_of_a_page_and_no_name_of_a_class_is_told() -> None:
    text = "\n".join(told(order, {"customer": 3}) + told(pet, {"pet": {"kind": "cow"}}))
    assert "http" not in text
    assert "_arguments" not in text


def test_a_long_value_is_cut() -> None:
    (fault,) = told(nothing, {"x" * 3: 1})
    assert fault == "xxx: there is no such argument"
    (fault,) = told(order, {"customer": "a", "lines": [], "note": "x" * 100_000})
    assert len(fault) < 600


def test_a_secret_is_not_told_back() -> None:
    assert told(sign_in, {"user": "a", "password": "short"}) == ["password: Value should have at least 8 items after validation, not 5"]
    assert told(sign_in, {"user": "a", "password": ["hunter2"]}) == ["password: Input should be a valid string"]


def properties(schema: Any) -> dict[str, Any]:
    found: dict[str, Any] = schema["properties"]
    return found
