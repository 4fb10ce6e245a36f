"""Which agents this process knows, by name and version."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agentkit.agents.base import Agent, AnyAgent, input_codec, output_codec, served_by
from agentkit.errors import InvalidSetting, UnknownAgent

if TYPE_CHECKING:
    from collections.abc import Iterable


class Registry:
    """Agents by name and version. Two classes of one name and two versions are both served."""

    def __init__(self, given: Iterable[AnyAgent | ModuleType | str]) -> None:
        self._agents: dict[tuple[str, str], AnyAgent] = {}
        for one in given:
            for agent in _classes(one):
                self.add(agent)

    def add(self, agent: AnyAgent) -> None:
        """Enter a class, and those that it reaches: its `specialists`, `agents` and `handoffs`.

        Raises `InvalidSetting` when another class has its name and version, TypeError when it is still generic.
        """
        for codec_of_agent in (input_codec, output_codec):
            codec_of_agent(agent)
        for version in (agent.version, *agent.continues):
            before = self._agents.get((agent.name, version))
            if before is not None and before is not agent and before.version == version == agent.version:
                raise InvalidSetting("agents", served_by(agent), f"both {_path(before)} and {_path(agent)} have this name and version")
            if before is None or version == agent.version:
                self._agents[agent.name, version] = agent
        for reached in _reached(agent):
            if not self.knows(reached):
                self.add(reached)

    def find(self, name: str, version: str | None = None) -> AnyAgent:
        """The class that runs `name@version`; without a version the one added last. Raises `UnknownAgent`."""
        if version is not None:
            found = self._agents.get((name, version))
        else:
            found = next((a for (n, _), a in reversed(self._agents.items()) if n == name), None)
        if found is None:
            raise UnknownAgent(name if version is None else f"{name}@{version}", self.kinds())
        return found

    def knows(self, agent: AnyAgent) -> bool:
        return self._agents.get((agent.name, agent.version)) is agent

    def kinds(self) -> list[str]:
        """What is served, as `name@version`."""
        return sorted(f"{name}@{version}" for name, version in self._agents)

    def serves(self, only: Iterable[str] = ()) -> dict[str, frozenset[str]]:
        """Name -> versions, of all or of those in `only` (`review@4`, or `embed` for all its versions). Raises `UnknownAgent`."""
        wanted = set(only)
        known = {name for name, _ in self._agents} | set(self.kinds())
        for one in wanted - known:
            raise UnknownAgent(one, known)
        out: dict[str, frozenset[str]] = {}
        for name, version in self._agents:
            if not wanted or name in wanted or f"{name}@{version}" in wanted:
                out[name] = out.get(name, frozenset()) | {version}
        return out


def _classes(given: AnyAgent | ModuleType | str) -> list[AnyAgent]:
    if isinstance(given, str):
        return _classes(load(given))
    if isinstance(given, ModuleType):
        return [a for a in vars(given).values() if _is_agent(a) and a.__module__ == given.__name__]
    if not _is_agent(given):
        raise InvalidSetting("agents", given, "give Agent subclasses (not instances), modules, or strings like 'app.agents:Review'")
    return [given]


def _reached(agent: AnyAgent) -> list[AnyAgent]:
    """The classes that an agent's own attributes name, by which it runs children or hands over."""
    return [one for name in ("specialists", "agents", "handoffs") for one in getattr(agent, name, ()) if _is_agent(one)]


def _is_agent(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, Agent) and given is not Agent


def load(path: str) -> Any:
    """`app.agents` -> the module, `app.agents:Review` -> what it names there. Raises `InvalidSetting`."""
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split(".") if name else ():
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as exc:
        raise InvalidSetting("agents", path, f"cannot be imported: {exc}") from exc
    return found


def _path(agent: AnyAgent) -> str:
    return f"{agent.__module__}.{agent.__qualname__}"
