"""The laws of the `ValueStore` port as tests. An adapter's test file is a subclass with one fixture:

class TestMyValues(ValuesContract):
    @pytest.fixture
    async def store(self, clock):
        store = MyValues(clock)
        await store.open()
        yield store
        await store.aclose()
"""

from __future__ import annotations

from functools import partial

import pytest
from anyio.lowlevel import checkpoint

from agentkit.errors import InvalidKey, ValueConflict, ValueTooLarge
from agentkit.ports.values import Value, ValueStore
from agentkit.testing.contract import Advance, Contract, race

RACERS = 10


class ValuesContract(Contract):
    """Every law of a value store. Needs the fixture `store`: an open, empty one with the time of `clock`.

    Override `second` with another client of the same store where there can be one. `lease_s` is the time to live that the tests use.
    """

    @pytest.fixture
    def second(self, store: ValueStore) -> ValueStore:
        """Another client of the same store, as another process would have it."""
        return store

    async def version_of(self, store: ValueStore, key: str) -> int:
        """0 when there is none."""
        found = await store.get([key])
        return found[key].version if found else 0

    async def test_it_may_be_opened_again_and_each_opening_is_closed_by_itself(self, store: ValueStore) -> None:
        await store.open()
        await store.aclose()
        assert await store.put("k", b"v") >= 1

    @pytest.mark.parametrize("value", [b"", b"\x00\xff" * 200, "é".encode(), b"'; --"], ids=["empty", "binary", "text", "quotes"])
    async def test_what_one_client_put_another_reads_byte_for_byte(self, store: ValueStore, second: ValueStore, value: bytes) -> None:
        version = await store.put("k", value, expected=0)
        assert await second.get(["k"]) == {"k": Value("k", value, version)}

    async def test_get_returns_the_present_ones_of_many_keys(self, store: ValueStore) -> None:
        for key in ("a", "b", "c"):
            await store.put(key, key.encode())
        assert {key: value.value for key, value in (await store.get(["c", "missing", "a", "a"])).items()} == {"a": b"a", "c": b"c"}
        assert await store.get([]) == {}

    async def test_a_value_of_the_greatest_size_fits_and_a_greater_one_is_refused(self, store: ValueStore) -> None:
        largest = b"x" * store.max_value_bytes
        version = await store.put("k", largest)
        with pytest.raises(ValueTooLarge) as refused:
            await store.put("k", largest + b"x")
        assert (refused.value.size, refused.value.limit) == (store.max_value_bytes + 1, store.max_value_bytes)
        assert await store.get(["k"]) == {"k": Value("k", largest, version)}

    @pytest.mark.parametrize("key", ["", "k" * 513, "é" * 257, "\ud800"], ids=["empty", "long", "long in bytes", "no text"])
    async def test_a_key_outside_the_rule_is_refused(self, store: ValueStore, key: str) -> None:
        with pytest.raises(InvalidKey):
            await store.put(key, b"v")
        assert await store.scan("") == []

    async def test_a_key_of_512_bytes_is_within_the_rule(self, store: ValueStore) -> None:
        for key in ("k" * 512, "é" * 256):
            await store.put(key, b"v")
            assert list(await store.get([key])) == [key]

    async def test_keys_that_differ_in_case_accents_or_spaces_are_different_keys(self, store: ValueStore) -> None:
        keys = ["key", "Key", "kéy", "ke\u0301y", "key ", " key", "key\n", "ｋey"]
        for key in keys:
            await store.put(key, key.encode(), expected=0)
        assert {key: found.value for key, found in (await store.get(keys)).items()} == {key: key.encode() for key in keys}

    async def test_a_stale_writer_is_told_so_and_nothing_is_written(self, store: ValueStore, second: ValueStore) -> None:
        first = await store.put("k", b"1", expected=0)
        newer = await second.put("k", b"2", expected=first)
        for stale in (0, first, newer + 1):
            with pytest.raises(ValueConflict) as conflict:
                await store.put("k", b"3", expected=stale)
            assert (conflict.value.key, conflict.value.expected, conflict.value.found) == ("k", stale, newer)
        assert await store.get(["k"]) == {"k": Value("k", b"2", newer)}

    async def test_a_version_fits_no_absent_key(self, store: ValueStore) -> None:
        with pytest.raises(ValueConflict):
            await store.put("k", b"v", expected=1)
        with pytest.raises(ValueConflict):
            await store.delete("k", expected=1)
        assert await store.get(["k"]) == {}

    async def test_a_writer_who_expects_nothing_in_particular_overwrites(self, store: ValueStore, second: ValueStore) -> None:
        first = await store.put("k", b"1")
        second_version = await second.put("k", b"2")
        assert second_version > first
        assert await store.get(["k"]) == {"k": Value("k", b"2", second_version)}

    async def test_versions_of_a_key_grow_and_never_repeat_while_it_exists(self, store: ValueStore, second: ValueStore) -> None:
        versions: list[int] = []
        for n in range(10):
            expected = versions[-1] if versions and n % 2 else None
            versions.append(await (store, second)[n % 2].put("k", b"same", expected=expected))
        assert versions[0] >= 1
        assert versions == sorted(set(versions))

    @pytest.mark.parametrize("exists", [False, True], ids=["creating", "replacing"])
    async def test_of_many_racing_writers_exactly_one_wins(self, store: ValueStore, second: ValueStore, exists: bool) -> None:
        expected = await store.put("k", b"old") if exists else 0
        writers = [partial((store, second)[n % 2].put, "k", b"%d" % n, expected=expected) for n in range(RACERS)]
        outcomes = await race(*writers)
        won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
        assert len(won) == 1
        assert sum(isinstance(outcome, ValueConflict) for outcome in outcomes) == RACERS - 1
        assert (await store.get(["k"]))["k"] == Value("k", b"%d" % won[0], int(str(outcomes[won[0]])))

    async def test_of_racing_deletes_and_writes_of_one_version_exactly_one_wins(self, store: ValueStore, second: ValueStore) -> None:
        version = await store.put("k", b"old")
        deletes = [partial((store, second)[n % 2].delete, "k", expected=version) for n in range(RACERS)]
        writes = [partial((store, second)[n % 2].put, "k", b"new", expected=version) for n in range(RACERS)]
        outcomes = await race(*(work for pair in zip(deletes, writes, strict=True) for work in pair))
        assert sum(isinstance(outcome, ValueConflict) for outcome in outcomes) == 2 * RACERS - 1

    async def test_racing_counters_lose_no_increment(self, store: ValueStore, second: ValueStore) -> None:
        async def count_one(client: ValueStore) -> None:
            while True:
                found = (await client.get(["n"])).get("n", Value("n", b"0", 0))
                try:
                    await client.put("n", b"%d" % (int(found.value) + 1), expected=found.version)
                except ValueConflict:
                    await checkpoint()
                else:
                    return

        assert await race(*(partial(count_one, (store, second)[n % 2]) for n in range(RACERS))) == [None] * RACERS
        assert (await store.get(["n"]))["n"].value == b"%d" % RACERS

    async def test_delete_removes_and_says_whether_there_was_something(self, store: ValueStore, second: ValueStore) -> None:
        version = await store.put("k", b"v")
        with pytest.raises(ValueConflict):
            await store.delete("k", expected=version + 1)
        assert await second.delete("k", expected=version) is True
        assert await store.get(["k"]) == {}
        assert await store.delete("k") is False
        assert await store.delete("k", expected=0) is False
        assert await store.put("k", b"v", expected=0) >= 1

    async def test_a_value_lives_for_its_time_and_reads_as_absent_at_once_after_it(
        self, store: ValueStore, second: ValueStore, advance: Advance
    ) -> None:
        await store.put("k", b"v", ttl_s=self.lease_s)
        await advance(0.75 * self.lease_s)
        assert list(await second.get(["k"])) == ["k"]
        await advance(0.5 * self.lease_s)
        assert await second.get(["k"]) == {}
        assert await second.scan("") == []
        assert await store.delete("k") is False

    async def test_an_expired_value_is_absent_to_writers_too(self, store: ValueStore, second: ValueStore, advance: Advance) -> None:
        old = await store.put("k", b"old", ttl_s=self.lease_s)
        await advance(1.25 * self.lease_s)
        with pytest.raises(ValueConflict) as conflict:
            await store.put("k", b"late", expected=old)
        assert conflict.value.found == 0
        version = await second.put("k", b"new", expected=0)
        assert version >= 1
        assert await store.get(["k"]) == {"k": Value("k", b"new", version)}

    async def test_of_many_racing_writers_after_an_expiry_exactly_one_creates_it(
        self, store: ValueStore, second: ValueStore, advance: Advance
    ) -> None:
        await store.put("k", b"old", ttl_s=self.lease_s)
        await advance(1.25 * self.lease_s)
        outcomes = await race(*(partial((store, second)[n % 2].put, "k", b"new", expected=0) for n in range(RACERS)))
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1

    async def test_each_put_says_anew_how_long_its_value_lives(self, store: ValueStore, advance: Advance) -> None:
        for key in ("for ever", "longer"):
            await store.put(key, b"1", ttl_s=self.lease_s)
        await store.put("for ever", b"2")
        await advance(0.75 * self.lease_s)
        await store.put("longer", b"2", ttl_s=self.lease_s)
        await advance(0.75 * self.lease_s)
        assert sorted(await store.get(["for ever", "longer"])) == ["for ever", "longer"]
        await advance(0.75 * self.lease_s)
        assert list(await store.get(["for ever", "longer"])) == ["for ever"]

    async def test_scan_returns_what_begins_with_the_prefix_in_byte_order(self, store: ValueStore) -> None:
        inside = ["s:", "s:%", "s:10", "s:9", "s:A", "s:_", "s:a", "s:é", "s:\uffff", "s:\U0001f600"]
        for key in [*reversed(inside), "S:x", "s", "s;", "r:x", "ss:x"]:
            await store.put(key, key.encode())
        assert [(found.key, found.value) for found in await store.scan("s:")] == [(key, key.encode()) for key in inside]
        assert [found.key for found in await store.scan("s:%")] == ["s:%"]
        assert [found.key for found in await store.scan("s:_")] == ["s:_"]

    async def test_scan_goes_on_after_a_key_and_stops_at_its_limit(self, store: ValueStore) -> None:
        keys = [f"k{n:03}" for n in range(30)]
        for key in ["j", *keys, "l"]:
            await store.put(key, b"v")
        assert [found.key for found in await store.scan("k", limit=7)] == keys[:7]
        assert [found.key for found in await store.scan("k", after=keys[6], limit=7)] == keys[7:14]
        assert [found.key for found in await store.scan("k", after="k0065")] == keys[7:]
        assert [found.key for found in await store.scan("k", after="a")] == keys
        assert await store.scan("k", after="kz") == []

    async def test_scan_tells_the_version_that_get_tells(self, store: ValueStore) -> None:
        await store.put("k", b"1")
        await store.put("k", b"2")
        assert await store.scan("k") == list((await store.get(["k"])).values())

    async def test_scan_shows_each_key_once_while_others_write(self, store: ValueStore, second: ValueStore) -> None:
        staying = [f"k{n:03}" for n in range(0, 100, 2)]
        for key in staying:
            await store.put(key, b"v")

        async def write() -> list[str]:
            for n in range(1, 100, 2):
                await second.put(f"k{n:03}", b"new")
                await second.put(f"k{n - 1:03}", b"again")
                await second.delete(f"k{(n * 7 % 100) | 1:03}")
                await checkpoint()
            return []

        async def read() -> list[str]:
            seen: list[str] = []
            for _ in range(100):
                page = await store.scan("k", after=seen[-1] if seen else "", limit=3)
                seen += [found.key for found in page]
                await checkpoint()
            return seen

        seen = (await race(write, read))[1]
        assert isinstance(seen, list)
        assert seen == sorted(set(seen))
        assert set(staying) <= set(seen)
