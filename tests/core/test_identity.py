"""Who a step is: keys from scope, name and ordinal, and fingerprints that tell one call from another."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from agentkit.agents.context import fingerprint_of
from agentkit.durable.identity import DIGEST_CHARS, PREVIEW_BYTES, Scope, fingerprint, preview, same_call, short_name
from agentkit.errors import AmbiguousStep

ME, OTHER = object(), object()
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def digest(*args: object) -> str:
    return fingerprint("step", "fn", args)[:DIGEST_CHARS]


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: int = 0


@dataclass
class Pair:
    left: int
    right: int


def test_a_key_is_the_path_of_scopes_the_name_and_the_ordinal_of_that_name() -> None:
    scope = Scope("gather#1/2/", None)
    assert [scope.take(name, None, ME) for name in ("a", "b", "a")] == ["gather#1/2/a#1", "gather#1/2/b#1", "gather#1/2/a#2"]


def test_a_key_of_ones_own_takes_no_ordinal() -> None:
    scope = Scope("", None)
    assert scope.take("review", "sku-17", ME) == "review=sku-17"
    assert scope.take("review", None, ME) == "review#1"


def test_the_first_task_that_uses_a_scope_owns_it_and_another_is_refused_at_once() -> None:
    scope = Scope("branch=a/", None)
    scope.take("fetch", None, ME)
    with pytest.raises(AmbiguousStep, match=r"step 'branch=a/fetch'.*ctx\.gather\(\), ctx\.branch\(key\), or key="):
        scope.take("fetch", None, OTHER)
    assert scope.take("fetch", None, ME) == "branch=a/fetch#2"


def test_a_refused_call_takes_no_ordinal() -> None:
    scope = Scope("", ME)
    with pytest.raises(AmbiguousStep):
        scope.take("fetch", None, OTHER)
    assert scope.take("fetch", None, ME) == "fetch#1"


@pytest.mark.parametrize(
    ("key", "short"), [("file#1", "file"), ("a#1/file#12", "file"), ("review=sku-17", "review"), ("gather#1/2/x=y", "x")]
)
def test_people_may_say_the_name_alone(key: str, short: str) -> None:
    assert short_name(key) == short


@given(JSON)
def test_the_same_arguments_have_the_same_fingerprint(value: Any) -> None:
    assert digest(value) == digest(value)


@given(st.dictionaries(st.text(), JSON, min_size=2))
def test_the_order_of_a_mapping_does_not_matter(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (1, 2),
        ("a", "b"),
        ([1, 2], [2, 1]),
        (Point(x=1), Point(x=2)),
        (Pair(1, 2), Pair(2, 1)),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC)),
        (time(1), time(2)),
        (timedelta(1), timedelta(2)),
        (UUID(int=1), UUID(int=2)),
        (Decimal("1.0"), Decimal("1.00")),
        (Path("a"), Path("b")),
        (b"a", b"b"),
        ({1, 2}, {1, 3}),
        (None, False),
    ],
    ids=repr,
)
def test_other_arguments_have_another_fingerprint(one: object, another: object) -> None:
    assert digest(one) != digest(another)


def test_the_name_of_the_step_belongs_to_the_call_and_the_name_of_its_function_does_not() -> None:
    assert same_call(fingerprint("a", "f", (1,)), fingerprint("a", "renamed", (1,)))
    assert not same_call(fingerprint("a", "f", (1,)), fingerprint("b", "f", (1,)))


def test_secrets_count_as_their_type_and_are_never_shown() -> None:
    one, another = fingerprint("s", "f", (SecretStr("hunter2"),)), fingerprint("s", "f", (SecretStr("other"),))
    assert same_call(one, another)
    assert "hunter2" not in one
    assert "SecretStr" in one


def test_a_secret_inside_a_model_is_not_shown_either() -> None:
    class Login(BaseModel):
        user: str
        password: SecretStr

    fp = fingerprint("s", "f", (Login(user="ann", password=SecretStr("hunter2")),))
    assert "hunter2" not in fp
    assert "ann" in fp


def test_an_object_of_the_app_counts_as_its_type_so_a_replay_in_another_process_fits() -> None:
    class Client:
        pass

    assert digest(Client()) == digest(Client())


def test_an_enum_counts_as_its_value_and_mixed_keys_are_taken_as_they_come() -> None:
    assert digest(Colour.RED) == digest("red")
    assert digest({1: "a", "b": 2}) == digest({1: "a", "b": 2})


def test_the_arguments_of_a_partial_belong_to_the_call() -> None:
    def fetch(url: str, *, depth: int = 1) -> str:
        return url * depth

    two, three = partial(fetch, depth=2), partial(fetch, depth=3)
    assert not same_call(fingerprint_of("s", "f", two, ("u",)), fingerprint_of("s", "f", three, ("u",)))
    assert same_call(fingerprint_of("s", "f", two, ("u",)), fingerprint_of("s", "f", partial(fetch, depth=2), ("u",)))


def test_a_preview_shows_the_function_and_the_first_of_the_arguments_and_is_bounded() -> None:
    fp = fingerprint("s", "module.fn", ("x" * 10_000,))
    assert preview(fp).startswith('module.fn ["xxx')
    assert len(preview(fp).encode()) <= PREVIEW_BYTES + len("module.fn ")


def test_the_bound_of_a_preview_counts_bytes_of_any_script() -> None:
    assert len(preview(fingerprint("s", "f", ("語" * 1_000,))).encode()) <= PREVIEW_BYTES + len("f ")


def test_a_fingerprint_that_was_never_taken_fits_every_call() -> None:
    assert same_call("", fingerprint("a", "f", ()))
    assert same_call(fingerprint("a", "f", ()), "")
    assert preview("") == "(nothing)"


def test_text_that_is_no_valid_unicode_has_a_fingerprint_too() -> None:
    assert digest("\ud800") != digest("\ud801")
