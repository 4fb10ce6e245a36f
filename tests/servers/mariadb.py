"""MariaDB for tests."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pymysql

from tests.servers.process import Server, User, certify, copy, find, own, template, unprivileged

SYSTEM_USER = "mysql"
USER, GUARDED, PASSWORD = "root", "guarded", "right"

QUICK = {"innodb_flush_log_at_trx_commit": "0", "innodb_flush_method": "nosync", "innodb_doublewrite": "0"}
LASTING = {"innodb_flush_log_at_trx_commit": "1"}
SMALL = {"innodb_buffer_pool_size": "64M", "max_connections": "200", "performance_schema": "OFF", "innodb_log_file_size": "32M"}


def _initialise(folder: Path) -> None:
    own(folder, SYSTEM_USER)
    arguments = [
        "--no-defaults",
        f"--datadir={folder}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]
    arguments += ["--innodb-log-file-size=32M"]
    subprocess.run([find("mariadb-install-db"), *arguments], check=True, capture_output=True, cwd=folder, **unprivileged(SYSTEM_USER))


class Mariadb(Server):
    """A MariaDB server. Options are those of my.cnf, with `_`.

    Args:
        lasting: for tests that crash it; else it leaves the disk alone.
        tls: it offers TLS.
    """

    program = "mariadbd"

    def __init__(self, *, lasting: bool = False, tls: bool = False, **options: str) -> None:
        super().__init__()
        self._options = {**SMALL, **(LASTING if lasting else QUICK), **options}
        self.certificate: Path | None = None
        if tls:
            self.certificate, key = certify(self.folder)
            own(key, SYSTEM_USER)
            self._options |= {"ssl_cert": str(self.certificate), "ssl_key": str(key), "ssl_ca": str(self.certificate)}
        copy(template("template-mariadb", _initialise), self.data, SYSTEM_USER)
        self._numbers = itertools.count(1)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self) -> list[str]:
        fixed = ["--no-defaults", f"--datadir={self.data}", f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        fixed += ["--socket=here.sock", "--skip-log-bin"]  # relative to the data: a long path is no name for a socket
        return [self.executable, *fixed, *(f"--{name}={value}" for name, value in self._options.items())]

    def popen_options(self) -> User:
        return unprivileged(SYSTEM_USER)

    def answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """A connection of the tests' own, in autocommit. Blocks."""
        where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": USER, "database": database}
        return pymysql.connect(**where, autocommit=True, connect_timeout=5, ssl_disabled=True)  # to look for certificates takes 20 ms

    def execute(self, statement: str) -> None:
        """Blocks."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def url(self, database: str, *, user: str = USER) -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The name of a new, empty database. Blocks for a moment."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Blocks."""
        self.execute(f"DROP DATABASE {name}")

    def add_guarded_user(self) -> None:
        """Make the user `GUARDED`, who needs the `PASSWORD`."""
        self.execute(f"CREATE USER IF NOT EXISTS {GUARDED} IDENTIFIED BY '{PASSWORD}'")
        self.execute(f"GRANT ALL ON *.* TO {GUARDED}")
