"""The way to a cluster: each call goes to the server that has the slot of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from agentkit_redis.driver import ClusterNode, RedisCluster
from agentkit_redis.driver import exceptions as driver
from agentkit_redis.lines import Call, Lines, ask, command, exchange, load_scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentkit_redis.settings import RedisSettings

REDIRECTIONS = 5  # of a call, while slots move


class Cluster:
    """The servers of a cluster. The driver keeps the map of slots, the connections are ours."""

    clustered = True

    def __init__(self, settings: RedisSettings, kinds: Mapping[str, Any]) -> None:
        nodes = [ClusterNode(host, port) for host, port in settings.addresses]
        self._map = RedisCluster(startup_nodes=nodes, ssl=settings.tls, **kinds)
        self._lines: dict[str, Lines] = {}
        self._outdated = True

    async def lines(self, key: str) -> Lines:
        """The connections to the server of a key."""
        await self._know_map()
        return self._to(self._map.get_node_from_key(key), key)

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        """The answers; an error of a server stands in its place. What was sent to the wrong server is sent to the right one."""
        await self._know_map()
        answers: list[Any] = [None] * len(calls)
        left = list(range(len(calls)))
        for _ in range(REDIRECTIONS):
            for i, answer in zip(left, await self._ask([calls[i] for i in left]), strict=True):
                answers[i] = answer
            left = [i for i in left if isinstance(answers[i], driver.MovedError)]
            if not left:
                break
            for i in left:
                if answers[i].host:  # who says so knows better than the one a whole map would be read from: news take a while to all
                    await self._map.nodes_manager.move_slot(answers[i])
                else:  # "where you asked me", says a server that does not know its own name
                    self._outdated = True
            await self._know_map()
        for i, answer in enumerate(answers):
            if isinstance(answer, driver.AskError):
                answers[i] = await self._ask_there(answer, calls[i])
        return answers

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        """Each server is asked at the same time as the others."""
        by_server: dict[str, list[int]] = {}
        servers: dict[str, ClusterNode | None] = {}
        for i, call in enumerate(calls):
            node = self._map.get_node_from_key(call.key)
            name = "" if node is None else node.name
            servers[name] = node
            by_server.setdefault(name, []).append(i)
        answers: list[Any] = [None] * len(calls)
        failed: list[Exception] = []

        async def ask_one(name: str, mine: Sequence[int]) -> None:
            try:
                found = await ask(self._to(servers[name], name), [calls[i] for i in mine])
            except Exception as exc:  # noqa: BLE001  raised below, when all are back
                failed.append(exc)
                return
            for i, answer in zip(mine, found, strict=True):
                answers[i] = answer

        async with anyio.create_task_group() as group:
            for name, mine in by_server.items():
                group.start_soon(ask_one, name, mine)
        if failed:
            self._outdated = True
            raise failed[0]
        return answers

    async def _ask_there(self, asked: Any, call: Call) -> Any:
        """The slot is on its way to another server, which has this key already."""
        known = self._map.get_node(host=asked.host, port=asked.port)  # a server without slots so far is on no map
        node = known or ClusterNode(asked.host, asked.port, **self._map.nodes_manager.connection_kwargs)
        async with self._to(node, call.key).lend() as line:
            _, answer = await exchange(line, [command("ASKING"), call])
            if isinstance(answer, driver.NoScriptError):
                await load_scripts(line)
                _, answer = await exchange(line, [command("ASKING"), call])
            return answer

    def _to(self, node: ClusterNode | None, key: str) -> Lines:
        if node is None:
            raise driver.ClusterDownError(f"CLUSTERDOWN no server for {key}")
        return self._lines.setdefault(node.name, Lines(lambda: node.connection_class(**node.connection_kwargs)))

    async def _know_map(self) -> None:
        if self._outdated:
            await self._map.aclose()
            await self._map.initialize()
            self._outdated = False

    async def everywhere(self, calls: Sequence[Call]) -> dict[str, list[Any]]:
        """The answers of each server that owns slots."""
        await self._know_map()
        return {node.name: await ask(self._to(node, node.name), calls) for node in self._map.get_primaries()}

    async def open(self) -> None:
        """Read the map of slots, and load the scripts on every server."""
        await self._know_map()
        for node in self._map.get_primaries():
            async with self._to(node, node.name).lend() as line:
                await load_scripts(line)

    async def aclose(self) -> None:
        for lines in self._lines.values():
            await lines.aclose()
        await self._map.aclose()
