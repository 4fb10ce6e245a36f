"""The app in one process: ``python -m examples.fastapi_app`` plays a visit through it, ``--serve PORT`` keeps it up (with uvicorn)."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import httpx

from examples.common.program import Options, parser, play
from examples.common.screen import Screen
from examples.fastapi_app.app import create, local

MESSAGES = ["Where is order 17?", "Please refund order 18."]


class Chosen(Options):
    """What the command line said."""

    serve: int | None


def options(arguments: Sequence[str]) -> Chosen:
    """Read the command line."""
    made = parser("fastapi_app", "A FastAPI app that embeds the runtime.")
    made.add_argument("--serve", type=int, metavar="PORT", help="serve HTTP on this port, with uvicorn")
    return made.parse_args(arguments, Chosen())


async def main(chosen: Chosen) -> int:
    """A visit to the app, without a socket."""
    screen = Screen()
    app = create(local(chosen.directory, chosen.state, chosen.models, chosen.pace_s))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app", headers={"X-User": "ann"}, timeout=60) as client,
    ):
        for text in MESSAGES:
            screen.line(f"POST /chat/visit  {text}", "bold")
            response = await client.post("/chat/visit", json={"text": text, "message_id": uuid.uuid4().hex})
            for line in response.raise_for_status().text.splitlines():
                screen.line(f"  {line}" if line else "", "dim")
        screen.line("GET /chat/visit", "bold")
        for said in (await client.get("/chat/visit")).raise_for_status().json():
            screen.line(f"  {said['role']}: {said['text']}")
    return 0


def serve(chosen: Chosen) -> int:
    """Serve until Ctrl-C."""
    if not find_spec("uvicorn"):
        print("error: --serve needs uvicorn: pip install uvicorn", file=sys.stderr)
        return 2
    uvicorn: Any = import_module("uvicorn")
    uvicorn.run(create(local(chosen.directory, chosen.state, chosen.models, chosen.pace_s)), port=chosen.serve)
    return 0


if __name__ == "__main__":
    chosen = options(sys.argv[1:])
    sys.exit(serve(chosen) if chosen.serve is not None else play(main, chosen))
