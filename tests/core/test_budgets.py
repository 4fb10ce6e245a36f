"""Budgets: reserved before, settled after, shared by all, and each entry counts once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agentkit.errors import BudgetExceeded, StoreUnavailable
from agentkit.inference.budgets import HOLD_S, PREFIX, Account, Budget, Budgets
from agentkit.inference.ledger import KEEP_SETTLED_S, MAX_SETTLED, Ledger, Shortage, entry_of
from agentkit.inference.spend import Spend
from agentkit.inmemory.values import InMemoryValues
from agentkit.testing.clock import FakeClock
from tests.core.policies import later
from tests.core.spenders import NOW, Call, Fleet, YieldingValues

FREE = Budget()
HUNDRED = Budget(tokens=100, soft=0.8)


def tokens(n: int) -> Spend:
    return Spend(tokens=n)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def values(clock: FakeClock) -> YieldingValues:
    return YieldingValues(clock)


@pytest.fixture
def budgets(values: YieldingValues, clock: FakeClock) -> Budgets:
    return Budgets(values, clock)


def account(tokens: int | None = 100, usd: float | None = None, id: str = "run/r", soft: float = 0.8) -> Account:
    return Account(id=id, limit=Budget(usd=usd, tokens=tokens, soft=soft))


# The ledger


def test_what_is_reserved_is_not_there_for_others_until_it_is_settled() -> None:
    ledger = Ledger()
    assert ledger.reserve("a", tokens(60), HUNDRED, NOW + 9) is None
    assert ledger.reserve("b", tokens(41), HUNDRED, NOW + 9) == Shortage("tokens", 100, 60, 41, passes=True)
    assert ledger.reserve("b", tokens(101), HUNDRED, NOW + 9) == Shortage("tokens", 100, 60, 101, passes=False)
    ledger.settle("a", tokens(10), HUNDRED, NOW)
    assert ledger.reserve("b", tokens(90), HUNDRED, NOW + 9) is None


def test_a_reservation_repeated_replaces_nothing_and_counts_once() -> None:
    ledger = Ledger()
    for asked in (60, 90, 10):
        assert ledger.reserve("a", tokens(asked), HUNDRED, NOW + 9) is None
    assert ledger.reserved == tokens(60)


def test_a_settlement_repeated_changes_nothing_and_neither_does_a_reservation_after_it() -> None:
    ledger = Ledger()
    ledger.settle("a", tokens(30), HUNDRED, NOW)
    before = ledger.dump()
    ledger.settle("a", tokens(70), HUNDRED, NOW)
    assert ledger.reserve("a", tokens(90), HUNDRED, NOW + 9) is None
    assert ledger.dump() == before


def test_a_settlement_counts_whether_or_not_it_was_reserved_and_whatever_the_limit() -> None:
    ledger = Ledger()
    ledger.settle("a", tokens(1_000), HUNDRED, NOW)
    assert ledger.spent == tokens(1_000)


def test_what_is_released_is_free_again_and_may_be_reserved_anew() -> None:
    ledger = Ledger()
    ledger.reserve("a", tokens(100), HUNDRED, NOW + 9)
    ledger.release("a")
    assert ledger.reserve("a", tokens(90), HUNDRED, NOW + 9) is None
    assert ledger.reserved == tokens(90)


def test_what_nobody_settles_in_time_is_booked_as_it_was_reserved() -> None:
    ledger = Ledger()
    ledger.reserve("a", tokens(40), HUNDRED, NOW + 9)
    ledger.fold(NOW + 8)
    assert (ledger.reserved, ledger.spent) == (tokens(40), Spend())
    ledger.fold(NOW + 9)
    ledger.settle("a", tokens(70), HUNDRED, NOW + 10)
    assert (ledger.reserved, ledger.spent) == (Spend(), tokens(40))


def test_old_settlements_are_forgotten_and_a_repetition_after_that_counts_too_much_never_too_little() -> None:
    ledger = Ledger()
    ledger.settle("a", tokens(10), FREE, NOW)
    ledger.fold(NOW + KEEP_SETTLED_S - 1)
    ledger.settle("a", tokens(10), FREE, NOW)
    assert ledger.spent == tokens(10)
    ledger.fold(NOW + KEEP_SETTLED_S)
    ledger.settle("a", tokens(10), FREE, NOW)
    assert ledger.spent == tokens(20)


def test_a_busy_account_stays_small() -> None:
    ledger = Ledger()
    for n in range(3 * MAX_SETTLED):
        ledger.settle(entry_of(f"run:{n}"), tokens(1), FREE, NOW)
    ledger.fold(NOW)
    assert ledger.spent == tokens(3 * MAX_SETTLED)
    assert len(ledger.dump()) < 40_000
    newest = entry_of(f"run:{3 * MAX_SETTLED - 1}")
    ledger.settle(newest, tokens(1), FREE, NOW)
    assert ledger.spent == tokens(3 * MAX_SETTLED)


def test_the_soft_limit_is_passed_once_and_a_repetition_says_so_again() -> None:
    ledger = Ledger()
    passed = [ledger.settle(entry, tokens(spent), HUNDRED, NOW) for entry, spent in (("a", 79), ("b", 1), ("c", 1), ("b", 1))]
    assert passed == [False, True, False, True]


def test_after_an_extension_the_soft_limit_is_ahead_again() -> None:
    ledger = Ledger()
    ledger.settle("a", tokens(80), HUNDRED, NOW)
    ledger.extend("x", tokens(100), HUNDRED)
    assert [ledger.settle(entry, tokens(40), HUNDRED, NOW) for entry in ("b", "c")] == [False, True]


def test_an_extension_repeated_allows_no_more() -> None:
    ledger = Ledger()
    for _ in range(2):
        ledger.extend("x", Spend(500_000, 20), HUNDRED)
    assert ledger.allowed(HUNDRED) == (None, 120)
    assert ledger.allowed(Budget(usd=1.5)) == (2_000_000, None)


def test_money_and_tokens_each_have_their_limit() -> None:
    ledger = Ledger()
    short = ledger.reserve("a", Spend(2_000_001, 5), Budget(usd=2.0, tokens=5), NOW + 9)
    assert short is not None
    assert (short.unit, short.limit, short.asked) == ("usd", 2.0, 2.000001)
    assert ledger.reserve("a", Spend(2_000_000, 5), Budget(usd=2.0, tokens=5), NOW + 9) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "settle", "release", "extend", "fold"]), st.integers(0, 9), st.integers(0, 60)), max_size=60
    )
)
def test_whatever_happens_reservations_never_exceed_the_limit_and_every_entry_is_counted_once(drawn: list[tuple[str, int, int]]) -> None:
    ledger, now = Ledger(), NOW
    booked: dict[str, int] = {}
    for what, who, amount in drawn:
        entry, now = str(who), now + 1
        if what == "reserve":
            if ledger.reserve(entry, tokens(amount), HUNDRED, now + 10) is None:
                assert entry in booked or ledger.spent.plus(ledger.reserved).tokens <= max(100 + ledger.extra.tokens, ledger.spent.tokens)
        elif what == "settle":
            held = ledger.held.get(entry)
            cost = min(amount, held.spend.tokens) if held else amount
            ledger.settle(entry, tokens(cost), HUNDRED, now)
            booked.setdefault(entry, cost)
        elif what == "release":
            ledger.release(entry)
        elif what == "extend":
            ledger.extend(entry, tokens(amount), HUNDRED)
        else:
            for late, held in ledger.held.items():
                if held.until <= now:
                    booked.setdefault(late, held.spend.tokens)
            ledger.fold(now)
        ledger = Ledger.load(ledger.dump())
        assert ledger.spent.tokens == sum(booked.values())


# The accounts


async def test_a_call_over_the_limit_is_refused_with_the_numbers_and_reserves_nothing(budgets: Budgets) -> None:
    run, day = account(1_000), account(100, id="tenant/acme/2026-11-21")
    await budgets.reserve([run, day], "a", tokens(60))
    with pytest.raises(BudgetExceeded) as caught:
        await budgets.reserve([run, day], "b", tokens(50))
    assert (caught.value.account, caught.value.limit, caught.value.spent, caught.value.asked) == (day.id, 100, 60, 50)
    assert [ledger.reserved for ledger in await budgets.look([run, day])] == [tokens(60), tokens(60)]


async def test_a_call_for_which_there_is_room_but_for_those_under_way_waits_for_what_they_give_back(
    budgets: Budgets, clock: FakeClock
) -> None:
    await budgets.reserve([account()], "a", tokens(90))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(budgets.reserve, [account()], "b", tokens(50), wait_s=60.0))
        await anyio.wait_all_tasks_blocked()
        await budgets.settle([account()], "a", tokens(50))
    (ledger,) = await budgets.look([account()])
    assert (ledger.spent, ledger.reserved) == (tokens(50), tokens(50))


async def test_a_call_waits_for_those_of_other_processes_too(budgets: Budgets, values: YieldingValues, clock: FakeClock) -> None:
    other = Budgets(values, clock)
    await other.reserve([account()], "a", tokens(90))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(budgets.reserve, [account()], "b", tokens(50), wait_s=60.0))
        await anyio.wait_all_tasks_blocked()
        await other.release([account()], "a")
        await later(clock, 1.0)


async def test_nobody_waits_longer_than_he_would_or_for_what_can_never_come(budgets: Budgets, clock: FakeClock) -> None:
    await budgets.reserve([account()], "a", tokens(90))
    with pytest.raises(BudgetExceeded):
        await budgets.reserve([account()], "b", tokens(101), wait_s=60.0)
    async with anyio.create_task_group() as group:
        group.start_soon(_refused, partial(budgets.reserve, [account()], "c", tokens(50), wait_s=60.0))
        for _ in range(60):
            await later(clock, 1.0)


async def _refused(reserve: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(BudgetExceeded):
        await reserve()


async def test_the_accounts_of_one_call_are_all_settled_and_those_that_passed_their_soft_limit_named(budgets: Budgets) -> None:
    run, day = account(1_000), account(100, id="tenant/acme/2026-11-21")
    await budgets.reserve([run, day], "a", tokens(90))
    assert await budgets.settle([run, day], "a", tokens(85)) == [day]
    assert [ledger.spent for ledger in await budgets.look([run, day])] == [tokens(85), tokens(85)]


async def test_another_process_sees_what_was_spent(budgets: Budgets, values: YieldingValues, clock: FakeClock) -> None:
    await budgets.reserve([account()], "a", tokens(90))
    with pytest.raises(BudgetExceeded):
        await Budgets(values, clock).reserve([account()], "b", tokens(20))


async def test_fifty_children_that_reserve_at_once_need_few_writes(budgets: Budgets, values: YieldingValues) -> None:
    refused: list[str] = []

    async def child(key: str) -> None:
        try:
            await budgets.reserve([account(300)], key, tokens(10))
        except BudgetExceeded:
            refused.append(key)

    async with anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(child, f"child-{n}")
    assert len(refused) == 20
    assert values.puts <= 5
    (ledger,) = await budgets.look([account(300)])
    assert ledger.reserved == tokens(300)


async def test_processes_that_collide_all_get_through(values: YieldingValues, clock: FakeClock) -> None:
    async def child(key: str) -> None:
        budgets = Budgets(values, clock)
        await budgets.reserve([account(1_000)], key, tokens(10))
        await budgets.settle([account(1_000)], key, tokens(7))

    async with anyio.create_task_group() as group:
        for n in range(30):
            group.start_soon(child, f"process-{n}")
    (ledger,) = await Budgets(values, clock).look([account(1_000)])
    assert (ledger.spent, ledger.reserved) == (tokens(210), Spend())


async def test_a_reservation_whose_process_died_is_taken_up_by_the_step_or_booked_in_time(
    budgets: Budgets, values: YieldingValues, clock: FakeClock
) -> None:
    await budgets.reserve([account()], "resumed", tokens(30))
    await budgets.reserve([account()], "never seen again", tokens(40))
    successor = Budgets(values, clock)
    await successor.reserve([account()], "resumed", tokens(30))
    await successor.settle([account()], "resumed", tokens(20))
    clock.jump(HOLD_S)
    (ledger,) = await successor.look([account()])
    assert (ledger.spent, ledger.reserved) == (tokens(60), Spend())


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_reservation_leaves_nothing_behind_and_those_beside_it_alone(
    budgets: Budgets, values: YieldingValues, turns: int
) -> None:
    async with anyio.create_task_group() as others, anyio.create_task_group() as group:
        group.start_soon(partial(budgets.reserve, [account()], "cancelled", tokens(30)))
        others.start_soon(partial(budgets.reserve, [account()], "beside it", tokens(40)))
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    (ledger,) = await budgets.look([account()])
    cancelled = entry_of("cancelled") in ledger.held
    assert ledger.reserved == tokens(70 if cancelled else 40)
    assert not cancelled or turns > 4  # it had returned before


async def test_a_settlement_that_the_store_does_not_take_goes_with_the_next_change(clock: FakeClock) -> None:
    class Away(InMemoryValues):
        away = False

        async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
            if self.away:
                raise StoreUnavailable("values", "gone")
            return await super().put(key, value, expected=expected, ttl_s=ttl_s)

    values = Away(clock)
    budgets = Budgets(values, clock)
    await budgets.reserve([account()], "a", tokens(50))
    values.away = True
    with pytest.raises(StoreUnavailable):
        await budgets.settle([account()], "a", tokens(20))
    with pytest.raises(StoreUnavailable):
        await budgets.reserve([account()], "b", tokens(10))
    values.away = False
    await budgets.reserve([account()], "c", tokens(80))
    (ledger,) = await budgets.look([account()])
    assert (ledger.spent, ledger.reserved) == (tokens(20), tokens(80))


async def test_an_extension_allows_more_to_every_process_and_counts_once(
    budgets: Budgets, values: YieldingValues, clock: FakeClock
) -> None:
    await budgets.reserve([account()], "a", tokens(100))
    for _ in range(2):
        await budgets.extend(account(), "step", Budget(tokens=50))
    other = Budgets(values, clock)
    await other.reserve([account()], "b", tokens(50))
    with pytest.raises(BudgetExceeded):
        await other.reserve([account()], "c", tokens(1))


async def test_an_account_is_forgotten_when_its_time_is_up(budgets: Budgets, values: YieldingValues, clock: FakeClock) -> None:
    day = Account(id="tenant/acme/2026-11-21", limit=Budget(tokens=100), ttl_s=60.0)
    await budgets.settle([day], "a", tokens(10))
    assert await values.get([PREFIX + day.id])
    clock.jump(61.0)
    assert not await values.get([PREFIX + day.id])


async def test_a_process_remembers_nothing_of_an_account_that_nobody_changes(budgets: Budgets) -> None:
    for n in range(10):
        await budgets.settle([account(id=f"run/{n}")], "a", tokens(1))
    assert vars(budgets)["_lines"] == {}


@pytest.mark.parametrize("wrong", [{"usd": -1}, {"tokens": -1}, {"soft": 1.1}, {"dollars": 3}])
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate(wrong)


calls = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60), st.none() | st.integers(0, 12)), max_size=12)


@settings(max_examples=60)
@given(calls, st.integers(0, 2**32), st.sampled_from(["asyncio", "trio"]))
def test_processes_that_spend_and_crash_never_exceed_the_limit_and_forget_nothing(
    drawn: list[tuple[int, int, int | None]], seed: int, backend: str
) -> None:
    made = [Call(f"step-{n}", expected, min(cost, expected), dies_at) for n, (expected, cost, dies_at) in enumerate(drawn)]

    async def all_of_it() -> None:
        fleet = Fleet(YieldingValues(FakeClock(NOW)), limit=150)
        await fleet.spend(made, random.Random(seed))
        ledger = await fleet.ledger()
        paid = {call.key: call.cost for call in made if call.key in fleet.granted}
        assert ledger.spent.tokens == sum(paid.values())
        assert ledger.reserved == Spend()

    anyio.run(all_of_it, backend=backend)
