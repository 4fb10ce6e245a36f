"""What the auditor's steps hand to each other: plain values, stored in the journal as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Confidence = Literal["agreed", "declared-only", "text-only", "unknown", "contradiction"]
Verdict = Literal["allow", "review", "deny"]
Kind = Literal["text", "notice", "identifier"]


class Model(BaseModel):
    """A value that nobody changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Distribution(Model):
    """One installed distribution, as the inventory found it."""

    name: str
    version: str
    metadata_dir: str
    notes: tuple[str, ...] = ()


class Quote(Model):
    """Lines of a file that prove something; numbers count from 1, both ends included."""

    file: str
    first_line: int
    last_line: int
    text: str

    @property
    def place(self) -> str:
        """``LICENSE:5-7``, as an editor would jump to it."""
        span = f"{self.first_line}" if self.first_line == self.last_line else f"{self.first_line}-{self.last_line}"
        return f"{self.file}:{span}"


class Match(Model):
    """A well-known licence recognised in a file."""

    spdx: str
    kind: Kind
    proof: tuple[Quote, ...]


class Header(Model):
    """One field of the core metadata and the line it stands on."""

    field: str
    value: str
    line: int


class Metadata(Model):
    """The fields of a distribution's core metadata that speak of its licence."""

    file: str
    headers: tuple[Header, ...] = ()
    problem: str | None = None

    def values(self, field: str) -> list[Header]:
        """The headers of one field, in file order, the empty and the ``UNKNOWN`` ones left out."""
        return [h for h in self.headers if h.field == field and h.value.strip().upper() not in {"", "UNKNOWN"}]


class LicenceFile(Model):
    """One licence file and what was recognised in it. ``bundled`` files belong to a component shipped along."""

    path: str
    bundled: bool
    sha256: str
    lines: int
    matches: tuple[Match, ...] = ()
    problem: str | None = None


class Declared(Model):
    """What the metadata says. ``choice_unclear``: several classifiers, and no word on whether all or one apply."""

    expression: str | None = None
    source: str = ""
    choice_unclear: bool = False
    also: tuple[str, ...] = ()
    proof: tuple[Quote, ...] = ()
    notes: tuple[str, ...] = ()


class Finding(Model):
    """What is known about the licence of one distribution, with the lines that prove it."""

    distribution: Distribution
    expression: str | None
    confidence: Confidence
    declared: Declared
    choice_unclear: bool = False
    found: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    bundled: tuple[str, ...] = ()
    files: tuple[LicenceFile, ...] = ()
    notes: tuple[str, ...] = ()


class Judgement(Model):
    """A finding held against the policy."""

    finding: Finding
    verdict: Verdict
    reasons: tuple[str, ...]
    exception: str | None = None


class Doing(Model):
    """Progress of one audit: which worker is at which step."""

    distribution: str
    step: str
    worker: str


class Line(Model):
    """One line of the audit trail. ``began``: the body of a step started; ``signed``: the audit of a distribution is complete."""

    what: Literal["began", "signed"]
    run: str
    step: str
    distribution: str
    worker: str


class Report(Model):
    """The audit of one environment. ``failures``: distributions whose audit ended in an error, with the error."""

    environment: str
    policy: str
    at: datetime
    judgements: tuple[Judgement, ...]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def having(self, verdict: Verdict) -> list[Judgement]:
        """The judgements with that verdict."""
        return [j for j in self.judgements if j.verdict == verdict]
