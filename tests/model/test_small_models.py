"""Claims on Redis, effects at a take-over, children, run-ahead and the inbox: the proposal holds, and each dropped rule is found."""

import pytest

from tests.model import children, effects, inbox, lanes, redis
from tests.model.explorer import explore


@pytest.mark.parametrize("variant", redis.VARIANTS)
def test_a_claim_on_redis_is_never_lost_unless_a_rule_is_dropped(variant: str) -> None:
    rules, expected = redis.VARIANTS[variant]
    verdict = explore(redis.RedisClaim(rules))
    assert verdict.kind == expected, str(verdict)


@pytest.mark.parametrize("variant", effects.VARIANTS)
def test_a_probed_effect_happens_once_unless_a_rule_is_dropped_or_its_owner_is_frozen(variant: str) -> None:
    rules, expected = effects.VARIANTS[variant]
    verdict = explore(effects.EffectAtTakeOver(rules))
    assert verdict.kind == expected, str(verdict)


@pytest.mark.parametrize("variant", children.VARIANTS)
def test_parents_hear_of_their_children_once_unless_a_rule_is_dropped(variant: str) -> None:
    rules, expected = children.VARIANTS[variant]
    verdict = explore(children.Children(rules))
    assert verdict.kind == expected, str(verdict)


@pytest.mark.parametrize("variant", lanes.VARIANTS)
def test_run_ahead_replays_honest_code_unless_the_prefix_may_break(variant: str) -> None:
    rules, expected = lanes.VARIANTS[variant]
    verdict = explore(lanes.RunAhead(rules))
    assert verdict.kind == expected, str(verdict)


@pytest.mark.parametrize("variant", inbox.VARIANTS)
def test_a_signal_is_taken_exactly_once_unless_a_rule_is_dropped(variant: str) -> None:
    rules, expected = inbox.VARIANTS[variant]
    verdict = explore(inbox.Inbox(rules))
    assert verdict.kind == expected, str(verdict)
