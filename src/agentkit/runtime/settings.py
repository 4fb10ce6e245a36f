"""Settings of a runtime: argument, else environment, else default; each default has its reason."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from agentkit.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "AGENTKIT_"


class Settings(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """All of them. `AGENTKIT_<NAME>` sets one; an unknown `AGENTKIT_*` fails, for a typo must not pass silently."""

    state: str = "memory://"  # the first run of a newcomer needs no file and no server
    queue: str | None = None  # None: the same URL as state
    values: str | None = None
    limits: str | None = None
    models: str | None = None  # path of a TOML file; None: models, if any, are given as objects
    agents: str = ""  # "app.agents,app.more:Review": for `agentkit worker` without an app object
    worker: str = ""  # "1" or "all": work here too; "review@4,embed": only these
    concurrency: int = Field(default=64, ge=1, le=100_000)  # runs at a time; agents mostly wait, so more than cores
    threads: int = Field(default=40, ge=1, le=10_000)  # sync steps at a time: they wait for files and servers more than they compute
    max_waiting: int = Field(default=1024, ge=0)  # beyond it the caller had better hear "no" than wait minutes
    lease_s: float = Field(default=10.0, gt=0, le=3600)  # a busy SQLite file delays a beat by seconds (measured 1.2 s)
    grace_s: float = Field(default=20.0, ge=0)  # under the 30 s that Kubernetes gives before it kills
    max_deliveries: int = Field(default=5, ge=1)  # deliveries without an answer before a ticket is buried
    max_crashes: int = Field(default=3, ge=1)  # one is chance, two are suspect (then it runs alone), three are the run's own
    stall_warn_s: float = Field(default=0.5, gt=0)  # every run of the process waits so long
    stall_limit_s: float = Field(default=60.0, gt=0)  # a loop that hangs longer does not come back: let others have its runs
    log: str = ""  # "json", "text", "debug", "json,debug": only `agentkit worker` configures logging; an app has its own


def from_env(environ: Mapping[str, str] | None = None, **given: object) -> Settings:
    """Settings from `AGENTKIT_*` and what is given (None: not given). Raises `InvalidSetting` with the variable's name."""
    environ = os.environ if environ is None else environ
    known = Settings.model_fields
    found: dict[str, object] = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            if name not in known:
                variables = [PREFIX + field.upper() for field in known]
                raise InvalidSetting(variable, value, f"no such setting{nearest(variable, variables)}")
            found[name] = value
    return checked({**found, **{k: v for k, v in given.items() if v is not None}}, from_environment=found)


def checked(values: Mapping[str, object], *, from_environment: Mapping[str, object] | None = None) -> Settings:
    """Validated settings. Raises `InvalidSetting` naming the first wrong one."""
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        fault = exc.errors(include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        shown = PREFIX + name.upper() if from_environment and name in from_environment else name
        raise InvalidSetting(shown, fault["input"], fault["msg"]) from exc
