"""The in-memory limits keep the laws of the port, and what is their own: how long keys are remembered, URLs."""

from __future__ import annotations

import pytest

from agentkit.errors import InvalidSetting
from agentkit.inmemory.limits import InMemoryLimits, from_url
from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract


class TestInMemoryLimits(LimitsContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> InMemoryLimits:
        return InMemoryLimits(clock)


async def test_keys_of_a_bucket_are_forgotten_after_their_time() -> None:
    clock = FakeClock()
    limits = InMemoryLimits(clock, keep_keys_s=60)
    for n in range(50):
        assert (await limits.reserve("tpm", f"key-{n}", 1.0, rate_per_s=1.0, burst=10.0)).granted
        await clock.advance(10)
    assert len(limits._reservations) <= 7  # pyright: ignore[reportPrivateUsage]


async def test_settling_what_was_never_reserved_changes_nothing() -> None:
    limits = InMemoryLimits()
    await limits.settle("tpm", "unknown", 100.0)
    assert (await limits.reserve("tpm", "key", 10.0, rate_per_s=0.0, burst=10.0)).granted
    await limits.settle("tpm", "unknown", 100.0)
    assert (await limits.reserve("tpm", "other", 0.0, rate_per_s=0.0, burst=10.0)).granted


def test_a_url_takes_no_options() -> None:
    from_url("memory://")
    with pytest.raises(InvalidSetting, match="known: none"):
        from_url("memory://?permits=3")
