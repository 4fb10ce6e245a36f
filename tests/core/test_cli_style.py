"""How the command line speaks."""

from __future__ import annotations

import io
import json

import click
import pytest
from rich.console import Console

from agentkit.cli.style import Failed, Out, WrongUse, coloured, duration, example, facts, human, json_value, sentence, table
from agentkit.errors import QueueFull, RunNotFound


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.000_85, "850 us"), (0.012, "12 ms"), (1.23, "1.2 s"), (59.94, "59.9 s"), (184, "3 min 4 s"), (7_500, "2 h 5 min"),
        (6 * 86_400 + 3 * 3_600, "6 d 3 h"), (0, "0 us"),
    ],
)  # fmt: skip
def test_a_length_of_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert human(seconds) == said


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5_400), ("2d", 172_800), ("1.5h", 5_400), ("1h 5min", 3_900)]
)
def test_a_length_of_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1x", "1h!", "-5s", "soon"])
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1h30m"):
        duration(text)


def test_a_bare_word_is_no_json_and_the_refusal_shows_the_quotes() -> None:
    assert json_value('{"ok": true}') == {"ok": True}
    with pytest.raises(click.BadParameter, match="""'"yes"'"""):
        json_value("yes")


def out(*, as_json: bool = False, terminal: bool = False) -> tuple[Out, io.StringIO]:
    written = io.StringIO()
    return Out(
        as_json=as_json, console=Console(file=written, force_terminal=terminal, width=60, color_system="standard" if terminal else None)
    ), written


def test_with_json_only_data_is_written_and_else_only_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    machine, said_to_machine = out(as_json=True)
    machine.data({"run": "ünïcode"})
    machine.show("for people")
    person, said_to_person = out()
    person.data({"run": 1})
    person.show("for people")
    assert json.loads(capsys.readouterr().out) == {"run": "ünïcode"}
    assert (said_to_machine.getvalue(), said_to_person.getvalue()) == ("", "for people\n")


def test_a_pipe_gets_plain_columns_and_a_terminal_colour_and_a_rule() -> None:
    rows = [("contract-17", coloured("failed"))]
    plain, piped = out()
    plain.show(table(("RUN", "STATUS"), rows))
    rich, shown = out(terminal=True)
    rich.show(table(("RUN", "STATUS"), rows))
    assert [line.split() for line in piped.getvalue().splitlines()] == [["RUN", "STATUS"], ["contract-17", "failed"]]
    assert "\x1b[31mfailed" in shown.getvalue()
    assert "─" in shown.getvalue()


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = io.StringIO()
    Out(as_json=False, console=Console(file=written, force_terminal=True)).show(coloured("failed"))
    assert "\x1b[31m" not in written.getvalue()


def test_facts_without_a_value_are_left_out() -> None:
    plain, piped = out()
    plain.show(facts({"run": "r1", "tenant": ""}))
    assert piped.getvalue().split() == ["run", "r1"]


def test_errors_that_came_together_are_one_sentence() -> None:
    lost, full = RunNotFound("r1"), QueueFull("queue", 10, 1.0)
    group = BaseExceptionGroup("", [lost, BaseExceptionGroup("", [full, lost])])
    assert sentence(group) == f"{lost}; {full}"


def test_an_error_that_is_not_ours_keeps_its_traceback() -> None:
    assert sentence(BaseExceptionGroup("", [RunNotFound("r1"), ZeroDivisionError()])) is None


def test_a_failure_is_one_line_on_stderr_and_its_code_says_whose_fault_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Failed("no luck").show()
    assert capsys.readouterr().err == "agentkit: no luck\n"
    assert (Failed("x").exit_code, WrongUse("x").exit_code) == (1, 2)


def test_an_example_is_part_of_the_help() -> None:
    @example("agentkit do this", "agentkit do that")
    def command() -> None:
        """Do things."""

    assert command.__doc__ == "Do things.\n\n\b\nExample:\n  agentkit do this\n  agentkit do that"
