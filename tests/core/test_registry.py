"""Agent classes: what is checked when a class is made, and how a runtime knows them."""

from __future__ import annotations

import sys
from typing import Any, Generic, TypeVar

import pytest

from agentkit import Agent, Context, InvalidSetting, Orchestrator, UnknownAgent
from agentkit.runtime.registry import Registry, load

T = TypeVar("T")


class ReviewHTTPClause(Agent[str, int]):
    async def run(self, ctx: Context, text: str, /) -> int:
        return len(text)


class Listing(Agent[T, list[T]], Generic[T]):
    async def run(self, ctx: Context, item: T, /) -> list[T]:
        return [item]


class Words(Listing[str]):
    pass


def test_a_class_is_named_in_kebab_case_unless_it_says_otherwise() -> None:
    assert ReviewHTTPClause.name == "review-http-clause"
    assert ReviewHTTPClause.version == "1"


def test_types_are_read_when_the_class_is_made_through_generic_bases_too() -> None:
    assert (ReviewHTTPClause.input_type, ReviewHTTPClause.output_type) == (str, int)
    assert (Words.input_type, Words.output_type) == (str, list[str])


def test_a_class_without_its_types_is_refused_with_the_way_to_write_them() -> None:
    with pytest.raises(TypeError, match=r"class Bare\(Agent\): write its types, as in class Bare\(Agent\[Question, Answer\]\)"):

        class Bare(Agent):  # type: ignore[type-arg]
            pass


@pytest.mark.parametrize("bad", ["", "a b", "-a", "a@1", "x" * 101])
def test_a_name_or_version_outside_the_rule_is_refused_when_the_class_is_made(bad: str) -> None:
    with pytest.raises(TypeError, match=r"\.name = "):
        type("Bad", (ReviewHTTPClause,), {"name": bad})
    with pytest.raises(TypeError, match=r"\.version = "):
        type("Bad", (ReviewHTTPClause,), {"version": bad})


def test_a_class_that_is_still_generic_cannot_be_registered() -> None:
    with pytest.raises(TypeError, match="Listing is generic"):
        Registry([Listing])


def test_agents_are_given_as_classes_modules_and_strings() -> None:
    module = sys.modules[__name__]
    for given in ([ReviewHTTPClause], [f"{__name__}:ReviewHTTPClause"]):
        assert Registry(given).kinds() == ["review-http-clause@1"]
    with pytest.raises(TypeError, match="generic"):
        Registry([module])


@pytest.mark.parametrize("given", ["no.such.module", f"{__name__}:Nobody", "", 7, ReviewHTTPClause()])
def test_what_is_no_agent_is_refused_with_what_to_give(given: Any) -> None:
    with pytest.raises(InvalidSetting, match="agents="):
        Registry([given])


def test_two_classes_of_one_name_and_version_are_refused_and_of_two_versions_both_served() -> None:
    two = type("Two", (ReviewHTTPClause,), {"name": "review-http-clause", "version": "2"})
    same = type("Same", (ReviewHTTPClause,), {"name": "review-http-clause"})
    assert Registry([ReviewHTTPClause, two]).kinds() == ["review-http-clause@1", "review-http-clause@2"]
    assert Registry([ReviewHTTPClause, ReviewHTTPClause]).kinds() == ["review-http-clause@1"]
    with pytest.raises(InvalidSetting, match=r"both .* have this name and version"):
        Registry([ReviewHTTPClause, same])


def test_a_class_serves_the_versions_it_continues_unless_another_is_that_version() -> None:
    two = type("Two", (ReviewHTTPClause,), {"name": "review-http-clause", "version": "2", "continues": ("1", "0")})
    for order in ([ReviewHTTPClause, two], [two, ReviewHTTPClause]):
        registry = Registry(order)
        assert registry.find("review-http-clause", "1") is ReviewHTTPClause
        assert registry.find("review-http-clause", "0") is two


def test_a_worker_may_serve_some_by_name_or_by_name_and_version() -> None:
    two = type("Two", (ReviewHTTPClause,), {"name": "review-http-clause", "version": "2"})
    registry = Registry([ReviewHTTPClause, two, Words])
    assert registry.serves(["review-http-clause@2", "words"]) == {"review-http-clause": {"2"}, "words": {"1"}}
    assert registry.serves()["review-http-clause"] == {"1", "2"}
    with pytest.raises(UnknownAgent, match="did you mean 'words'"):
        registry.serves(["word"])


def test_a_module_path_that_cannot_be_imported_says_why() -> None:
    with pytest.raises(InvalidSetting, match="cannot be imported: No module named 'no'"):
        load("no.such:thing")


class Helper(Agent[str, int]):
    async def run(self, ctx: Context, text: str, /) -> int:
        return len(text)


class Chief(Orchestrator[str, int]):
    specialists = (Helper,)


class Board(Orchestrator[str, int]):
    specialists = (Chief, Helper)


def test_classes_that_a_class_reaches_are_registered_along() -> None:
    registry = Registry([Board])
    assert registry.kinds() == ["board@1", "chief@1", "helper@1"]


class Mirror(Orchestrator[str, int]):
    """Asks itself."""


Mirror.specialists = (Mirror,)


def test_a_class_that_reaches_itself_is_registered_once() -> None:
    assert Registry([Mirror]).kinds() == ["mirror@1"]
