#!/usr/bin/env python3
"""Write docs/reference from the docstrings: scripts/reference.py, or with --check say which pages are stale and exit 1.

It reads the source, not the running package, so that the pages are the same whatever is installed and whichever Python writes them.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
NOTE = "<!-- Written by `make docs` from the docstrings. Change them, not this page. -->"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def parsed(module: str) -> ast.Module:
    """The tree of a module of the core, named as it is imported."""
    path = SOURCE / Path(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def doc(node: ast.Module | ast.ClassDef | Function) -> str:
    return inspect.cleandoc(ast.get_docstring(node) or "")


def targets(node: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module or class binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def exported(module: str) -> list[str]:
    """What `__all__` of a module lists, or its public classes and functions."""
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and "__all__" in targets(node):
            names: list[str] = ast.literal_eval(node.value)
            return names
    return [name for node in parsed(module).body if isinstance(node, ast.ClassDef | Function) for name in targets(node) if name[0] != "_"]


def definition(module: str, name: str) -> tuple[str, list[ast.stmt]]:
    """The module that defines a name, and the statements that do (several for overloads)."""
    tree = parsed(module)
    if found := [node for node in tree.body if name in targets(node)]:
        return module, found
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agentkit"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(node.module, alias.name)
    return module, []


def signature(node: Function) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    one_line = f"{word} {node.name}({ast.unparse(node.args)}){returns}"
    if len(one_line) <= 100:
        return one_line
    return "\n".join([f"{word} {node.name}(", *(f"    {argument}," for argument in arguments(node.args)), f"){returns}"])


def arguments(args: ast.arguments) -> Iterator[str]:
    """Each parameter as it is written, with the markers / and *."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    for number, (arg, default) in enumerate(zip(positional, defaults, strict=True), 1):
        yield ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "")
        if number == len(args.posonlyargs):
            yield "/"
    if args.vararg:
        yield f"*{ast.unparse(args.vararg)}"
    elif args.kwonlyargs:
        yield "*"
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "")
    if args.kwarg:
        yield f"**{ast.unparse(args.kwarg)}"


def code(*lines: str) -> str:
    return "\n".join(["```py", *lines, "```"])


def is_overload(node: Function) -> bool:
    return any(ast.unparse(mark) in {"overload", "typing.overload"} for mark in node.decorator_list)


def function(nodes: list[Function], level: int) -> Iterator[str]:
    """A function with all its overloads; the docstring may be on any of them."""
    shown = [node for node in nodes if is_overload(node)] or nodes
    marks = [f"@{mark}" for mark in map(ast.unparse, nodes[-1].decorator_list) if mark in {"property", "classmethod", "staticmethod"}]
    yield f"{'#' * level} `{nodes[0].name}`"
    yield code(*marks, *(signature(node) for node in shown))
    yield from filter(None, [next((text for node in nodes if (text := doc(node))), "")])


def members(node: ast.ClassDef) -> dict[str, list[ast.stmt]]:
    found: dict[str, list[ast.stmt]] = {}
    for child in node.body:
        for name in targets(child):
            if name[0] != "_" or name == "__init__":
                found.setdefault(name, []).append(child)
    return found


def class_(node: ast.ClassDef) -> Iterator[str]:
    """A class: its bases, docstring, attributes and public methods in the order of the source."""
    found = members(node)
    fields = [child for nodes in found.values() for child in nodes if isinstance(child, ast.AnnAssign | ast.Assign)]
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    init = [child for child in found.pop("__init__", []) if isinstance(child, Function)]
    yield f"## `{node.name}`"
    yield code(f"class {node.name}" + (f"({bases})" if bases else ""), *(f"    {ast.unparse(child)}" for child in fields))
    yield from filter(None, [doc(node)])
    if init:
        yield from function(init, 3)
    for nodes in found.values():
        methods = [child for child in nodes if isinstance(child, Function)]
        if methods and not any(ast.unparse(mark).endswith(".setter") for mark in methods[0].decorator_list):
            yield from function(methods, 3)


def entry(module: str, name: str) -> Iterator[str]:
    """What the page says about one public name."""
    where, nodes = definition(module, name)
    if not nodes:
        yield f"## `{name}`"
        yield f"The module `{module}.{name}`."
        return
    first = nodes[0]
    if isinstance(first, ast.ClassDef):
        yield from class_(first)
    elif isinstance(first, Function):
        yield from function([node for node in nodes if isinstance(node, Function)], 2)
    else:
        yield f"## `{name}`"
        yield code(ast.unparse(first))
        yield from filter(None, [said_below(where, first)])


def said_below(module: str, node: ast.stmt) -> str:
    """The string that stands right below an assignment, which is how a value is documented."""
    body = parsed(module).body
    after = body[body.index(node) + 1 : body.index(node) + 2]
    for candidate in after:
        if isinstance(candidate, ast.Expr) and isinstance(candidate.value, ast.Constant) and isinstance(candidate.value.value, str):
            return inspect.cleandoc(candidate.value.value)
    return ""


def page(title: str, modules: list[str]) -> str:
    """One page: every public name of some modules; with several of them each is a part with a heading of its own."""
    parts = len(modules) > 1
    blocks = [NOTE, f"# {title}"]
    for module in modules:
        blocks += filter(None, [f"## `{module}`" if parts else "", doc(parsed(module))])
        for name in exported(module):
            blocks += (f"#{block}" if parts and block.startswith("##") else block for block in entry(module, name))
    return "\n\n".join(blocks) + "\n"


def pages() -> dict[Path, str]:
    """Every page of docs/reference with its text."""
    ports = sorted(f"agentkit.ports.{path.stem}" for path in (SOURCE / "agentkit/ports").glob("*.py") if path.stem != "__init__")
    folder = ROOT / "docs/reference"
    return {
        folder / "agentkit.md": page("agentkit", ["agentkit"]),
        folder / "testing.md": page("agentkit.testing", ["agentkit.testing"]),
        folder / "ports.md": page("The ports", ports),
    }


def stale() -> list[Path]:
    """Pages that do not say what the docstrings say."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        for path in (found := stale()):
            print(f"{path.relative_to(ROOT)} is stale: run make docs")
        return 1 if found else 0
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
