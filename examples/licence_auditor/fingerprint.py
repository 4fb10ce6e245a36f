"""Recognise well-known licence texts, and say on which lines.

A text becomes a sequence of words, each with the line it stands on; phrases are searched in that sequence, so line breaks,
bullets, comment signs and case make no difference, and every hit can be shown in the file as it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

from examples.licence_auditor import spdx
from examples.licence_auditor.models import Match, Quote
from examples.licence_auditor.texts import SIGNATURES, Signature

_WORD = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")
_IDENTIFIER = re.compile(r"SPDX-License-Identifier:\s*(?P<text>[^\s*/#][^*/#\n]*)")
_MAX_QUOTED_LINES = 4  # enough to recognise a passage; the place says where the rest is


def recognise(text: str, file: str) -> list[Match]:
    """Every known licence in a text, each once: its full text rather than a notice, in order of appearance.

    Args:
        text: the whole file.
        file: how to call it in the proof.
    """
    page = _Page(text, file)
    best: dict[str, Match] = {}
    for match in (*_signed(page), *_identified(page)):
        if match.spdx not in best or (best[match.spdx].kind != "text" and match.kind == "text"):
            best[match.spdx] = match
    return sorted(_most_specific(best), key=lambda match: match.proof[0].first_line)


def _most_specific(best: dict[str, Match]) -> Iterator[Match]:
    """A GNU text holds a sample notice for its own reader to copy: where the text is, the notice says nothing new."""
    whole = {name for name, match in best.items() if match.kind == "text"}
    for name, match in best.items():
        if match.kind == "text" or spdx.base(name) == name or spdx.base(name) not in whole:
            yield match


def _signed(page: _Page) -> Iterator[Match]:
    for signature in SIGNATURES:
        starts = list(page.find(signature.anchor))
        for start, following in pairwise([*starts, page.end]):
            proof = page.prove(signature, start, following)
            if proof:
                yield Match(spdx=signature.spdx, kind=signature.kind, proof=proof)
                break


def _identified(page: _Page) -> Iterator[Match]:
    for number, line in enumerate(page.lines, start=1):
        match = _IDENTIFIER.search(line)
        if match is None:
            continue
        try:
            named = spdx.licences(spdx.parse(match["text"].strip()))
        except spdx.SpdxError:
            continue
        for licence in named:
            yield Match(spdx=licence.id, kind="identifier", proof=(page.quote_lines(number, number),))


class _Page:
    """The words of a file, joined by single spaces, and the way back from a word to its line."""

    def __init__(self, text: str, file: str) -> None:
        # Not splitlines(): it also breaks at form feeds, of which the GNU texts have many, and an editor does not.
        self.file, self.lines = file, [line.rstrip("\r") for line in text.split("\n")]
        found = [(word, number) for number, line in enumerate(self.lines, start=1) for word in words(line)]
        self._line_of_word = [number for _, number in found]
        self._text = "".join(f" {word}" for word, _ in found) + " "
        self._starts = [match.start() for match in re.finditer(" ", self._text)]
        self.end = len(self._text)

    def find(self, phrase: str, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """Where a phrase stands between two positions."""
        wanted = f" {' '.join(words(phrase))} "
        at = self._text.find(wanted, start, stop)
        while at >= 0:
            yield at
            at = self._text.find(wanted, at + 1, stop)

    def prove(self, signature: Signature, start: int, following: int) -> tuple[Quote, ...]:
        """The lines on which the phrases of a signature stand, if it holds from ``start`` on; else nothing."""
        last_word = min(self._word(start) + signature.reach, len(self._starts) - 1)
        stop = min(self._starts[last_word], following) + 1
        places = [next(self.find(phrase, start, stop), None) for phrase in (signature.anchor, *signature.also)]
        spoilt = any(True for phrase in signature.without for _ in self.find(phrase, start, stop))
        if spoilt or any(place is None for place in places):
            return ()
        phrases = zip((signature.anchor, *signature.also), places, strict=True)
        return tuple(self._quote(place, phrase) for phrase, place in phrases if place is not None)

    def quote_lines(self, first: int, last: int) -> Quote:
        """The lines themselves, shortened in the middle when there are many."""
        shown = [line.strip() for line in self.lines[first - 1 : last]]
        text = "\n".join(shown if len(shown) <= _MAX_QUOTED_LINES else [*shown[: _MAX_QUOTED_LINES - 1], "…"])
        return Quote(file=self.file, first_line=first, last_line=last, text=text[:600])

    def _quote(self, at: int, phrase: str) -> Quote:
        first = self._word(at)
        return self.quote_lines(self._line_of_word[first], self._line_of_word[first + len(words(phrase)) - 1])

    def _word(self, at: int) -> int:
        return bisect_right(self._starts, at) - 1


def words(text: str) -> list[str]:
    """What counts in a text: its words and numbers, in lower case and one spelling."""
    return _WORD.findall(text.lower().replace("licence", "license"))
