"""What one account has spent and promised, and what each entry does to it: decisions only, the store is elsewhere.

An entry is one call, known by a short digest of its idempotency key, and counts once: reserved again it holds what it held, settled again
it changes nothing. What nobody settled in time is booked as it was reserved: whoever reserved it has died, and the call was probably sent.
Settled keys are forgotten after `KEEP_SETTLED_S`, or when `MAX_SETTLED` newer ones came, so that the value stays small; whoever repeats a
settlement later than that is counted again. In both cases an account errs on one side: too much is counted, never too little.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import reduce
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, NamedTuple

from agentkit.inference.spend import MICRO, Spend

if TYPE_CHECKING:
    from agentkit.inference.budgets import Budget

KEEP_SETTLED_S = 900.0  # a take-over and the retries of a write whose answer was lost take a minute
MAX_SETTLED = 1_000  # about 26 KB: what is read and written with each change of a busy account
ENTRY_BYTES = 9  # 72 bits: among a thousand keys no two are the same in the life of a system


class Held(NamedTuple):
    """What a call under way may cost, and until when it is promised."""

    spend: Spend
    until: int


class Shortage(NamedTuple):
    """Why a reservation is refused, in whole units: micro-dollars or tokens."""

    unit: Literal["usd", "tokens"]
    limit: float
    spent: float
    asked: float
    passes: bool
    """There would be enough if no other call were under way: most cost less than they reserved."""


class Ledger:
    """The state of one account."""

    def __init__(self) -> None:
        self.spent = Spend()
        self.extra = Spend()
        """What was allowed beyond the limit later on."""
        self.held: dict[str, Held] = {}
        self.settled: dict[str, int] = {}
        """When each key was settled, oldest first."""
        self.extended: list[str] = []
        self.warned = ""
        """The entry that passed the soft limit."""

    @property
    def reserved(self) -> Spend:
        """What calls under way may cost."""
        return reduce(Spend.plus, (held.spend for held in self.held.values()), Spend())

    def fold(self, now: float) -> None:
        """Book what nobody settled in time, and forget old settlements."""
        for entry in [entry for entry, held in self.held.items() if held.until <= now]:
            self._book(entry, self.held[entry].spend, now)
        kept = list(self.settled.items())[-MAX_SETTLED:]
        self.settled = {entry: at for entry, at in kept if at + KEEP_SETTLED_S > now}

    def _book(self, entry: str, spent: Spend, now: float) -> None:
        self.held.pop(entry, None)
        self.spent = self.spent.plus(spent)
        self.settled[entry] = round(now)  # whole seconds: a third of the size

    def reserve(self, entry: str, asked: Spend, limit: Budget, until: float) -> Shortage | None:
        """Hold what a call may cost, or say what is missing. An entry that is held or settled is granted as it stands."""
        if entry in self.settled:
            return None
        if entry in self.held:
            self.held[entry] = Held(self.held[entry].spend, round(until))
            return None
        missing = self._missing(asked, limit)
        if missing is None:
            self.held[entry] = Held(asked, round(until))
        return missing

    def _missing(self, asked: Spend, limit: Budget) -> Shortage | None:
        usd, tokens = self.allowed(limit)
        taken = self.spent.plus(self.reserved)
        if usd is not None and taken.micro_usd + asked.micro_usd > usd:
            passes = self.spent.micro_usd + asked.micro_usd <= usd
            return Shortage("usd", usd / MICRO, taken.micro_usd / MICRO, asked.micro_usd / MICRO, passes)
        if tokens is not None and taken.tokens + asked.tokens > tokens:
            return Shortage("tokens", tokens, taken.tokens, asked.tokens, self.spent.tokens + asked.tokens <= tokens)
        return None

    def allowed(self, limit: Budget) -> tuple[int | None, int | None]:
        """Micro-dollars and tokens that may be spent in all; None is without limit."""
        usd = None if limit.usd is None else round(limit.usd * MICRO) + self.extra.micro_usd
        return usd, None if limit.tokens is None else limit.tokens + self.extra.tokens

    def settle(self, entry: str, spent: Spend, limit: Budget, now: float) -> bool:
        """Book what a call cost; whether this entry is the one that passed the soft limit."""
        if entry not in self.settled:
            self._book(entry, spent, now)
            if not self.warned and self._soft(limit):
                self.warned = entry
        return self.warned == entry

    def _soft(self, limit: Budget) -> bool:
        allowed = self.allowed(limit)
        return any(most is not None and had >= limit.soft * most for most, had in zip(allowed, self.spent[:2], strict=True))

    def release(self, entry: str) -> None:
        """Give back what a call that was not sent had reserved."""
        self.held.pop(entry, None)

    def extend(self, entry: str, by: Spend, limit: Budget) -> None:
        """Allow more. Extensions are never forgotten: one that counted twice would break the limit."""
        if entry not in self.extended:
            self.extended.append(entry)
            self.extra = self.extra.plus(by)
            if not self._soft(limit):
                self.warned = ""

    def dump(self) -> bytes:
        """As it is stored."""
        return json.dumps(
            {
                "spent": self.spent,
                "extra": self.extra,
                "held": {entry: [*held.spend, held.until] for entry, held in self.held.items()},
                "settled": self.settled,
                "extended": self.extended,
                "warned": self.warned,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def load(cls, stored: bytes | None) -> Ledger:
        """As it was stored; a new one where nothing is."""
        made = cls()
        if stored is not None:
            said = json.loads(stored)
            made.spent, made.extra = Spend(*said["spent"]), Spend(*said["extra"])
            made.held = {entry: Held(Spend(*spend), until) for entry, (*spend, until) in said["held"].items()}
            made.settled, made.extended, made.warned = said["settled"], said["extended"], said["warned"]
        return made


def entry_of(key: str) -> str:
    """The short name of an idempotency key in an account."""
    return urlsafe_b64encode(blake2b(key.encode(), digest_size=ENTRY_BYTES).digest()).decode()
