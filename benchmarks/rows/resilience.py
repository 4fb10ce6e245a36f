"""What bounds a call costs it when nothing happens: no failure, no line, no wait. Processor time, beside a bare await in one run."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.layer import Layer, Outcome
from agentkit.resilience.policy import Parts, Policy
from agentkit.resilience.rate_limit import RateLimit
from agentkit.resilience.retry import Retry
from agentkit.resilience.semaphore import Semaphore
from agentkit.resilience.state import PolicyState, using
from benchmarks.figures import Bar, Bench, Contender, Figure

CALLS = 20_000  # of one turn: about half a second of the slowest contender
PLENTY = 1_000_000_000  # a rate that lets every call through at once
WELL = Outcome(sent=True, verdict="ok", took_s=0.001)
BREAKER = CircuitBreaker()
SEMAPHORE = Semaphore("backend", 100)

FULL = Policy(
    "backend",
    timeout_s=60,
    retry=Retry(),
    breaker=BREAKER,
    limits=[SEMAPHORE, RateLimit("backend", rpm=PLENTY, tpm=PLENTY, shared=False)],
    hedge=True,
)


async def call() -> None:
    """The call that is bounded."""


async def bare(calls: int) -> None:
    for _ in range(calls):
        await call()


async def passing(layer: Layer, calls: int) -> None:
    """Through one layer and back, as a policy does it."""
    for _ in range(calls):
        hold = await layer.enter()
        await call()
        await hold.leave(WELL)


async def under(policy: Policy, calls: int) -> None:
    for _ in range(calls):
        await policy.call(call)


async def us(work: Callable[[int], Awaitable[None]], calls: int) -> float:
    """Microseconds of processor time for each call."""
    began = time.process_time()
    await work(calls)
    return (time.process_time() - began) * 1e6 / calls


class ResilienceRow:
    """A breaker, a semaphore and a full policy around a call that does nothing, less the call."""

    name = "resilience"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        calls = bench.size(CALLS, 500)
        with using(PolicyState()) as state:
            (circuit,) = Parts(Policy("alone", breaker=BREAKER), state).layers
            works: dict[str, Callable[[int], Awaitable[None]]] = {
                "bare": bare,
                "breaker": partial(passing, circuit),
                "semaphore": partial(passing, SEMAPHORE.layer(state)),
                "full policy": partial(under, FULL),
                "time limit": partial(under, Policy("backend", timeout_s=60)),
                "retry": partial(under, Policy("backend", retry=Retry())),
            }
            turns: dict[str, Contender] = {name: partial(us, work, calls) for name, work in works.items()}
            samples = await bench.alternate(turns)
        bare_us = samples.median("bare")

        def beside(title: str, name: str, bar: Bar | None = None) -> Figure:
            times = {"times a bare await": samples.ratio(name, "bare"), "bare us": bare_us}
            return Figure(f"CPU of a call, {title}", samples.median(name) - bare_us, "us", bar, times)

        return [
            beside("through a breaker", "breaker", Bar(2, at_least=False)),
            beside("through a semaphore", "semaphore", Bar(3, at_least=False)),
            beside("under a full policy", "full policy", Bar(25, at_least=False)),
            beside("under a policy that is a time limit", "time limit"),
            beside("under a policy that is retries", "retry"),
        ]
