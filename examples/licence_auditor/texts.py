"""The phrases by which well-known licence texts are recognised: a table, no logic.

A text is recognised where its ``anchor`` stands and every phrase of ``also`` follows, with no phrase of ``without``, before
the anchor comes again or ``reach`` words have passed. Phrases are compared word by word: case, punctuation, line breaks and
comment signs do not count, and "licence" is "license".
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.licence_auditor.models import Kind


@dataclass(frozen=True)
class Signature:
    """How one licence is recognised. ``reach`` is in words, from the anchor on."""

    spdx: str
    anchor: str
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    reach: int = 300  # the longest text of the MIT and BSD kind has 250
    kind: Kind = "text"


_MIT = "permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation files"
_BSD = "redistribution and use in source and binary forms"
_BSD_TERMS = ("redistributions of source code must retain", "redistributions in binary form must reproduce")
_ENDORSE = "used to endorse or promote products derived from"
_ADVERTISE = "all advertising materials mentioning features or use of this software"
_ISC = "permission to use copy modify and or distribute this software for any purpose with or without fee is hereby granted"
_ISC_OLD = "permission to use copy modify and distribute this software for any purpose with or without fee is hereby granted"
_ISC_NOTICE = "provided that the above copyright notice and this permission notice appear in all copies"
_HPND = "permission to use copy modify and distribute this software and its documentation for any purpose and without fee is hereby granted"
_HPND_NOTICE = "provided that the above copyright notice appear in all copies"
_LATER = "or at your option any later version"


def _title(spdx: str, title: str) -> Signature:
    """A long text that its own heading names; what a longer document quotes of it does not carry the date."""
    return Signature(spdx, title)


def _gnu(spdx: str, name: str, number: str) -> tuple[Signature, Signature]:
    """The notices that put a file under a GNU licence: this version, or any later one."""
    anchor = f"under the terms of the gnu {name} as published by the free software foundation"
    versions = (f"either version {number} of the license", _LATER)
    only = (f"version {number} of the license",)
    return (
        Signature(f"{spdx}-or-later", anchor, versions, reach=60, kind="notice"),
        Signature(f"{spdx}-only", anchor, only, without=(_LATER,), reach=60, kind="notice"),
    )


SIGNATURES: tuple[Signature, ...] = (
    Signature(
        "MIT",
        _MIT,
        ("this permission notice shall be included", "the software is provided as is"),
        without=("except as contained in this notice",),
    ),
    Signature("X11", _MIT, ("this permission notice shall be included", "except as contained in this notice")),
    Signature("MIT-0", _MIT, ("the software is provided as is",), without=("the above copyright notice",), reach=160),
    Signature("BSD-4-Clause", _BSD, (*_BSD_TERMS, _ADVERTISE)),
    Signature("BSD-3-Clause", _BSD, (*_BSD_TERMS, _ENDORSE), without=(_ADVERTISE,)),
    Signature("BSD-2-Clause", _BSD, _BSD_TERMS, without=(_ENDORSE, _ADVERTISE)),
    Signature("ISC", _ISC, (_ISC_NOTICE,), reach=60),
    Signature("ISC", _ISC_OLD, (_ISC_NOTICE,), reach=60),
    Signature("0BSD", _ISC, without=(_ISC_NOTICE,), reach=60),
    Signature("HPND", _HPND, (_HPND_NOTICE,), reach=60),
    Signature(
        "MIT-CMU", "by obtaining using and or copying this software and or its associated documentation you agree that you have read"
    ),
    _title("Apache-2.0", "apache license version 2.0 january 2004"),
    Signature("Apache-2.0", "licensed under the apache license version 2.0", kind="notice"),
    Signature("Apache-2.0", "licensed under apache license version 2.0", kind="notice"),
    _title("Apache-1.1", "the apache software license version 1.1"),
    _title("MPL-2.0", "mozilla public license version 2.0 1 definitions"),
    Signature(
        "MPL-2.0",
        "subject to the terms of the mozilla public license v 2.0",
        ("if a copy of the mpl was not distributed with this file",),
        reach=40,
        kind="notice",
    ),
    _title("MPL-1.1", "mozilla public license version 1.1"),
    _title("GPL-2.0", "gnu general public license version 2 june 1991"),
    _title("GPL-3.0", "gnu general public license version 3 29 june 2007"),
    _title("AGPL-3.0", "gnu affero general public license version 3 19 november 2007"),
    _title("LGPL-2.0", "gnu library general public license version 2 june 1991"),
    _title("LGPL-2.1", "gnu lesser general public license version 2.1 february 1999"),
    _title("LGPL-3.0", "gnu lesser general public license version 3 29 june 2007"),
    *_gnu("GPL-2.0", "general public license", "2"),
    *_gnu("GPL-3.0", "general public license", "3"),
    *_gnu("AGPL-3.0", "affero general public license", "3"),
    *_gnu("LGPL-2.1", "lesser general public license", "2.1"),
    *_gnu("LGPL-3.0", "lesser general public license", "3"),
    _title("EPL-1.0", "eclipse public license v 1.0"),
    _title("EPL-2.0", "eclipse public license v 2.0"),
    _title("EUPL-1.2", "european union public license v 1.2"),
    _title("CDDL-1.0", "common development and distribution license cddl version 1.0"),
    _title("PSF-2.0", "python software foundation license version 2"),
    _title("CNRI-Python", "cnri license agreement for python 1.6.1"),
    _title("ZPL-2.1", "zope public license zpl version 2.1"),
    _title("Artistic-2.0", "the artistic license 2.0"),
    _title("OFL-1.1", "sil open font license version 1.1 26 february 2007"),
    Signature(
        "Unlicense", "this is free and unencumbered software released into the public domain", ("anyone is free to copy modify publish",)
    ),
    Signature("CC0-1.0", "cc0 1.0 universal"),
    Signature("CC-BY-4.0", "creative commons attribution 4.0 international public license"),
    Signature("CC-BY-SA-4.0", "creative commons attribution sharealike 4.0 international public license"),
    Signature("CC-BY-NC-4.0", "creative commons attribution noncommercial 4.0 international public license"),
    Signature(
        "Zlib",
        "altered source versions must be plainly marked as such",
        ("this notice may not be removed or altered from any source distribution",),
        reach=80,
    ),
    _title("BSL-1.0", "boost software license version 1.0 august 17th 2003"),
    Signature("NCSA", "university of illinois ncsa open source license"),
    Signature(
        "PostgreSQL", "in no event shall the university of california be liable", ("provided hereunder is on an as is basis",), reach=120
    ),
    Signature("BUSL-1.1", "business source license 1.1"),
    Signature("SSPL-1.0", "server side public license version 1 october 16 2018"),
    Signature("Elastic-2.0", "elastic license 2.0"),
    _title("Unicode-3.0", "unicode license v3"),
    Signature("WTFPL", "do what the fuck you want to public license"),
)
