"""The policy: how lists, families, exceptions and doubts become a verdict with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.licence_auditor import spdx
from examples.licence_auditor.models import Declared, Distribution, Finding, Verdict
from examples.licence_auditor.policy import DEFAULT, LicencePolicy, PolicyException, PolicyInvalid, judge, load, severity, stale_exceptions

LISTS = LicencePolicy(
    allow=("family:permissive", "LGPL-3.0"),
    review=("family:weak-copyleft", "BSD-4-Clause"),
    deny=("family:strong-copyleft", "GPL-2.0-only"),
)


def finding(expression: str | None, **more: Any) -> Finding:
    values: dict[str, Any] = {"confidence": "agreed" if expression else "unknown", "declared": Declared(expression=expression)}
    thing = Distribution(name="Some.Thing", version="1.0", metadata_dir="/nowhere")
    return Finding(distribution=thing, expression=expression, **{**values, **more})


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("MIT", "allow"),
        ("BSD-4-Clause", "review"),
        ("LGPL-3.0-or-later", "allow"),
        ("LGPL-2.1-only", "review"),
        ("GPL-3.0-or-later", "deny"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "review"),
        ("MIT OR GPL-3.0-only", "allow"),
        ("MIT AND GPL-3.0-only", "deny"),
        ("MIT AND (GPL-3.0-only OR LGPL-2.1-only)", "review"),
        ("LicenseRef-Never-Heard", "review"),
    ],
)
def test_an_and_is_as_bad_as_its_worst_part_and_an_or_as_good_as_its_best(expression: str, verdict: Verdict) -> None:
    assert LISTS.judge(spdx.parse(expression)) == verdict
    assert judge(finding(expression), LISTS).verdict == verdict


@given(st.lists(st.sampled_from(["MIT", "LGPL-2.1-only", "GPL-3.0-only", "LicenseRef-New"]), min_size=1, max_size=5))
def test_one_more_part_never_mends_an_and_nor_spoils_an_or(names: list[str]) -> None:
    parts = [spdx.Licence(name) for name in names]
    one = severity(LISTS.judge(parts[0]))
    assert severity(LISTS.judge(spdx.both(parts))) >= one >= severity(LISTS.judge(spdx.either(parts)))


def test_every_verdict_that_is_not_allow_names_the_licence_and_the_list() -> None:
    judgement = judge(finding("MIT AND GPL-3.0-only"), LISTS)
    assert judgement.verdict == "deny"
    assert "GPL-3.0-only is denied (family:strong-copyleft)" in judgement.reasons[0]
    assert judge(finding("MIT"), LISTS).reasons == ()


def test_no_licence_at_all_is_a_question_unless_the_policy_says_otherwise() -> None:
    assert judge(finding(None), LISTS).verdict == "review"
    assert judge(finding(None), LicencePolicy(unknown="deny")).verdict == "deny"


def test_a_text_that_contradicts_the_declaration_is_flagged_with_both_names() -> None:
    contradiction = finding("MIT", confidence="contradiction", found=("GPL-3.0",), undeclared=("GPL-3.0",))
    judgement = judge(contradiction, LISTS)
    assert judgement.verdict == "review"
    assert any("declares MIT" in reason and "GPL-3.0" in reason for reason in judgement.reasons)
    assert judge(contradiction, LISTS.model_copy(update={"contradiction": "deny"})).verdict == "deny"


def test_a_denied_text_in_the_box_is_for_review_and_not_yet_a_conflict() -> None:
    for place in ("undeclared", "bundled"):
        assert judge(finding("MIT", **{place: ("GPL-3.0",)}), LISTS).verdict == "review"
        assert judge(finding("MIT", **{place: ("ISC",)}), LISTS).verdict == "allow"


def test_classifiers_that_do_not_say_and_or_or_are_for_review_only_where_it_matters() -> None:
    assert judge(finding("MIT AND GPL-3.0-only", choice_unclear=True), LISTS).verdict == "review"
    assert judge(finding("MIT AND ISC", choice_unclear=True), LISTS).verdict == "allow"


def test_an_exception_overrules_with_its_reason_and_ends_when_the_licence_changes() -> None:
    policy = LISTS.model_copy(
        update={"exceptions": {"some-thing": PolicyException(verdict="allow", reason="asked legal", licence="GPL-3.0-only")}}
    )
    excepted = judge(finding("GPL-3.0-only"), policy)
    assert (excepted.verdict, excepted.exception) == ("allow", "asked legal")
    changed = judge(finding("MIT"), policy)
    assert changed.verdict == "review"
    assert "GPL-3.0-only, but the licence is now MIT" in changed.reasons[0]


def test_an_exception_for_what_is_not_installed_is_told() -> None:
    policy = LISTS.model_copy(update={"exceptions": {"gone": PolicyException(verdict="allow", reason="old")}})
    assert stale_exceptions(policy, ["Some.Thing"]) == ["exception for gone, which is not installed"]
    assert stale_exceptions(policy, ["Gone"]) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("allow = [", "is no TOML"),
        ('allow = ["family:nice"]', "the families are permissive"),
        ('allow = ["MIT OR ISC"]', "is no SPDX identifier"),
        ('allow = ["MIT"]\ndeny = ["mit"]', "in more than one list"),
        ('alow = ["MIT"]', "alow: Extra inputs"),
        ('[exceptions.x]\nverdict = "allow"', "exceptions.x.reason"),
        ('otherwise = "maybe"', "otherwise"),
    ],
)
def test_a_policy_file_with_a_fault_is_refused_naming_file_and_fault(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyInvalid) as refusal:
        load(file)
    assert str(file) in str(refusal.value)
    assert complaint in str(refusal.value)


def test_a_policy_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="No such file"):
        load(tmp_path / "none.toml")


def test_the_policy_that_is_shipped_is_valid_and_denies_strong_copyleft() -> None:
    assert judge(finding("GPL-3.0-or-later"), load(DEFAULT)).verdict == "deny"
