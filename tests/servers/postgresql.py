"""PostgreSQL for tests, and PgBouncer in front of it."""

from __future__ import annotations

import itertools
import signal
import subprocess
from pathlib import Path

import psycopg

from tests.servers.process import Server, User, copy, find, own, template, unprivileged

USER = "postgres"
GUARDED, PASSWORD = "guarded", "right"
"""A user who needs a password; all others are trusted."""

QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
LASTING = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
SMALL = {"shared_buffers": "32MB", "max_connections": "200", "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "256MB"}


def _initialise(folder: Path) -> None:
    own(folder, USER)
    arguments = ["-D", str(folder), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([find("initdb"), *arguments], check=True, capture_output=True, cwd=folder, **unprivileged(USER))
    (folder / "pg_hba.conf").write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")


class Postgresql(Server):
    """A PostgreSQL server; `lasting` for tests that crash it, else it leaves the disk alone. Options are those of postgresql.conf."""

    program = "postgres"
    stop_signal = signal.SIGINT  # the quick way: clients are cut off

    def __init__(self, *, lasting: bool = False, **options: str) -> None:
        super().__init__()
        self._options = {**SMALL, **(LASTING if lasting else QUICK), **options}
        copy(template("template-postgresql", _initialise), self.data, USER)
        self._numbers = itertools.count(1)
        self._emptied: list[str] = []

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self) -> list[str]:
        fixed = ["-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        return [self.executable, *fixed, *(word for name, value in self._options.items() for word in ("-c", f"{name}={value}"))]

    def popen_options(self) -> User:
        return unprivileged(USER)

    def answers(self) -> bool:
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the tests' own, in autocommit. Blocks."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname=database, autocommit=True, connect_timeout=5)

    def execute(self, statement: str) -> None:
        """Blocks."""
        with self.connect() as connection:
            connection.execute(statement.encode())

    def url(self, database: str, *, user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The name of an empty database. Blocks."""
        if self._emptied:
            return self._emptied.pop()
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Cut its connections and empty it for another test, which takes a tenth of the time that a new one does. Blocks."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with self.connect(name) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        self._emptied.append(name)

    def add_guarded_user(self) -> None:
        """Make the user `GUARDED` with its `PASSWORD`, if it is not there."""
        with self.connect() as connection:
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [GUARDED]).rowcount:
                connection.execute(f"CREATE ROLE {GUARDED} SUPERUSER LOGIN PASSWORD '{PASSWORD}'".encode())


class PgBouncer(Server):
    """PgBouncer in transaction mode in front of a server."""

    program = "pgbouncer"
    stop_signal = signal.SIGINT

    def __init__(self, behind: Postgresql, **options: str | int) -> None:
        super().__init__()
        self._behind = behind
        settings = {"pool_mode": "transaction", "auth_type": "trust", "listen_addr": "127.0.0.1", "listen_port": self.port, **options}
        settings |= {"auth_file": str(self.folder / "users"), "unix_socket_dir": "", "ignore_startup_parameters": "extra_float_digits"}
        (self.folder / "users").write_text(f'"{USER}" ""\n')
        lines = ["[databases]", f"* = host=127.0.0.1 port={behind.port} user={USER}", "[pgbouncer]"]
        (self.folder / "pgbouncer.ini").write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())]) + "\n")
        own(self.folder, USER)

    def command(self) -> list[str]:
        return [self.executable, str(self.folder / "pgbouncer.ini")]

    def popen_options(self) -> User:
        return unprivileged(USER)

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"
