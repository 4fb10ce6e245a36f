"""The picture of what other libraries take for the same work."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from scripts.compared import BARS, LIMIT, OURS, THEIRS, picture

SVG = "{http://www.w3.org/2000/svg}"


def said(title: str, *rates: float) -> dict[str, Any]:
    return {"title": title, "figures": [{"rate": rate} for rate in rates], "problem": ""}


KEPT: dict[str, Any] = {
    "machine": {"cpu": "a <fast> one", "load": "1.0"},
    "peers": {
        "plans": {
            "slow": said("Slow 1.0", 90, 100, 900),
            "agentkit": said("agentkit", 1000),
            "raw": said("raw writes", 500),
            "gone": said("Gone"),
        },
        "nobody ran": {"gone": said("Gone")},
    },
}


def test_each_who_took_part_has_a_bar_as_long_as_its_median_rate_and_the_quickest_is_on_top() -> None:
    drawn = ElementTree.fromstring(picture(KEPT))
    bars = [(bar.get("fill"), float(bar.get("width", ""))) for bar in drawn.iter(f"{SVG}rect")]
    assert bars == [(OURS, BARS), (LIMIT, BARS / 2), (THEIRS, BARS / 10)]
    words = [text.text for text in drawn.iter(f"{SVG}text")]
    assert words[:3] == ["plans", "agentkit", "1,000 a second"]
    assert words[-1] == "medians by turns in one run; cpu a <fast> one"
