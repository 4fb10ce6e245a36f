"""The agents: six specialists, each a durable run of its own, and the orchestrator that joins what they found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel

from agentkit import Agent, Child, Context, Need, Orchestrator, Outcomes, Policy, Retry

LIBRARY_POLICY = Policy("library", timeout_s=10, retry=Retry(attempts=3, on=(ConnectionError,)))


class Question(BaseModel):
    """What is to be found out."""

    text: str


class Finding(BaseModel):
    """What one specialist says, and what it rests on."""

    topic: str
    text: str
    source: str


class Paper(BaseModel):
    """What they say together."""

    question: str
    findings: list[Finding]
    summary: str
    missing: dict[str, str]
    """Topics of which nobody could say anything, with the reason."""


class Library:
    """Texts by topic. An app has a search service here."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    async def search(self, topic: str, question: str) -> str:
        """Raises LookupError where there is nothing on the topic."""
        if topic not in self._texts:
            raise LookupError(f"the library has nothing on {topic}")
        return self._texts[topic]


class Specialist(Agent[Question, Finding]):
    """Knows one topic."""

    topic: ClassVar[str] = ""

    async def run(self, ctx: Context, question: Question) -> Finding:
        source = await ctx.step("search", ctx.get(Library).search, self.topic, question.text, policy=LIBRARY_POLICY)
        prompt = f"You are a specialist in {self.topic}. From this text alone answer in one sentence: {question.text}\n\n{source}"
        return Finding(topic=self.topic, text=(await ctx.generate(prompt, model="cheap")).output, source=source)


class Law(Specialist):
    """What is allowed."""

    topic = "law"


class Economics(Specialist):
    """What it costs."""

    topic = "economics"


class Engineering(Specialist):
    """How it is built."""

    topic = "engineering"


class Ecology(Specialist):
    """What lives there."""

    topic = "ecology"


class History(Specialist):
    """How it went before."""

    topic = "history"


class Chemistry(Specialist):
    """What is in the water."""

    topic = "chemistry"


SPECIALISTS: tuple[type[Specialist], ...] = (Law, Economics, Engineering, Ecology, History, Chemistry)


class Research(Orchestrator[Question, Paper]):
    """Asks all specialists, and writes the paper when four of them have answered or says why it cannot."""

    specialists = SPECIALISTS
    need = Need.at_least(4, within_s=300)

    async def assign(self, ctx: Context, input: Question) -> Mapping[str, Child[Finding]]:
        return {one.topic: one.of(input) for one in SPECIALISTS}

    async def join(self, ctx: Context, input: Question, outcomes: Outcomes[Finding]) -> Paper:
        findings = [outcomes.good[topic] for topic in sorted(outcomes.good)]
        said = "\n".join(f"{finding.topic}: {finding.text}" for finding in findings)
        reply = await ctx.generate(f"Sum up what specialists say to: {input.text}\n\n{said}", model="heavy")
        missing = {topic: f"{error.kind}: {error.message}" for topic, error in outcomes.bad.items()}
        return Paper(question=input.text, findings=findings, summary=reply.output, missing=missing)
