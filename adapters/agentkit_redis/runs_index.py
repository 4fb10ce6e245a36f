"""Finding runs by the lists that name them, and deleting those whose time is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit_redis.connection import Script, command
from agentkit_redis.runs_base import ALL, EXPIRING, GRACE_S, LIVE, PUT, UNTOLD, RunsBase, add, rem, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agentkit.ports.records import Run, RunQuery
    from agentkit_redis.connection import Client
    from agentkit_redis.rows import Row

LOOK_AGAIN_S = 60.0  # when a purge met an ended root whose descendants live on
_purge = Script("purge")


class Indexed(RunsBase):
    """The verb `purge`, and the pages of `list`."""

    async def pages(self, client: Client, query: RunQuery) -> AsyncIterator[Sequence[str]]:
        """The ids among which those that a query asks for are, in its order."""
        size = max(query.limit, 50)
        if query.parent_id is not None:
            children = await self._children(client, query.parent_id, query.parent_key, query.after_idx)
            if query.parent_key is None:
                children = sorted((child for child in children if child > query.after), key=str.encode)
            for i in range(0, len(children), size):
                yield children[i : i + size]
            return
        index, after = self.list_key(_index(query)), f"({query.after}" if query.after else "-"
        while True:
            page = texts(await client.call(command("ZRANGEBYLEX", index, after, "+", "LIMIT", 0, size)))
            yield page
            if len(page) < size:
                return
            after = f"({page[-1]}"

    async def _children(self, client: Client, parent_id: str, group: str | None = None, after_idx: int = -1) -> list[str]:
        """The children of a run, or of one group of them beyond an idx."""
        groups = [group] if group is not None else await self.groups(client, parent_id)
        first = f"({after_idx}" if group is not None else "-inf"
        calls = [command("ZRANGEBYSCORE", self.run_key(parent_id, f":children:{name}"), first, "+inf") for name in groups]
        [answers] = await client.phases(calls)
        return [child for answer in answers for child in texts(answer)]

    async def purge(self, limit: int) -> int:
        """Delete at most `limit` expired runs, each root after its descendants, none while a descendant lives."""
        client = await self.client()
        now = await self.time(client)
        gone = 0
        while gone < limit:
            words = command("ZRANGEBYSCORE", self.list_key(EXPIRING), "-inf", now, "LIMIT", 0, limit - gone)
            roots = texts(await client.call(words))
            if not roots:
                break
            for root, row in zip(roots, await self.look(client, roots), strict=True):
                if row is not None and row.run.expires_at is not None and row.run.expires_at <= now:
                    gone += await self._purge(client, root, limit - gone, now)
                else:
                    self._expires_later(root, row)
            await client.phases(self.hints())
        return gone

    def _expires_later(self, run_id: str, row: Row | None) -> None:
        """Correct the list by what the run says."""
        if row is not None and row.run.expires_at is not None:
            self.forget(add(EXPIRING, run_id, row.run.expires_at))
        elif row is None or row.run.status.ended:
            self.forget(rem(EXPIRING, run_id))  # gone, or a child, which goes with its root
        else:
            self.forget(add(EXPIRING, run_id, f"+{GRACE_S}"))  # on its way to its end, or revived

    async def _purge(self, client: Client, root: str, limit: int, now: float) -> int:
        """Delete a root with its descendants, the deepest first: one that is too big for one round is found by the next."""
        family = await self._family(client, root)
        if family is None:
            self.forget(add(EXPIRING, root, now + LOOK_AGAIN_S))
            return 0
        leaving = family[::-1][:limit]
        rows = await self.look(client, leaving)
        gone = 0
        for run_id, row in zip(leaving, rows, strict=True):
            groups = await self.groups(client, run_id)
            rests = [":body", ":journal", ":inbox", ":joins", ":groups"]
            rests += [f":{name}:{group}" for group in groups for name in ("children", "counted", "waiting", "starting")]
            if not await client.call(_purge([self.run_key(run_id), *(self.run_key(run_id, rest) for rest in rests)])):
                break
            gone += 1
            lists = [ALL, LIVE, PUT, UNTOLD, EXPIRING]
            lists += [f"kind:{row.run.kind}", f"tenant:{row.run.tenant}"] if row else []
            self.forget(*(rem(name, run_id) for name in lists))
        return gone

    async def _family(self, client: Client, root: str) -> list[str] | None:
        """A run and its descendants, parents first; None: one of them lives."""
        family = [root]
        for run_id in family:
            children = await self._children(client, run_id)
            for child, row in zip(children, await self.look(client, children), strict=True):
                if row is not None and row.run.parent_id == run_id:
                    if not row.run.status.ended:
                        return None
                    family.append(child)
        return family


def matches(run: Run, query: RunQuery, now: float) -> bool:
    """Whether a run is one of those asked for."""
    return (
        (query.kind is None or run.kind == query.kind)
        and (query.version is None or run.version == query.version)
        and (query.tenant is None or run.tenant == query.tenant)
        and (query.status is None or run.status in query.status)
        and (query.parent_id is None or run.parent_id == query.parent_id)
        and (query.parent_key is None or run.parent_key == query.parent_key)
        and (query.idle_s is None or now - run.updated_at >= query.idle_s)
    )


def _index(query: RunQuery) -> str:
    """The shortest list that names all that is asked for."""
    if query.status is not None and not any(status.ended for status in query.status):
        return LIVE
    if query.tenant is not None:
        return f"tenant:{query.tenant}"
    return ALL if query.kind is None else f"kind:{query.kind}"
