"""A plan is checked whole before anything of it runs: one error tells all that is wrong."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from agentkit import Agent, Context
from agentkit.errors import PlanInvalid
from agentkit.plan.model import Plan
from agentkit.plan.steps import PlanStep, Ref, When
from tests.core.plans import fake


class Room(BaseModel):
    number: int
    note: str | None = None


class Hotel(BaseModel):
    id: str
    price: float
    rooms: list[Room]
    extra: dict[str, Any] = {}


class Flights(Agent[str, list[str]]):
    """Finds flights."""

    async def run(self, ctx: Context, city: str, /) -> list[str]:
        return [city]


BOOK = fake("book_hotel", Hotel, effect="rerun", has_undo=True, city=(str, ...), nights=(Annotated[int, Field(ge=1)], 1))
CONVERT = fake("convert", float, amount=(float, ...), to=(str, "EUR"))
PAY = fake("pay", None, effect="ask", who=(str, ...), hotel=(Hotel | None, None))
SUM = fake("sum", float, amounts=(list[float], ...))
CANCEL = fake("cancel", None, effect="rerun", result=(Hotel, ...), city=(str, ...))
TOOLS = [BOOK, CONVERT, PAY, SUM, CANCEL]
HOTEL = PlanStep(id="hotel", use="book_hotel", args={"city": "Bonn", "nights": 2})


def faults(*steps: PlanStep) -> list[str]:
    try:
        Plan(steps=[*steps]).check(tools=TOOLS, agents=[Flights])
    except PlanInvalid as exc:
        return exc.faults
    return []


def test_a_plan_without_faults_passes() -> None:
    assert not faults(
        PlanStep(id="flights", use="flights", args={"input": "Bonn"}),
        HOTEL.model_copy(update={"after": ["flights"], "undo": "cancel", "attempts": 3}),
        PlanStep(id="euro", use="convert", args={"amount": Ref(ref="hotel.price")}, when=When(ref="flights", op="not_empty")),
        PlanStep(id="pay", use="pay", args={"who": Ref(ref="flights.0"), "hotel": Ref(ref="hotel")}),
        PlanStep(id="sum", use="sum", args={"amounts": [Ref(ref="hotel.price"), 1.5]}),
        PlanStep(id="room", use="convert", args={"amount": Ref(ref="hotel.rooms.0.number"), "to": Ref(ref="hotel.extra.anything")}),
    )
    assert not faults()


CASES: list[tuple[str, list[PlanStep], list[str]]] = [
    ("an unknown tool", [PlanStep(id="a", use="book_hotle")], ["step 'a': no tool or agent 'book_hotle'", "did you mean 'book_hotel'?"]),
    ("an id that is there twice", [HOTEL, HOTEL], ["step 'hotel' is there 2 times"]),
    ("an id that a reference could not name", [HOTEL.model_copy(update={"id": "my.hotel"})], ["an id consists of"]),
    (
        "a cycle",
        [
            HOTEL.model_copy(update={"after": ["b"]}),
            PlanStep(id="b", use="convert", args={"amount": Ref(ref="c")}),
            PlanStep(id="c", use="convert", args={"amount": 1}, after=["hotel"]),
        ],
        ["these steps wait for each other: hotel -> b -> c -> hotel"],
    ),
    ("a step that waits for itself", [HOTEL.model_copy(update={"after": ["hotel"]})], ["wait for each other: hotel -> hotel"]),
    ("an `after` that names nothing", [HOTEL.model_copy(update={"after": ["flihgts"]})], ["after 'flihgts': no step has this id"]),
    (
        "a reference to no step",
        [HOTEL, PlanStep(id="b", use="convert", args={"amount": Ref(ref="hotl.price")})],
        ["argument 'amount' 'hotl': no step has this id; did you mean 'hotel'?"],
    ),
    (
        "a field that the result does not have",
        [HOTEL, PlanStep(id="b", use="convert", args={"amount": Ref(ref="hotel.prize")})],
        ["argument 'amount' 'hotel.prize': the result of 'book_hotel' has no 'prize'", "did you mean 'price'?"],
    ),
    (
        "a field of what has none",
        [PlanStep(id="a", use="convert", args={"amount": 1}), PlanStep(id="b", use="convert", args={"amount": Ref(ref="a.price")})],
        ["the result of 'convert' has no 'price' (it is number)"],
    ),
    ("a missing argument", [PlanStep(id="a", use="book_hotel")], ["argument 'city' of 'book_hotel' is missing"]),
    (
        "an unknown argument",
        [HOTEL.model_copy(update={"args": {"city": "Bonn", "night": 1}})],
        ["'book_hotel' has no argument 'night'", "did you mean 'nights'?"],
    ),
    (
        "an argument of the wrong type",
        [HOTEL.model_copy(update={"args": {"city": "Bonn", "nights": "two"}})],
        ["argument 'nights' of 'book_hotel'", "(given: 'two')"],
    ),
    ("an argument out of its bounds", [HOTEL.model_copy(update={"args": {"city": "Bonn", "nights": 0}})], ["greater than or equal to 1"]),
    (
        "a reference to a result of another type",
        [HOTEL, PlanStep(id="b", use="convert", args={"amount": Ref(ref="hotel.id")})],
        ["argument 'amount' of 'convert' takes number, and 'hotel.id' is string"],
    ),
    (
        "a reference to another type inside a list",
        [HOTEL, PlanStep(id="b", use="sum", args={"amounts": [1, Ref(ref="hotel.rooms")]})],
        ["argument 'amounts.1' of 'sum' takes number, and 'hotel.rooms' is array"],
    ),
    (
        "a reference to an object without what is needed",
        [HOTEL, PlanStep(id="b", use="pay", args={"who": "ann", "hotel": Ref(ref="hotel.rooms.0")})],
        ["takes Hotel or null, and 'hotel.rooms.0' is Room"],
    ),
    ("no attempt", [HOTEL.model_copy(update={"attempts": 0})], ["attempts=0: it must be 1 or more"]),
    (
        "attempts of what must not be repeated",
        [PlanStep(id="a", use="pay", args={"who": "ann"}, attempts=2)],
        ["attempts=2: 'pay' must not be called again"],
    ),
    ("an unknown undo", [HOTEL.model_copy(update={"undo": "cancle"})], ["undo 'cancle' is no tool", "did you mean 'cancel'?"]),
    ("an agent as undo", [HOTEL.model_copy(update={"undo": "flights"})], ["undo 'flights' is no tool"]),
    (
        "an undo that needs more",
        [PlanStep(id="a", use="convert", args={"amount": 1}, undo="cancel")],
        ["undo 'cancel' needs 'city', which is neither an argument of this step nor its `result`"],
    ),
    (
        "a reference to a step that may be skipped",
        [
            PlanStep(id="f", use="flights", args={"input": "x"}),
            HOTEL.model_copy(update={"when": When(ref="f", op="empty")}),
            PlanStep(id="c", use="convert", args={"amount": Ref(ref="hotel.price")}),
        ],
        ["argument 'amount' refers to 'hotel', which may be skipped"],
    ),
    ("a condition on nothing", [HOTEL.model_copy(update={"when": When(ref="x")})], ["when 'x': no step has this id"]),
    (
        "conditions that cannot be told",
        [
            PlanStep(id="f", use="flights", args={"input": "x"}),
            HOTEL.model_copy(update={"id": "a", "when": When(ref="f", op="empty", value=1)}),
            HOTEL.model_copy(update={"id": "b", "when": When(ref="f", op="in", value="x")}),
            HOTEL.model_copy(update={"id": "c", "when": When(ref="f", op="lt")}),
        ],
        ["op 'empty' takes no value", "op 'in' takes a list", "op 'lt' compares numbers or texts"],
    ),
]


@pytest.mark.parametrize(("steps", "told"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_fault_is_named_with_its_step_and_its_way_out(steps: list[PlanStep], told: list[str]) -> None:
    found = "\n".join(faults(*steps))
    for part in told:
        assert part in found


def test_all_faults_come_in_one_error() -> None:
    found = faults(
        PlanStep(id="a", use="nothing", after=["b"]),
        PlanStep(id="b", use="book_hotel", args={"nights": "two"}, after=["a", "z"], attempts=0, undo="none"),
        PlanStep(id="b", use="convert", args={"amount": Ref(ref="q")}, when=When(ref="a", op="in", value=1)),
    )
    assert len(found) == 10


def test_steps_of_one_condition_may_refer_to_each_other() -> None:
    both = When(ref="f", op="not_empty")
    assert not faults(
        PlanStep(id="f", use="flights", args={"input": "x"}),
        HOTEL.model_copy(update={"when": both}),
        PlanStep(id="c", use="convert", args={"amount": Ref(ref="hotel.price")}, when=both),
    )


def test_what_a_type_leaves_open_is_no_fault() -> None:
    anything = fake("anything", None, x=(Any, None))
    Plan(
        steps=[
            PlanStep(id="a", use="anything"),
            PlanStep(id="b", use="anything", args={"x": Ref(ref="a.what.0.ever")}),
            PlanStep(id="c", use="convert", args={"amount": Ref(ref="b.price")}),
        ]
    ).check(tools=[anything, CONVERT])


def test_a_tool_and_an_agent_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two of a plan's tools and agents are named 'flights'"):
        Plan(steps=[]).check(tools=[fake("flights")], agents=[Flights])


def test_a_long_chain_is_checked_without_recursion() -> None:
    steps = [PlanStep(id=f"s{i}", use="convert", args={"amount": 1}, after=[f"s{i + 1}"]) for i in range(3000)]
    assert [fault.partition(";")[0] for fault in faults(*steps)] == ["step 's2999': after 's3000': no step has this id"]
