"""The root of the tree, and what is wrong with the code, the settings or the input: nothing was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agentkit.later import Later

if TYPE_CHECKING:
    import difflib
    from collections.abc import Iterable
else:
    difflib = Later("difflib")


class AgentKitError(Exception):
    """Any error of agentkit."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class Misuse(AgentKitError):
    """The code breaks a rule of durable execution."""


class NotSerialisable(Misuse):
    """A value cannot go through JSON. Where it was a step's result, the step ran."""

    def __init__(self, what: str, path: str, problem: str) -> None:
        self.what, self.path, self.problem = what, path, problem
        super().__init__(
            f"{what}: {path or 'the value'} does not survive JSON: {problem}. Return plain data or a pydantic model, or give returns="
        )


class UnknownAgent(Misuse):
    """No agent of that name is registered here. Nothing was written."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, sorted(known)
        listed = ", ".join(self.known) or "none"
        super().__init__(f"no agent {name!r} here (registered: {listed}){nearest(name, self.known)}; list it in Runtime(agents=[…])")


class UnknownModel(AgentKitError):
    """Nobody knows the model by that name. Nothing was sent."""

    counts_as_failure: ClassVar[bool] = False

    def __init__(self, name: str, known: Iterable[str], where: str = "") -> None:
        self.name, self.known = name, sorted(known)
        listed = ", ".join(self.known) or "none"
        place = f"{where}: " if where else ""
        super().__init__(f"{place}no model {name!r} (there are: {listed}){nearest(name, self.known)}; name it in Runtime(models=…)")


class UnknownTenant(AgentKitError):
    """The tenants that were given have none of that id. Nothing was written."""

    def __init__(self, id: str, known: Iterable[str]) -> None:
        self.id = id
        super().__init__(f"no tenant {id!r}{nearest(id, known)}; list it in Runtime(tenants=…), or give a function that finds it")


class InvalidInput(AgentKitError):
    """The input of a run does not validate. Nothing was written."""

    def __init__(self, agent: str, problem: str) -> None:
        self.agent, self.problem = agent, problem
        super().__init__(f"input of {agent!r}: {problem}")


class InvalidSetting(AgentKitError):
    """A URL, an environment variable or an option is wrong. Nothing was opened."""

    def __init__(self, name: str, value: object, rule: str) -> None:
        self.name, self.value, self.rule = name, value, rule
        super().__init__(f"{name}={value!r}: {rule}")


class AdapterNotInstalled(InvalidSetting, ImportError):  # type: ignore[misc]  # ImportError.name is the setting's name here
    """An adapter's driver is missing. Nothing was opened."""

    def __init__(self, scheme: str, extra: str) -> None:
        super().__init__("url", f"{scheme}://", f"its driver is missing; install it with: pip install 'agentkit-async[{extra}]'")


class UnknownScheme(InvalidSetting):
    """No adapter serves this URL scheme. Nothing was opened."""

    def __init__(self, port: str, url: str, known: Iterable[str]) -> None:
        scheme, known = url.partition(":")[0], sorted(known)
        super().__init__(port, url, f"no adapter for {scheme!r}; installed: {', '.join(known)}{nearest(scheme, known)}")
