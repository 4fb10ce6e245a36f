"""`agentkit adapters`: which ports are served by which URL schemes here, without importing any of them."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from typing import NamedTuple

import click

from agentkit.cli.style import Out, example, table

PORTS = ("runs", "queue", "values", "limits", "inference", "scaling")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['\"]([^'\"]+)['\"]")


class Adapter(NamedTuple):
    """One scheme of one port. `missing`: drivers of the extra of that name which are not installed."""

    port: str
    scheme: str
    target: str
    distribution: str
    missing: tuple[str, ...] = ()
    importable: bool = True

    @property
    def installed(self) -> bool:
        return self.importable and not self.missing


def drivers_of(requirements: list[str], extra: str) -> list[str]:
    """Names of the distributions that an extra asks for."""
    found = [match.groups() for line in requirements if (match := _REQUIREMENT.match(line))]
    return [name for name, of in found if of == extra]


def is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def adapter_of(port: str, entry: EntryPoint) -> Adapter:
    """What an entry point says; its package is looked for, not imported."""
    package = entry.module.partition(".")[0]
    extras = {entry.name, package.removeprefix("agentkit_")}
    asked = [name for extra in extras for name in drivers_of((entry.dist.requires or []) if entry.dist else [], extra)]
    missing = tuple(sorted({name for name in asked if not is_installed(name)}))
    says = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    return Adapter(port, entry.name, entry.value, says, missing, find_spec(package) is not None)


def found_adapters() -> list[Adapter]:
    found = [adapter_of(port, entry) for port in PORTS for entry in entry_points(group=f"agentkit.{port}")]
    return sorted(found, key=lambda adapter: (PORTS.index(adapter.port), adapter.scheme))


def state_of(adapter: Adapter) -> str:
    if adapter.missing:
        return f"needs {', '.join(adapter.missing)}: pip install 'agentkit-async[{adapter.scheme}]'"
    return "installed" if adapter.importable else "its package is gone: install it again"


@click.command("adapters", short_help="Which ports are served by which URL schemes here.")
@click.option("--json", "as_json", is_flag=True, help="JSON for machines")
@example("agentkit adapters --json")
def command(as_json: bool) -> None:
    """List the adapters that are installed, by port and URL scheme, with the package each comes from."""
    adapters = found_adapters()
    out = Out(as_json=as_json)
    out.data([{**adapter._asdict(), "installed": adapter.installed} for adapter in adapters])
    rows = [(a.port, f"{a.scheme}://", state_of(a), a.distribution, a.target) for a in adapters]
    out.show(table(("PORT", "URL", "STATE", "FROM", "OPENED BY"), rows))
