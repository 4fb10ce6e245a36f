"""Secrets are used and never written down: not in journals, fingerprints, events, logs, spans or the texts of errors."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from agentkit import Agent, Context, InvalidInput, NotSerialisable, StepContext, StepError
from agentkit.agents.tool import tool
from agentkit.durable.codec import Codec
from agentkit.durable.identity import fingerprint
from agentkit.durable.secret import Secret
from agentkit.durable.secrets import STARS, secrets_in, without_secrets
from agentkit.testing import runtime
from tests.core.spans import exported

pytestmark = pytest.mark.anyio

WORD = "hunter2-and-more"


class Login(BaseModel):
    user: str
    password: SecretStr


@dataclass
class Keys:
    first: Secret[str]


HOLDERS: list[tuple[Any, str]] = [
    (SecretStr(WORD), ""),
    (SecretBytes(WORD.encode()), ""),
    (Secret[str](WORD), ""),
    (Login(user="a", password=SecretStr(WORD)), "['password']"),
    ({"in": [1, Secret(WORD)]}, "['in'][1]"),
    (Keys(Secret(WORD)), "['first']"),
    (partial(print, SecretStr(WORD)), "[0][0]"),
]


@pytest.mark.parametrize(("value", "path"), HOLDERS)
def test_a_secret_is_found_wherever_it_lies(value: Any, path: str) -> None:
    assert [where for where, _ in secrets_in(value)] == [path]


@pytest.mark.parametrize(("value", "path"), HOLDERS)
def test_neither_a_text_nor_a_fingerprint_shows_it(value: Any, path: str) -> None:
    assert WORD not in f"{value} {value!r}"
    assert WORD not in fingerprint("step", "fn", [value])


@pytest.mark.parametrize(
    ("declared", "value", "path"),
    [
        (SecretStr, SecretStr(WORD), "the value"),
        (Login, Login(user="a", password=SecretStr(WORD)), "['password']"),
        (list[Login], [Login(user="a", password=SecretStr(WORD))], "[0]['password']"),
        (Secret[str], Secret[str](WORD), "the value"),
        (dict[str, Any], {"a": SecretStr(WORD)}, "['a']"),
        (None, {"a": SecretStr(WORD)}, "['a']"),
    ],
)
def test_what_is_stored_holds_none(declared: Any, value: Any, path: str) -> None:
    with pytest.raises(NotSerialisable) as caught:
        Codec(declared).encode(value, "the result")
    assert f"{path} does not survive JSON: it is a secret, which is never written down" in str(caught.value)
    assert WORD not in str(caught.value)


def test_a_text_of_stars_is_no_secret() -> None:
    assert Codec(Login).declared is Login
    assert Codec(str).encode(STARS, "x") == f'"{STARS}"'.encode()


# In a run


@tool
async def sign_in(step: StepContext, user: str, password: SecretStr, *, key: Secret[str] = Secret("-")) -> str:  # noqa: B008 - frozen
    await step.progress({"user": user, "password": password})
    await step.progress(Login(user=user, password=password))
    logging.getLogger("app").info("signing in %s %s %s", user, password, key)
    if user == "root":
        raise PermissionError(f"{password.get_secret_value()} is wrong for {user}, and so is {key.get_secret_value()}")
    if user == "chained":
        try:
            raise KeyError(password.get_secret_value())
        except KeyError as exc:
            raise PermissionError("wrong") from exc
    return f"session of {user}"


async def give_back(user: str, password: SecretStr) -> Login:
    return Login(user=user, password=password)


def on_a_thread(password: SecretStr) -> None:
    raise ValueError(f"cannot use {password.get_secret_value()}")


async def plain(password: SecretStr) -> None:
    raise ValueError(f"cannot use {password.get_secret_value()}")


class SignIn(Agent[str, str]):
    async def run(self, ctx: Context, user: str, /) -> str:
        password = SecretStr(WORD)
        match user:
            case "returned":
                return str(await ctx.step("give back", give_back, user, password))
            case "thread":
                await ctx.step("thread", on_a_thread, password)
            case "plain":
                await ctx.step("plain", partial(plain, password=password))
            case _:
                return await sign_in.perform(ctx, {"user": user, "password": password, "key": Secret(WORD[::-1])})
        return "not reached"


@pytest.mark.parametrize("user", ["ann", "root", "chained", "returned", "thread", "plain"])
async def test_nothing_that_is_written_of_a_run_shows_a_secret(
    user: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with exported(monkeypatch) as spans:
        async with runtime(agents=[SignIn]) as rt:
            try:
                said = await rt.run(SignIn, user, run_id="r")
            except StepError as exc:
                said = "".join(traceback.format_exception(exc))
            journal = await rt.store.load("r")
        shown = [span.to_json() for span in spans.get_finished_spans()]
    everywhere = f"{said} {journal} {shown} {caplog.text}"
    assert len(shown) > 1
    assert user in everywhere
    assert WORD not in everywhere
    assert WORD[::-1] not in everywhere


async def test_the_error_keeps_its_kind_and_the_rest_of_its_text() -> None:
    async with runtime(agents=[SignIn]) as rt:
        with pytest.raises(StepError) as caught:
            await rt.run(SignIn, "root")
    assert (caught.value.kind, caught.value.message) == ("PermissionError", f"{STARS} is wrong for root, and so is {STARS}")


async def test_a_step_that_returns_a_secret_is_refused_with_the_place_where_it_lies() -> None:
    async with runtime(agents=[SignIn]) as rt:
        with pytest.raises(StepError) as caught:
            await rt.run(SignIn, "returned")
    assert caught.value.kind == "NotSerialisable"
    assert "the result of step 'give back#1': ['password']" in caught.value.message


async def test_an_input_with_a_secret_is_refused() -> None:
    class Takes(Agent[Login, str]):
        async def run(self, ctx: Context, login: Login, /) -> str:
            return login.user

    async with runtime(agents=[Takes]) as rt:
        with pytest.raises(InvalidInput, match="it is a secret"):
            await rt.submit(Takes, Login(user="a", password=SecretStr(WORD)))


def test_an_error_that_shows_no_secret_is_left_as_it_is() -> None:
    error = ValueError("nothing of it")
    assert without_secrets(error, SecretStr(WORD)) is error
    assert without_secrets(error) is error


def test_a_secret_as_short_as_a_syllable_does_not_blank_every_text() -> None:
    error = ValueError("a wrong value")
    assert without_secrets(error, SecretStr("a")) is error
