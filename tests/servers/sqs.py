"""A server that speaks SQS over HTTP, for tests: it keeps all in memory, and forgets it when it ends."""

from __future__ import annotations

import sys
import urllib.request

from tests.servers.process import Server

REGION = "eu-central-1"


class Sqs(Server):
    """One server, all of whose queues are the test's."""

    program = "python"

    def __init__(self) -> None:
        super().__init__()
        self.executable = sys.executable

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def queue_url(self, prefix: str = "agents", *options: str) -> str:
        """The URL of an agentkit queue on it."""
        return "&".join([f"sqs://{REGION}/{prefix}?endpoint_url={self.url}", *options])

    def command(self) -> list[str]:
        serve = "import sys; from moto.server import main; main(sys.argv[1:3])"
        # The folder goes along for whoever looks for the servers of a killed process.
        return [self.executable, "-c", serve, "-H127.0.0.1", f"-p{self.port}", str(self.folder)]

    def answers(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5) as answer:
            return bool(answer.status == 200)

    def reset(self) -> None:
        """Forget all queues. Blocks."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=5):
            pass
