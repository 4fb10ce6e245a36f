"""(4) A planner whose model writes a Plan with tools and sub-agents, re-plans, compensates."""

from pydantic import BaseModel

from agentkit import Agent, Context, Plan, PlanningAgent, PlanResult, PlanStep, Ref, Runtime, StepContext, When, tool


class Goal(BaseModel):
    text: str
    city: str


class Hotel(BaseModel):
    id: str
    booking: str
    price: float


class Itinerary(BaseModel):
    hotel: Hotel
    notes: str


class Desk:
    """The hotels' own system."""

    def __init__(self) -> None:
        self.booked: dict[str, Hotel] = {}


async def cancel_hotel(step: StepContext, result: Hotel) -> None:
    step.get(Desk).booked.pop(result.booking, None)


@tool(effect="rerun", undo=cancel_hotel)
async def book_hotel(step: StepContext, city: str, nights: int = 1) -> Hotel:
    """Book a hotel in a city."""
    booking = step.idempotency_key  # a repetition finds the booking that is there
    return step.get(Desk).booked.setdefault(booking, Hotel(id=f"{city}-inn", booking=booking, price=90.0 * nights))


@tool
def convert(amount: float, to: str) -> float:
    """Convert dollars to another currency."""
    if to != "EUR":
        raise LookupError(f"no rate for {to}")
    return amount * 0.9


class FindFlights(Agent[str, list[str]]):
    """Find flights to a city."""

    async def run(self, ctx: Context, city: str) -> list[str]:
        return [city]


class Trip(PlanningAgent[Goal, Itinerary]):
    model = "planner"
    instructions = "Book a trip."
    tools = (book_hotel, convert)
    agents = (FindFlights,)
    max_replans = 2

    async def finish(self, ctx: Context, goal: Goal, result: PlanResult) -> Itinerary:
        return Itinerary(hotel=result.get("hotel", Hotel), notes=str(result.undone))


class ByCode(PlanningAgent[Goal, Itinerary]):
    tools = (book_hotel, convert)
    agents = (FindFlights,)

    async def plan(self, ctx: Context, goal: Goal, failed: PlanResult | None) -> Plan:
        return Plan(
            steps=[
                PlanStep(id="flights", use="find-flights", args={"input": goal.city}),
                PlanStep(id="hotel", use="book_hotel", args={"city": goal.city, "nights": 2}, after=["flights"]),
                PlanStep(
                    id="euro",
                    use="convert",
                    args={"amount": Ref(ref="hotel.price"), "to": "EUR"},
                    when=When(ref="flights", op="not_empty"),
                ),
            ]
        )

    async def finish(self, ctx: Context, goal: Goal, result: PlanResult) -> Itinerary:
        return Itinerary(hotel=result.get("hotel", Hotel), notes=f"{result.get('euro', float):g} EUR")


class Inline(Agent[Goal, Hotel]):
    async def run(self, ctx: Context, goal: Goal) -> Hotel:
        schema = Plan.schema_for(tools=[book_hotel, convert])
        plan = (await ctx.generate(goal.text, output=schema)).output
        result = await ctx.execute(plan, tools=[book_hotel, convert])
        return result.get("hotel", Hotel)


async def main() -> None:
    async with Runtime(agents=[Trip, FindFlights], models="models.toml") as rt:
        print((await rt.run(Trip, Goal(text="", city="Bonn"))).hotel.id)
