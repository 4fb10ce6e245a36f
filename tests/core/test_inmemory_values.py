"""The in-memory values keep the laws of the port, and what is their own: versions after a removal, URLs."""

from __future__ import annotations

import pytest

from agentkit.errors import InvalidSetting, ValueConflict
from agentkit.inmemory.values import InMemoryValues, from_url
from agentkit.testing.clock import FakeClock
from agentkit.testing.values import ValuesContract


class TestInMemoryValues(ValuesContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> InMemoryValues:
        return InMemoryValues(clock)


async def test_a_version_read_before_a_removal_never_fits_again() -> None:
    values = InMemoryValues()
    old = await values.put("k", b"1")
    await values.delete("k")
    await values.put("k", b"2", expected=0)
    with pytest.raises(ValueConflict):
        await values.put("k", b"3", expected=old)


def test_a_url_sets_the_greatest_size_and_nothing_else() -> None:
    assert from_url("memory://?max_value_bytes=10").max_value_bytes == 10
    with pytest.raises(InvalidSetting, match="did you mean 'max_value_bytes'"):
        from_url("memory://?max_value_byte=10")
