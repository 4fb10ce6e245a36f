#!/usr/bin/env python3
"""The house's limits on the shape of the code: prints every breach and exits 1 if there is one.

Files of at most 500 lines, functions of at most 60 (docstring left out), no import cycle between modules, no first-party import inside
a function, no word that marks unfinished work, no test that is skipped or expected to fail.
"""

from __future__ import annotations

import ast
import graphlib
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PRODUCT = ("src", "adapters")
AROUND = ("tests", "examples", "benchmarks", "scripts", "deploy")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60
# Written with classes of one character, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K]|NotImplemente[d]Error)\b")
EVADED = re.compile(r"pytest\.mark\.(ski[p]|skipi[f]|xfai[l])\b|pytest\.(ski[p]|xfai[l]|importorski[p])\(")
# A conformance suite reports a law that an adapter declares it does not offer as skipped: there a skip is the report itself.
MAY_SKIP = Path("src/agentkit/testing")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """The import name of a file below a source root: src/agentkit/ports/runs.py is agentkit.ports.runs."""
    parts = path.with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def function_lines(node: Function) -> int:
    """Lines of a function without its docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: no function bodies, nothing for type checkers alone."""
    queue: list[ast.AST] = [tree]
    for node in queue:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            queue += node.orelse
        elif not isinstance(node, Function | ast.Lambda):
            yield node
            queue += ast.iter_child_nodes(node)


def named(node: ast.AST) -> Iterator[str]:
    """Names that an import statement may load: for `from a import b` both a.b and a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield node.module


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """Known modules that this one needs when it is imported: of `from a import b` the module a.b, or a where b is a name in it."""
    return {name for node in at_import(tree) for name in _needed(node, known)}


def _needed(node: ast.AST, known: set[str]) -> set[str]:
    names = [name for name in named(node) if name in known]
    deeper = {name for name in names if not isinstance(node, ast.ImportFrom) or name != node.module}
    return deeper or set(names)


def in_file(path: Path, tree: ast.Module, text: str) -> Iterator[str]:
    """Breaches that one file shows by itself."""
    if (lines := text.count("\n")) > MAX_FILE_LINES:
        yield f"{path}: {lines} lines, at most {MAX_FILE_LINES}"
    for node in functions(tree):
        if (lines := function_lines(node)) > MAX_FUNCTION_LINES:
            yield f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
    for number, line in enumerate(text.splitlines(), 1):
        if UNFINISHED.search(line) or (EVADED.search(line) and not path.is_relative_to(MAY_SKIP)):
            yield f"{path}:{number}: unfinished or evaded: {line.strip()[:100]}"


def late_imports(path: Path, tree: ast.Module, tops: set[str]) -> Iterator[str]:
    """First-party imports inside a function: they hide a wrong order of the rooms."""
    for function in functions(tree):
        for node in ast.walk(function):
            if any(name.split(".")[0] in tops for name in named(node)):
                yield f"{path}:{node.lineno}: first-party import inside {function.name}"  # type: ignore[attr-defined]


def breaches(root: Path) -> Iterator[str]:
    """Every breach below a repository's root, one sentence each."""
    product = {path.relative_to(root): path.read_text() for top in PRODUCT for path in sorted((root / top).rglob("*.py"))}
    around = {path.relative_to(root): path.read_text() for top in AROUND for path in sorted((root / top).rglob("*.py"))}
    trees = {path: ast.parse(text, str(path)) for path, text in (product | around).items()}
    known = {module_name(path): path for path in product}
    for path, text in (product | around).items():
        yield from in_file(path, trees[path], text)
    for path in product:
        yield from late_imports(path, trees[path], {name.split(".")[0] for name in known})
    graph = {name: imports(trees[path], set(known)) - {name} for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        yield "import cycle: " + " <- ".join(exc.args[1])


def summary(root: Path) -> str:
    """The shape of the product in one line."""
    texts = [path.read_text() for top in PRODUCT for path in (root / top).rglob("*.py")]
    lengths = sorted(function_lines(node) for text in texts for node in functions(ast.parse(text))) or [0]
    return (
        f"{len(texts)} modules, {sum(text.count(chr(10)) for text in texts)} lines; functions: median {statistics.median(lengths):.0f}, "
        f"p90 {lengths[int(len(lengths) * 0.9)]}, longest {lengths[-1]}"
    )


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    found = list(breaches(root))
    print("\n".join([*found, summary(root)]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
