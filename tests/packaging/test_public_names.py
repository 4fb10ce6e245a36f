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


def imports(body: list[ast.stmt]) -> dict[str, str]:
    """The names that are imported from rooms of ours, and from where."""
    found = [node for node in body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentkit")]
    return {alias.asname or alias.name: node.module or "" for node in found for alias in node.names}


def for_type_checkers(module: str) -> dict[str, str]:
    """What stands under `if TYPE_CHECKING`: names whose rooms are loaded when they are asked for."""
    return imports([node for block in tree(module).body if isinstance(block, ast.If) for node in block.body])


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_sorted(module: str) -> None:
    names: list[str] = importlib.import_module(module).__all__

    assert names == sorted(names)


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_what_the_package_imports(module: str) -> None:
    imported = {**imports(tree(module).body), **for_type_checkers(module)}

    assert set(importlib.import_module(module).__all__) == {name for name in imported if not name.startswith("_")}


def test_a_name_that_is_loaded_later_comes_from_where_type_checkers_are_told() -> None:
    package = importlib.import_module("agentkit")

    assert for_type_checkers("agentkit") == package._LATER
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        print(package.nothing)


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_class_and_function_has_a_docstring_of_its_own(module: str) -> None:
    package = importlib.import_module(module)
    things = {name: getattr(package, name) for name in package.__all__}

    assert [name for name, thing in things.items() if (inspect.isclass(thing) or inspect.isfunction(thing)) and not thing.__doc__] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_no_public_name_would_be_collected_as_a_test(module: str) -> None:
    assert [name for name in importlib.import_module(module).__all__ if name.startswith(("Test", "test_"))] == []


def test_the_package_itself_holds_imports_and_their_names_and_nothing_else() -> None:
    allowed = (ast.ImportFrom, ast.Import)
    rest = [ast.unparse(node) for node in tree("agentkit").body[1:] if not isinstance(node, allowed)]

    begins = ["if TYPE_CHECKING:", "__all__ = ", "_LATER = ", "'Where the names are", "def __getattr__(", "def __dir__("]
    assert [text[: len(begin)] for text, begin in zip(rest, begins, strict=True)] == begins
