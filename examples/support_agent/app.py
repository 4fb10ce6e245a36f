"""What a process needs to serve the support agent: this program does, and the FastAPI app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from agentkit import AnyAgent, Lifespan
from examples.support_agent.agents import FindPassages, ReadIntent, Support
from examples.support_agent.shop import Shop

AGENTS: list[AnyAgent] = [Support, ReadIntent, FindPassages]
TENANT = "shop"


def resources(shop: Shop) -> Lifespan:
    """What tools ask for by type."""

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type, object]]:
        yield {Shop: shop}

    return lifespan
