"""Which licences are welcome: a TOML file of lists and exceptions, held against what was found.

A verdict is ``allow``, ``review`` (a person decides) or ``deny``, in rising order. ``AND`` takes the worst of its parts,
``OR`` the best, since the user may choose.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

from examples.licence_auditor import spdx
from examples.licence_auditor.models import Finding, Judgement, Model, Verdict

DEFAULT = Path(__file__).with_name("policy.toml")
SEVERITY: Mapping[Verdict, int] = {"allow": 0, "review": 1, "deny": 2}
RULINGS: Mapping[Verdict, str] = {"allow": "allowed", "review": "for review", "deny": "denied"}
_FAMILY = "family:"


class PolicyInvalid(Exception):
    """The policy file cannot be used. Names the file and what is wrong with it."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"policy {path}: {reason}")


def _entry(text: str) -> str:
    if text.startswith(_FAMILY):
        if text.removeprefix(_FAMILY) not in get_args(spdx.Family):
            raise ValueError(f"{text!r} is no family; the families are {', '.join(get_args(spdx.Family))}")
        return text
    if not spdx.is_identifier(text):
        raise ValueError(f"{text!r} is no SPDX identifier; a family is written 'family:permissive'")
    return spdx.canonical(text)


Entry = Annotated[str, AfterValidator(_entry)]


class PolicyException(Model):
    """A decision about one distribution. It holds only while its licence is ``licence``, if that is given."""

    verdict: Verdict
    reason: str = Field(min_length=1)
    licence: str | None = None


class LicencePolicy(Model):
    """The lists, the exceptions, and what to do where neither speaks."""

    name: str = "policy"
    allow: tuple[Entry, ...] = ()
    review: tuple[Entry, ...] = ()
    deny: tuple[Entry, ...] = ()
    otherwise: Verdict = "review"  # a new identifier is a question, not an accident
    unknown: Verdict = "review"
    contradiction: Verdict = "review"
    exceptions: dict[str, PolicyException] = Field(default_factory=dict[str, PolicyException])

    @model_validator(mode="after")
    def _no_entry_twice(self) -> LicencePolicy:
        entries = [*self.allow, *self.review, *self.deny]
        doubled = sorted({entry for entry in entries if entries.count(entry) > 1})
        if doubled:
            raise ValueError(f"in more than one list, or twice in one: {', '.join(doubled)}")
        return self

    def of(self, licence: spdx.Licence) -> tuple[Verdict, str]:
        """The verdict on one licence and the entry it came from; the most telling entry wins."""
        family = spdx.family(licence)
        softened = family != spdx.family(spdx.Licence(licence.id))
        by_id = [] if softened else [licence.id, spdx.base(licence.id)]
        for name in (*by_id, f"{_FAMILY}{family}"):
            for verdict in SEVERITY:
                if name in getattr(self, verdict):
                    return verdict, name
        return self.otherwise, "no list"

    def judge(self, expression: spdx.Expression) -> Verdict:
        """The verdict on a whole expression."""
        if isinstance(expression, spdx.Licence):
            return self.of(expression)[0]
        verdicts: list[Verdict] = [self.judge(part) for part in expression.parts]
        verdicts.sort(key=severity)
        return verdicts[-1] if isinstance(expression, spdx.Both) else verdicts[0]

    def exception(self, name: str) -> PolicyException | None:
        """The exception for a distribution, whatever way its name is written."""
        return next((one for other, one in self.exceptions.items() if plain(other) == plain(name)), None)


def load(path: Path) -> LicencePolicy:
    """Read a policy file.

    Raises:
        PolicyInvalid: it cannot be read, is no TOML, or says something that is not known.
    """
    try:
        return LicencePolicy.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as exc:
        raise PolicyInvalid(path, exc.strerror or str(exc)) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise PolicyInvalid(path, f"is no TOML: {exc}") from exc
    except ValidationError as exc:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in exc.errors())
        raise PolicyInvalid(path, faults) from exc


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe of them; ``allow`` of none."""
    found: list[Verdict] = ["allow", *verdicts]
    return max(found, key=severity)


def severity(verdict: Verdict) -> int:
    """How grave a verdict is; the greatest is ``deny``."""
    return SEVERITY[verdict]


def plain(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def judge(finding: Finding, policy: LicencePolicy) -> Judgement:
    """Hold one finding against the policy: the verdict, each reason, and the exception that overrode it."""
    said = list(_opinions(finding, policy))
    exception = policy.exception(finding.distribution.name)
    if exception is not None and exception.licence in (None, finding.expression):
        overruled = tuple(reason for verdict, reason in said if verdict != "allow")
        return Judgement(finding=finding, verdict=exception.verdict, reasons=overruled, exception=exception.reason)
    if exception is not None:
        said.append(("review", f"its exception was made for {exception.licence}, but the licence is now {finding.expression}"))
    reasons = tuple(reason for verdict, reason in said if verdict != "allow")
    return Judgement(finding=finding, verdict=worst(verdict for verdict, _ in said), reasons=reasons)


def _opinions(finding: Finding, policy: LicencePolicy) -> Iterable[tuple[Verdict, str]]:
    if finding.expression is None:
        yield policy.unknown, "no licence found: neither declared nor recognised in a file"
        return
    yield _on_expression(finding, policy)
    if finding.confidence == "contradiction":
        yield policy.contradiction, f"declares {finding.declared.expression}, but ships the text of {', '.join(finding.found)}"
    for name in finding.undeclared:
        verdict, entry = policy.of(spdx.Licence(name))
        yield capped(verdict), f"{_ruled(name, verdict, entry)}; it is shipped or named, but is not in the expression"
    for name in finding.bundled:
        verdict, entry = policy.of(spdx.Licence(name))
        yield capped(verdict), f"{_ruled(name, verdict, entry)}; a bundled component is under it"


def capped(verdict: Verdict) -> Verdict:
    """A text in the box is a question to a person, not yet a licence that binds."""
    return "review" if verdict == "deny" else verdict


def _on_expression(finding: Finding, policy: LicencePolicy) -> tuple[Verdict, str]:
    expression = spdx.parse(finding.expression or "")
    verdict = policy.judge(expression)
    parts = [(licence, *policy.of(licence)) for licence in spdx.licences(expression)]
    spelled = ", ".join(_ruled(str(licence), ruling, entry) for licence, ruling, entry in parts if ruling != "allow")
    choice = policy.judge(spdx.either([licence for licence, _, _ in parts]))
    if finding.choice_unclear and choice != verdict:
        return "review", f"the classifiers name {expression} and do not say whether all or one apply: {spelled}"
    return verdict, spelled if len(parts) == 1 else f"{expression}: {spelled or 'every part is allowed'}"


def _ruled(name: str, verdict: Verdict, entry: str) -> str:
    return f"{name} is {RULINGS[verdict]} ({entry})"


def stale_exceptions(policy: LicencePolicy, names: Iterable[str]) -> list[str]:
    """Exceptions for distributions that are not installed: harmless here, and worth a look."""
    installed = {plain(name) for name in names}
    return [f"exception for {name}, which is not installed" for name in policy.exceptions if plain(name) not in installed]
