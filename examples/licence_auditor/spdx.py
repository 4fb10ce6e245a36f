"""SPDX licence expressions: a small parser, a printer, and what the known identifiers mean.

Grammar, loosest binding first: ``a OR b``, ``a AND b``, ``a WITH exception``, ``( … )``. Everything here is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Family = Literal["permissive", "public-domain", "weak-copyleft", "strong-copyleft", "network-copyleft", "proprietary"]

FAMILIES: dict[Family, tuple[str, ...]] = {
    "permissive": (
        *("MIT", "MIT-0", "MIT-CMU", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSD-4-Clause", "Apache", "Apache-1.1", "Apache-2.0"),
        *("ISC", "PSF-2.0", "Python-2.0", "CNRI-Python", "Zlib", "BSL-1.0", "HPND", "HPND-sell-variant", "AFL-3.0", "NCSA", "X11"),
        *("ZPL-2.1", "Artistic-2.0", "PostgreSQL", "Unicode-3.0", "Unicode-DFS-2016", "OFL-1.1", "CC-BY-4.0", "BlueOak-1.0.0"),
        *("bzip2-1.0.6", "curl", "FTL", "Libpng", "libtiff", "IJG", "OpenSSL", "TCL", "WTFPL", "UPL-1.0", "MulanPSL-2.0"),
    ),
    "public-domain": ("Unlicense", "CC0-1.0", "0BSD", "LicenseRef-Public-Domain"),
    "weak-copyleft": (
        *("MPL", "MPL-1.1", "MPL-2.0", "LGPL", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "EPL-1.0", "EPL-2.0"),
        *("CDDL-1.0", "CDDL-1.1", "EUPL-1.2", "CECILL-C", "CC-BY-SA-4.0"),
    ),
    "strong-copyleft": ("GPL", "GPL-1.0", "GPL-2.0", "GPL-3.0", "CECILL-2.1", "OSL-3.0"),
    "network-copyleft": ("AGPL", "AGPL-3.0", "SSPL-1.0"),
    "proprietary": ("LicenseRef-Proprietary", "BUSL-1.1", "Elastic-2.0", "CC-BY-NC-4.0"),
}
# A declaration may name a family of texts without saying which one; a text that was found then says it.
VAGUE = frozenset({"BSD", "Apache", "MPL", "LGPL", "GPL", "AGPL"})
# An exception that takes the reach of the copyleft away: linking against such a work asks nothing of ours.
SOFTENING = frozenset({"gcc-exception-3.1", "gcc-exception-2.0", "classpath-exception-2.0", "llvm-exception", "bootloader-exception"})

# A text that another one takes along: to ship it beside that one says nothing new.
COMES_WITH = {
    "LGPL-3.0": ("GPL-3.0",),
    "PSF-2.0": ("CNRI-Python", "HPND", "0BSD"),
    "Python-2.0": ("PSF-2.0", "CNRI-Python", "HPND", "0BSD"),
}

_FAMILY_OF: dict[str, Family] = {name.lower(): family for family, names in FAMILIES.items() for name in names}
_CANONICAL = {name.lower(): name for names in FAMILIES.values() for name in names}
_SUFFIX = re.compile(r"(-only|-or-later|\+)$", re.IGNORECASE)
_TOKEN = re.compile(r"[()]|[A-Za-z0-9.\-]+(:[A-Za-z0-9.\-]+)?\+?")
_IDENTIFIER = re.compile(r"[A-Za-z0-9.\-]+(:[A-Za-z0-9.\-]+)?\+?")
_WORDS = frozenset({"and", "or", "with"})
_MAX_DEPTH = 64  # parentheses; far beyond any real expression, far below the interpreter's own limit


class SpdxError(ValueError):
    """The text is not an SPDX expression. Carries the text and where it stops making sense."""

    def __init__(self, text: str, at: int, expected: str) -> None:
        self.text, self.at, self.expected = text, at, expected
        super().__init__(f"{text!r} is no SPDX expression: expected {expected} at character {at}")


@dataclass(frozen=True)
class Licence:
    """One identifier, perhaps with an exception that loosens it."""

    id: str
    exception: str | None = None

    def __str__(self) -> str:
        return f"{self.id} WITH {self.exception}" if self.exception else self.id


@dataclass(frozen=True)
class Both:
    """Every part applies."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " AND ".join(f"({part})" if isinstance(part, Either) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Either:
    """The user may choose one part."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " OR ".join(map(str, self.parts))


Expression: TypeAlias = Licence | Both | Either


def parse(text: str) -> Expression:
    """Read an SPDX expression; operators in any case, identifiers put into their usual case.

    Raises:
        SpdxError: the text is not an expression.
    """
    reader = _Reader(text)
    expression = reader.either(0)
    if reader.token is not None:
        raise SpdxError(text, reader.at, "AND, OR or the end")
    return expression


def both(parts: Sequence[Expression]) -> Expression:
    """All of the parts, without a needless level."""
    flat = tuple(dict.fromkeys(inner for part in parts for inner in (part.parts if isinstance(part, Both) else (part,))))
    return flat[0] if len(flat) == 1 else Both(flat)


def either(parts: Sequence[Expression]) -> Expression:
    """A choice of the parts, without a needless level."""
    flat = tuple(dict.fromkeys(inner for part in parts for inner in (part.parts if isinstance(part, Either) else (part,))))
    return flat[0] if len(flat) == 1 else Either(flat)


def licences(expression: Expression) -> Iterator[Licence]:
    """The licences that an expression names, left to right."""
    if isinstance(expression, Licence):
        yield expression
        return
    for part in expression.parts:
        yield from licences(part)


def replace(expression: Expression, new: dict[str, str]) -> Expression:
    """The expression with some identifiers exchanged for others."""
    if isinstance(expression, Licence):
        return Licence(new.get(expression.id, expression.id), expression.exception)
    parts = [replace(part, new) for part in expression.parts]
    return both(parts) if isinstance(expression, Both) else either(parts)


def base(identifier: str) -> str:
    """The text an identifier stands for: ``GPL-3.0-or-later``, ``GPL-3.0-only`` and ``GPL-3.0+`` share one."""
    return _SUFFIX.sub("", identifier)


def same_text(declared: str, found: str) -> bool:
    """Whether a declared identifier may stand for a text that was found: ``BSD`` is any BSD text."""
    wanted, text = base(declared).lower(), base(found).lower()
    return text == wanted or (base(declared) in VAGUE and text.startswith(wanted + "-"))


def family(licence: Licence) -> Family | None:
    """What the licence asks of its user, as one of six families; ``None`` for an identifier not known here."""
    found = _FAMILY_OF.get(base(licence.id).lower())
    if found == "strong-copyleft" and (licence.exception or "").lower() in SOFTENING:
        return "weak-copyleft"
    return found


def canonical(identifier: str) -> str:
    """The identifier in its usual case; one that is not known stays as it is."""
    stem = base(identifier)
    return _CANONICAL.get(stem.lower(), stem) + identifier[len(stem) :].lower()


def is_identifier(text: str) -> bool:
    """Whether the text has the form of one identifier and is not an operator."""
    return _IDENTIFIER.fullmatch(text) is not None and text.lower() not in _WORDS


class _Reader:
    """Recursive descent over the tokens, one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.end = text, 0, 0
        self.token: str | None = None
        self.advance()

    def advance(self) -> None:
        rest = self.text[self.end :]
        self.at = self.end + len(rest) - len(rest.lstrip())
        match = _TOKEN.match(self.text, self.at)
        if match is None and self.at < len(self.text):
            raise SpdxError(self.text, self.at, "an identifier or a parenthesis")
        self.token, self.end = (match.group(), match.end()) if match else (None, self.at)

    def accept(self, word: str) -> bool:
        found = self.token is not None and self.token.lower() == word
        if found:
            self.advance()
        return found

    def identifier(self, expected: str) -> str:
        if self.token is None or not is_identifier(self.token):
            raise SpdxError(self.text, self.at, expected)
        word = self.token
        self.advance()
        return word

    def either(self, depth: int) -> Expression:
        parts = [self.both(depth)]
        while self.accept("or"):
            parts.append(self.both(depth))
        return either(parts)

    def both(self, depth: int) -> Expression:
        parts = [self.atom(depth)]
        while self.accept("and"):
            parts.append(self.atom(depth))
        return both(parts)

    def atom(self, depth: int) -> Expression:
        if depth > _MAX_DEPTH:
            raise SpdxError(self.text, self.at, f"at most {_MAX_DEPTH} nested parentheses")
        if self.accept("("):
            inner = self.either(depth + 1)
            if not self.accept(")"):
                raise SpdxError(self.text, self.at, "a closing parenthesis")
            return inner
        name = canonical(self.identifier("an identifier or an opening parenthesis"))
        return Licence(name, self.identifier("the name of an exception") if self.accept("with") else None)
