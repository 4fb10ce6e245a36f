"""The known-bad variants of the ownership protocol: each drops one rule, names the fewest faults that show it, and the verdict expected.

The names D0, X1, ... are used nowhere but in this folder. A variant with verdict OK says which other rule makes up for the dropped one.
"""

from dataclasses import dataclass

from tests.model.explorer import OK, STUCK
from tests.model.ownership_state import GAP, LATE_ROW, NO_INTENT, STOLEN, Rules


@dataclass(frozen=True)
class Variant:
    """A protocol that is not the proposal, and what the explorer must say of it."""

    name: str
    what: str
    rules: Rules
    faults: tuple[str, ...]
    verdict: str

    def __str__(self) -> str:
        """The name under which the test appears."""
        return f"{self.name}: {self.what}"


WORKER_ONLY = Rules(check_run=False)
RUN_ONLY = Rules(check_worker=False, lock_run=True)

GOOD = (
    Variant("W+R", "the ticket is finished right after the claim", Rules(finish_ticket_at_claim=True), ("cut", "kill"), OK),
    Variant("R only", "run row locked, no worker row read", RUN_ONLY, ("expire", "kill"), OK),
    Variant("R only, cut", "run row locked, no worker row read", RUN_ONLY, ("cut", "expire"), OK),
    Variant("W only", "worker row, freeze rule, closed claims and fresh ids", WORKER_ONLY, ("cut", "expire"), OK),
    Variant("W only, kill", "worker row, freeze rule, closed claims and fresh ids", WORKER_ONLY, ("cut", "kill"), OK),
    Variant("X3b", "park before the frames are unwound, but R is checked", Rules(unwind_first=False, closed_claims=False), (), OK),
    Variant(
        "X3c", "W only, park before the frames are unwound, but the claim is closed", Rules(check_run=False, unwind_first=False), (), OK
    ),
    Variant("X4-R", "gives the run up after a cut, but R is locked", Rules(unknown="give up", lock_run=True), ("cut",), OK),
    Variant(
        "X15-stray",
        "a claim that was cut off is sent again, and a worker releases runs of its own that it does not know",
        Rules(claim_cut_ends_registration=False, release_own_strays=True),
        ("cut", "cut"),
        OK,
    ),
    Variant(
        "X10-order",
        "no sweep of READY, but release before give_back",
        Rules(sweep_unticketed=False, sweep_lost_tickets=False),
        ("drain",),
        OK,
    ),
)

BAD = (
    Variant("D0", "W only and no freeze rule", Rules(check_run=False, freeze=False), ("cut",), LATE_ROW),
    Variant("X1", "the worker row is checked but not locked", Rules(lock_worker=False), ("expire",), LATE_ROW),
    Variant("X2", "R only, read with nothing locked", Rules(check_worker=False), ("expire",), LATE_ROW),
    Variant(
        "X3",
        "W only, park before the frames are unwound, the lane takes rows of a closed claim",
        Rules(check_run=False, unwind_first=False, closed_claims=False),
        (),
        LATE_ROW,
    ),
    Variant("X4", "W only, gives the run up when an outcome is unknown", Rules(check_run=False, unknown="give up"), ("cut",), LATE_ROW),
    Variant("X4p", "W+R with R read plainly, gives the run up beside its own append", Rules(unknown="give up"), ("cut",), LATE_ROW),
    Variant("D2x", "W+R, no freeze rule, drain with a cut connection", Rules(freeze=False), ("cut", "drain"), LATE_ROW),
    Variant("X5", "rows missing from the answer are taken for fenced", Rules(missing_rows_mean_fenced=True), ("cut",), STUCK),
    Variant("X5b", "an unknown outcome is taken for fenced", Rules(unknown="fenced"), ("cut",), STUCK),
    Variant("X6", "park without compare-and-set on the inbox", Rules(park_cas=False), (), STUCK),
    Variant("X6b", "a signal reads the status, then inserts", Rules(signal_in_one_statement=False), (), STUCK),
    Variant("X7", "a redelivered ticket may claim", Rules(claim_needs_ready=False), ("lapse",), STOLEN),
    Variant("X8", "a restarted process uses its worker id again", Rules(fresh_worker_ids=False), ("kill",), STUCK),
    Variant("X8b", "the same with W only", Rules(fresh_worker_ids=False, check_run=False), ("kill",), LATE_ROW),
    Variant("X8c", "the same with W only, and an epoch in the worker's row alone", Rules(epochs=True, check_run=False), ("kill",), STUCK),
    Variant("X9", "a claim does not check the claimer's worker row", Rules(claim_checks_worker=False), ("expire",), STUCK),
    Variant(
        "X10",
        "drain gives the ticket back before the release, no sweep",
        Rules(release_before_give_back=False, sweep_unticketed=False, sweep_lost_tickets=False),
        ("drain",),
        STUCK,
    ),
    Variant("X11", "no sweep of READY", Rules(sweep_unticketed=False, sweep_lost_tickets=False), ("submit crash",), STUCK),
    Variant("X12", "sweep only of ticketed=false", Rules(sweep_lost_tickets=False), ("lost",), STUCK),
    Variant("X13", "an effect does not wait for its own INTENT", Rules(intent_first=False), (), NO_INTENT),
    Variant("X14", "an unknown outcome is taken for written", Rules(unknown="written"), ("cut",), GAP),
    Variant("X15", "a claim that was cut off is merely sent again", Rules(claim_cut_ends_registration=False), ("cut",), STUCK),
)
