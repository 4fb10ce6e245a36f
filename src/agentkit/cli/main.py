"""The entry point `agentkit`. It loads the rest only after it knows that the rest can be loaded."""

from __future__ import annotations

import sys
from importlib import import_module

EXTRA = {"click", "rich"}


def main() -> None:
    """Run the command line. Without the extra `cli` it says in one sentence how to get it."""
    try:
        app = import_module("agentkit.cli.app")
    except ModuleNotFoundError as exc:
        if exc.name not in EXTRA:
            raise
        sys.stderr.write(f"agentkit: the command line needs {exc.name}; install it with: pip install 'agentkit-async[cli]'\n")
        sys.exit(2)
    app.root(prog_name="agentkit")
