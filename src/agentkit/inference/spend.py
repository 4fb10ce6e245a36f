"""What calls of models come to: money and tokens, in whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from agentkit.ports.messages import Usage

MICRO = 1_000_000


class Spend(NamedTuple):
    """Money and tokens, in whole numbers."""

    micro_usd: int = 0
    tokens: int = 0

    def plus(self, other: Spend) -> Spend:
        return Spend(self.micro_usd + other.micro_usd, self.tokens + other.tokens)

    def minus(self, other: Spend) -> Spend:
        return Spend(self.micro_usd - other.micro_usd, self.tokens - other.tokens)

    @property
    def usd(self) -> float:
        """In dollars, to show."""
        return self.micro_usd / MICRO

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """What a priced usage comes to."""
        return cls(round(usage.usd * MICRO), usage.input_tokens + usage.output_tokens)
