"""Redis for tests: one server, with TLS, a primary with replica and Sentinels, a cluster of three."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from tests.servers.process import STOP_S, Server, certify, free_port, private

SLOTS = 16_384


class Redis(Server):
    """A Redis server that keeps nothing unless told to: options are those of redis.conf, with `_` for `-`."""

    program = "redis-server"

    def __init__(self, *, tls: str | int = False, **options: str | int) -> None:
        super().__init__()
        self._options = {"save": "", "appendonly": "no", "port": self.port, **options}
        self.certificate: Path | None = None
        if tls:
            self.certificate, key = certify(self.folder)
            self._options |= {"port": 0, "tls-port": self.port, "tls-auth-clients": "no"}
            self._options |= {"tls-cert-file": str(self.certificate), "tls-key-file": str(key), "tls-ca-cert-file": str(self.certificate)}

    @property
    def url(self) -> str:
        return f"redis{'s' if self.certificate else ''}://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        fixed = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--set-proc-title", "no"]  # the folder stays in the list of processes
        return [
            self.executable,
            *fixed,
            *(word for name, value in self._options.items() for word in (f"--{name.replace('_', '-')}", str(value))),
        ]

    def answers(self) -> bool:
        return self.ask("PING") == "+PONG"

    def ask(self, command: str) -> str:
        """The first line of the answer to a command without awkward characters. Blocks."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=STOP_S) as plain:
            context = ssl.create_default_context(cafile=self.certificate)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") if self.certificate else plain as connection:
                connection.sendall(f"{command}\r\n".encode())
                with connection.makefile("rb") as answer:
                    first = answer.readline().decode().strip()
                    return answer.read(int(first[1:])).decode() if first.startswith("$") and first != "$-1" else first


class Sentinel(Redis):
    """A Sentinel that watches `primary` under the name `main`."""

    def __init__(self, primary: Redis, *, down_after_ms: int = 500) -> None:
        super().__init__()
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "set-proc-title no"]
        lines += [f"sentinel monitor main 127.0.0.1 {primary.port} 1"]
        lines += [f"sentinel down-after-milliseconds main {down_after_ms}", "sentinel failover-timeout main 3000"]
        self._file = self.folder / "sentinel.conf"
        self._file.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [self.executable, str(self._file), "--sentinel"]

    def answers(self) -> bool:
        periods = {"PING-PERIOD": 100, "ASK-PERIOD": 100, "INFO-PERIOD": 200, "PUBLISH-PERIOD": 200}  # seconds by default
        return self.ask("SENTINEL DEBUG " + " ".join(f"{name} {ms}" for name, ms in periods.items())) == "+OK"


@dataclass(frozen=True)
class Watched:
    """A primary and its replica, watched by a Sentinel that knows the primary as `main`."""

    primary: Redis
    replica: Redis
    sentinel: Sentinel


@asynccontextmanager
async def watched_redis(**options: str | int) -> AsyncGenerator[Watched]:
    """A primary and its replica, ready to fail over. One Sentinel decides alone: several can take many seconds to agree."""
    async with private(Redis, **options) as primary, private(Redis, replicaof=f"127.0.0.1 {primary.port}", **options) as replica:
        await told(replica, "INFO replication", "master_link_status:up")
        async with private(Sentinel, primary) as sentinel:
            await told(sentinel, "INFO sentinel", "slaves=1,sentinels=1")
            yield Watched(primary, replica, sentinel)


@asynccontextmanager
async def redis_cluster(**options: str | int) -> AsyncGenerator[list[Redis]]:
    """Three primaries that share the slots; with any of their URLs a client finds the others."""
    enabled: dict[str, str | int] = {"cluster_enabled": "yes", "cluster_node_timeout": 2000, **options}
    buses = [free_port() for _ in range(3)]
    async with (
        private(Redis, cluster_port=buses[0], **enabled) as one,
        private(Redis, cluster_port=buses[1], **enabled) as two,
        private(Redis, cluster_port=buses[2], **enabled) as three,
    ):
        nodes = [one, two, three]
        for number, node in enumerate(nodes):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            await anyio.to_thread.run_sync(node.ask, f"CLUSTER ADDSLOTSRANGE {first} {last}")
            if number:
                await anyio.to_thread.run_sync(node.ask, f"CLUSTER MEET 127.0.0.1 {one.port} {buses[0]}")
        for node in nodes:
            await told(node, "CLUSTER INFO", "cluster_state:ok")
            await told(node, "CLUSTER INFO", "cluster_known_nodes:3")
        yield nodes


async def told(server: Redis, command: str, words: str) -> None:
    """Wait until a server answers with these words."""
    with anyio.fail_after(STOP_S):
        while words not in await anyio.to_thread.run_sync(server.ask, command):  # noqa: ASYNC110  it is another process
            await anyio.sleep(0.05)
