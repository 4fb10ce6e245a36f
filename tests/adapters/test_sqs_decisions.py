"""What the SQS adapter decides without any server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import InvalidKey, InvalidSetting, StoreBusy, StoreCorrupt, StoreRefused, StoreUnavailable
from agentkit.ports.queue import Ticket
from agentkit_sqs import SqsSettings, names
from agentkit_sqs.counts import oldest_bound
from agentkit_sqs.driver import exceptions
from agentkit_sqs.faults import NoSuchQueue, translated
from agentkit_sqs.messages import MAX_BATCH, MAX_BATCH_BYTES, Message, batches, read

words = st.text(min_size=1, max_size=6)
SETTINGS = SqsSettings.from_url("sqs://eu-central-1/agents")


@given(st.builds(Ticket, words, words, words, st.integers(0), st.text(), st.integers(0, 2), st.text(), st.text()), st.integers(0, 9))
def test_a_message_is_read_as_it_was_written(ticket: Ticket, had: int) -> None:
    body = Message(ticket, had).write()
    assert read(body) == Message(ticket, had)
    assert body.isascii()


def test_unknown_fields_are_passed_over_and_missing_ones_are_at_their_default() -> None:
    assert read('{"run_id":"r","kind":"k","version":"1","of_tomorrow":[1]}') == Message(Ticket("r", "k", "1"))


@pytest.mark.parametrize("body", ["", "hello", "[]", "7", '{"run_id":"r"}', '{"run_id":"r","kind":"k","version":1}', "null"])
def test_what_is_no_ticket_is_said_to_be_none(body: str) -> None:
    with pytest.raises(StoreCorrupt, match="ticket"):
        read(body)


def test_a_ticket_too_big_for_a_message_is_refused() -> None:
    with pytest.raises(InvalidKey, match="bytes"):
        Message(Ticket("r", "k", "1", tenant="x" * MAX_BATCH_BYTES)).write()


@given(st.lists(st.integers(1, MAX_BATCH_BYTES), max_size=40))
def test_batches_keep_the_order_and_the_limits(sizes: list[int]) -> None:
    bodies = ["x" * size for size in sizes]
    made = list(batches(bodies))
    assert [body for batch in made for body in batch] == bodies
    assert all(0 < len(batch) <= MAX_BATCH and sum(map(len, batch)) <= MAX_BATCH_BYTES for batch in made)


@given(words, words)
def test_the_name_of_a_queue_tells_whose_it_is(agent: str, version: str) -> None:
    kind = f"{agent.replace('@', '-')}@{version.replace('@', '-')}"
    try:
        live, dead = names.live("app", kind), names.dead("app", kind)
    except InvalidKey:
        return
    assert (names.place("app", live), names.place("app", dead)) == (names.Place(kind, dead=False), names.Place(kind, dead=True))
    assert len(dead) <= names.MAX_CHARS


def test_queues_of_others_are_none_of_ours() -> None:
    assert names.live("agents", "digest@1") == "agents__digest__1"
    assert [names.place("agents", name) for name in ("agents", "agents-2__digest__1", "other__digest__1", "agents__digest")] == [None] * 4


def test_a_name_too_long_for_sqs_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidKey, match="shorten the agent's name"):
        names.live("agents", f"{'a' * 80}@1")


@pytest.mark.parametrize(
    ("empty_at", "bound"),
    [(None, 500.0), (90.0, 10.0), (100.0, 0.0)],
)
def test_no_waiting_ticket_is_older_than_the_queue_was_seen_empty_or_than_the_queue_is(empty_at: float | None, bound: float) -> None:
    attributes = {"CreatedTimestamp": "1000", "MessageRetentionPeriod": "600"}
    assert oldest_bound(empty_at, 100.0, 1500.0, attributes) == bound


def test_nor_older_than_sqs_keeps_it() -> None:
    assert oldest_bound(None, 0.0, 9000.0, {"CreatedTimestamp": "1000", "MessageRetentionPeriod": "600"}) == 600.0


def answer(code: str, status: int = 400) -> BaseException:
    made: BaseException = exceptions.ClientError(
        {"Error": {"Code": code, "Message": "so it is"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "SendMessage"
    )
    return made


@pytest.mark.parametrize(
    ("error", "kind", "opening_kind"),
    [
        (answer("AWS.SimpleQueueService.NonExistentQueue"), NoSuchQueue, NoSuchQueue),
        (answer("RequestThrottled", 403), StoreBusy, StoreBusy),
        (answer("OverLimit", 403), StoreBusy, StoreBusy),
        (answer("AccessDenied", 403), StoreUnavailable, InvalidSetting),
        (answer("InvalidClientTokenId", 403), StoreUnavailable, InvalidSetting),
        (answer("InternalFailure", 500), StoreUnavailable, StoreUnavailable),
        (answer("InvalidMessageContents"), StoreRefused, StoreRefused),
        (exceptions.NoCredentialsError(), StoreUnavailable, InvalidSetting),
        (exceptions.ReadTimeoutError(endpoint_url="x"), StoreUnavailable, StoreUnavailable),
        (TimeoutError(), StoreUnavailable, StoreUnavailable),
        (ConnectionResetError("cut"), StoreUnavailable, StoreUnavailable),
    ],
)
def test_each_error_of_the_driver_is_one_of_ours(error: BaseException, kind: type[Exception], opening_kind: type[Exception]) -> None:
    assert type(translated(error, SETTINGS)) is kind
    assert type(translated(error, SETTINGS, opening=True)) is opening_kind


def test_what_is_no_error_of_the_driver_stays_what_it_is() -> None:
    error = ZeroDivisionError()
    assert translated(error, SETTINGS) is error


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqs://eu-central-1", "url"),
        ("sqs:///agents", "url"),
        ("sqs://eu-central-1/a_b", "prefix"),
        ("sqs://EU/agents", "region"),
        ("sqs://eu-central-1/agents?max_dept=3", "max_dept"),
        ("sqs://eu-central-1/agents?timeout_s=0", "timeout_s"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong(url: str, name: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        SqsSettings.from_url(url)
    assert refused.value.name == name


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match="max_depth"):
        SqsSettings.from_url("sqs://eu-central-1/agents?max_dept=3")


def test_a_body_can_be_read_by_people() -> None:
    assert json.loads(Message(Ticket("r", "digest", "1")).write()) == {"run_id": "r", "kind": "digest", "version": "1"}
