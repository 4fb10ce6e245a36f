"""The expression parser: what it reads, what it refuses, and that reading and printing agree."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.licence_auditor import spdx
from examples.licence_auditor.spdx import Both, Either, Expression, Licence, SpdxError, both, either, parse

NAMES = st.sampled_from(
    ["MIT", "BSD-3-Clause", "Apache-2.0", "GPL-2.0-or-later", "GPL-3.0+", "LicenseRef-Ours", "DocumentRef-a:LicenseRef-b"]
)
LICENCES = st.builds(Licence, NAMES, st.sampled_from([None, None, "Classpath-exception-2.0"]))
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    LICENCES,
    lambda inner: st.lists(inner, min_size=2, max_size=4).map(both) | st.lists(inner, min_size=2, max_size=4).map(either),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_what_is_printed_is_read_back_as_the_same(expression: Expression) -> None:
    assert parse(str(expression)) == expression


@given(EXPRESSIONS)
def test_spaces_and_parentheses_around_an_expression_change_nothing(expression: Expression) -> None:
    assert parse(f" ( (  {expression} ) )  ") == expression


@given(st.text(alphabet="MIT()+-. andorwith", max_size=40))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    with suppress(SpdxError):
        expression = parse(text)
        assert parse(str(expression)) == expression


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mit", Licence("MIT")),
        ("MIT OR Apache-2.0", Either((Licence("MIT"), Licence("Apache-2.0")))),
        ("MIT or apache-2.0", Either((Licence("MIT"), Licence("Apache-2.0")))),
        ("MIT AND ISC OR 0BSD", Either((Both((Licence("MIT"), Licence("ISC"))), Licence("0BSD")))),
        ("MIT AND (ISC OR 0BSD)", Both((Licence("MIT"), Either((Licence("ISC"), Licence("0BSD")))))),
        ("gpl-2.0-ONLY WITH GCC-exception-3.1", Licence("GPL-2.0-only", "GCC-exception-3.1")),
        ("MIT AND MIT", Licence("MIT")),
        ("LicenseRef-My-Own", Licence("LicenseRef-My-Own")),
    ],
)
def test_and_binds_more_tightly_than_or_and_with_most_tightly(text: str, expected: Expression) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "  ", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "MIT WITH (x)", "MIT, ISC", "()"]
)
def test_what_is_no_expression_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(SpdxError, match=r"expected .+ at character \d+"):
        parse(text)


def test_parentheses_without_end_are_refused_before_the_interpreter_gives_up() -> None:
    with pytest.raises(SpdxError, match="nested parentheses"):
        parse("(" * 5_000 + "MIT" + ")" * 5_000)


@pytest.mark.parametrize(
    ("declared", "found", "same"),
    [
        ("GPL-3.0-or-later", "GPL-3.0", True),
        ("GPL-2.0+", "GPL-2.0", True),
        ("BSD", "BSD-2-Clause", True),
        ("BSD-3-Clause", "BSD-2-Clause", False),
        ("GPL", "LGPL-3.0", False),
        ("MIT", "MIT-0", False),
    ],
)
def test_a_declared_name_stands_for_its_own_text_only(declared: str, found: str, same: bool) -> None:
    assert spdx.same_text(declared, found) is same


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("MIT", "permissive"),
        ("AGPL-3.0-or-later", "network-copyleft"),
        ("GPL-3.0-only", "strong-copyleft"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "weak-copyleft"),
        ("GPL-2.0-only WITH Some-other-exception", "strong-copyleft"),
        ("LicenseRef-Never-Heard", None),
    ],
)
def test_each_licence_belongs_to_the_family_of_what_it_asks(text: str, family: str | None) -> None:
    (licence,) = spdx.licences(parse(text))
    assert spdx.family(licence) == family
