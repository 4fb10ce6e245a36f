"""The in-memory adapter as the suite of the port wants it: adapter and engine are one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from agentkit.clock import Clock
from agentkit.inmemory.inference import Part, ScriptedInference
from agentkit.ports.inference import Capabilities

PLAIN = Capabilities(tools=False, output=False, attachments=False, seed=False, embed=False)


class ScriptedEngine:
    def __init__(self, clock: Clock, kind: type[ScriptedInference] = ScriptedInference) -> None:
        self._answers = deque[Sequence[Part]]()
        endless = iter(self._next, None)
        self.inference = kind(endless, serves={"m"}, infer=lambda model, inputs: inputs, clock=clock)
        self.plain = kind(endless, capabilities=PLAIN, clock=clock)

    def script(self, *answers: Sequence[Part]) -> None:
        self._answers.extend(answers)

    @property
    def asked(self) -> int:
        return len(self.inference.requests) + len(self.plain.requests)

    @property
    def heard(self) -> str:
        return repr(self.inference.requests[-1])

    async def listeners(self) -> int:
        return self.inference.slots.borrowed_tokens

    async def stop(self) -> None:
        self.inference.down = "connection refused"

    def _next(self) -> Sequence[Part]:
        return self._answers.popleft() if self._answers else ()
