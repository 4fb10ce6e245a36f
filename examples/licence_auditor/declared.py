"""What a distribution's metadata says about its licence, as an SPDX expression with the lines that say it.

Three places speak, and the newer one wins: ``License-Expression`` (SPDX by rule), ``License`` (anything from ``MIT`` to the
whole text), and the ``License ::`` classifiers.
"""

from __future__ import annotations

import re

from examples.licence_auditor import fingerprint, spdx
from examples.licence_auditor.models import Declared, Header, Metadata, Quote

CLASSIFIERS: dict[str, str] = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU General Public License (GPL)": "GPL",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "University of Illinois/NCSA Open Source License": "NCSA",
    "Zero-Clause BSD (0BSD)": "0BSD",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
    "PostgreSQL License": "PostgreSQL",
    "Academic Free License (AFL)": "AFL-3.0",
    "SIL Open Font License 1.1 (OFL-1.1)": "OFL-1.1",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Public Domain": "LicenseRef-Public-Domain",
    "Other/Proprietary License": "LicenseRef-Proprietary",
}
# How people write a licence in the free-form field, after `_plain`.
SPELLINGS: dict[str, str] = {
    "mit": "MIT",
    "expat": "MIT",
    "mit x11": "MIT",
    "bsd": "BSD",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "2 clause bsd": "BSD-2-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "apache": "Apache",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache software": "Apache",
    "apache software 2.0": "Apache-2.0",
    "asl 2.0": "Apache-2.0",
    "isc": "ISC",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "mpl": "MPL",
    "mpl 2.0": "MPL-2.0",
    "mozilla public 2.0 mpl 2.0": "MPL-2.0",
    "gpl": "GPL",
    "gplv2": "GPL-2.0",
    "gplv2.0": "GPL-2.0",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0",
    "gplv3+": "GPL-3.0-or-later",
    "lgpl": "LGPL",
    "lgplv2.1": "LGPL-2.1",
    "lgplv2.1+": "LGPL-2.1-or-later",
    "lgplv3": "LGPL-3.0",
    "lgplv3+": "LGPL-3.0-or-later",
    "lgpl with exceptions": "LGPL",
    "agpl": "AGPL",
    "agplv3": "AGPL-3.0",
    "agplv3+": "AGPL-3.0-or-later",
    "zpl 2.1": "ZPL-2.1",
    "zlib": "Zlib",
    "boost": "BSL-1.0",
    "unlicense": "Unlicense",
    "public domain": "LicenseRef-Public-Domain",
    "proprietary": "LicenseRef-Proprietary",
}
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(?P<name>.+)")
_SAYS_NOTHING = frozenset(
    {"OSI Approved", "DFSG approved", "Free for non-commercial use", "Freely Distributable", "Free To Use But Restricted"}
)
_LONG_GPL = re.compile(r"(?:gnu )?(?:(?P<which>[al])(?:ffero|esser) )?general public licen[cs]e")
_GPL_VERSION = re.compile(r"\b([al]?gpl)[ ,-]*(?:v|version )? ?(\d)")
# Longer than any name of a licence: the field holds a text.
_LONGEST_NAME = 120


def declared(metadata: Metadata) -> Declared:
    """The licence that the metadata declares, from the field with the most to say; the rest is checked against it."""
    notes: list[str] = []
    from_expression = _expression_field(metadata, notes)
    from_text = _licence_field(metadata, notes)
    from_classifiers = _classifiers(metadata, notes)
    spoken = [one for one in (from_expression, from_text, from_classifiers) if one is not None]
    if not spoken:
        return Declared(notes=tuple(notes))
    first, rest = spoken[0], spoken[1:]
    said = _identifiers(first)
    also = [name for one in rest for name in _identifiers(one) if not any(_alike(name, other) for other in said)]
    return first.model_copy(update={"notes": tuple(notes), "also": tuple(dict.fromkeys(also))})


def _identifiers(one: Declared) -> list[str]:
    return [licence.id for licence in spdx.licences(spdx.parse(one.expression))] if one.expression else []


def _alike(one: str, other: str) -> bool:
    return spdx.same_text(one, other) or spdx.same_text(other, one)


def _quote(metadata: Metadata, header: Header) -> Quote:
    value = header.value if len(header.value) <= _LONGEST_NAME else header.value[:_LONGEST_NAME] + "…"
    return Quote(file=metadata.file, first_line=header.line, last_line=header.line, text=f"{header.field}: {value}")


def _expression_field(metadata: Metadata, notes: list[str]) -> Declared | None:
    for header in metadata.values("License-Expression"):
        try:
            expression = str(spdx.parse(header.value))
        except spdx.SpdxError as exc:
            notes.append(f"License-Expression: {exc}")
            continue
        return Declared(expression=expression, source="License-Expression", proof=(_quote(metadata, header),))
    return None


def _licence_field(metadata: Metadata, notes: list[str]) -> Declared | None:
    for header in metadata.values("License"):
        expression = _from_free_text(header.value)
        if expression is not None:
            return Declared(expression=str(expression), source="License", proof=(_quote(metadata, header),))
        notes.append(f"License field not understood: {header.value[:60]!r}")
    return None


def _from_free_text(value: str) -> spdx.Expression | None:
    """A name, an expression, or the whole text of a licence."""
    if len(value) > _LONGEST_NAME or "\n" in value:
        found = fingerprint.recognise(value, "License")
        return spdx.both([spdx.Licence(match.spdx) for match in found]) if found else None
    spelled = SPELLINGS.get(_plain(value))
    if spelled:
        return spdx.Licence(spelled)
    try:
        expression = spdx.parse(value)
    except spdx.SpdxError:
        return _listed(value)
    return expression if all(spdx.family(licence) for licence in spdx.licences(expression)) else None


def _listed(value: str) -> spdx.Expression | None:
    """``MIT License or Apache 2.0``, ``BSD and MIT``: names as people write them around one kind of word."""
    for word, join in ((r"\s+or\s+|\s*/\s*", spdx.either), (r"\s+and\s+|\s*[,;&]\s*", spdx.both)):
        names = [_plain(part) for part in re.split(word, value, flags=re.IGNORECASE)]
        if len(names) > 1 and all(name in SPELLINGS for name in names):
            return join([spdx.Licence(SPELLINGS[name]) for name in names])
    return None


def _plain(value: str) -> str:
    """A licence name without what does not tell one from another: case, punctuation, "the", "license", how GPL is spelled."""
    text = _LONG_GPL.sub(lambda match: f"{match['which'] or ''}gpl", value.lower())
    text = _GPL_VERSION.sub(r"\1v\2", text)
    words = re.findall(r"\d+(?:\.\d+)*|[a-z]+(?:\d+(?:\.\d+)*)?\+?", text)
    return " ".join(word for word in words if word not in {"the", "license", "licence", "licensed"})


def _classifiers(metadata: Metadata, notes: list[str]) -> Declared | None:
    names: list[str] = []
    proof: list[Quote] = []
    for header in metadata.values("Classifier"):
        match = _CLASSIFIER.fullmatch(header.value)
        if match is None or match["name"] in _SAYS_NOTHING:
            continue
        if match["name"] in CLASSIFIERS:
            names.append(CLASSIFIERS[match["name"]])
            proof.append(_quote(metadata, header))
        else:
            notes.append(f"classifier not understood: {match['name']!r}")
    if not names:
        return None
    together = spdx.both([spdx.Licence(name) for name in names])
    return Declared(expression=str(together), source="Classifier", choice_unclear=isinstance(together, spdx.Both), proof=tuple(proof))
