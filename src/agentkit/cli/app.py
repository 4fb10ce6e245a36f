"""The root command: its groups are imported when they are called, so that `--help` costs nothing."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

import click

from agentkit.cli.style import Failed, WrongUse, sentence
from agentkit.errors import AgentKitError, InvalidSetting


class Lazy(NamedTuple):
    """Where a command is, and what `--help` says of it."""

    module: str
    says: str


COMMANDS = {
    "adapters": Lazy("agentkit.cli.adapters", "Which ports are served by which URL schemes here."),
    "doctor": Lazy("agentkit.cli.doctor", "Look for what is wrong with this machine, these settings, this store."),
    "queue": Lazy("agentkit.cli.queue", "What waits, what died, and putting it back."),
    "runs": Lazy("agentkit.cli.runs", "List, show, follow and steer runs."),
    "verify": Lazy("agentkit.cli.verify", "Replay stored journals against today's code."),
    "worker": Lazy("agentkit.cli.worker", "Execute submitted runs until told to stop."),
}


class Root(click.Group):
    """Loads a command when it is called, and says errors of ours in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name].module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].says) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except InvalidSetting as exc:
            raise WrongUse(str(exc)) from exc
        except AgentKitError as exc:
            raise Failed(str(exc)) from exc
        except BaseExceptionGroup as group:
            if (said := sentence(group)) is None:
                raise
            raise Failed(said) from group
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("agentkit-async"), prog_name="agentkit")
def root() -> None:
    """Durable agents inside your own app: workers, runs, queues.

    Each command takes --json. Which store: --state sqlite:///agents.db, --app module:runtime, or the variable AGENTKIT_STATE.
    """
