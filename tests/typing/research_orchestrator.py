"""(3) Research orchestrator with 20 specialists and a partial-failure policy."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from agentkit import Agent, Child, Context, Need, Orchestrator, Outcomes, Runtime


class Question(BaseModel):
    text: str


class Finding(BaseModel):
    source: str
    text: str


class Paper(BaseModel):
    text: str
    missing: list[str]


class Specialist(Agent[Question, Finding]):
    topic: str = ""

    async def run(self, ctx: Context, question: Question) -> Finding:
        text = (await ctx.generate(f"As {self.topic}: {question.text}", model="cheap")).output
        return Finding(source=self.topic, text=text)


class Law(Specialist):
    topic = "law"


class Tax(Specialist):
    topic = "tax"


class Chemist(Specialist):
    topic = "chemistry"


SPECIALISTS: tuple[type[Specialist], ...] = (Law, Tax, Chemist)


# by the base class
class Research(Orchestrator[Question, Paper]):
    specialists = SPECIALISTS
    need = Need.at_least(15, within_s=300)

    async def assign(self, ctx: Context, question: Question) -> Mapping[str, Child[Finding]]:
        return {s.topic: s.of(question) for s in SPECIALISTS}

    async def join(self, ctx: Context, question: Question, outcomes: Outcomes[Any]) -> Paper:
        return Paper(text=" ".join(f.text for f in outcomes.good.values()), missing=list(outcomes.bad))


# the same as a plain agent: nothing the base class adds
class Research2(Agent[Question, Paper]):
    async def run(self, ctx: Context, question: Question) -> Paper:
        outcomes = await ctx.join({s.topic: s.of(question) for s in SPECIALISTS}, need=Need.at_least(15, within_s=300))
        reply = await ctx.generate("\n".join(f.text for f in outcomes.good.values()), model="heavy")
        return Paper(text=reply.output, missing=list(outcomes.bad))


async def main() -> None:
    async with Runtime(state="sqlite:///research.db", agents=[Research2, *SPECIALISTS], worker=True, models="models.toml") as rt:
        paper = await rt.run(Research2, Question(text="?"), run_id="q-1", timeout_s=900)
        print(paper.missing)
