"""The form in which a model is asked for a plan: closed, one variant for each tool; what validates is a plain plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agentkit import Agent, Context
from agentkit.inference.schema import closed, filled
from agentkit.plan.model import Plan
from agentkit.plan.steps import PlanStep, Ref, When
from tests.core.plans import fake


class Room(BaseModel):
    number: int
    note: str = ""


class Flights(Agent[str, list[str]]):
    """Finds flights."""

    async def run(self, ctx: Context, city: str, /) -> list[str]:
        return [city]


BOOK = fake("book_hotel", Room, effect="rerun", has_undo=True, city=(str, ...), nights=(int, 1))
SUM = fake("sum", float, amounts=(list[float], ...), room=(Room | None, None))
SHAPE = Plan.schema_for(tools=[BOOK, SUM], agents=[Flights])

WRITTEN: dict[str, Any] = {
    "steps": [
        {"id": "f", "use": "flights", "args": {"input": "Bonn"}},
        {"id": "h", "use": "book_hotel", "args": {"city": {"ref": "f.0"}}, "after": ["f"], "when": {"ref": "f", "op": "not_empty"}},
        {"id": "s", "use": "sum", "args": {"amounts": [{"ref": "h.number"}, 2.5]}, "undo": "book_hotel", "attempts": 2},
    ]
}


def test_what_validates_is_a_plan_of_plain_steps() -> None:
    plan = SHAPE.model_validate(WRITTEN)
    assert isinstance(plan, Plan)
    assert plan.steps == [
        PlanStep(id="f", use="flights", args={"input": "Bonn"}),
        PlanStep(id="h", use="book_hotel", args={"city": Ref(ref="f.0")}, after=["f"], when=When(ref="f", op="not_empty")),
        PlanStep(id="s", use="sum", args={"amounts": [Ref(ref="h.number"), 2.5]}, undo="book_hotel", attempts=2),
    ]
    assert all(type(step) is PlanStep for step in plan.steps)


def test_it_goes_through_json_as_any_plan_does() -> None:
    plan = SHAPE.model_validate(WRITTEN)
    text = plan.model_dump_json(warnings="error")
    assert Plan.model_validate_json(text).steps == plan.steps == SHAPE.model_validate_json(text).steps


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "a", "use": "book_hotle", "args": {"city": "x"}},
        {"id": "a", "use": "book_hotel", "args": {}},
        {"id": "a", "use": "book_hotel", "args": {"city": "x", "stars": 5}},
        {"id": "a", "use": "book_hotel", "args": {"city": ["x"]}},
        {"id": "a", "use": "book_hotel", "args": {"city": {"ref": "x", "of": 1}}},
        {"id": "a", "use": "book_hotel", "args": {"city": "x"}, "undo": "flights"},
        {"id": "a", "use": "flights", "args": {"city": "x"}},
        {"id": "a", "use": "flights", "args": {"input": "x"}, "more": 1},
    ],
)
def test_it_takes_nothing_that_a_tool_does_not(wrong: object) -> None:
    with pytest.raises(ValidationError):
        SHAPE.model_validate({"steps": [wrong]})


def objects_of(schema: Any) -> list[dict[str, Any]]:
    """Each schema of an object in a schema."""
    found: list[dict[str, Any]] = []

    def note(one: dict[str, Any]) -> dict[str, Any]:
        found.append(one)
        return one

    json.loads(json.dumps(schema), object_hook=note)
    return [one for one in found if one.get("type") == "object"]


def test_its_schema_is_what_strict_structured_output_accepts() -> None:
    schema = closed(SHAPE.model_json_schema())
    objects = objects_of(schema)
    assert len(objects) > 6
    for one in objects:
        assert one["additionalProperties"] is False
        assert one["required"] == list(one["properties"])
    text = json.dumps(schema)
    assert not any(word in text for word in ('"oneOf"', '"default"', '"discriminator"', '"allOf"'))
    assert [variant["properties"]["use"]["const"] for variant in schema["properties"]["steps"]["items"]["anyOf"]] == [
        "book_hotel",
        "sum",
        "flights",
    ]


def test_a_null_of_a_strict_answer_stands_for_a_default() -> None:
    strict = {
        "steps": [
            {
                "id": "h",
                "use": "book_hotel",
                "args": {"city": "Bonn", "nights": None},
                "after": None,
                "when": None,
                "attempts": None,
                "undo": None,
            }
        ]
    }
    plan = SHAPE.model_validate(filled(strict, SHAPE.model_json_schema()))
    assert plan.steps == [PlanStep(id="h", use="book_hotel", args={"city": "Bonn"})]


def test_the_same_tools_give_the_same_class() -> None:
    assert Plan.schema_for(tools=[BOOK, SUM], agents=[Flights]) is SHAPE


def test_a_plan_with_nothing_to_use_is_refused() -> None:
    with pytest.raises(ValueError, match="needs something to use"):
        Plan.schema_for()


def test_a_plan_with_one_tool_has_one_variant() -> None:
    plan = Plan.schema_for(tools=[BOOK]).model_validate({"steps": [{"id": "a", "use": "book_hotel", "args": {"city": "x"}}]})
    assert plan.steps[0].args == {"city": "x"}
