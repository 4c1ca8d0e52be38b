"""Rows out of a database as the driver gives them, all at once or as they are asked for, and as messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any, TypeAlias, TypeVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine.cursor import BufferedRowCursorFetchStrategy
from sqlalchemy.sql import visitors

from fireworks.core.message import Message
from fireworks.extensions._database.connections import connect, is_autocommit, leave_to_parent, read
from fireworks.extensions._database.decoding import decoded
from fireworks.extensions._database.errors import translated
from fireworks.extensions._database.selection import Selection
from fireworks.extensions._database.types import MYSQL

__all__ = ["Borrow", "Row", "Source", "Stream", "keeps_versions", "message_of", "message_of_columns", "rows_of"]

Row: TypeAlias = tuple[Any, ...]
Borrow: TypeAlias = Callable[[], sa.Connection | None]
Result = TypeVar("Result")

# Rows in one call of the driver, of what is read to the end: so few that the processor has them at hand while they
# become parts of columns, and that they are gone before the garbage collector looks through them, which can take longer
# than all else.
FETCHED = 500


def message_of(rows: Sequence[Row], selection: Selection, dialect: sa.Dialect) -> Message:
    """Rows of the driver as one message with the columns of a selection."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * (max(selection.places, default=0) + 1)
    return message_of_columns(columns, selection, dialect)


def message_of_columns(columns: Sequence[Sequence[Any]], selection: Selection, dialect: sa.Dialect) -> Message:
    """The same of columns of the driver's values."""
    return Message({target.name: decoded(columns[place], target) for target, place in selection.targets(dialect)})


def rows_of(message: Message, start: int) -> Iterator[Message]:
    """Messages of one row each, from a row on; a third of the price of a slice for each."""
    tensors = {name: tensor[start:].split(1) for name, tensor in message._tensors.items()}
    # Rows of a matrix of one column are the cheapest slices that numpy has.
    arrays = {
        name: list(array[start:].reshape(-1, 1))
        if isinstance(array, np.ndarray)
        else [array[row : row + 1] for row in range(start, len(array))]
        for name, array in message._arrays.items()
    }
    dtypes, names, make = message._dtypes, list(arrays), Message.__new__
    rows = zip(*arrays.values(), strict=True) if arrays else repeat((), len(message) - start)
    if not tensors:
        for cells in rows:
            yield make(Message)._set({}, dict(zip(names, cells, strict=True)), dtypes)
        return
    for cells, parts in zip(rows, zip(*tensors.values(), strict=True), strict=True):
        halves = dict(zip(tensors, parts, strict=True)), dict(zip(names, cells, strict=True))
        yield make(Message)._set(*halves, dtypes)


class Source:
    """Where a DBPipe reads: on connections of its own, or on that of a writer who has not committed yet.

    Args:
        engine: The database.
        borrow: Gives the connection of the writer's open transaction, or None while there is none.
    """

    def __init__(self, engine: sa.Engine, borrow: Borrow | None = None) -> None:
        self.engine = engine
        self.borrow = borrow

    @property
    def dialect(self) -> sa.Dialect:
        """What the database speaks."""
        return self.engine.dialect

    def borrowed(self) -> sa.Connection | None:
        """The connection of a writer with an open transaction."""
        return None if self.borrow is None else self.borrow()

    def run(self, what: str, action: Callable[[sa.Connection], Result]) -> Result:
        """Do what only reads: in the writer's transaction; or by itself, once more if the connection was dropped."""
        borrowed = self.borrowed()
        if borrowed is None:
            return read(self.engine, what, action)
        with translated(self.engine, what):
            return action(borrowed)

    def fetch(self, statement: sa.Select[Any], what: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of a statement."""
        return self.run(what, lambda connection: _all_rows(connection, statement, parameters))

    def columns(self, statement: sa.Select[Any], what: str) -> list[list[Any]]:
        """The columns of all rows of a statement."""
        return self.run(what, lambda connection: _all_columns(connection, statement))

    def count(self, statement: sa.Select[Any], what: str) -> int:
        """The number that a statement gives."""
        return self.run(what, lambda connection: int(connection.execute(statement).scalar_one()))

    def gather(self, statement: sa.Select[Any], what: str, take: Callable[[Iterator[list[Row]]], Result]) -> Result:
        """What a function makes of the rows of a statement, of which never many are in memory."""
        return self.run(what, lambda connection: take(_row_blocks(connection, statement)))


def _all_rows(connection: sa.Connection, statement: sa.Select[Any], parameters: Mapping[str, Any] | None) -> list[Row]:
    result = connection.execute(statement, parameters)
    rows = result.cursor.fetchall()
    result.close()
    return rows if isinstance(rows, list) else list(rows)


def _all_columns(connection: sa.Connection, statement: sa.Select[Any]) -> list[list[Any]]:
    result = connection.execute(statement)
    columns: list[list[Any]] = [[] for _ in result.cursor.description]
    while rows := result.cursor.fetchmany(FETCHED):
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            column += values
    result.close()
    return columns


def _row_blocks(connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[list[Row]]:
    result, rows = _streaming(connection, statement, None)
    rows += result.cursor.fetchmany(FETCHED)
    try:
        while rows:
            yield rows
            rows = list(result.cursor.fetchmany(FETCHED))
    except BaseException:
        _forget_unread(result.cursor)
        raise
    finally:
        with suppress(Exception):  # the server may be gone already
            result.close()


def _streaming(
    connection: sa.Connection, statement: sa.Select[Any], parameters: Mapping[str, Any] | None
) -> tuple[sa.CursorResult[Any], list[Row]]:
    """A result whose rows the server keeps, and those that SQLAlchemy has taken from the driver's cursor already."""
    if connection.dialect.name == "postgresql" and not connection.in_transaction() and is_autocommit(connection):
        connection.execution_options(isolation_level="READ COMMITTED")  # its cursors live in transactions only
    connection.exec_driver_sql("SELECT 1")  # where the server dropped it: a cursor of the server would be left open
    result = connection.execute(statement, parameters, execution_options={"stream_results": True})
    strategy: Any = result.cursor_strategy
    return result, list(strategy._rowbuffer) if isinstance(strategy, BufferedRowCursorFetchStrategy) else []


def _forget_unread(cursor: Any) -> bool:
    """Whether MariaDB has more rows to send, which the driver would read one by one before it lets the cursor go."""
    unread = getattr(cursor, "_result", None)
    if not getattr(unread, "unbuffered_active", False):
        return False
    unread.unbuffered_active = False  # type: ignore[union-attr]
    return True


_ENGINES = sa.table("tables", *map(sa.column, ["table_schema", "table_name", "engine"]), schema="information_schema")


def keeps_versions(connection: sa.Connection, statement: sa.Select[Any]) -> bool:
    """Whether MariaDB lets others write to the tables of a statement before all of its rows are sent.

    MyISAM, Aria and others lock whole tables until then; of a view it does not say what is behind it.
    """
    columns = _ENGINES.c
    tables = {part for part in visitors.iterate(statement) if isinstance(part, sa.TableClause)}
    for table in tables:
        schema = connection.schema_for_object(table) if isinstance(table, sa.Table) else table.schema
        found = sa.select(columns.engine).where(
            columns.table_schema == (schema or sa.func.database()), columns.table_name == table.name
        )
        if connection.execute(found).scalar() != "InnoDB":
            return False
    return bool(tables)


class Stream:
    """The rows of a statement as they are asked for, by a cursor of the server, on a connection of its own.

    Raises:
        Exception: What the driver or SQLAlchemy raise, as they raise it.
    """

    def __init__(
        self, engine: sa.Engine, statement: sa.Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> None:
        self.process = os.getpid()
        self.connection = connect(engine)
        self._restoring: str | None = None
        try:
            self._wait_for_ever()
            self._result, self._first = _streaming(self.connection, statement, parameters)
        except BaseException:
            self.connection.close()
            raise
        self._cursor: Any = self._result.cursor

    def _wait_for_ever(self) -> None:
        """MariaDB hangs up when nobody has taken rows for a minute, as in a loop that trains on each batch."""
        if self.connection.dialect.name in MYSQL:
            seconds = self.connection.exec_driver_sql("SELECT @@net_write_timeout").scalar_one()
            self._restoring = f"SET SESSION net_write_timeout = {seconds}"
            self.connection.exec_driver_sql("SET SESSION net_write_timeout = 31536000")

    def fetch(self, size: int) -> list[Row]:
        """The next rows; fewer only at the end."""
        rows, self._first = self._first[:size], self._first[size:]
        if len(rows) < size:
            rows += self._cursor.fetchmany(size - len(rows))
        return rows

    def close(self, ended: bool) -> None:
        """Give the connection back. Before the end MariaDB would have to send all other rows, so there it is closed."""
        if self.process != os.getpid():
            leave_to_parent(self)
            return
        if not ended and _forget_unread(self._cursor):
            self.connection.invalidate()
        with suppress(Exception):  # the server may be gone already
            self._result.close()
        with suppress(Exception):
            if self._restoring is not None and not self.connection.invalidated:
                self.connection.exec_driver_sql(self._restoring)
        with suppress(Exception):
            self.connection.close()
