"""Talk with the shop's support: ``python -m examples.support_agent --customer ann``.

On a terminal you type; elsewhere, or with ``--say``, the customer says what is written down. The conversation is kept: come back later.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence

from anyio import to_thread

from agentkit import Principal, RunError, Runtime
from examples.common.program import Options, parser, play
from examples.common.screen import Screen
from examples.support_agent import rules
from examples.support_agent.agents import Support
from examples.support_agent.app import AGENTS, TENANT, resources
from examples.support_agent.shop import Shop

DEMO = [
    "Where is order 17?",
    "Please refund order 18. My card is 4111 1111 1111 1111.",
    "Within how many days can goods be returned?",
]


class Chosen(Options):
    """What the command line said."""

    customer: str
    session: str
    say: list[str] | None
    read_only: bool


def options(arguments: Sequence[str]) -> Chosen:
    """Read the command line."""
    made = parser("support_agent", "Talk with the shop's support.")
    made.add_argument("--customer", default="ann", help="who talks: ann or ben (default: ann)")
    made.add_argument("--session", default="", metavar="ID", help="which conversation to go on with (default: the customer's)")
    made.add_argument("--say", action="append", metavar="TEXT", help="say this and leave; may be given more than once")
    made.add_argument("--read-only", action="store_true", help="a customer who may not ask for refunds")
    return made.parse_args(arguments, Chosen())


async def said_by(chosen: Chosen, screen: Screen) -> AsyncIterator[str]:
    """What the customer says, one message after the other."""
    if chosen.say is not None or not sys.stdin.isatty():
        for text in chosen.say or DEMO:
            screen.line(f"{chosen.customer}: {text}", "bold")
            yield text
        return
    while text := (await to_thread.run_sync(input, f"{chosen.customer}: ", abandon_on_cancel=True)).strip():
        yield text


async def main(chosen: Chosen) -> int:
    """One visit."""
    screen, shop = Screen(), Shop(chosen.file("refunds.json"))
    who = Principal(id=chosen.customer, permissions=frozenset() if chosen.read_only else frozenset({"orders:refund"}))
    models = chosen.models or rules.models(chosen.pace_s)
    url = chosen.state_url("support")
    async with Runtime(state=url, agents=AGENTS, models=models, lifespan=resources(shop), worker=True) as runtime:
        session = runtime.session(Support, chosen.session or chosen.customer, tenant=TENANT, principal=who)
        before = len(await session.history())
        screen.line(f"{before} messages were said before." if before else "A new conversation.", "dim")
        async for text in said_by(chosen, screen):
            try:
                await screen.follow(await session.send(text))
            except RunError as error:
                screen.line(f"No answer: {error}", "red")
    return 0


if __name__ == "__main__":
    sys.exit(play(main, options(sys.argv[1:])))
