"""Errors of drivers and of SQLAlchemy, said again as ours: what happened, to which table, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import exc

from fireworks.utils.exceptions import (
    CellError,
    ColumnError,
    DatabaseConnectionError,
    DatabaseFullError,
    DatabaseLockedError,
    FireworksError,
    TableError,
)

# SQLSTATE of PostgreSQL by class (two characters) or code, error numbers of MariaDB, and words that SQLite has instead.
_POSTGRES: list[tuple[type[FireworksError], tuple[str, ...]]] = [
    (DatabaseConnectionError, ("08", "57P")),
    (DatabaseFullError, ("53100", "53200", "54023")),
    (DatabaseLockedError, ("55P03", "40P01", "40001")),
    (TableError, ("42P01", "3F000")),
    (ColumnError, ("42703", "42804")),
    (CellError, ("22", "23")),
]
_MARIADB: list[tuple[type[FireworksError], set[int]]] = [
    (DatabaseConnectionError, {1040, 1045, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927}),
    (DatabaseConnectionError, {2002, 2003, 2006, 2013, 2014, 2055, 1049, 1044, 1130, 0}),
    (DatabaseFullError, {3, 28, 1021, 1030, 1041, 1114}),
    (DatabaseLockedError, {1205, 1213, 1099, 1100, 1020, 1969}),
    (TableError, {1146, 1051}),
    (ColumnError, {1054, 1072}),
    (CellError, {1048, 1062, 1153, 1264, 1265, 1292, 1364, 1366, 1406, 1451, 1452, 1557, 1586, 1690, 3819, 4025}),
]
_SQLITE: list[tuple[type[FireworksError], str]] = [
    (DatabaseLockedError, r"database (table )?is locked"),
    (DatabaseFullError, r"database or disk is full|disk I/O error"),
    (DatabaseConnectionError, r"unable to open database file|closed database|not a database|malformed"),
    (TableError, r"no such table"),
    (ColumnError, r"no such column|has no column named"),
    (CellError, r"constraint failed|datatype mismatch|too large to convert|string or blob too big"),
]
_WORDS: list[tuple[type[FireworksError], str]] = [
    (DatabaseFullError, r"no space left|disk full|could not extend file"),
    (DatabaseConnectionError, r"connection (is |was )?(lost|closed|refused|reset)|server closed|connection failed"),
]
_REMEDIES: dict[type[FireworksError], str] = {
    DatabaseConnectionError: "is the server running, and the URL right? What was not committed is lost; try again",
    DatabaseFullError: "make room on its disk; what was not committed is undone",
    DatabaseLockedError: "somebody else holds a lock; try again, or give the engine a longer time-out",
    TableError: "create it (table.metadata.create_all(engine), or TablePipe.init_db()), or look at the URL",
    ColumnError: "the table in the database is not the one that is described; reflect it again",
    CellError: "no row of this statement was written",
}


@contextmanager
def translated(where: sa.Engine | sa.Dialect | sa.Connection, what: str) -> Iterator[None]:
    """Turns errors of the driver and of SQLAlchemy inside of the block into ours.

    Args:
        where: The engine, connection or dialect that is used.
        what: What is being done, as in "inserting 100 rows into digits"; the text begins with it.

    Raises:
        DatabaseConnectionError: The server cannot be reached, or went away.
        DatabaseLockedError: Somebody else did not release a lock in time.
        DatabaseFullError: No room is left.
        TableError: The table is not there.
        ColumnError: A column is not there.
        CellError: The database refuses a value: a constraint, a range, a length.
    """
    try:
        yield
    except FireworksError:
        raise
    except Exception as error:
        kind = error_class(error, where if isinstance(where, sa.Dialect) else where.dialect)
        if kind is None:
            raise
        raise kind(f"while {what}: {_said(error)}; {_REMEDIES[kind]}") from error


def error_class(error: BaseException, dialect: sa.Dialect) -> type[FireworksError] | None:
    """Which of our classes an error of a driver or of SQLAlchemy belongs to; None when it is of another kind."""
    if isinstance(error, exc.TimeoutError):
        return DatabaseLockedError  # the pool has no connection left
    if isinstance(error, exc.NoSuchTableError):
        return TableError
    original = getattr(error, "orig", None) or error
    if isinstance(original, OverflowError) and dialect.name == "sqlite":
        return CellError  # "Python int too large to convert to SQLite INTEGER"
    if not isinstance(error, exc.DBAPIError) and not _is_of_driver(original, dialect):
        return None
    kind = _by_code(original, dialect.name)
    if kind is not None:
        return kind
    for candidate, words in _WORDS:
        if re.search(words, str(original), re.IGNORECASE):
            return candidate
    if getattr(error, "connection_invalidated", False):
        return DatabaseConnectionError
    if isinstance(error, (exc.IntegrityError, exc.DataError)):
        return CellError
    return None


def _is_of_driver(error: BaseException, dialect: sa.Dialect) -> bool:
    driver = getattr(dialect, "dbapi", None) or getattr(dialect, "loaded_dbapi", None)
    kind = getattr(driver, "Error", None)
    return isinstance(kind, type) and isinstance(error, kind)


def _by_code(error: BaseException, dialect: str) -> type[FireworksError] | None:
    if dialect == "postgresql":
        code = getattr(error, "sqlstate", None) or ""
        return next((kind for kind, codes in _POSTGRES if code and code.startswith(codes)), None)
    if dialect in ("mysql", "mariadb"):
        number = error.args[0] if error.args and isinstance(error.args[0], int) else None
        return next((kind for kind, numbers in _MARIADB if number in numbers), None)
    if dialect == "sqlite":
        return next((kind for kind, words in _SQLITE if re.search(words, str(error))), None)
    return None


def _said(error: BaseException) -> str:
    """What the database said, on one line, without SQLAlchemy's copy of the statement and its values."""
    original = getattr(error, "orig", None) or error
    args = original.args
    text = str(args[1]) if len(args) > 1 and isinstance(args[0], int) else str(original)
    return f"the database says {' '.join(text.split())!r}" if text.strip() else f"{type(original).__name__}"
