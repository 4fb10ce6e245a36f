"""Models by name: who is asked, who comes next, under which limits, and what a file of them may say."""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from pathlib import Path

import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Context, InvalidSetting, Runtime, StepContext, telemetry
from agentkit.agents.tenants import Tenant
from agentkit.errors import EngineBusy, RateLimited, RequestRefused, StreamBroken, UnknownModel, Unreachable
from agentkit.inference.choice import choose
from agentkit.inference.models import Models
from agentkit.inference.places import Model, Place
from agentkit.inference.pricing import Price
from agentkit.inmemory.inference import Delay, ScriptedInference
from agentkit.ports.inference import Endpoint
from agentkit.ports.messages import Message, Request, Usage
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.policy import Policy
from agentkit.resilience.rate_limit import RateLimit
from agentkit.resilience.retry import Retry
from agentkit.resilience.state import PolicyState
from agentkit.testing import ScriptedModel, runtime
from agentkit.testing.clock import FakeClock
from tests.core.spans import exported

PRICE = Price.model_validate({"input": 1.0, "output": 2.0, "as_of": "2026-10-01"})


def request(model: str, text: str = "hello") -> Request:
    return Request(model=model, messages=[Message(role="user", content=text)])


# Names


async def test_a_name_stands_for_an_engine_and_is_what_that_engine_is_asked_for() -> None:
    engine = ScriptedModel(["here"])
    reply = await Models({"chat": engine}).generate("chat", "hello")
    assert (reply.output, reply.finish) == ("here", "stop")
    assert engine.requests[0].model == "chat"


async def test_an_engine_is_asked_under_its_own_name_for_the_model() -> None:
    engine = ScriptedModel(["one", "two"])
    models = Models({"chat": Model(engine, model="qwen3-32b"), "other": Model(Place(engine=engine, model="llama"))})
    await models.generate("chat", "hello")
    await models.generate("other", "hello")
    assert [asked.model for asked in engine.requests] == ["qwen3-32b", "llama"]


async def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownModel, match="did you mean 'chat'"):
        await Models({"chat": ScriptedModel()}).generate("chta", "hello")


def test_a_fallback_that_nobody_knows_is_refused_where_it_is_written() -> None:
    with pytest.raises(UnknownModel, match=r"fallback of 'chat'.*did you mean 'cheap'"):
        Models({"chat": Model(ScriptedModel(), fallback=["chaep"]), "cheap": ScriptedModel()})


def test_what_is_no_engine_is_refused_where_it_is_given() -> None:
    with pytest.raises(InvalidSetting, match="give an engine"):
        Models({"chat": "gpt"})


async def test_a_tenants_names_are_looked_up_first() -> None:
    eu, us = ScriptedModel(["eu"]), ScriptedModel(["us"])
    models = Models({"chat": us, "chat-eu": eu}).seen_by(aliases={"chat": "chat-eu"})
    assert (await models.generate("chat", "hello")).output == "eu"


# Who is asked


class Candidate:
    def __init__(self, name: str, weight: float) -> None:
        self.name, self.weight = name, weight


WEIGHTS = st.lists(st.floats(0.1, 100), min_size=1, max_size=6)


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_every_engine_has_one_place_in_the_order(weights: list[float], point: float) -> None:
    candidates = [Candidate(str(i), weight) for i, weight in enumerate(weights)]
    order = choose(candidates, point)
    assert sorted(one.name for one in order) == sorted(one.name for one in candidates)
    assert [one.weight for one in order[1:]] == sorted((one.weight for one in order[1:]), reverse=True)


def test_each_engine_gets_its_share() -> None:
    candidates = [Candidate("a", 3), Candidate("b", 1)]
    asked = Counter(choose(candidates, i / 1000)[0].name for i in range(1000))
    assert asked == {"a": 750, "b": 250}


async def test_the_next_engine_is_asked_when_one_is_down_within_the_same_attempt() -> None:
    down, up = ScriptedModel(), ScriptedModel(repeat("here"))
    down.down = "connection refused"
    models = Models({"chat": Model(Place(engine=down, weight=1000), Place(engine=up, weight=0.001))})
    assert (await models.generate("chat", "hello")).output == "here"
    async with models.stream("chat", "hello") as stream:
        assert "".join([piece async for piece in stream]) == "here"


async def test_an_error_that_another_engine_would_make_too_is_raised_at_once() -> None:
    first, second = ScriptedModel(repeat(RequestRefused("eu", "no such parameter"))), ScriptedModel(repeat("here"))
    models = Models({"chat": Model(Place(engine=first, weight=1000), Place(engine=second, weight=0.001))})
    with pytest.raises(RequestRefused):
        await models.generate("chat", "hello")


async def test_the_fallback_models_are_asked_in_order_once_a_model_has_failed_for_good() -> None:
    chat = ScriptedModel(repeat(EngineBusy("eu", "full")))
    models = Models(
        {
            "chat": Model(chat, policy=Policy("chat", retry=Retry(attempts=2, wait_s=0)), fallback=["big", "cheap"]),
            "big": Model(ScriptedModel(repeat(EngineBusy("us", "full")))),
            "cheap": Model(ScriptedModel(repeat("cheap answer")), price=PRICE),
        }
    )
    reply = await models.generate("chat", "hello")
    assert reply.output == "cheap answer"
    assert len(chat.requests) == 2
    assert reply.usage.usd > 0  # at the price of the one that answered
    async with models.stream("chat", "hello") as stream:
        assert [piece async for piece in stream] == ["cheap ", "answer"]


async def test_an_endpoint_whose_circuit_is_open_is_passed_over() -> None:
    sick, well = ScriptedModel(repeat(Unreachable("eu", "refused"))), ScriptedModel(repeat("here"))
    endpoint = Policy("eu", breaker=CircuitBreaker(min_calls=3))
    models = Models({"chat": Model(Place(engine=sick, weight=1000, policy=endpoint), Place(engine=well, weight=0.001))})
    for _ in range(10):
        assert (await models.generate("chat", "hello")).output == "here"
    assert len(sick.requests) == 3


# Limits, time, prices


async def test_a_rate_is_settled_with_what_the_answer_took() -> None:
    clock = FakeClock()
    engine = ScriptedModel(repeat("word " * 90), clock=clock)
    models = Models({"chat": Model(engine, policy=Policy("chat", timeout_s=1, limits=[RateLimit("chat", tpm=40_000)]))})
    models = models.seen_by(state=PolicyState(clock))
    for _ in range(75):  # each reserves some five hundred tokens and uses about a hundred
        await models.generate("chat", "hi")
        async with models.stream("chat", "hi") as stream:
            assert [piece async for piece in stream]


async def test_an_engine_is_told_how_long_anybody_waits() -> None:
    engine = ScriptedModel(repeat("here"))
    await Models({"chat": Model(engine, policy=Policy("chat", timeout_s=60))}).generate("chat", "hello")
    assert 0 < (engine.requests[0].timeout_s or 0) <= 60


async def test_usage_has_its_price_whether_whole_or_streamed() -> None:
    models = Models({"chat": Model(ScriptedModel(repeat("four words are here")), price=PRICE)})
    whole = (await models.generate("chat", "one two three")).usage
    async with models.stream("chat", "one two three") as stream:
        assert "".join([piece async for piece in stream]) == "four words are here"
    assert whole == stream.usage
    assert whole.usd == pytest.approx((whole.input_tokens * 1.0 + whole.output_tokens * 2.0) / 1_000_000)


async def test_a_stream_that_breaks_is_not_asked_for_again() -> None:
    engine = ScriptedModel([["some ", "words ", EngineBusy("eu", "gone")], "never said"])
    models = Models({"chat": Model(engine, policy=Policy("chat", retry=Retry(attempts=3, wait_s=0)), fallback=["chat"])})
    async with models.stream("chat", "hello") as stream:
        pieces = aiter(stream)
        assert [await anext(pieces), await anext(pieces)] == ["some ", "words "]
        with pytest.raises(StreamBroken):
            await anext(pieces)
    assert len(engine.requests) == 1


async def test_opening_a_stream_is_retried() -> None:
    engine = ScriptedModel([RateLimited("eu", "slow down"), "here"])
    models = Models({"chat": Model(engine, policy=Policy("chat", retry=Retry(attempts=3, wait_s=0)))})
    async with models.stream("chat", "hello") as stream:
        assert [piece async for piece in stream] == ["here"]


async def test_vectors_and_tensors_go_the_same_way() -> None:
    engine = ScriptedInference(infer=lambda model, inputs: inputs)
    models = Models({"embed": Model(engine, price=PRICE), "tensor": engine})
    assert len(await models.embed("embed", ["one", "two"])) == 2
    assert await models.infer("tensor", {}) == {}


async def test_engines_are_opened_and_closed_once_however_many_models_they_serve() -> None:
    opened: list[str] = []

    class Counted(ScriptedInference):
        async def open(self) -> None:
            opened.append("open")

        async def aclose(self) -> None:
            opened.append("close")

    engine = Counted()
    async with Models({"a": engine, "b": Model(engine)}):
        assert opened == ["open"]
    assert opened == ["open", "close"]


async def test_engines_that_were_opened_are_closed_when_another_cannot_be() -> None:
    closed: list[str] = []

    class Good(ScriptedInference):
        async def aclose(self) -> None:
            closed.append(self.name)

    class Bad(ScriptedInference):
        async def open(self) -> None:
            raise Unreachable("bad", "refused")

    with pytest.raises(Unreachable):
        await Models({"a": Good(name="good"), "b": Bad()}).open()
    assert closed == ["good"]


async def test_a_call_has_a_span_that_says_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models({"chat": Model(ScriptedModel(repeat("here it is")), price=PRICE)})
    with exported(monkeypatch) as exporter:
        await models.generate("chat", "hello")
        async with models.stream("chat", "hello") as stream:
            assert [piece async for piece in stream]
        whole, streamed = [span for span in exporter.get_finished_spans() if span.name == telemetry.MODEL.name]
    assert whole.attributes == streamed.attributes
    assert dict(whole.attributes or {}) == {
        "agentkit.model": "chat",
        "agentkit.input_tokens": 2,
        "agentkit.output_tokens": 3,
        "agentkit.usd": 0.000008,
    }


# In a runtime


async def test_a_step_asks_models_under_its_tenants_names_and_the_runtimes_limits() -> None:
    async def ask(step: StepContext) -> str:
        return (await step.models.generate("chat", "hello")).output

    class Asks(Agent[None, str]):
        async def run(self, ctx: Context, nothing: None, /) -> str:
            return await ctx.step("ask", ask)

    tenants = {"acme": Tenant(id="acme", models={"chat": "chat-eu"})}
    async with runtime(agents=[Asks], models={"chat": ScriptedModel(["us"]), "chat-eu": ScriptedModel(["eu"])}, tenants=tenants) as rt:
        assert await rt.run(Asks, None, tenant="acme") == "eu"
        assert await rt.run(Asks, None) == "us"


async def test_the_runtimes_models_can_be_asked_outside_of_any_run() -> None:
    async with runtime(models={"chat": ScriptedModel(["here"])}) as rt:
        assert (await rt.models.generate("chat", "hello")).output == "here"


async def test_scripted_models_sleep_on_the_clock_of_the_test() -> None:
    class Asks(Agent[None, str]):
        async def run(self, ctx: Context, nothing: None, /) -> str:
            return (await ctx.generate("hello", model="chat")).output

    async with runtime(agents=[Asks], models={"chat": ScriptedModel([Delay(3600), "late"])}) as rt:
        handle = await rt.submit(Asks, None)
        await rt.settle()
        assert (await handle.info()).status == "running"
        await rt.clock.advance(3600)
        assert await handle.result() == "late"


# The file

FILE = """
[endpoints.eu1]
url = "memory://"
api_key = { env = "TEST_KEY_OF_EU1" }
max_concurrency = 8

[endpoints.eu2]
url = "memory://"

[models.chat]
on = [{ endpoint = "eu1", model = "qwen3-32b", weight = 3 }, { endpoint = "eu2", model = "qwen3-32b" }]
strategy = "weighted"
fallback = ["cheap"]
price = { input = 0.40, output = 1.60, per = 1_000_000, as_of = 2026-10-01 }
policy = { timeout_s = 60, attempts = 3, rpm = 500, tpm = 200_000 }

[models.cheap]
on = [{ endpoint = "eu2" }]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text)
    return path


async def test_a_file_names_models_and_the_servers_behind_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY_OF_EU1", "secret")
    models = await anyio.to_thread.run_sync(Models.from_file, written(tmp_path, FILE))
    assert models.names == ["chat", "cheap"]
    assert [engine.name for engine in models.engines() if isinstance(engine, ScriptedInference)] == ["eu1", "eu2"]
    reply = await models.generate("chat", "say this")
    assert reply.output == "say this"
    assert reply.usage == Usage(input_tokens=2, output_tokens=2, usd=0.000004)
    chat = models.find("chat")
    assert chat.policy is not None
    assert (chat.policy.timeout_s, chat.policy.retry) == (60, Retry(attempts=3))
    assert [place.weight for place in chat.places] == [3, 1]


async def test_a_runtime_reads_the_file_when_it_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(models=tmp_path / "models.toml")  # it is not there yet
    monkeypatch.setenv("TEST_KEY_OF_EU1", "secret")
    written(tmp_path, FILE)
    async with runtime:
        assert (await runtime.models.generate("cheap", "say this")).output == "say this"


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    wrong = FILE.replace('endpoint = "eu2" }]', 'endpoint = "eu3" }]').replace('fallback = ["cheap"]', 'fallback = ["chep"]')
    wrong = wrong.replace('[endpoints.eu2]\nurl = "memory://"', '[endpoints.eu2]\nurl = "openai+https://host/v1"')
    with pytest.raises(InvalidSetting) as caught:
        Models.from_file(written(tmp_path, wrong))
    said = str(caught.value)
    assert "has 4 faults" in said
    for fault in (
        "models.chat.fallback: no model 'chep'; did you mean 'cheap'?",
        "models.cheap.on: no endpoint 'eu3'",
        "endpoints.eu1: the variable TEST_KEY_OF_EU1 is not set",
        "endpoints.eu2: inference='openai+https://host/v1': no adapter for 'openai+https'; installed: memory",
    ):
        assert fault in said


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ('api_key = "sk-123"', "a key does not belong in this file"),
        ("max_concurency = 8", "endpoints.eu1.max_concurency: Extra inputs"),
        ("max_concurrency = 0", "endpoints.eu1.max_concurrency: Input should be greater"),
    ],
)
def test_what_an_endpoint_may_not_say(tmp_path: Path, wrong: str, fault: str) -> None:
    lines = [line for line in FILE.splitlines() if not line.startswith(("api_key", "max_concurrency"))]
    lines.insert(lines.index("[endpoints.eu1]") + 2, wrong)
    with pytest.raises(InvalidSetting, match=fault) as caught:
        Models.from_file(written(tmp_path, "\n".join(lines)))
    assert "sk-123" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read: No such file"):
        Models.from_file(tmp_path / "models.toml")
    with pytest.raises(InvalidSetting, match="is no TOML"):
        Models.from_file(written(tmp_path, "[endpoints"))


def test_a_key_of_a_file_is_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    text = FILE.replace('{ env = "TEST_KEY_OF_EU1" }', f'{{ file = "{tmp_path / "key"}" }}')
    assert Models.from_file(written(tmp_path, text)).names == ["chat", "cheap"]


def test_an_endpoint_does_not_show_its_key() -> None:
    assert "secret" not in repr(Endpoint("eu1", "memory://", api_key="secret"))
