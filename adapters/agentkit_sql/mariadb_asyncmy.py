"""MariaDB and MySQL by asyncmy."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from asyncmy import errors
from asyncmy.constants import CLIENT, FIELD_TYPE

from agentkit.errors import AgentKitError, InvalidSetting, StoreBusy, StoreRefused, StoreUnavailable
from agentkit_sql.mariadb import DUPLICATE, LOCK, OR_NOTHING, UNDONE, MariadbSettings, Often, by_number

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from agentkit_sql.dialect import Params

CLOSE_S = 1.0  # for a farewell; a server that does not hear it notices the closed socket
LOST = frozenset({1152, 1158, 1159, 1160, 1161, 1927, 4031})  # beside the driver's own, which begin with 2: the server hung up
FEW = 4  # rows: as text they travel with the next statement
LARGE_BYTES = 65_536  # from here on the length of a text matters more than the round trip that it saves
MOST_PREPARED = 40  # of a connection: a server has 16,382 for all of them (max_prepared_stmt_count)
TOO_MANY_PREPARED = 1461
ROOM_BYTES = 1024  # of a packet, for what is not the statement


asyncmy: Any = import_module("asyncmy")  # its types say little
converters: Any = import_module("asyncmy.converters")


class Cursor(Protocol):
    """What is used of the driver's cursor."""

    rowcount: int

    async def execute(self, query: str) -> object: ...
    async def fetchall(self) -> Sequence[Sequence[Any]]: ...
    async def nextset(self) -> object: ...


class Answer(Protocol):
    """What is used of its answers to those."""

    rows: Sequence[Sequence[Any]] | None


class Prepared(Protocol):
    """What is used of its prepared statement."""

    async def execute(self, args: Params) -> Answer: ...
    async def execute_bulk(self, rows: Sequence[Params]) -> object: ...
    async def close(self) -> None: ...


class Raw(Protocol):
    """What is used of its connection."""

    @property
    def connected(self) -> bool: ...
    def cursor(self) -> Cursor: ...
    async def prepare(self, query: str) -> Prepared: ...
    def escape(self, value: str | bytes) -> str: ...
    async def ensure_closed(self) -> None: ...
    def close(self) -> None: ...


class LostBeforeWriting(Exception):
    """The connection was lost in a transaction whose COMMIT had not been sent: there is nothing left of it."""


class TooLarge(Exception):
    """A statement that the server would not read."""


class AsyncmyConnection:
    """One connection.

    What has no answer is sent together with the next that has one: BEGIN with the first statement, rows with the COMMIT. So a flush
    is two round trips.
    """

    def __init__(self, raw: Raw, max_bytes: int) -> None:
        self.raw, self._max_bytes = raw, max_bytes
        self._ahead: list[str] = []
        self._open = False  # in a transaction, whether the server has heard of it
        self._begun = False  # or not yet
        self._locks = False
        self._bulks = True
        self._prepared: dict[str, Prepared] = {}

    @property
    def closed(self) -> bool:
        return not self.raw.connected

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        if isinstance(sql, Often) and (statement := await self._prepare(sql)) is not None:
            with self._watched(sql):
                return (await statement.execute(params)).rows or ()
        self._locks |= sql == LOCK
        cursor = await self._send(rendered(self.raw, sql, params))
        return await cursor.fetchall()

    async def count(self, sql: str, params: Params) -> int:
        insert, or_nothing, _ = sql.partition(OR_NOTHING)
        if not or_nothing:
            return (await self._send(rendered(self.raw, sql, params))).rowcount
        # The server counts a row that was there like one that was inserted; only without the clause it tells them apart.
        await self._send_ahead()
        try:
            return (await self._send(rendered(self.raw, insert, params))).rowcount
        except errors.IntegrityError as exc:
            if exc.args[0] != DUPLICATE:
                raise
            return 0

    async def many(self, sql: str, rows: Sequence[Params]) -> None:
        size = sum(len(value) for row in rows for value in row if isinstance(value, bytes))
        if (len(rows) > FEW or size > LARGE_BYTES) and size < self._max_bytes and await self._bulk(sql, rows):
            return
        head, values, tail = in_parts(sql)
        if values:
            self._ahead += packed(head, [rendered(self.raw, values, row) for row in rows], tail, self._max_bytes)
        else:
            self._ahead += [rendered(self.raw, sql, row) for row in rows]
        if not self._open:
            await self._send_ahead()

    async def _bulk(self, sql: str, rows: Sequence[Params]) -> bool:
        """Many rows in one binary packet, which costs an eighth of the same as text. False: this must go as text."""
        statement = await self._prepare(sql) if self._bulks else None
        if statement is None:
            return False
        with self._watched(sql):
            try:
                await statement.execute_bulk(rows)
            except ValueError:  # a column of nothing but NULL, or of several types
                return False
            except errors.NotSupportedError:
                self._bulks = False
                return False
        return True

    async def _prepare(self, sql: str) -> Prepared | None:
        """A prepared statement. None: the server has no room for another one, so this must go as text."""
        await self._send_ahead()
        statement = self._prepared.get(sql)
        if statement is not None:
            return statement
        with self._watched(sql):
            if len(self._prepared) >= MOST_PREPARED:
                await self._prepared.pop(next(iter(self._prepared))).close()
            try:
                statement = self._prepared[sql] = await self.raw.prepare(sql)
            except errors.MySQLError as exc:
                if number_of(exc) != TOO_MANY_PREPARED:
                    raise
        return statement

    async def plain(self, sql: str) -> None:
        if sql == "BEGIN":
            self._open, self._begun, self._ahead = True, False, [sql]
            return
        if sql == "ROLLBACK":
            self._ahead.clear()
        if self._begun or len(self._ahead) > 1:
            try:
                await self._send(sql)
                if self._locks:
                    await self._send("DO RELEASE_ALL_LOCKS()")
            except BaseException:
                self.terminate()  # in the middle of a transaction it is of no use to anybody
                raise
        self._ahead.clear()
        self._open = self._begun = self._locks = False

    async def _send_ahead(self) -> None:
        while self._ahead:
            sql = self._ahead.pop(0)
            ahead, self._ahead = self._ahead, []
            await self._send(sql)
            self._ahead = ahead

    async def _send(self, sql: str) -> Cursor:
        """Send what waits, and a statement; its cursor stands at the answer to the statement."""
        if sum(map(len, self._ahead), len(sql)) > self._max_bytes:
            if len(sql) > self._max_bytes:
                raise TooLarge(f"a statement of {len(sql)} bytes; it reads up to {self._max_bytes} (max_allowed_packet)")
            await self._send_ahead()
        ahead, self._ahead = self._ahead, []
        cursor = self.raw.cursor()
        with self._watched(sql):
            await cursor.execute("; ".join((*ahead, sql)))
            for _ in ahead:
                await cursor.nextset()
        return cursor

    @contextmanager
    def _watched(self, sql: str) -> Generator[None]:
        try:
            yield
        except Exception as exc:
            if is_lost(exc):
                self.terminate()
                if self._open and sql != "COMMIT":
                    raise LostBeforeWriting from exc
            raise
        finally:
            self._begun = self._open

    async def close(self) -> None:
        with anyio.move_on_after(CLOSE_S):
            try:
                await self.raw.ensure_closed()
            except (OSError, errors.MySQLError):
                pass
        self.terminate()

    def terminate(self) -> None:
        self.raw.close()


class AsyncmyDriver:
    """The driver with its settings."""

    transactions_only = False

    def __init__(self, settings: MariadbSettings) -> None:
        self._settings = settings
        self._ssl = tls(settings)

    async def connect(self) -> AsyncmyConnection:
        settings = self._settings
        try:
            with anyio.fail_after(settings.connect_timeout_s):
                raw: Raw = await asyncmy.connect(
                    host=settings.host,
                    port=settings.port,
                    user=settings.user,
                    password="" if settings.password is None else settings.password.get_secret_value(),
                    database=settings.database,
                    unix_socket=settings.unix_socket,
                    charset="utf8mb4",
                    autocommit=True,
                    client_flag=CLIENT.FOUND_ROWS,  # an UPDATE counts the rows that it found, changed or not
                    conv=CONVERSIONS,
                    ssl=self._ssl,
                )
                return await self._prepared(raw)
        except Exception as exc:
            told = self.translated(exc)
            if isinstance(told, InvalidSetting):
                raise told from exc
            if isinstance(exc.__cause__, ssl.SSLError):
                raise InvalidSetting("ssl_ca", settings.ssl_ca, f"{told_by(exc)}: it must have signed the server's certificate") from exc
            if isinstance(told, StoreUnavailable):
                raise StoreBusy(settings.store, f"cannot connect: {told_by(exc)}: is the server up, and may this host reach it?") from exc
            raise

    async def _prepared(self, raw: Raw) -> AsyncmyConnection:
        try:
            cursor = raw.cursor()
            await cursor.execute("SELECT version(), @@max_allowed_packet")
            [(version, max_bytes)] = await cursor.fetchall()
            own = self._settings.session_of_mariadb if "MariaDB" in version else self._settings.session_of_mysql
            for statement in (*self._settings.session, own):
                await cursor.execute(statement)
        except BaseException:
            raw.close()
            raise
        return AsyncmyConnection(raw, max_bytes - ROOM_BYTES)

    def begin(self, *, sync: bool) -> str:
        """For all transactions alike: whether a commit waits for the disk is a setting of the server."""
        return "BEGIN"

    def undone(self, exc: BaseException) -> bool:
        return isinstance(exc, LostBeforeWriting) or (isinstance(exc, errors.MySQLError) and number_of(exc) in UNDONE)

    def translated(self, exc: BaseException) -> BaseException:
        store = self._settings.store
        if isinstance(exc, AgentKitError):
            return exc
        if isinstance(exc, LostBeforeWriting):
            return StoreBusy(store, f"the connection was lost: {exc.__cause__}")
        if isinstance(exc, errors.MySQLError) and not is_lost(exc):
            return by_number(number_of(exc), told_by(exc), store)
        if isinstance(exc, (TooLarge, UnicodeError)):
            return StoreRefused(f"{store}: the server does not take the data: {exc}. Nothing was written")
        if isinstance(exc, (OSError, TimeoutError, errors.MySQLError)):
            return StoreUnavailable(store, told_by(exc))
        return exc


def told_by(exc: BaseException) -> str:
    """What an error says, without its number."""
    return str(exc.args[-1]) if exc.args else "no answer"


def number_of(exc: errors.MySQLError) -> int:
    """The server's number of an error; 0 where it has none."""
    return exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0


def is_lost(exc: Exception) -> bool:
    """Whether the connection is no more, or answers out of step."""
    if isinstance(exc, errors.MySQLError):
        number = number_of(exc)
        return number in LOST or not number or number // 1000 == 2
    return isinstance(exc, OSError)


def tls(settings: MariadbSettings) -> ssl.SSLContext | None:
    """How to speak to the server in secret; None: plainly."""
    if not settings.ssl and settings.ssl_ca is None:
        return None
    context = ssl.create_default_context(cafile=settings.ssl_ca)
    if settings.ssl_ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if settings.ssl_cert is not None:
        context.load_cert_chain(settings.ssl_cert, settings.ssl_key)
    return context


@lru_cache(maxsize=1024)
def in_pieces(sql: str) -> list[str]:
    """What stands between the parameters."""
    return sql.split("?")


@lru_cache(maxsize=256)
def in_parts(sql: str) -> tuple[str, str, str]:
    """An INSERT up to its row, the row's marks, and what follows; of anything else the second is empty."""
    head, values, rest = sql.partition(" VALUES (")
    row, _, tail = rest.partition(")")
    return (head + " VALUES ", f"({row})", tail) if values else (sql, "", "")


def packed(head: str, rows: Sequence[str], tail: str, max_bytes: int) -> list[str]:
    """As few INSERTs of these rows as the server reads."""
    statements: list[str] = []
    begin = size = 0
    for number, row in enumerate(rows):
        if size and size + len(row) > max_bytes:
            statements.append(head + ", ".join(rows[begin:number]) + tail)
            begin, size = number, 0
        size += len(row) + 2 + (len(head) + len(tail)) * (number == begin)
    return [*statements, head + ", ".join(rows[begin:]) + tail] if rows else []


def rendered(raw: Raw, sql: str, params: Params) -> str:
    """A statement with its parameters in it: bytes are characters of one byte each, as the driver sends them."""
    first, *others = in_pieces(sql)
    return first + "".join([literal(raw, value) + piece for value, piece in zip(params, others, strict=True)])


def literal(raw: Raw, value: Any) -> str:
    """A value as SQL. Raises `UnicodeEncodeError` for text that UTF-8 cannot write."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
        return raw.escape(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, (bytes, bytearray)):
        # Twice as long, and made in a twentieth of the time that escaping takes.
        return f"x'{value.hex()}'" if len(value) <= LARGE_BYTES else raw.escape(bytes(value))
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return repr(value) + "e0" * ("e" not in repr(value))  # else it would be a decimal, and rounded on its way
    return f"({', '.join([literal(raw, one) for one in value])})"


def text(value: Any) -> Any:
    """Keys come as bytes."""
    return value.decode() if isinstance(value, bytes) else value


CONVERSIONS: dict[object, object] = {
    **converters.conversions,
    FIELD_TYPE.VAR_STRING: text,
    FIELD_TYPE.VARCHAR: text,
    FIELD_TYPE.STRING: text,
}


def open_driver(settings: MariadbSettings) -> AsyncmyDriver:
    """The driver for a URL."""
    return AsyncmyDriver(settings)
