"""The laws of a signal, on the queue and the runs of a backend that a URL names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentkit.errors import StoreUnavailable
from agentkit.inmemory.scaling import QueueSignal
from agentkit.testing.clock import FakeClock
from agentkit.testing.scaling import ScalingSignalContract, Watched
from tests.adapters.laws import Backend
from tests.adapters.opening import opened


async def out_of_reach() -> None:
    raise StoreUnavailable("queue", "the test cut it off")


class ScalingLaws(ScalingSignalContract):
    @pytest.fixture
    async def watched(self, backend: Backend, clock: FakeClock) -> AsyncIterator[Watched]:
        ports = backend.at(clock)
        async with opened(ports.queue) as queue, opened(ports.runs) as runs:
            with pytest.MonkeyPatch.context() as patch:

                def cut(off: bool) -> None:
                    patch.undo()
                    if off:
                        patch.setattr(queue, "depth", out_of_reach)

                signal = QueueSignal(queue, runs, clock=clock, lease_s=self.lease_s, slots_per_worker=4)
                yield Watched(signal, queue, runs, cut)

    @pytest.fixture
    async def second(self, watched: Watched, backend: Backend, clock: FakeClock) -> AsyncIterator[Watched]:
        ports = backend.at(clock, backend.own)
        async with opened(ports.queue) as queue, opened(ports.runs) as runs:
            yield watched._replace(signal=QueueSignal(queue, runs, clock=clock, lease_s=self.lease_s))
