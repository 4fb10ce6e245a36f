"""Adapters as the command line lists them: by entry point, nothing imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from agentkit.cli.adapters import Adapter, drivers_of, found_adapters, state_of
from agentkit.cli.app import root


def test_each_scheme_of_each_port_is_listed_with_where_it_comes_from() -> None:
    found = {(a.port, a.scheme): a for a in found_adapters()}
    for port in ("runs", "queue", "values", "limits"):
        for scheme in ("memory", "sqlite"):
            assert found[port, scheme].installed
            assert found[port, scheme].distribution.startswith("agentkit-async ")


@pytest.mark.parametrize(
    ("line", "drivers"),
    [
        ('redis>=5; extra == "redis"', ["redis"]),
        ("asyncpg (>=0.29) ; extra == 'redis'", ["asyncpg"]),
        ('agentkit-async[cli]; extra == "dev"', []),
        ('uvloop>=0.21; sys_platform != "win32" and extra == "redis"', ["uvloop"]),
        ("anyio>=4", []),
    ],
)
def test_the_drivers_of_an_extra_are_read_from_the_package_itself(line: str, drivers: list[str]) -> None:
    assert drivers_of([line], "redis") == drivers


def test_a_missing_driver_is_said_with_the_way_to_get_it() -> None:
    adapter = Adapter("queue", "redis", "agentkit_redis.queue:from_url", "agentkit-async 0.1.0", ("redis",))
    assert not adapter.installed
    assert state_of(adapter) == "needs redis: pip install 'agentkit-async[redis]'"
    assert state_of(adapter._replace(missing=(), importable=False)).startswith("its package is gone")


def test_the_list_is_json_for_machines() -> None:
    done = CliRunner().invoke(root, ["adapters", "--json"])
    assert done.exit_code == 0
    listed = json.loads(done.output)
    assert set(listed[0]) == {"port", "scheme", "target", "distribution", "missing", "importable", "installed"}


def test_listing_adapters_imports_none_of_them() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from agentkit.cli.app import root; CliRunner().invoke(root, ['adapters']);"
        "print([name for name in sys.modules if name.startswith(('agentkit_', 'agentkit.inmemory', 'sqlalchemy', 'sqlite3'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
