"""Engines and connections: from URLs, in other processes, and when a server has dropped them."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from fireworks.extensions._database.errors import translated
from fireworks.utils.exceptions import DatabaseConnectionError

__all__ = [
    "as_engine",
    "belongs_here",
    "connect",
    "engine_url",
    "in_memory",
    "is_autocommit",
    "is_disconnect",
    "leave_to_parent",
    "read",
    "say",
]

Result = TypeVar("Result")

_engines: weakref.WeakKeyDictionary[sa.Engine, int] = weakref.WeakKeyDictionary()  # and the process that made each
_connections: weakref.WeakKeyDictionary[sa.Connection, int] = weakref.WeakKeyDictionary()  # likewise
_by_url: dict[str, sa.Engine] = {}  # the engines that were made here, to be shared
_left_to_parent: list[Any] = []


def as_engine(engine: sa.Engine | sa.URL | str) -> sa.Engine:
    """An engine as it is, or the one engine of this process for a URL; it survives a fork.

    Args:
        engine: An engine, or a URL such as 'sqlite:///runs.sqlite' or 'postgresql+psycopg://me@host/name'.

    Raises:
        TypeError: Neither of them.
        ValueError: The text is no URL of a database.

    Example:
        >>> as_engine("sqlite:///runs.sqlite") is as_engine("sqlite:///runs.sqlite")
        True
    """
    if isinstance(engine, (str, sa.URL)):
        engine = _engine_of(engine)
    if not isinstance(engine, sa.Engine):
        raise TypeError(
            f"expected an engine of SQLAlchemy or the URL of a database, got {engine!r:.80} ({type(engine).__name__})"
        )
    _engines.setdefault(engine, os.getpid())
    return engine


def _engine_of(url: str | sa.URL) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        parsed.get_dialect()
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ValueError(
            f"{str(url)!r} is no URL of a database; write sqlite:///file.sqlite, "
            f"postgresql+psycopg://user@host/name or mysql+pymysql://user@host/name ({error})"
        ) from error
    text = parsed.render_as_string(hide_password=False)
    known = _by_url.get(text)
    if known is None:
        known = sa.create_engine(parsed)
        if not in_memory(known):
            _by_url[text] = known
    return known


@atexit.register
def _dispose() -> None:
    for engine in _by_url.values():
        engine.dispose()


def in_memory(engine: sa.Engine) -> bool:
    """Whether the database is one of SQLite's that only this process has."""
    name = str(engine.url.database or "")
    return engine.dialect.name == "sqlite" and (not name or ":memory:" in name or "mode=memory" in str(engine.url))


def say(engine: sa.Engine) -> str:
    """The URL of an engine for the text of an error, without its password."""
    return engine.url.render_as_string()


def engine_url(engine: sa.Engine) -> str:
    """The URL by which another process can make an engine like this one.

    Options that were given to `create_engine` beside the URL do not travel.

    Raises:
        TypeError: The database is in the memory of this process.
    """
    if in_memory(engine):
        raise TypeError(
            f"{say(engine)} is a database in the memory of this process, which no other process can reach; "
            "use a file, such as sqlite:///data.sqlite"
        )
    return engine.url.render_as_string(hide_password=False)


def connect(engine: sa.Engine) -> sa.Connection:
    """A connection of the engine's pool. A process that is forked while it is open leaves it to this one.

    Raises:
        DatabaseConnectionError: The database is in the memory of another process.
    """
    if _engines.setdefault(engine, os.getpid()) != os.getpid() and in_memory(engine):
        raise DatabaseConnectionError(
            f"{say(engine)} is a database in the memory of the process that made this one, and cannot be read from "
            "here; use a file, such as sqlite:///data.sqlite, or no worker processes"
        )
    connection = engine.connect()
    _connections[connection] = os.getpid()
    return connection


def is_autocommit(connection: sa.Connection) -> bool:
    """Whether each statement is a transaction of its own, by the options of the connection or of its engine."""
    engine = connection.engine
    levels = [each.get_execution_options().get("isolation_level") for each in (connection, engine)]
    return "AUTOCOMMIT" in (levels[0], levels[1] or getattr(engine.dialect, "_on_connect_isolation_level", None))


def belongs_here(connection: sa.Connection) -> bool:
    """Whether this process opened the connection, rather than the one that it was forked from."""
    return _connections.get(connection) == os.getpid()


def _after_fork() -> None:
    # What is open belongs to the parent: to close it here, or to let Python close it, would end it there too.
    _left_to_parent.extend(_connections)
    for engine in list(_engines):
        if not in_memory(engine):
            _left_to_parent.append(engine.pool)
            engine.dispose(close=False)


def leave_to_parent(thing: Any) -> None:
    """Keep, and so never close, what a forked process has of the process that it was forked from."""
    _left_to_parent.append(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_disconnect(error: BaseException, connection: sa.Connection) -> bool:
    """Whether an error of SQLAlchemy or of the driver says that the server dropped this connection."""
    if isinstance(error, sa.exc.DBAPIError):
        return error.connection_invalidated
    driver = connection.dialect.loaded_dbapi
    if not isinstance(error, driver.Error) or connection.closed or connection.invalidated:
        return False
    raw: Any = connection.connection.dbapi_connection
    return connection.dialect.is_disconnect(error, raw, None)


def read(engine: sa.Engine, what: str, action: Callable[[sa.Connection], Result]) -> Result:
    """Run something that only reads, on a connection of its own; once more on a new one if the first was dropped.

    A pool keeps connections that a server which was restarted since knows nothing of, so the first use of each fails.

    Args:
        engine: Where to read.
        what: What is being read, for errors.
        action: Gets the connection; it may run twice.

    Raises:
        DatabaseConnectionError: The server cannot be reached, or went away twice.
    """
    with translated(engine, what):
        try:
            return _read(engine, action)
        except _DroppedError:
            return _read(engine, action, retried=True)


class _DroppedError(Exception):
    """The server dropped the connection."""


def _read(engine: sa.Engine, action: Callable[[sa.Connection], Result], retried: bool = False) -> Result:
    with connect(engine) as connection:
        try:
            return action(connection)
        except Exception as error:
            if not is_disconnect(error, connection):
                raise
            if not connection.invalidated:
                connection.invalidate(error)
            if retried:
                raise
            raise _DroppedError from error
