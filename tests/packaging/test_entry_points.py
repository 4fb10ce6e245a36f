"""Adapters are found by the scheme of a URL, ours exactly as anybody's."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECLARED: dict[str, dict[str, str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
PORTS = ["inference", "limits", "queue", "runs", "values"]


def installed(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group) if entry.dist and entry.dist.name == "agentkit-async"}


def test_each_port_that_a_url_opens_has_its_group() -> None:
    assert sorted(DECLARED) == [f"agentkit.{port}" for port in PORTS]


@pytest.mark.parametrize("port", PORTS)
def test_what_is_installed_is_what_is_declared(port: str) -> None:
    group = f"agentkit.{port}"

    assert {name: entry.value for name, entry in installed(group).items()} == DECLARED[group]


@pytest.mark.parametrize(("port", "scheme"), [(group.split(".")[1], scheme) for group in DECLARED for scheme in DECLARED[group]])
def test_an_entry_point_leads_to_a_function_in_the_file_named_like_the_port(port: str, scheme: str) -> None:
    entry = installed(f"agentkit.{port}")[scheme]

    assert callable(entry.load())
    assert entry.module.split(".")[-1] == port
