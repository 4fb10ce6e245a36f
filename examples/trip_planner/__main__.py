"""Plan and book a trip: ``python -m examples.trip_planner Bonn --nights 3``."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from agentkit import Runtime
from agentkit.ports.messages import Request
from examples.common.offline import offline, question
from examples.common.program import Options, parser, play
from examples.common.screen import Screen
from examples.trip_planner.agency import Agency
from examples.trip_planner.agents import Goal, Trip, TripByCode, plan_for


class Chosen(Options):
    """What the command line said."""

    city: str
    nights: int
    run_id: str | None
    by_code: bool


def options(arguments: Sequence[str]) -> Chosen:
    """Read the command line."""
    made = parser("trip_planner", "Plan and book a trip; what cannot be kept is taken back.")
    made.add_argument("city", nargs="?", default="Bonn", help="Bonn or Ghent (default: Bonn)")
    made.add_argument("--nights", type=int, default=2)
    made.add_argument("--by-code", action="store_true", help="let code write the plan, not a model")
    made.add_argument("--run-id", metavar="ID", help="go on with a trip that was interrupted")
    return made.parse_args(arguments, Chosen())


def write_plan(request: Request) -> object:
    """Without a server: the first plan takes the cheap train, and the next one knows that it was full."""
    goal = next(Goal.model_validate_json(m.content) for m in request.messages if m.role == "user")
    return plan_for(goal, "noon" if "no seats" in question(request) else "early").model_dump(exclude_defaults=True)


async def main(chosen: Chosen) -> int:
    """One trip."""
    screen, agency = Screen(), Agency(chosen.file("trips-booked.json"))
    run_id = chosen.run_id or f"trip-{uuid.uuid4().hex[:8]}"

    @asynccontextmanager
    async def resources() -> AsyncGenerator[Mapping[type, object]]:
        yield {Agency: agency}

    models = chosen.models or {"planner": offline(write_plan, pace_s=chosen.pace_s)}
    async with Runtime(
        state=chosen.state_url("trips"), agents=[Trip, TripByCode], models=models, lifespan=resources, worker=True
    ) as runtime:
        agent = TripByCode if chosen.by_code else Trip
        screen.line(f"run {run_id}", "dim")
        goal = Goal(text="a weekend away", city=chosen.city, nights=chosen.nights)
        trip = await screen.follow(await runtime.submit(agent, goal, run_id=run_id))
    screen.line(f"Booked: {trip.hotel.what}, and {trip.train.what}: {trip.euro:.2f} euro, which is {trip.dollars} dollars.", "bold green")
    screen.line(f"In the agency's book are now {len(await agency.booked())} reservations; what was taken back is not among them.")
    return 0


if __name__ == "__main__":
    sys.exit(play(main, options(sys.argv[1:])))
