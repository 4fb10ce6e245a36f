"""Every example runs twice from a terminal, is told of in the README, and finds its models in the file of models."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TypeGuard

import pytest

from agentkit import Agent, AnyAgent, Models
from examples.__main__ import EXAMPLES, ROOT, Example, run
from examples.common.program import parser
from examples.compliance_reviewer import rules as verdicts
from examples.research_orchestrator.__main__ import models as research_models
from examples.support_agent import rules as support

HERE = ROOT / "examples"
FOLDERS = sorted(path.name for path in HERE.iterdir() if (path / "__main__.py").exists())


@pytest.mark.timeout(250)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs_and_runs_again_on_what_it_left(example: Example, tmp_path: Path) -> None:
    for _ in range(2):
        ran = run(example, tmp_path)
        assert ran.well, ran.output


def test_make_examples_runs_all_that_there_are() -> None:
    assert sorted(example.name for example in EXAMPLES) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_example_has_a_readme_with_a_picture_and_how_to_run_it_and_stands_in_the_list(folder: str) -> None:
    text = (HERE / folder / "README.md").read_text()
    assert "```mermaid" in text
    assert f"python -m examples.{folder}" in text
    assert f"({folder}/README.md)" in (HERE / "README.md").read_text()
    long = [path.name for path in (HERE / folder).glob("*.py") if len(path.read_text().splitlines()) >= 300]
    assert long == []


def test_the_file_of_models_names_every_model_that_the_examples_use(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    written = (HERE / "common" / "models.toml").read_text()
    assert "openai+http://" in written
    file.write_text(written.replace("openai+http://127.0.0.1:8000/v1", "memory://"))
    known = set(Models.from_file(file).names)
    named = {*support.models(), *verdicts.models(), *research_models(), "planner", "chat"}
    assert named == known


def of_an_example(found: object) -> TypeGuard[AnyAgent]:
    return isinstance(found, type) and issubclass(found, Agent) and found.__module__.startswith("examples.")


@pytest.mark.parametrize("module", ["support_agent", "compliance_reviewer", "research_orchestrator", "trip_planner", "own_framework"])
def test_every_agent_of_an_example_says_what_it_does(module: str) -> None:
    agents = [one for one in vars(import_module(f"examples.{module}.agents")).values() if of_an_example(one)]
    assert agents
    assert [agent.__name__ for agent in agents if not agent.__doc__] == []


def test_every_example_has_the_options_that_all_have() -> None:
    assert {"--models", "--state", "--directory"} <= set(parser("any", "").format_help().replace(",", " ").split())
