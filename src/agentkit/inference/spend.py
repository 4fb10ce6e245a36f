"""What calls of models come to: money and tokens, in whole numbers."""

from __future__ import annotations

from operator import add, sub
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from agentkit.ports.messages import Usage

MICRO = 1_000_000


class Spend(NamedTuple):
    """Money and tokens, in whole numbers. Limits are set in the first two; the others say what the tokens were."""

    micro_usd: int = 0
    tokens: int = 0
    """Read and written together."""
    written: int = 0
    cached: int = 0
    """Of those read, the ones that the engine knew from an earlier call."""

    def plus(self, other: Spend) -> Spend:
        return Spend(*map(add, self, other))

    def minus(self, other: Spend) -> Spend:
        return Spend(*map(sub, self, other))

    @property
    def usd(self) -> float:
        """In dollars, to show."""
        return self.micro_usd / MICRO

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """What a priced usage comes to."""
        read, written = usage.input_tokens, usage.output_tokens
        return cls(round(usage.usd * MICRO), read + written, written, usage.cached_input_tokens)
