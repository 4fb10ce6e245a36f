"""Finding the licence: on the environment that runs the tests, and on made-up ones with every kind of trouble."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.licence_auditor import inventory, page, report
from examples.licence_auditor.fingerprint import recognise
from examples.licence_auditor.identify import identify
from examples.licence_auditor.models import Finding, Judgement, Report
from examples.licence_auditor.policy import DEFAULT, judge, load
from examples.licence_auditor.texts import SIGNATURES, Signature

MIT = """\
Copyright (c) 2024 Somebody

# Permission is hereby granted, free of charge, to any person obtaining a copy
# of this software and associated documentation files (the "Software"), to deal
# in it. The above copyright notice and this permission notice shall be included.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
"""
BSD_2 = """\
Redistribution and use in source and binary forms are permitted:
 * Redistributions of source code must retain this list.
 * Redistributions in binary form must reproduce this list.
"""
BSD_3 = BSD_2 + " * Nobody's name may be used to endorse or promote products derived from this software.\n"
GPL_3 = "\f GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n"


def findings(path: list[str]) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for one in inventory.distributions(path):
        metadata = inventory.read_metadata(one.metadata_dir)
        files = inventory.read_licence_files(one.metadata_dir, [header.value for header in metadata.values("License-File")])
        found[one.name] = identify(one, metadata, files)
    return found


def install(site: Path, name: str, metadata: str | None, files: Mapping[str, str] | None = None) -> Path:
    """A distribution on disk; file names are relative to its metadata directory."""
    directory = site / f"{name}-1.0.dist-info"
    directory.mkdir(parents=True)
    if metadata is not None:
        (directory / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}\n")
    for file, text in (files or {}).items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(text)
    return directory


@pytest.fixture(scope="module")
def real() -> dict[str, Finding]:
    return findings(inventory.search_path(None))


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("pytest", "MIT"),
        ("pydantic", "MIT"),
        ("anyio", "MIT"),
        ("SQLAlchemy", "MIT"),
        ("click", "BSD-3-Clause"),
        ("hypothesis", "MPL-2.0"),
        ("tenacity", "Apache-2.0"),
        ("opentelemetry-api", "Apache-2.0"),
        ("trio", "MIT OR Apache-2.0"),
        ("typing_extensions", "PSF-2.0"),
    ],
)
def test_real_distributions_are_known_by_declaration_and_text(real: dict[str, Finding], name: str, expression: str) -> None:
    found = real[name]
    assert (found.expression, found.confidence) == (expression, "agreed")


def test_no_distribution_of_the_real_environment_stays_unknown(real: dict[str, Finding]) -> None:
    assert [name for name, found in real.items() if found.confidence in {"unknown", "contradiction"}] == []


def test_every_quoted_line_of_the_real_environment_stands_where_it_is_said_to(real: dict[str, Finding]) -> None:
    checked = 0
    for found in real.values():
        directory = Path(found.distribution.metadata_dir)
        for file in found.files:
            path = directory.parent / file.path if file.bundled and not (directory / file.path).exists() else directory / file.path
            for quote in (quote for match in file.matches for quote in match.proof):
                line = path.read_text("utf-8", "replace").split("\n")[quote.first_line - 1]
                assert line.strip() == quote.text.split("\n")[0]
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda one: f"{one.spdx}-{one.kind}")
def test_every_signature_recognises_its_own_phrases(signature: Signature) -> None:
    text = "\n".join((signature.anchor, *signature.also))
    assert signature.spdx in [match.spdx for match in recognise(text, "LICENSE")]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (MIT, ["MIT"]),
        (BSD_2, ["BSD-2-Clause"]),
        (BSD_3, ["BSD-3-Clause"]),
        (BSD_2 + BSD_3, ["BSD-2-Clause", "BSD-3-Clause"]),
        (GPL_3, ["GPL-3.0"]),
        (MIT.replace("be included", "be forgotten"), []),
        ("/* SPDX-License-Identifier: MIT OR Apache-2.0 */", ["MIT", "Apache-2.0"]),
        ("Licensed under the Apache Licence, Version 2.0 (the Licence)", ["Apache-2.0"]),
        ("This text speaks of the MIT License and of the GNU General Public License.", []),
        ("", []),
    ],
)
def test_a_text_is_recognised_by_its_phrases_and_not_by_its_name(text: str, names: list[str]) -> None:
    assert [match.spdx for match in recognise(text, "LICENSE")] == names


def test_the_proof_names_the_lines_as_an_editor_counts_them() -> None:
    (match,) = recognise(GPL_3, "COPYING")
    assert match.proof[0].place == "COPYING:1-2"
    (match,) = recognise(MIT, "LICENSE")
    assert [quote.place for quote in match.proof] == ["LICENSE:3-4", "LICENSE:5", "LICENSE:7"]
    assert match.proof[0].text.startswith("# Permission is hereby granted")


def test_a_notice_of_a_gnu_licence_says_whether_later_versions_count() -> None:
    notice = "under the terms of the GNU General Public License as published by the Free Software Foundation, {}version 2 of the License{}"
    (later,) = recognise(notice.format("either ", ", or (at your option) any later version"), "x")
    (only,) = recognise(notice.format("", "."), "x")
    assert (later.spdx, only.spdx) == ("GPL-2.0-or-later", "GPL-2.0-only")


@pytest.mark.parametrize(
    ("metadata", "files", "expression", "confidence"),
    [
        ("License-Expression: MIT\nLicense-File: LICENSE", {"licenses/LICENSE": MIT}, "MIT", "agreed"),
        ("License-Expression: MIT", {}, "MIT", "declared-only"),
        ("", {"LICENSE": MIT}, "MIT", "text-only"),
        ("", {}, None, "unknown"),
        ("License: UNKNOWN", {}, None, "unknown"),
        ("License-Expression: MIT", {"COPYING": GPL_3}, "MIT", "contradiction"),
        ("Classifier: License :: OSI Approved :: BSD License", {"LICENSE.txt": BSD_3}, "BSD-3-Clause", "agreed"),
        ("License: BSD", {}, "BSD", "declared-only"),
        ("License: Apache 2.0", {}, "Apache-2.0", "declared-only"),
        ("License: MIT License or Apache-2.0", {}, "MIT OR Apache-2.0", "declared-only"),
        ("License: see the file", {}, None, "unknown"),
        ("License: LGPL v3", {}, "LGPL-3.0", "declared-only"),
        ("License: GNU General Public License v3", {}, "GPL-3.0", "declared-only"),
        ("License: GPLv2+", {}, "GPL-2.0-or-later", "declared-only"),
        ("License: GPL-3.0-or-later", {}, "GPL-3.0-or-later", "declared-only"),
        ("License: Affero General Public License, version 3", {}, "AGPL-3.0", "declared-only"),
        ("License: Apache License 2.0 or MIT", {}, "Apache-2.0 OR MIT", "declared-only"),
        ("License: " + MIT.replace("\n", "\n        "), {}, "MIT", "declared-only"),
        ("Classifier: License :: OSI Approved", {}, None, "unknown"),
        ("License-Expression: MIT OR\nLicense: ISC", {}, "ISC", "declared-only"),
        ("License-Expression: LGPL-3.0-or-later", {"COPYING": GPL_3}, "LGPL-3.0-or-later", "contradiction"),
    ],
)
def test_the_declaration_is_held_against_the_text(
    tmp_path: Path, metadata: str, files: dict[str, str], expression: str | None, confidence: str
) -> None:
    install(tmp_path, "thing", metadata, files)
    found = findings([str(tmp_path)])["thing"]
    assert (found.expression, found.confidence) == (expression, confidence)


def test_the_declaration_is_quoted_with_its_line(tmp_path: Path) -> None:
    install(tmp_path, "thing", "License-Expression: MIT", {})
    (quote,) = findings([str(tmp_path)])["thing"].declared.proof
    assert (quote.place, quote.text) == ("METADATA:4", "License-Expression: MIT")


def test_several_classifiers_without_an_expression_leave_the_choice_unclear(tmp_path: Path) -> None:
    install(
        tmp_path,
        "thing",
        "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
    )
    found = findings([str(tmp_path)])["thing"]
    assert (found.expression, found.choice_unclear) == ("MIT AND GPL-3.0-only", True)


def test_a_component_in_the_box_is_bundled_and_not_the_distributions_own(tmp_path: Path) -> None:
    directory = install(tmp_path, "thing", "License-Expression: MIT", {"licenses/LICENSE": MIT, "licenses/vendor/COPYING": GPL_3})
    (tmp_path / "thing" / "inner").mkdir(parents=True)
    (tmp_path / "thing" / "inner" / "LICENSE").write_text(BSD_3)
    (directory / "RECORD").write_text("thing/inner/LICENSE,,\nthing/license.py,,\n")
    found = findings([str(tmp_path)])["thing"]
    assert (found.confidence, found.found, found.bundled) == ("agreed", ("MIT",), ("GPL-3.0", "BSD-3-Clause"))


def test_broken_metadata_is_a_finding_and_not_an_accident(tmp_path: Path) -> None:
    install(tmp_path, "no_metadata", None)
    install(tmp_path, "binary", None)
    (tmp_path / "binary-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00\x01garbage")
    (tmp_path / "odd.egg-info").write_text("Name: odd\nVersion: 2.0\nLicense: MIT\n")
    found = findings([str(tmp_path)])
    assert found["no_metadata"].confidence == "unknown"
    assert "has no METADATA" in found["no_metadata"].notes[0]
    assert "names no distribution" in found["binary"].notes[0]
    assert (found["odd"].distribution.version, found["odd"].expression) == ("2.0", "MIT")


def test_a_licence_file_that_is_named_and_missing_is_told(tmp_path: Path) -> None:
    install(tmp_path, "thing", "License-Expression: MIT\nLicense-File: GONE")
    assert findings([str(tmp_path)])["thing"].notes == ("GONE: named by the metadata, but not installed",)


def test_of_two_copies_the_first_on_the_path_counts_and_the_other_is_told(tmp_path: Path) -> None:
    install(tmp_path / "a", "some_thing", "License-Expression: MIT")
    install(tmp_path / "b", "Some.Thing", "License-Expression: ISC")
    (found,) = findings([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")]).values()
    assert found.expression == "MIT"
    assert found.notes == (f"hides version 1.0 in {tmp_path / 'b'}",)


def test_an_environment_is_an_interpreter_a_directory_or_the_one_running(tmp_path: Path) -> None:
    assert inventory.search_path(str(tmp_path)) == [str(tmp_path)]
    assert set(inventory.search_path(sys.executable)) & set(inventory.search_path(None))
    for wrong in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").write_text("not a program")
        with pytest.raises(inventory.EnvironmentUnreadable, match="pass an interpreter or a site-packages directory"):
            inventory.search_path(str(wrong))


@pytest.fixture
def audited(tmp_path: Path) -> Report:
    install(tmp_path, "good", "License-Expression: MIT", {"LICENSE": MIT})
    install(tmp_path, "bad", "License-Expression: AGPL-3.0-only")
    install(tmp_path, "liar", "License-Expression: MIT", {"COPYING": GPL_3 + "<script>alert(1)</script>"})
    judgements: list[Judgement] = [judge(found, load(DEFAULT)) for found in findings([str(tmp_path)]).values()]
    return Report(environment="/srv/<app>", policy="default", at=datetime(2024, 5, 1, tzinfo=UTC), judgements=tuple(judgements))


def test_the_page_shows_each_verdict_with_the_lines_that_prove_it(audited: Report) -> None:
    html = page.render(audited)
    assert html.count("<tr data-verdict=") == 3
    assert "METADATA:4" in html
    assert "License-Expression: AGPL-3.0-only" in html
    assert "COPYING:1-2" in html
    assert "declares MIT, but ships the text of GPL-3.0" in html


def test_the_bar_of_a_licence_has_a_part_for_each_verdict_under_it(tmp_path: Path) -> None:
    for name in ("plain", "simple"):
        install(tmp_path, name, "License-Expression: MIT", {"LICENSE": MIT})
    one, other = [judge(found, load(DEFAULT)) for found in findings([str(tmp_path)]).values()]
    mixed = (one, other.model_copy(update={"verdict": "review"}))
    html = page.render(Report(environment="/srv", policy="default", at=datetime(2024, 5, 1, tzinfo=UTC), judgements=mixed))
    assert re.findall(r"<title>(.*?: .*?)</title>", html) == ["MIT: 1 for review", "MIT: 1 allowed"]


def test_the_page_is_one_file_and_nothing_in_a_distribution_can_break_it(audited: Report, tmp_path: Path) -> None:
    html = page.render(audited)
    assert "/srv/&lt;app&gt;" in html
    assert "alert(1)" not in html.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")
    assert "http://" not in html
    assert "https://" not in html
    page.write(audited, tmp_path / "new" / "report.html")
    page.write(audited, tmp_path / "new" / "report.html")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_table_puts_conflicts_first_and_sums_up(audited: Report) -> None:
    out = io.StringIO()
    report.show(audited, out)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["bad", "liar", "good"]
    assert "METADATA:4" in lines[1]
    assert "LICENSE:3-4" in lines[3]
    assert lines[-1] == "3 distributions under policy default: 1 allowed, 1 for review, 1 conflicts"
