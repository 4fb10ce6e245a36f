"""A contest: the same work for several peers, in turns, as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.peers.environments import Peer, environment, run
from benchmarks.table import number

Place = Callable[[], AbstractContextManager[str]]
"""Opens the URL of an empty database or server, for one turn."""


@dataclass(frozen=True)
class Contest:
    """Who takes part, how much there is to do, and what the columns are called."""

    title: str
    unit: str
    peers: Sequence[Peer]
    place: Place
    amount: int
    at_once: int
    ours: Mapping[str, str]
    """The heading of a column, and which of ours it compares the others with."""
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further columns: the heading, and the name of the figure."""


@dataclass
class Answers:
    """What a peer said, turn by turn, or why it could not."""

    title: str
    figures: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    problem: str = ""

    def median(self, name: str) -> float:
        return statistics.median(figures[name] for figures in self.figures)

    def take(self, said: str) -> None:
        """Keep the figures of one turn, which are the last line that a program printed."""
        found = json.loads(said.splitlines()[-1])
        self.title = found.pop("peer")
        self.figures.append(found)


def ratio(one: Answers, other: Answers) -> str:
    """The median of the rounds' ratios; a dash where one of the two has no figures."""
    if one.problem or other.problem:
        return "-"
    pairs = zip(one.figures, other.figures, strict=True)
    return f"{number(statistics.median(a['rate'] / b['rate'] for a, b in pairs))} x"


def turn(contest: Contest, peer: Peer, answers: Answers) -> None:
    """One measurement, in a process and a place of its own."""
    python, answers.problem = environment(peer)
    if answers.problem:
        return
    with contest.place() as place:
        said, answers.problem = run(peer, python, place, str(contest.amount * peer.times), str(contest.at_once))
    if not answers.problem:
        answers.take(said)


def hold(console: Console, contest: Contest, rounds: int) -> dict[str, Answers]:
    """All peers in turns; one that cannot is asked no further."""
    answers = {peer.name: Answers(peer.name) for peer in contest.peers}
    with console.status("") as status:
        for number_of_round in range(1, rounds + 1):
            for peer in contest.peers:
                if not answers[peer.name].problem:
                    status.update(f"{contest.title}, round {number_of_round} of {rounds}: {peer.name}")
                    turn(contest, peer, answers[peer.name])
    return answers


def show(console: Console, contest: Contest, answers: Mapping[str, Answers]) -> None:
    table = Table(title=contest.title, title_justify="left", header_style="bold")
    table.add_column("who")
    headings = [f"{contest.unit}s/s", "x raw", *contest.ours, f"CPU us/{contest.unit}", *contest.extra]
    for heading in headings:
        table.add_column(heading, justify="right")
    for peer in answers.values():
        if not peer.problem:
            ratios = [ratio(peer, answers["raw"]), *(ratio(answers[name], peer) for name in contest.ours.values())]
            rest = [number(peer.median(name)) for name in ("cpu_us", *contest.extra.values())]
            table.add_row(peer.title, number(peer.median("rate")), *ratios, *rest)
    console.print(table)
    for peer in answers.values():
        if peer.problem:
            console.print(f"{peer.title} does not run here: {peer.problem}", style="red", markup=False)
