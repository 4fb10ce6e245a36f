"""The agents: a planner whose plans a model writes, one whose plans code writes, and a specialist that both may use."""

from __future__ import annotations

from pydantic import BaseModel

from agentkit import Agent, Context, Plan, PlanningAgent, PlanResult, PlanStep, Policy, Ref, Retry, StepContext, When, tool
from examples.trip_planner.agency import Agency, Reservation, Room

AGENCY = Policy("agency", timeout_s=20, retry=Retry(attempts=3, on=(ConnectionError,)))


class Goal(BaseModel):
    """What the traveller wants."""

    text: str
    city: str
    nights: int = 2


class Itinerary(BaseModel):
    """What came of it."""

    hotel: Reservation
    train: Reservation
    euro: float
    dollars: float | None


async def cancel(step: StepContext, result: Reservation) -> None:
    """How a reservation is taken back: by its key, so twice is once."""
    await step.get(Agency).cancel(result.key)


@tool(effect="rerun", undo=cancel, policy=AGENCY)
async def book_room(step: StepContext, city: str, hotel: str, nights: int = 1) -> Reservation:
    """Book a room. Hotels are known to find-rooms."""
    return await step.get(Agency).book_room(city, hotel, nights, key=step.idempotency_key)


@tool(effect="rerun", undo=cancel, policy=AGENCY)
async def book_train(step: StepContext, city: str, departure: str) -> Reservation:
    """Book a seat to a city. `departure` is early or noon; early is cheaper."""
    return await step.get(Agency).book_train(city, departure, key=step.idempotency_key)


@tool
def total(prices: list[float]) -> float:
    """Add up prices."""
    return sum(prices)


@tool
def convert(amount: float, to: str) -> float:
    """What an amount in euro is in another currency."""
    return round(amount * {"USD": 1.08, "GBP": 0.85}[to], 2)


class FindRooms(Agent[str, list[Room]]):
    """Finds hotels in a city that have a room, the cheapest first."""

    async def run(self, ctx: Context, city: str) -> list[Room]:
        rooms = await ctx.step("ask the guide", ctx.get(Agency).rooms, city)
        return sorted(rooms, key=lambda room: room.price)


class Trip(PlanningAgent[Goal, Itinerary]):
    """A model writes the plan. What failed is taken back, and the model is told before it writes the next one."""

    model = "planner"
    instructions = (
        "Book a trip: the step `hotel` books a room in the cheapest hotel, the step `train` a seat, "
        "the step `euro` is the total of both, and the step `dollars` the same in USD."
    )
    tools = (book_room, book_train, total, convert)
    agents = (FindRooms,)
    max_replans = 2

    async def finish(self, ctx: Context, goal: Goal, result: PlanResult) -> Itinerary:
        dollars = result.get("dollars", float) if "dollars" in result.done else None
        return Itinerary(
            hotel=result.get("hotel", Reservation), train=result.get("train", Reservation), euro=result.get("euro", float), dollars=dollars
        )


def plan_for(goal: Goal, departure: str) -> Plan:
    """The plan of somebody who knows the way: no seat without a room, then the sum."""
    return Plan(
        steps=[
            PlanStep(id="rooms", use="find-rooms", args={"input": goal.city}),
            PlanStep(id="hotel", use="book_room", args={"city": goal.city, "hotel": Ref(ref="rooms.0.hotel"), "nights": goal.nights}),
            PlanStep(id="train", use="book_train", args={"city": goal.city, "departure": departure}, after=["hotel"]),
            PlanStep(id="euro", use="total", args={"prices": [Ref(ref="hotel.price"), Ref(ref="train.price")]}),
            PlanStep(id="dollars", use="convert", args={"amount": Ref(ref="euro"), "to": "USD"}, when=When(ref="euro", op="gt", value=100)),
        ]
    )


class TripByCode(Trip):
    """The same without a model: code writes the plan, and another one when it failed."""

    async def plan(self, ctx: Context, input: Goal, failed: PlanResult | None) -> Plan:
        return plan_for(input, "early" if failed is None else "noon")
