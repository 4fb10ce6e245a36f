"""What an import costs, told by the modules it loads: a clock would tell another story on every machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = {"sqlalchemy", "sqlite3", "agentkit_sql"}
CLIENTS = {"aiohttp", "h11", "httpcore", "httpx", "requests", "urllib3"}
HEAVY = {"IPython", "click", "hypothesis", "opentelemetry.sdk", "pytest", "rich", "starlette", "trio", "uvloop"}
# What the core stands on; the modules these load are not ours to count.
GROUND = """
import asyncio, importlib.metadata, logging, uuid
import anyio.abc, anyio.from_thread, anyio.to_thread, tenacity, typing_extensions
import pydantic; pydantic.BaseModel, pydantic.TypeAdapter
from opentelemetry import context, metrics, propagate, trace
"""
HELP = """
import sys
sys.argv = ["agentkit", "--help"]
from agentkit.cli.main import main
try:
    main()
except SystemExit:
    pass
"""
OTHERS_OF_THE_STANDARD_LIBRARY = 40


def loaded_by(statement: str) -> set[str]:
    """Names in sys.modules after a statement in a fresh interpreter."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_agentkit_loads_no_driver() -> None:
    assert loaded_by("import agentkit") & DRIVERS == set()


def test_importing_agentkit_loads_no_http_client() -> None:
    assert loaded_by("import agentkit") & CLIENTS == set()


def test_importing_agentkit_loads_nothing_that_only_some_users_need() -> None:
    assert loaded_by("import agentkit") & HEAVY == set()


def test_importing_agentkit_does_not_import_its_testing_half() -> None:
    assert not {name for name in loaded_by("import agentkit") if name.startswith("agentkit.testing")}


def test_importing_agentkit_loads_little_beside_what_it_stands_on() -> None:
    more = loaded_by("import agentkit") - loaded_by(GROUND)

    foreign = {name for name in more if name.split(".")[0] != "agentkit"}
    assert len(foreign) <= OTHERS_OF_THE_STANDARD_LIBRARY, sorted(foreign)


def test_importing_one_adapter_loads_its_own_driver_and_no_http_client() -> None:
    loaded = loaded_by("import agentkit_sql.runs")

    assert "sqlalchemy" in loaded
    assert loaded & CLIENTS == set()


def test_the_help_of_the_command_line_imports_no_adapter_and_no_driver() -> None:
    loaded = loaded_by(HELP)

    assert loaded & DRIVERS == set()
    assert not {name for name in loaded if name.startswith("agentkit.inmemory")}
