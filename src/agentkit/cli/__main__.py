"""`python -m agentkit.cli`: the command line of this very interpreter."""

from __future__ import annotations

from agentkit.cli.main import main

if __name__ == "__main__":
    main()
