"""For each law of values an adapter that drops it, and the test of the suite that fails on it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
from anyio.lowlevel import checkpoint

from agentkit.inmemory.values import InMemoryValues, Kept
from agentkit.ports.values import Value
from agentkit.testing.values import ValuesContract
from tests.core.mutants import Broken, assert_only_the_mutant_breaks, laws_without_a_mutant, named


class IgnoresExpected(InMemoryValues):
    def _check(self, key: str, expected: int | None) -> None:
        pass


class CreatesOverWhatIsThere(InMemoryValues):
    def _check(self, key: str, expected: int | None) -> None:
        if expected != 0:
            super()._check(key, expected)


class TakesAVersionForAnAbsentKey(InMemoryValues):
    def _check(self, key: str, expected: int | None) -> None:
        if key in self._kept:
            super()._check(key, expected)


class ChecksBeforeItWrites(InMemoryValues):
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        self._check(key, expected)
        await checkpoint()
        return await super().put(key, value, ttl_s=ttl_s)


class DeletesWhateverIsThere(InMemoryValues):
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await super().delete(key)


class WritesBeforeItChecks(InMemoryValues):
    def _check(self, key: str, expected: int | None) -> None:
        found = self._kept.get(key)
        if found:
            self._kept[key] = Kept(b"half written", found.version, found.ends)
        super()._check(key, expected)


class KeepsWhatHasEnded(InMemoryValues):
    def _expire(self) -> float:
        return self._clock.monotonic()


class HidesWhatHasEndedFromReadersOnly(KeepsWhatHasEnded):
    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        now = self._clock.monotonic()
        return {key: value for key, value in (await super().get(keys)).items() if self._kept[key].ends > now}


class KeepsTheFirstTimeToLive(InMemoryValues):
    def _write(self, key: str, value: bytes, ends: float) -> int:
        return super()._write(key, value, self._kept[key].ends if key in self._kept else ends)


class KeepsTheVersion(InMemoryValues):
    def _next_version(self, key: str) -> int:
        return self._kept[key].version if key in self._kept else 1


class StartsAtZero(InMemoryValues):
    def _next_version(self, key: str) -> int:
        return super()._next_version(key) - 1


class RestartsVersionsOfBlindWrites(InMemoryValues):
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        if expected is None:
            await self.delete(key)
            self._last_removed = 0
        return await super().put(key, value, expected=expected, ttl_s=ttl_s)


class FoldsKeys(InMemoryValues):
    """What collations of databases do."""

    def fold(self, key: str) -> str:
        return unicodedata.normalize("NFKC", key).casefold().strip()

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        return await super().put(self.fold(key), value, expected=expected, ttl_s=ttl_s)


class TrimsKeys(FoldsKeys):
    def fold(self, key: str) -> str:
        return key.strip(" ") or key


class TakesAnySize(InMemoryValues):
    def _check_size(self, key: str, value: bytes) -> None:
        pass


class TakesAnyKey(InMemoryValues):
    def _check_key(self, key: str) -> None:
        pass


class CountsKeysByCharacter(InMemoryValues):
    def _check_key(self, key: str) -> None:
        super()._check_key(key[:1] and "k" * len(key))


class TakesShortKeysOnly(InMemoryValues):
    def _check_key(self, key: str) -> None:
        super()._check_key(key * 2)


class GetsTheFirst(InMemoryValues):
    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        return await super().get(keys[:1])


class ScansOldVersions(InMemoryValues):
    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        return [found._replace(version=1) for found in await super().scan(prefix, after=after, limit=limit)]


class CutsValues(InMemoryValues):
    def _write(self, key: str, value: bytes, ends: float) -> int:
        return super()._write(key, value.partition(b"\x00")[0], ends)


class SaysItDeleted(InMemoryValues):
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        await super().delete(key, expected=expected)
        return True


class ScansFromTheKeyItself(InMemoryValues):
    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        start = [found for found in await super().scan(prefix, limit=10_000) if found.key >= after]
        return start[:limit]


class ScansWithoutALimit(InMemoryValues):
    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        return await super().scan(prefix, after=after, limit=10_000)


class ScansByPattern(InMemoryValues):
    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        stem = prefix.rstrip("%_")
        return [found for found in await super().scan(stem, after=after, limit=limit) if len(found.key) >= len(prefix)]


class ScansByAlphabet(InMemoryValues):
    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        return sorted(await super().scan(prefix, after=after, limit=limit), key=lambda found: found.key.casefold())


class ScansByOffset(InMemoryValues):
    """Pages by number: what is written in front of the page shifts it."""

    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        page = self._pages = getattr(self, "_pages", 0) + 1 if after else 0
        return (await super().scan(prefix, limit=10_000))[page * limit : (page + 1) * limit]


class ClosesWithTheFirst(InMemoryValues):
    closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        assert not self.closed, "closed"
        return await super().put(key, value, expected=expected, ttl_s=ttl_s)


BROKEN: list[Broken[InMemoryValues]] = [
    (TakesAnyKey, "a_key_outside_the_rule_is_refused", {"key": ""}),
    (TakesAnyKey, "a_key_outside_the_rule_is_refused", {"key": "k" * 513}),
    (CountsKeysByCharacter, "a_key_outside_the_rule_is_refused", {"key": "é" * 257}),
    (TakesShortKeysOnly, "a_key_of_512_bytes_is_within_the_rule", {}),
    (GetsTheFirst, "get_returns_the_present_ones_of_many_keys", {}),
    (ScansOldVersions, "scan_tells_the_version_that_get_tells", {}),
    (HidesWhatHasEndedFromReadersOnly, "an_expired_value_is_absent_to_writers_too", {}),
    (IgnoresExpected, "a_stale_writer_is_told_so_and_nothing_is_written", {}),
    (IgnoresExpected, "of_many_racing_writers_exactly_one_wins", {"exists": True}),
    (IgnoresExpected, "of_racing_deletes_and_writes_of_one_version_exactly_one_wins", {}),
    (CreatesOverWhatIsThere, "of_many_racing_writers_exactly_one_wins", {"exists": False}),
    (CreatesOverWhatIsThere, "of_many_racing_writers_after_an_expiry_exactly_one_creates_it", {}),
    (TakesAVersionForAnAbsentKey, "a_version_fits_no_absent_key", {}),
    (ChecksBeforeItWrites, "of_many_racing_writers_exactly_one_wins", {"exists": False}),
    (ChecksBeforeItWrites, "of_many_racing_writers_exactly_one_wins", {"exists": True}),
    (ChecksBeforeItWrites, "racing_counters_lose_no_increment", {}),
    (DeletesWhateverIsThere, "delete_removes_and_says_whether_there_was_something", {}),
    (DeletesWhateverIsThere, "of_racing_deletes_and_writes_of_one_version_exactly_one_wins", {}),
    (WritesBeforeItChecks, "a_stale_writer_is_told_so_and_nothing_is_written", {}),
    (KeepsWhatHasEnded, "a_value_lives_for_its_time_and_reads_as_absent_at_once_after_it", {}),
    (HidesWhatHasEndedFromReadersOnly, "a_value_lives_for_its_time_and_reads_as_absent_at_once_after_it", {}),
    (KeepsTheFirstTimeToLive, "each_put_says_anew_how_long_its_value_lives", {}),
    (KeepsTheVersion, "versions_of_a_key_grow_and_never_repeat_while_it_exists", {}),
    (StartsAtZero, "versions_of_a_key_grow_and_never_repeat_while_it_exists", {}),
    (RestartsVersionsOfBlindWrites, "a_writer_who_expects_nothing_in_particular_overwrites", {}),
    (FoldsKeys, "keys_that_differ_in_case_accents_or_spaces_are_different_keys", {}),
    (TrimsKeys, "keys_that_differ_in_case_accents_or_spaces_are_different_keys", {}),
    (FoldsKeys, "scan_returns_what_begins_with_the_prefix_in_byte_order", {}),
    (TakesAnySize, "a_value_of_the_greatest_size_fits_and_a_greater_one_is_refused", {}),
    (CutsValues, "what_one_client_put_another_reads_byte_for_byte", {"value": b"a\x00b"}),
    (SaysItDeleted, "delete_removes_and_says_whether_there_was_something", {}),
    (ScansFromTheKeyItself, "scan_goes_on_after_a_key_and_stops_at_its_limit", {}),
    (ScansWithoutALimit, "scan_goes_on_after_a_key_and_stops_at_its_limit", {}),
    (ScansByPattern, "scan_returns_what_begins_with_the_prefix_in_byte_order", {}),
    (ScansByAlphabet, "scan_returns_what_begins_with_the_prefix_in_byte_order", {}),
    (ScansByOffset, "scan_shows_each_key_once_while_others_write", {}),
    (ClosesWithTheFirst, "it_may_be_opened_again_and_each_opening_is_closed_by_itself", {}),
]


@pytest.mark.parametrize(("mutant", "law", "given"), named(BROKEN))
async def test_the_suite_notices_values_that(mutant: type[InMemoryValues], law: str, given: dict[str, object]) -> None:
    await assert_only_the_mutant_breaks(ValuesContract, law, InMemoryValues, mutant, **given)


def test_each_law_of_values_has_a_mutant_that_breaks_it() -> None:
    assert laws_without_a_mutant(ValuesContract, BROKEN) == []
