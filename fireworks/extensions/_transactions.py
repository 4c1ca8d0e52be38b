"""Write transactions on one connection that stays open, such as a worker needs that commits thousands of times."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._database.errors import translated

__all__ = ["Transactions"]

_BUSY_STEP = 5.0  # seconds that SQLite waits at a time: until then Python hears no Ctrl-C
_ABANDONED: list[
    sa.Connection
] = []  # connections of the process that this one was forked from: closing would end theirs


class Transactions:
    """Opens a connection of its own at first use and runs write transactions on it, one at a time.

    SQLite: the connection leaves the pool, because it gets WAL, synchronous NORMAL and a long time-out, which others
    need not have. A file on which WAL is impossible keeps its journal. The rest of the database's users see committed
    data as ever. In a forked process a new connection is opened.

    Args:
        engine: The database.
        busy_seconds: How long SQLite waits for a lock; `math.inf` for as long as it takes.
        what: What they do, for the texts of errors.
    """

    def __init__(self, engine: sa.Engine, busy_seconds: float = 60.0, what: str = "writing") -> None:
        self.engine, self.busy_seconds, self.what = engine, busy_seconds, what
        self._lock = threading.RLock()
        self._connection: sa.Connection | None = None
        self._pid = os.getpid()
        self._is_open = False

    @property
    def is_private(self) -> bool:
        """Whether the database is SQLite's in memory."""
        url = self.engine.url
        if url.get_backend_name() != "sqlite":
            return False
        return url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end of the block, rolled back on an exception.

        Inside of another one of the same thread it is a part of that. Errors of the driver become ours at its end.
        """
        with self._lock:
            connection = self._opened()
            if self._is_open:
                yield connection
                return
            self._is_open = True
            try:
                if self.engine.dialect.name == "sqlite":
                    yield from self._immediate(connection)
                else:
                    with connection.begin():
                        yield connection
            except BaseException:
                self._is_open = False
                self.close()  # it may be broken, which SQLAlchemy does not see when statements go to the driver itself
                with translated(self.engine, self.what):
                    raise
            self._is_open = False

    def _immediate(self, connection: sa.Connection) -> Iterator[sa.Connection]:
        driver: Any = connection.connection.dbapi_connection
        self._patiently(driver, "BEGIN IMMEDIATE")
        try:
            yield connection
            self._patiently(driver, "COMMIT")
        except BaseException:
            if driver.in_transaction:
                driver.execute("ROLLBACK")
            raise
        finally:
            if connection.in_transaction():  # SQLAlchemy's own notion of one, which ends nothing here
                connection.rollback()

    def _patiently(self, driver: Any, statement: str) -> None:
        end = time.monotonic() + self.busy_seconds
        while True:
            try:
                driver.execute(statement)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    raise
            else:
                return

    def _opened(self) -> sa.Connection:
        if self._pid != os.getpid():
            self._forget()
        if self._connection is None:
            with translated(self.engine, self.what):
                self._connection = self._open()
        return self._connection

    def _forget(self) -> None:
        if self._connection is not None:
            _ABANDONED.append(self._connection)
        self.engine.dispose(close=False)
        self._connection, self._pid, self._lock, self._is_open = None, os.getpid(), threading.RLock(), False

    def _open(self) -> sa.Connection:
        connection = self.engine.connect()
        if self.engine.dialect.name != "sqlite":
            return connection.execution_options(isolation_level="READ COMMITTED")
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")  # we say BEGIN and COMMIT ourselves
        if not self.is_private:
            connection.detach()
            step = min(self.busy_seconds, _BUSY_STEP)
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(step * 1000)}")
            if self._turn_to_wal(connection):
                connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
                connection.exec_driver_sql("PRAGMA wal_autocheckpoint = 10000")  # 40 MB; each waits for the disk
            connection.rollback()
        return connection

    def _turn_to_wal(self, connection: sa.Connection) -> bool:
        """Whether the file has a write-ahead log; SQLite does not wait while others turn to it or read the old way."""
        end = time.monotonic() + min(self.busy_seconds, 5.0)
        while True:
            try:
                return bool(connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar() == "wal")
            except sa.exc.OperationalError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.01)

    def close(self) -> None:
        """Close the connection; the next transaction opens it again."""
        with self._lock:
            if self._is_open and self._pid == os.getpid():
                return  # whoever opened the transaction needs it
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None
