"""Models and the servers behind them, from a TOML file: endpoints, what each model is served by, its price and its policy.

All faults of a file are told at once. Keys of servers are never in it: it says in which variable or file they are.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agentkit import plugins
from agentkit.clock import SYSTEM, Clock
from agentkit.errors import AgentKitError, InvalidSetting, nearest
from agentkit.inference.places import Model, Place
from agentkit.inference.pricing import Price
from agentkit.ports.inference import Endpoint, Inference
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.policy import Policy
from agentkit.resilience.rate_limit import RateLimit
from agentkit.resilience.retry import Retry
from agentkit.resilience.semaphore import Semaphore

Strict = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class KeyAt(BaseModel):
    """Where a server's key is: an environment variable, or a file."""

    model_config = Strict

    env: str = ""
    file: str = ""

    def read(self) -> str:
        """The key. Raises ValueError when it is not there."""
        if bool(self.env) == bool(self.file):
            raise ValueError("say either env or file")
        if self.env:
            if not os.environ.get(self.env):
                raise ValueError(f"the variable {self.env} is not set")
            return os.environ[self.env]
        try:
            return Path(self.file).read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise ValueError(f"{self.file} cannot be read: {exc.strerror}") from exc


class EndpointSettings(BaseModel):
    """A server: one engine with its connections, one circuit, one limit."""

    model_config = Strict

    url: str
    dialect: str = ""
    api_key: KeyAt | None = None
    max_concurrency: int = Field(default=32, ge=1)  # what one GPU server answers well; its connections are as many

    @field_validator("api_key", mode="before")
    @classmethod
    def _no_literal(cls, given: object) -> object:
        if isinstance(given, str):
            raise ValueError('a key does not belong in this file: write { env = "NAME" } or { file = "path" }')
        return given


class PlaceSettings(BaseModel):
    """Where a model is served, and how many of its calls go there."""

    model_config = Strict

    endpoint: str
    model: str = ""
    weight: float = Field(default=1.0, gt=0)


class PolicySettings(BaseModel):
    """What bounds the calls of a model."""

    model_config = Strict

    timeout_s: float | None = Field(default=None, gt=0)
    attempts: int = Field(default=1, ge=1)
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)

    def made(self, name: str) -> Policy:
        rates = [RateLimit(name, rpm=self.rpm, tpm=self.tpm)] if self.rpm or self.tpm else []
        retry = Retry(attempts=self.attempts) if self.attempts > 1 else None
        return Policy(name, timeout_s=self.timeout_s, retry=retry, limits=rates)


class ModelSettings(BaseModel):
    """What a name stands for."""

    model_config = Strict

    on: Annotated[list[PlaceSettings], Field(min_length=1)]
    strategy: Literal["weighted"] = "weighted"
    fallback: list[str] = Field(default_factory=list[str])
    price: Price | list[Price] | None = None
    policy: PolicySettings = Field(default_factory=PolicySettings)


class File(BaseModel):
    """The whole file."""

    model_config = Strict

    endpoints: dict[str, EndpointSettings]
    models: dict[str, ModelSettings]


def read(path: str | os.PathLike[str], clock: Clock = SYSTEM) -> dict[str, Model]:
    """The models of a file; their engines are made and not yet opened. Raises `InvalidSetting` with all faults."""
    shown = os.fspath(path)
    try:
        with Path(path).open("rb") as opened:
            given = tomllib.load(opened)
        file = File.model_validate(given)
    except OSError as exc:
        raise InvalidSetting("models", shown, f"cannot be read: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise InvalidSetting("models", shown, f"is no TOML: {exc}") from exc
    except ValidationError as exc:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in exc.errors(include_url=False)]
        raise InvalidSetting("models", shown, _listed(faults)) from exc
    faults = _dangling(file)
    engines: dict[str, tuple[Inference, Policy]] = {}
    for name, endpoint in file.endpoints.items():
        try:
            engines[name] = _engine(name, endpoint, clock), _policy(name, endpoint)
        except (AgentKitError, ValueError) as exc:
            faults.append(f"endpoints.{name}: {exc}")
    if faults:
        raise InvalidSetting("models", shown, _listed(faults))
    return {name: _model(name, model, engines) for name, model in file.models.items()}


def _listed(faults: list[str]) -> str:
    return faults[0] if len(faults) == 1 else "\n- ".join([f"has {len(faults)} faults:", *faults])


def _dangling(file: File) -> list[str]:
    """Names that lead nowhere."""
    placed = [(name, place.endpoint) for name, model in file.models.items() for place in model.on]
    fallbacks = [(name, other) for name, model in file.models.items() for other in model.fallback]
    return [
        *(f"models.{name}.on: no endpoint {one!r}{nearest(one, file.endpoints)}" for name, one in placed if one not in file.endpoints),
        *(f"models.{name}.fallback: no model {one!r}{nearest(one, file.models)}" for name, one in fallbacks if one not in file.models),
    ]


def _engine(name: str, settings: EndpointSettings, clock: Clock) -> Inference:
    key = "" if settings.api_key is None else settings.api_key.read()
    endpoint = Endpoint(name, settings.url, settings.dialect, key, settings.max_concurrency)
    made: Inference = plugins.open_endpoint(endpoint, clock)
    return made


def _policy(name: str, settings: EndpointSettings) -> Policy:
    """An endpoint's own: nothing waits in a line longer than its connections are many, and a dead one is left alone."""
    named = f"endpoint {name}"
    return Policy(named, breaker=CircuitBreaker(), limits=[Semaphore(named, settings.max_concurrency)])


def _model(name: str, settings: ModelSettings, engines: Mapping[str, tuple[Inference, Policy]]) -> Model:
    places = [
        Place(engine=engine, model=place.model, weight=place.weight, policy=policy)
        for place in settings.on
        for engine, policy in [engines[place.endpoint]]
    ]
    return Model(*places, policy=settings.policy.made(f"model {name}"), price=settings.price, fallback=settings.fallback)
