"""Values through JSON and back: what a step returns the first time is what a replay returns."""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentkit import Context, NotSerialisable, StepContext
from agentkit.durable.codec import PLAIN, Codec
from agentkit.durable.functions import codec_of, function_of

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)


class Opaque:
    """Nothing that JSON knows."""

    def __repr__(self) -> str:  # the same in every process: it names a test
        return "Opaque()"


class Level(enum.Enum):
    LOW = "low"


class Base(BaseModel):
    x: int


class Derived(Base):
    y: int = 0


@dataclass
class Pair:
    left: int
    right: tuple[int, ...]


@given(JSON)
def test_plain_json_comes_back_as_it_was(value: Any) -> None:
    body, again = PLAIN.round_trip(value, "x")
    assert again == value
    assert isinstance(body, bytes)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": {1, 2}}, "['a']"),
        ({"a": [1, {"b": Opaque()}]}, "['a'][1]['b']"),
        ([datetime(2026, 1, 1, tzinfo=UTC)], "[0]"),
        (Base(x=1), ""),
        ({"when": b"raw"}, "['when']"),
        ([1.0, float("nan")], "[1]"),
        ({"a": float("inf")}, "['a']"),
    ],
    ids=repr,
)
def test_without_a_declared_type_what_is_not_plain_json_is_refused_with_its_path(value: object, path: str) -> None:
    with pytest.raises(NotSerialisable) as caught:
        PLAIN.encode(value, "step 'a#1'")
    assert caught.value.path == path
    assert caught.value.problem
    assert "step 'a#1'" in str(caught.value)
    assert "returns=" in str(caught.value)


def test_keys_that_json_turns_into_text_and_tuples_that_become_lists_do_so_the_first_time_too() -> None:
    assert PLAIN.round_trip({1: (2, 3)}, "x")[1] == {"1": [2, 3]}


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotSerialisable):
        PLAIN.encode(loop, "x")


def test_half_a_surrogate_pair_is_refused_and_does_not_break_the_batch() -> None:
    with pytest.raises(NotSerialisable):
        PLAIN.encode("\ud800", "x")


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (tuple[int, str], (1, "a")),
        (dict[int, str], {1: "a"}),
        (set[int], {1, 2}),
        (Level, Level.LOW),
        (Pair, Pair(1, (2, 3))),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
        (Base | None, Base(x=1)),
        (list[Base], [Base(x=1)]),
    ],
    ids=str,
)
def test_a_declared_type_keeps_its_shape(declared: Any, value: object) -> None:
    _, again = Codec(declared).round_trip(value, "x")
    assert again == value
    assert type(again) is type(value)


def test_a_value_that_is_not_of_the_declared_type_is_refused_when_it_is_handed_in() -> None:
    with pytest.raises(NotSerialisable):
        Codec(list[int]).encode(["a"], "x")


def test_bytes_that_do_not_fit_the_declared_type_name_the_place() -> None:
    with pytest.raises(NotSerialisable) as caught:
        Codec(list[Base]).decode(b'[{"x":1},{"x":"no"}]', "result")
    assert caught.value.path == "[1].x"


def test_a_type_that_cannot_be_stored_is_refused_by_name() -> None:
    class Socket:
        pass

    with pytest.raises(NotSerialisable, match="result type of open_socket"):
        codec_of(Socket, "open_socket")


async def with_context(step: StepContext, n: int) -> list[int]:
    return [n] * len(step.run_id[:1])


async def with_full_context(ctx: Context) -> None: ...


def sync(n: int) -> Base:
    return Base(x=n)


def returns_awaitable() -> Awaitable[int]:
    raise AssertionError


class Service:
    async def call(self, step: StepContext) -> int:
        return step.attempt

    async def __call__(self, n: int) -> int:
        return n


CONTEXTS: tuple[type, ...] = (StepContext, Context)


def test_a_function_is_asked_once_what_it_returns_and_whether_it_wants_a_context() -> None:
    assert function_of(with_context, CONTEXTS) is function_of(with_context, CONTEXTS)
    assert function_of(with_context, CONTEXTS).wants_context
    assert function_of(with_full_context, CONTEXTS).wants_context
    assert function_of(with_context, CONTEXTS).is_async
    assert not function_of(sync, CONTEXTS).is_async
    assert not function_of(sync, CONTEXTS).wants_context
    assert function_of(sync, CONTEXTS).codec.declared is Base
    assert function_of(returns_awaitable, CONTEXTS).codec.declared is int


def test_methods_partials_and_callable_objects_are_seen_through() -> None:
    service = Service()
    assert function_of(service.call, CONTEXTS).wants_context
    assert function_of(service.call, CONTEXTS).is_async
    assert function_of(functools.partial(sync, 1), CONTEXTS).codec.declared is Base
    assert function_of(service, CONTEXTS).is_async
    assert function_of(service, CONTEXTS).codec.declared is int


def test_a_function_without_annotations_takes_plain_json_only() -> None:
    assert function_of(lambda: 1, CONTEXTS).codec is PLAIN


def test_a_result_of_none_is_plain() -> None:
    async def nothing() -> None: ...

    assert function_of(nothing, CONTEXTS).codec is PLAIN


def test_what_a_function_declares_is_not_asked_where_returns_says_better() -> None:
    class Socket:
        pass

    def opens() -> Socket:
        return Socket()

    opens.__annotations__["return"] = Socket
    assert not function_of(opens, CONTEXTS).is_async
    with pytest.raises(NotSerialisable, match=r"result type of .*opens"):
        print(function_of(opens, CONTEXTS).codec)


def test_an_annotation_that_cannot_be_hashed_is_a_type_like_any_other() -> None:
    codec = Codec(Annotated[int, []])
    assert codec.round_trip(7, "it") == (b"7", 7)


@pytest.mark.parametrize(
    ("declared", "text"),
    [(dict, '{"a":[1]}'), (dict[str, Any], '{"a":null}'), (list, '[1,"a"]'), (list[Any], "[{}]")],
)
def test_what_says_nothing_of_its_inside_is_written_as_it_is_and_another_class_is_still_an_error(declared: Any, text: str) -> None:
    codec = Codec(declared)
    assert codec.round_trip(json.loads(text), "it")[0] == text.encode()
    with pytest.raises(NotSerialisable):
        codec.encode("neither", "it")
