"""Which runtime a command works on: the app's own object, or one made for a state URL."""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import click

from agentkit.cli.style import Out, WrongUse
from agentkit.errors import nearest
from agentkit.runtime.runtime import Runtime
from agentkit.runtime.settings import from_env

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WHICH = "say which store: --state sqlite:///agents.db, --app module:runtime, or set AGENTKIT_STATE"


def load_runtime(spec: str) -> Runtime:
    """The `Runtime` at `module:attribute` (or what a function there returns); modules are looked for in the working directory too."""
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise WrongUse(f"{spec!r} does not name a runtime: write module:attribute, as in app:runtime")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # a module that the app itself misses: its traceback says where
        raise WrongUse(f"no module {module_name!r} in {here} or among the installed packages") from exc
    if not hasattr(module, attribute):
        raise WrongUse(f"module {module_name!r} has no {attribute!r}{nearest(attribute, vars(module))}")
    found: object = getattr(module, attribute)
    if callable(found):
        found = found()
    if not isinstance(found, Runtime):
        raise WrongUse(f"{spec} is a {type(found).__name__}, not a Runtime")
    return found


def state_file(url: str) -> Path | None:
    """The file of a `sqlite:///file` URL; None for other stores."""
    parts = urlsplit(url)
    return Path(parts.path.removeprefix("/")) if parts.scheme == "sqlite" and parts.path.strip("/") else None


def runtime_for(state: str | None, app: str | None) -> Runtime:
    """The runtime that `--app`, `--state` or the environment names. Made here it knows no agents and works on no runs."""
    if app:
        found = load_runtime(app)
        found.configure(worker=False, concurrency=None)  # looking at runs must not start to execute them
        return found
    if not state and "AGENTKIT_STATE" not in os.environ:
        raise WrongUse(WHICH)
    settings = from_env(state=state)
    if urlsplit(settings.state).scheme == "memory":
        raise WrongUse("memory:// lives inside its own process: nothing of it can be seen from here")
    file = state_file(settings.state)
    if file is not None and not file.exists():
        raise WrongUse(f"no file {file}: check the URL {settings.state!r} (three slashes for a relative path, four for an absolute one)")
    return Runtime(settings=settings)


def on_runtime(body: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Turn `async def command(runtime, out, …)` into a command with the options --state, --app and --json."""

    @click.option("--state", metavar="URL", help="The store, e.g. sqlite:///agents.db  [env: AGENTKIT_STATE]")
    @click.option("--app", metavar="MODULE:RUNTIME", help="The app's own Runtime, e.g. app:runtime")
    @click.option("--json", "as_json", is_flag=True, help="JSON for machines")
    @functools.wraps(body)
    def command(state: str | None, app: str | None, as_json: bool, **options: Any) -> None:
        runtime = runtime_for(state, app)

        async def inside() -> None:
            async with runtime:
                await body(runtime, Out(as_json=as_json), **options)

        anyio.run(inside)

    return command
