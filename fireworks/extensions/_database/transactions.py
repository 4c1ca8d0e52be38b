"""One transaction at a time on one connection: opened when something is written, whole or absent at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._database.connections import belongs_here, connect, in_memory, is_autocommit, is_disconnect
from fireworks.extensions._database.errors import translated
from fireworks.utils.exceptions import DatabaseConnectionError, DatabaseLockedError

__all__ = ["Transaction"]

_MARIADB_TIMEOUTS = ("innodb_lock_wait_timeout", "lock_wait_timeout")


class Transaction:
    """What a writer has written and not committed, on a connection that it holds only that long.

    A `step` is done whole or not at all, and when it fails, the steps before it stay. When the connection breaks, all
    of them are gone: that is an error then, and at every use after it until `rollback`, so that nobody commits the rest
    of a transaction as if it were the whole. A connection that broke while nothing was written on it is replaced.

    Args:
        engine: Where to connect.
        lock_timeout: How long to wait for locks of others.
    """

    def __init__(self, engine: sa.Engine, lock_timeout: timedelta) -> None:
        self.engine = engine
        self.lock_timeout = lock_timeout
        self._connection: sa.Connection | None = None
        self._steps = 0  # done and not committed
        self._loss = ""  # what became of steps that were done, once that is known to be bad
        self._restoring: list[str] = []  # statements that set the connection back to what it was

    @property
    def is_open(self) -> bool:
        """Whether something is written and neither committed nor rolled back."""
        return self._connection is not None or bool(self._loss)

    @property
    def connection(self) -> sa.Connection | None:
        """The connection that sees what is not committed yet; None when there is nothing of the kind.

        Raises:
            DatabaseConnectionError: What was not committed is lost, or belongs to the process that this one is of.
        """
        if self._connection is not None and not belongs_here(self._connection):
            self._connection, self._loss = None, "the transaction was opened by the process that made this one"
        if self._loss:
            raise DatabaseConnectionError(f"{self._loss}; call rollback(), and write again what is missing")
        if self._connection is not None and not self._is_whole(self._connection):
            self._lose("somebody else ended the transaction on this connection, which the engine shares")
            return self.connection
        return self._connection

    @contextmanager
    def step(self, what: str) -> Iterator[sa.Connection]:
        """The connection to write on; what the block wrote is undone when it fails.

        Args:
            what: What the block does, for the texts of errors.

        Raises:
            DatabaseConnectionError: The connection broke, now or before; what was not committed is lost.
            DatabaseLockedError: Somebody else held a lock for too long.
        """
        connection = self.connection
        try:
            with translated(self.engine, what):
                connection = self._connection = connection or self._open()
                savepoint = None
                try:
                    savepoint = connection.begin_nested()
                    yield connection
                    savepoint.commit()
                except BaseException as error:
                    self._undo(savepoint, error)
                    raise
            self._steps += 1
        except Exception as error:
            if self._loss:
                error.add_note(f"Also, {self._loss}; call rollback(), and write again what is missing.")
            raise
        finally:
            if not self._steps:
                self._release()

    def commit(self) -> None:
        """Makes what was written last.

        Raises:
            DatabaseConnectionError: The connection broke: before, and all is lost, or now, and nobody knows.
            DatabaseLockedError: Somebody else reads or writes; everything is kept, so commit again later.
            CellError: A constraint that is checked at the end does not hold; all is undone.
            DatabaseFullError: No room is left; all is undone.
        """
        connection = self.connection
        if connection is None:
            return
        try:
            with translated(connection, f"committing to {self.engine.url.render_as_string()}"):
                if self.engine.dialect.name == "sqlite":
                    # SQLAlchemy would take a commit that failed for the end of the transaction.
                    connection.connection.driver_connection.commit()  # type: ignore[union-attr]
                connection.commit()
        except DatabaseLockedError:
            if self._can_try_again():
                raise
            self.rollback()
            raise
        except DatabaseConnectionError as error:
            self._release(broken=True)
            raise DatabaseConnectionError(
                f"the connection broke while committing, so nobody here knows whether it was done; look ({error})"
            ) from error
        except BaseException:
            self.rollback()
            raise
        self._release()

    def rollback(self) -> None:
        """Undoes what was written and not committed; also ends the error about what was lost."""
        self._loss = ""
        if self._connection is not None:
            self._release(broken=not belongs_here(self._connection))

    def _open(self) -> sa.Connection:
        """A connection with a transaction begun; one that the server has dropped meanwhile is replaced, once."""
        for last in (False, True):
            connection = connect(self.engine)
            try:
                self._begin(connection)
                return connection
            except BaseException as error:
                dropped = is_disconnect(error, connection)
                if dropped and not connection.invalidated:
                    connection.invalidate()
                connection.close()
                if last or not dropped:
                    raise
        raise AssertionError("unreachable")

    def _begin(self, connection: sa.Connection) -> None:
        kind = connection.dialect.name
        if is_autocommit(connection):
            connection.execution_options(isolation_level="SERIALIZABLE" if kind == "sqlite" else "READ COMMITTED")
        seconds = self.lock_timeout.total_seconds()
        if kind == "postgresql":
            # 0 would mean: wait for ever.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max(1, math.ceil(seconds * 1000))}")
        elif kind == "sqlite":
            before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
            self._restoring = [f"PRAGMA busy_timeout = {before}"]
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {math.ceil(seconds * 1000)}")
            if not _in_transaction(connection):
                # The driver would begin at the first row, and not before a SAVEPOINT; two that have read before they
                # write would deadlock.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif kind in ("mysql", "mariadb"):
            names = ", ".join(f"@@{name}" for name in (*_MARIADB_TIMEOUTS, "sql_mode"))
            *times, mode = connection.exec_driver_sql(f"SELECT {names}").one()
            self._restoring = [_set_session(times, f"'{mode}'")]
            wait = [max(1, math.ceil(seconds))] * len(_MARIADB_TIMEOUTS)
            # Otherwise a key 0 becomes the next number, and a server that is set so cuts values that are too long.
            connection.exec_driver_sql(
                _set_session(wait, "CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO')")
            )

    def _undo(self, savepoint: sa.NestedTransaction | None, error: BaseException) -> None:
        """Back to the savepoint; where there is none any more, the server has undone everything."""
        with suppress(Exception):  # what is raised is the error that was the reason
            if savepoint is not None and not savepoint.connection.invalidated:
                savepoint.rollback()
                return
        self._lose(f"what was written before and not committed is lost ({type(error).__name__})")

    def _lose(self, loss: str) -> None:
        steps = self._steps
        self._release(broken=True)
        self._loss = loss if steps else ""

    def _is_whole(self, connection: sa.Connection) -> bool:
        """Whether the transaction is still that which was begun: SQLite's databases in memory have one connection."""
        return self.engine.dialect.name != "sqlite" or _in_transaction(connection)

    def _can_try_again(self) -> bool:
        """SQLite keeps a transaction that could not be committed because of somebody who reads."""
        connection = self._connection
        return (
            connection is not None
            and self.engine.dialect.name == "sqlite"
            and not connection.invalidated
            and _in_transaction(connection)
        )

    def _release(self, broken: bool = False) -> None:
        """Gives the connection back to the pool, without what was not committed; a broken one is thrown away."""
        connection, self._connection, self._steps = self._connection, None, 0
        restoring, self._restoring = self._restoring, []
        if connection is None:
            return
        if not broken and not connection.invalidated:
            try:
                connection.rollback()
                for statement in restoring:
                    connection.exec_driver_sql(statement)
                connection.rollback()
            except sa.exc.DBAPIError:
                broken = True
        if broken and not connection.invalidated and belongs_here(connection) and not in_memory(self.engine):
            connection.invalidate()
        if belongs_here(connection):
            connection.close()


def _in_transaction(connection: sa.Connection) -> bool:
    """Whether SQLite itself has begun."""
    driver: Any = connection.connection.driver_connection
    return bool(driver.in_transaction)


def _set_session(times: Sequence[int], mode: str) -> str:
    pairs = [f"{name} = {value}" for name, value in zip(_MARIADB_TIMEOUTS, times, strict=True)]
    return f"SET SESSION {', '.join(pairs)}, sql_mode = {mode}"
