"""Hold what a distribution declares against the texts it ships."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from examples.licence_auditor import spdx
from examples.licence_auditor.declared import declared
from examples.licence_auditor.models import Confidence, Declared, Distribution, Finding, LicenceFile, Metadata


def identify(distribution: Distribution, metadata: Metadata, files: Sequence[LicenceFile]) -> Finding:
    """The licence of a distribution, how sure that is, and what else is in the box."""
    said = declared(metadata)
    found = _names(file for file in files if not file.bundled)
    bundled = [name for name in _names(file for file in files if file.bundled) if not _covered(name, found)]
    expression = _expression(said, found)
    named = [licence.id for licence in spdx.licences(expression)] if expression else []
    return Finding(
        distribution=distribution,
        expression=str(expression) if expression else None,
        confidence=_confidence(named, found, declared=said.expression is not None),
        declared=said,
        choice_unclear=said.choice_unclear and len(named) > 1,
        found=tuple(found),
        undeclared=tuple(dict.fromkeys(name for name in (*found, *said.also) if named and not _covered(name, named))),
        bundled=tuple(bundled),
        files=tuple(files),
        notes=(*distribution.notes, *said.notes, *(f"{file.path}: {file.problem}" for file in files if file.problem)),
    )


def _names(files: Iterable[LicenceFile]) -> list[str]:
    return list(dict.fromkeys(match.spdx for file in files for match in file.matches))


def _covered(found: str, by: Iterable[str]) -> bool:
    return any(
        spdx.same_text(name, found) or spdx.same_text(found, name) or found in spdx.COMES_WITH.get(spdx.base(name), ()) for name in by
    )


def _expression(said: Declared, found: Sequence[str]) -> spdx.Expression | None:
    """What is declared, with ``BSD`` and its like made exact by the one text that fits; else every text that was found."""
    if said.expression is None:
        return spdx.both([spdx.Licence(name) for name in found]) if found else None
    expression = spdx.parse(said.expression)
    exact: dict[str, str] = {}
    for licence in spdx.licences(expression):
        fitting = [name for name in found if licence.id in spdx.VAGUE and spdx.same_text(licence.id, name)]
        if len(fitting) == 1:
            exact[licence.id] = fitting[0]
    return spdx.replace(expression, exact)


def _confidence(named: Sequence[str], found: Sequence[str], *, declared: bool) -> Confidence:
    """Several texts beside the declared one are no contradiction (a package may carry more); none of them fitting is."""
    if not declared:
        return "text-only" if found else "unknown"
    if not found:
        return "declared-only"
    return (
        "agreed" if any(spdx.same_text(name, text) or spdx.same_text(text, name) for name in named for text in found) else "contradiction"
    )
