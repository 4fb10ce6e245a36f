"""The commands, on a real store: what they print, what they promise to machines, how they fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from agentkit.cli import main as entry
from agentkit.cli.app import COMMANDS, root
from agentkit_sql.schema import NEWEST

APP = """
from datetime import date

from agentkit import Price
from agentkit.inference.places import Model
from agentkit.testing import ScriptedModel
from agentkit.agents.base import Agent, Signal
from agentkit.agents.context import Context
from agentkit.runtime.runtime import Runtime


async def double(n: int) -> int:
    return 2 * n


async def fails() -> None:
    raise ValueError("no luck")


class Clause(Agent[int, int]):
    async def run(self, ctx: Context, input: int, /) -> int:
        return await ctx.step("double", double, input)


class Review(Agent[int, int]):
    version = "3"
    approval = Signal(dict[str, bool])

    async def run(self, ctx: Context, input: int, /) -> int:
        total = await ctx.step("double", double, input)
        total += sum(await ctx.map("clause", Clause, [1, 2, 3]))
        await ctx.wait_for(self.approval)
        return await ctx.step("again", double, total)


class Summary(Agent[str, str]):
    async def run(self, ctx: Context, input: str, /) -> str:
        return (await ctx.generate(input)).output


class Digest(Agent[int, list[str]]):
    async def run(self, ctx: Context, input: int, /) -> list[str]:
        return await ctx.map("summary", Summary, ["How is it?"] * input)


class Broken(Agent[int, None]):
    async def run(self, ctx: Context, input: int, /) -> None:
        await ctx.step("fails", fails)


def make(worker: bool = False) -> Runtime:
    model = Model(ScriptedModel(["It is well."] * 2), price=Price(input=1_000, output=2_000, as_of=date(2026, 1, 1)))
    agents = [Review, Clause, Broken, Digest, Summary]
    return Runtime(state="sqlite:///agents.db", agents=agents, worker=worker, models={"default": model})


runtime = make()
nothing = 17
"""
STATE = ["--state", "sqlite:///agents.db"]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder with an app whose store holds: a queued run, one that waits for approval, a failed one."""
    (tmp_path / "cli_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for variable in [name for name in os.environ if name.startswith("AGENTKIT_")]:
        monkeypatch.delenv(variable)
    module = import_module("cli_app")
    anyio.run(fill, module)
    yield module
    del sys.modules["cli_app"]


async def fill(module: Any) -> None:
    async with module.make(worker=True) as runtime:
        await runtime.submit(module.Review, 4, run_id="contract-17")
        await runtime.submit(module.Broken, 1, run_id="broken-1")
        await (await runtime.submit(module.Digest, 2, run_id="digest-1")).result(timeout_s=30)
        with anyio.fail_after(30):
            while (await runtime.handle("contract-17").info()).waiting_for != "signal:approval":  # noqa: ASYNC110  a store is polled
                await anyio.sleep(0.02)
            while (await runtime.handle("broken-1").info()).status != "failed":  # noqa: ASYNC110
                await anyio.sleep(0.02)
    async with module.make() as runtime:
        await runtime.submit(module.Review, 5, run_id="contract-18", tenant="acme")


def agentkit(*words: str) -> Result:
    return CliRunner().invoke(root, words, catch_exceptions=False)


def data(*words: str) -> Any:
    done = agentkit(*words, *STATE, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_each_command_has_help_with_an_example() -> None:
    assert agentkit("--help").exit_code == 0
    words = [[name] for name in COMMANDS if name not in {"runs", "queue"}]
    words += [["runs", name] for name in ("ls", "show", "tail", "cancel", "signal", "resolve", "fork")]
    words += [["queue", name] for name in ("depth", "dead", "redrive")]
    for command in words:
        done = agentkit(*command, "--help")
        assert done.exit_code == 0
        assert f"Example:\n    agentkit {' '.join(command)}" in done.output


def test_runs_are_listed_and_filtered(app: Any) -> None:
    assert {run["run_id"]: run["status"] for run in data("runs", "ls") if "/" not in run["run_id"]} == {
        "broken-1": "failed", "contract-17": "waiting", "contract-18": "queued", "digest-1": "done",
    }  # fmt: skip
    assert [run["run_id"] for run in data("runs", "ls", "--tenant", "acme")] == ["contract-18"]
    assert [run["run_id"] for run in data("runs", "ls", "--status", "failed", "--status", "waiting")] == ["broken-1", "contract-17"]
    assert [run["run_id"] for run in data("runs", "ls", "--parent", "digest-1")] == ["digest-1/summary#1/0", "digest-1/summary#1/1"]
    assert data("runs", "ls", "--idle", "1h") == []
    assert len(data("runs", "ls", "--agent", "clause", "--limit", "2")) == 2
    printed = agentkit("runs", "ls", "--limit", "1", *STATE).stdout
    assert printed.splitlines()[0].split()[:3] == ["RUN", "AGENT", "STATUS"]
    assert "and more" in printed


def test_a_run_is_shown_with_its_steps_and_children(app: Any) -> None:
    shown = data("runs", "show", "contract-17")
    assert (shown["run"]["waiting_for"], shown["children"]) == ("signal:approval", {"total": 3, "done": 3})
    assert [step["key"] for step in shown["steps"]] == ["double#1", "clause#1"]
    printed = agentkit("runs", "show", "broken-1", *STATE).stdout
    assert "ValueError: no luck" in printed


def test_a_run_is_shown_with_what_it_has_spent_and_what_all_below_it_has(app: Any) -> None:
    parent, child = data("runs", "show", "digest-1"), data("runs", "show", "digest-1/summary#1/0")
    assert child["run"]["usage"] == {"input_tokens": 4, "output_tokens": 3, "usd": 0.01, "cached_input_tokens": 0}
    assert parent["run"]["usage"]["input_tokens"] == 0
    assert parent["usage"] == {"input_tokens": 8, "output_tokens": 6, "usd": 0.02, "cached_input_tokens": 0}
    assert "with children  8 tokens read, 6 written, $0.02" in agentkit("runs", "show", "digest-1", *STATE).stdout
    printed = agentkit("runs", "show", "digest-1/summary#1/0", *STATE).stdout
    assert "4 tokens read, 3 written, $0.01" in printed
    assert "with children" not in printed
    assert "spent" not in agentkit("runs", "show", "broken-1", *STATE).stdout


def test_the_events_of_a_run_come_from_any_offset_on(app: Any) -> None:
    lines = [json.loads(line) for line in agentkit("runs", "tail", "broken-1", *STATE, "--json").stdout.splitlines()]
    assert lines[-1]["status"] == "failed"
    later = agentkit("runs", "tail", "broken-1", "--after", str(lines[-2]["offset"]), *STATE).stdout
    assert [line.split()[2:4] for line in later.splitlines()] == [["status", "failed"]]


def test_a_signal_is_checked_against_what_the_agent_declares(app: Any) -> None:
    of_app = ["--app", "cli_app:runtime"]
    misnamed = agentkit("runs", "signal", "contract-17", "aproval", "{}", *of_app)
    assert (misnamed.exit_code, "did you mean 'approval'?" in misnamed.stderr) == (2, True)
    mistyped = agentkit("runs", "signal", "contract-17", "approval", '{"ok": 17}', "--app", "cli_app:make")
    assert mistyped.exit_code == 2
    assert "approval" in mistyped.stderr
    assert data("runs", "signal", "contract-17", "approval", '{"ok": true}', "--id", "m1")["sent"]
    assert data("runs", "show", "contract-17")["run"]["status"] == "queued"


def test_a_cancel_of_a_run_that_has_not_started_ends_it_and_a_second_one_says_so(app: Any) -> None:
    assert data("runs", "cancel", "contract-18", "--reason", "withdrawn")["accepted"]
    (cancelled,) = data("runs", "ls", "--status", "cancelled")
    assert "withdrawn" in cancelled["error"]
    assert "has ended already: cancelled" in agentkit("runs", "cancel", "contract-18", *STATE).stdout


def test_a_fork_goes_on_from_a_step(app: Any) -> None:
    forked = data("runs", "fork", "broken-1", "--at", "fails", "--id", "broken-2")
    assert forked == {"run_id": "broken-2", "forked_from": "broken-1", "at": "fails"}
    assert data("runs", "show", "broken-2")["run"]["status"] == "queued"


def test_resolve_says_which_steps_are_open_when_none_fits(app: Any) -> None:
    done = agentkit("runs", "resolve", "contract-17", "file", "done", *STATE)
    assert (done.exit_code, "open are: none" in done.stderr) == (1, True)
    assert agentkit("runs", "resolve", "contract-17", "file", "rerun", "--result", "1", *STATE).exit_code == 2


def test_the_queue_is_counted_and_its_dead_letters_are_listed(app: Any) -> None:
    assert data("queue", "depth")["review@3"]["ready"] == 1
    assert "review@3" in agentkit("queue", "depth", *STATE).stdout
    assert data("queue", "dead") == []
    assert agentkit("queue", "dead", *STATE).stdout == "no dead letters\n"


def test_a_redrive_must_say_what(app: Any) -> None:
    assert agentkit("queue", "redrive", *STATE).exit_code == 2
    assert agentkit("queue", "redrive", "x", "--all", *STATE).exit_code == 2
    assert data("queue", "redrive", "--all") == {"redriven": 0}


def test_verify_names_the_run_that_would_not_go_on_and_both_sides(app: Any, tmp_path: Path) -> None:
    assert agentkit("verify", "cli_app:runtime").exit_code == 0
    (tmp_path / "changed_app.py").write_text(
        APP.replace('"double", double, input)\n        total +=', '"double", double, input + 1)\n        total +=')
    )
    done = agentkit("verify", "changed_app:runtime")
    assert done.exit_code == 1
    assert "mismatch  contract-17" in done.stdout
    assert "[4]" in done.stdout
    assert "[5]" in done.stdout


def test_the_doctor_names_what_no_live_worker_serves(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_STATE", "sqlite:///agents.db")
    monkeypatch.setenv("AGENTKIT_LEASE_S", "0.2")
    done = agentkit("doctor", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    failed = [finding["says"] for finding in found["findings"] if finding["level"] == "fail"]
    assert failed == ["no live worker serves review@3: 1 wait for one"]
    sources = {setting["name"]: setting["source"] for setting in found["settings"]}
    assert (sources["state"], sources["lease_s"], sources["concurrency"]) == ("AGENTKIT_STATE", "AGENTKIT_LEASE_S", "default")
    assert {"python", "packages", "file system", "disk", "sqlite", "store"} <= {finding["what"] for finding in found["findings"]}
    [store] = [finding["says"] for finding in found["findings"] if finding["what"] == "store"]
    assert store == f"sqlite:///agents.db answers, its tables are of version {NEWEST}"


def test_the_doctor_reports_a_broken_store_and_an_unknown_variable(app: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"this is no database, it only looks like a file" * 100)
    broken = agentkit("doctor", "--state", "sqlite:///bad.db")
    assert (broken.exit_code, "bad.db" in broken.stdout) == (1, True)
    monkeypatch.setenv("AGENTKIT_CONCURENCY", "3")
    assert "did you mean 'AGENTKIT_CONCURRENCY'?" in agentkit("doctor").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["runs", "ls"], 2, "AGENTKIT_STATE"),
        (["runs", "ls", "--state", "memory://"], 2, "its own process"),
        (["runs", "ls", "--state", "sqlite:///nowhere.db"], 2, "no file nowhere.db"),
        (["runs", "ls", "--state", "mongodb://h/x"], 2, "no adapter for 'mongodb'"),
        (["runs", "show", "nobody", *STATE], 1, "no run 'nobody'"),
        (["runs", "tail", "nobody", *STATE], 1, "no run 'nobody'"),
        (["runs", "cancel", "nobody", *STATE], 1, "no run 'nobody'"),
        (["runs", "fork", "nobody", "--at", "x", *STATE], 1, "no run 'nobody'"),
        (["runs", "fork", "broken-1", "--at", "nosuch", *STATE], 1, "it has: fails#1"),
        (["runs", "ls", "--app", "cli_app"], 2, "module:attribute"),
        (["runs", "ls", "--app", "no_such_app:runtime"], 2, "no module 'no_such_app'"),
        (["runs", "ls", "--app", "cli_app:runtim"], 2, "did you mean 'runtime'?"),
        (["worker", "cli_app:nothing"], 2, "is a int, not a Runtime"),
        (["worker", "cli_app:runtime", "--only", "revew"], 1, "no agent 'revew'"),
        (["queue", "redrive", "nobody", *STATE], 1, "nobody"),
    ],
)
def test_a_failure_is_one_clear_sentence_and_never_a_traceback(app: Any, words: list[str], code: int, said: str) -> None:
    done = agentkit(*words)
    assert done.exit_code == code, done.output
    assert done.stderr.startswith("agentkit: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="click")

    monkeypatch.setattr(entry, "import_module", missing)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "agentkit: the command line needs click; install it with: pip install 'agentkit-async[cli]'\n"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_executes_what_was_submitted_and_drains_on_a_signal(app: Any, tmp_path: Path, stop: signal.Signals) -> None:
    environ = os.environ | {"AGENTKIT_LOG": "json", "PYTHONPATH": ""}
    command = [sys.executable, "-m", "agentkit.cli", "worker", "cli_app:runtime", "--concurrency", "2"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as worker:
        assert anyio.run(became, app, "contract-18", "waiting")
        worker.send_signal(stop)
        _, logged = worker.communicate(timeout=30)
    assert worker.returncode == 0, logged
    messages = [json.loads(line)["message"] for line in logged.splitlines()]
    assert any("serves broken@1, clause@1, digest@1, review@3, summary@1" in message for message in messages)
    assert messages[-1].endswith("has drained")


async def became(module: Any, run_id: str, status: str) -> bool:
    async with module.make() as runtime:
        with anyio.move_on_after(30):
            while (await runtime.handle(run_id).info()).status != status:  # noqa: ASYNC110  another process changes it
                await anyio.sleep(0.05)
            return True
    return False
