"""What a caller may do about each failure of a model server, and what a circuit breaker makes of it."""

from __future__ import annotations

import pytest

from agentkit import errors
from agentkit.errors import InferenceError

AGAIN, NOT_AGAIN = True, False
ILL, WELL = True, False
KINDS = {
    "Unreachable": (AGAIN, ILL),
    "RateLimited": (AGAIN, WELL),
    "EngineBusy": (AGAIN, ILL),
    "EngineFailed": (AGAIN, ILL),
    "InferenceTimeout": (AGAIN, ILL),
    "ConnectionCut": (AGAIN, ILL),
    "StreamBroken": (NOT_AGAIN, ILL),
    "ProtocolBroken": (NOT_AGAIN, ILL),
    "AuthFailed": (NOT_AGAIN, ILL),
    "ContentFiltered": (NOT_AGAIN, WELL),
    "RequestRefused": (NOT_AGAIN, WELL),
    "ContextTooLong": (NOT_AGAIN, WELL),
    "ModelNotFound": (NOT_AGAIN, WELL),
    "Unsupported": (NOT_AGAIN, WELL),
    "ScriptExhausted": (NOT_AGAIN, WELL),
    "NotRecorded": (NOT_AGAIN, WELL),
}


def test_the_table_lists_every_kind() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, InferenceError)}
    assert kinds - {"InferenceError"} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_failure_says_whether_to_send_it_again_and_whether_the_endpoint_is_ill(name: str) -> None:
    kind: type[InferenceError] = getattr(errors, name)
    assert (kind.retry_safe, kind.counts_as_failure) == KINDS[name]


def test_an_error_names_the_endpoint_the_problem_when_to_try_again_and_the_way_out() -> None:
    assert str(errors.RateLimited("eu1", "over 500 requests a minute", retry_after_s=1.5)) == (
        "eu1: over 500 requests a minute; try again in 1.5 s"
    )
    assert str(errors.AuthFailed("eu1", "401")) == "eu1: 401; check the endpoint's api_key"
