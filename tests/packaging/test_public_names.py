"""The public API is what `__all__` says, and each name in it says what it is for."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ["agentkit", "agentkit.testing"]


def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / "src" / Path(*module.split(".")) / "__init__.py").read_text())


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_sorted(module: str) -> None:
    names: list[str] = importlib.import_module(module).__all__

    assert names == sorted(names)


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_what_the_package_imports(module: str) -> None:
    imported = {
        alias.asname or alias.name
        for node in tree(module).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }

    assert set(importlib.import_module(module).__all__) == {name for name in imported if not name.startswith("_")}


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_class_and_function_has_a_docstring_of_its_own(module: str) -> None:
    package = importlib.import_module(module)
    things = {name: getattr(package, name) for name in package.__all__}

    assert [name for name, thing in things.items() if (inspect.isclass(thing) or inspect.isfunction(thing)) and not thing.__doc__] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_no_public_name_would_be_collected_as_a_test(module: str) -> None:
    assert [name for name in importlib.import_module(module).__all__ if name.startswith(("Test", "test_"))] == []


def test_the_package_itself_holds_imports_and_all_and_nothing_else() -> None:
    allowed = (ast.ImportFrom, ast.Import)
    rest = [node for node in tree("agentkit").body[1:] if not isinstance(node, allowed)]

    assert [ast.unparse(node)[:7] for node in rest] == ["__all__"]
