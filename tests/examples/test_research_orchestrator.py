"""The research orchestrator: enough specialists make a paper, and it says who is missing."""

from __future__ import annotations

import pytest

from agentkit import RunError, Settings
from agentkit.testing import runtime
from examples.research_orchestrator.__main__ import TEXTS, models
from examples.research_orchestrator.agents import SPECIALISTS, Library, Question, Research

WEIR = Question(text="Should the town build a weir?")
RESOURCES = {Library: Library(TEXTS)}


async def test_the_paper_has_all_findings_and_says_what_is_missing() -> None:
    async with runtime(agents=[Research], models=models(), resources=RESOURCES) as rt:
        paper = await rt.run(Research, WEIR, run_id="paper")
    assert [finding.topic for finding in paper.findings] == sorted(TEXTS)
    assert paper.missing == {"chemistry": "LookupError: the library has nothing on chemistry"}
    assert paper.summary.startswith("5 specialists answered.")


async def test_four_specialists_are_enough() -> None:
    async with runtime(agents=[Research], models=models(["law"]), resources=RESOURCES) as rt:
        paper = await rt.run(Research, WEIR, run_id="paper")
    assert len(paper.findings) == 4
    assert set(paper.missing) == {"chemistry", "law"}


async def test_three_are_not() -> None:
    async with runtime(agents=[Research], models=models(["law", "history"]), resources=RESOURCES) as rt:
        with pytest.raises(RunError):
            await rt.run(Research, WEIR, run_id="paper")


async def test_while_the_specialists_work_the_orchestrator_holds_no_slot() -> None:
    narrow = Settings(grace_s=0.0, concurrency=1)
    async with runtime(agents=[Research], models=models(), resources=RESOURCES, settings=narrow) as rt:
        handle = await rt.submit(Research, WEIR, run_id="paper")
        assert len((await handle.result()).findings) == len(TEXTS)


@pytest.mark.parametrize("at", ["search", "model"])
async def test_a_crash_asks_again_only_for_what_had_no_answer_yet(at: str) -> None:
    scripted = models()
    async with runtime(agents=[Research], models=scripted, resources=RESOURCES) as rt:
        await rt.crash(at=at)
        handle = await rt.submit(Research, WEIR, run_id="paper")
        assert len((await handle.result()).findings) == len(TEXTS)
        assert rt.crashed == 1
        assert len([info async for info in rt.runs() if info.parent_id == "paper"]) == len(SPECIALISTS)
    assert len(scripted["cheap"].requests) <= 2 * len(TEXTS)
    assert len(scripted["heavy"].requests) == 1
