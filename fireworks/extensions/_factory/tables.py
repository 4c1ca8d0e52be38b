"""The tables of a search: trials, their checkpoints and reported values, parameters, and one for each metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import torch
from sqlalchemy.dialects import mysql

from fireworks.core.message import Message
from fireworks.extensions._claims import claim_table
from fireworks.extensions._database.errors import error_class, translated
from fireworks.extensions._database.schema import as_table, create_table, parse_columns_and_types, propose_columns
from fireworks.extensions._database.types import big_integer
from fireworks.extensions._database.values import decode, encode
from fireworks.extensions._prepared import Prepared
from fireworks.utils.exceptions import ColumnError, DatabaseLockedError

__all__ = ["ResultTable", "SearchTables", "one_row", "search_tables"]

_ID = "id"
_PAGE = 2048  # bytes: for each page that a trial touches, a commit writes all of it into the log


@dataclass(frozen=True)
class SearchTables:
    """What a search needs besides its results."""

    metadata: sa.MetaData
    trials: sa.Table
    checkpoints: sa.Table  # in parts, because MariaDB takes 16 MiB at a time
    reports: sa.Table
    lock: sa.Table  # one row: who has it proposes

    def create(self, engine: sa.Engine) -> None:
        """Create those that are not there, though others may be doing the same."""
        _despite_races(lambda: self._create_all(engine), engine.dialect)

    def _create_all(self, engine: sa.Engine) -> None:
        with engine.begin() as connection:
            is_new = engine.dialect.name == "sqlite" and not connection.exec_driver_sql("PRAGMA page_count").scalar()
            if is_new:
                connection.exec_driver_sql(f"PRAGMA page_size = {_PAGE}")
                if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
                    connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would commit each table by itself
            self.metadata.create_all(connection)
            if connection.execute(sa.select(self.lock)).first() is None:
                connection.execute(self.lock.insert().values(id=1))


def search_tables(name: str) -> SearchTables:
    """The tables of the search of this name."""
    metadata = sa.MetaData()
    long_text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    long_bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    texts = [sa.Column(column, long_text) for column in ("params", "metrics", "reported")]
    trials = claim_table(f"{name}_trials", metadata, sa.Column("form", sa.String(8)), *texts)

    def key(column: str) -> sa.Column[Any]:
        return sa.Column(column, sa.BigInteger, primary_key=True, autoincrement=False)

    checkpoints = sa.Table(
        f"{name}_checkpoints", metadata, key("trial"), key("part"), sa.Column("data", long_bytes, nullable=False)
    )
    # As text, because MariaDB has neither NaN nor infinity, and SQLite no NaN.
    reported = sa.Column("value", sa.String(40), nullable=False)
    reports = sa.Table(f"{name}_reports", metadata, key("trial"), key("step"), reported)
    lock = sa.Table(f"{name}_lock", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
    return SearchTables(metadata, trials, checkpoints, reports, lock)


def _despite_races(create: Callable[[], None], dialect: sa.Dialect) -> None:
    """Two processes may both find that something is not there; the second one to make it finds that it is.

    A lock is waited for, however long: that of SQLite is held while a generator thinks.
    """
    attempts = 3
    while True:
        try:
            return create()
        except sa.exc.DBAPIError as error:
            attempts -= error_class(error, dialect) is not DatabaseLockedError
            if attempts < 0:
                raise


def one_row(row: Mapping[str, Any]) -> Message:
    """A row as a message."""
    return Message({name: v.unsqueeze(0) if isinstance(v, torch.Tensor) else [v] for name, v in row.items()})


class ResultTable:
    """A table with one row for each completed trial: its id, and parameters or what one metric computed.

    Args:
        name: Of the table, if it is made here.
        given: A class, a Table, or a name, whose columns are then fixed; None to make it from the first results, and to
            add columns to it when later ones have more.
        engine: The database.

    Raises:
        ColumnError: A given table has no column `id`.
    """

    def __init__(self, name: str, given: Any, engine: sa.Engine) -> None:
        self.engine, self.is_given = engine, given is not None
        self._inserts: dict[tuple[str, ...], tuple[Prepared, dict[str, type]]] = {}
        self._types: dict[str, Any] = {}
        if given is None:
            self.table = sa.Table(name, sa.MetaData(), sa.Column(_ID, big_integer(), primary_key=True))
            return
        self.table = as_table(given, engine)
        if _ID not in self.table.c:
            raise ColumnError(
                f"the table {self.table.name!r} has no column 'id', which joins parameters and metrics of a trial; "
                f"make it with create_table(). Columns: {', '.join(self.table.c.keys())}"
            )
        self._types = parse_columns_and_types(self.table)
        _despite_races(lambda: self.table.metadata.create_all(engine, tables=[self.table]), engine.dialect)

    def prepare(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row as the database takes it; the table gets the columns that it needs.

        To be called outside of a transaction, because MariaDB ends one at each change of a table.

        Raises:
            ColumnError: A given table lacks a column.
            CellError: A column cannot hold a value.
        """
        key = tuple(row)
        found = self._inserts.get(key)
        if found is not None and all(_is_plain(row[name], kind) for name, kind in found[1].items()):
            return dict(row)
        message = one_row(row)
        if not self.is_given:
            with translated(self.engine, f"changing the table {self.table.name!r}"):
                self._make_room(propose_columns(message))
        columns = encode(message, self.table, list(key), self.engine.dialect)
        if key not in self._inserts:
            given = {name: sa.bindparam(name, type_=self.table.c[name].type) for name in (_ID, *key)}
            kinds = {name: _plain_type(self.table.c[name].type) for name in key}
            self._inserts[key] = (Prepared(self.table.insert().inline().values(**given), self.engine.dialect), kinds)
        return {name: values[0] for name, values in columns.items()}

    def insert(self, connection: sa.Connection, number: int, row: Mapping[str, Any]) -> None:
        """Write a prepared row in an open transaction."""
        self._inserts[tuple(row)][0].run(connection, id=number, **row)

    def _make_room(self, needed: Mapping[str, Any]) -> None:
        """Create the table, add columns, or let a column of integers hold other numbers too."""
        widened = [name for name in needed if _is_float(needed[name]) and _is_integer(self._types.get(name))]
        new = {name: kind for name, kind in needed.items() if name not in self._types}
        if not new and not widened:
            return
        self._types |= new | {name: needed[name] for name in widened}
        described = create_table(self.table.name, self._types).__table__
        _despite_races(lambda: self._change(described), self.engine.dialect)
        self.table = described
        self._inserts.clear()

    def _change(self, described: sa.Table) -> None:
        try:
            there = {column["name"]: column["type"] for column in sa.inspect(self.engine).get_columns(described.name)}
        except sa.exc.NoSuchTableError:
            described.create(self.engine, checkfirst=False)
            return
        dialect = self.engine.dialect
        quote = dialect.identifier_preparer.quote
        table = dialect.identifier_preparer.format_table(described)
        with self.engine.begin() as connection:
            for name, column in described.c.items():
                kind = column.type.compile(dialect)
                if name not in there:
                    connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {quote(name)} {kind}")
                elif _is_float(column.type) and _is_integer(there[name]) and dialect.name == "postgresql":
                    connection.exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN {quote(name)} TYPE {kind}")
                elif _is_float(column.type) and _is_integer(there[name]) and dialect.name in ("mysql", "mariadb"):
                    connection.exec_driver_sql(f"ALTER TABLE {table} MODIFY {quote(name)} {kind}")
                # SQLite keeps 0.5 in a column of integers as it is

    def read(self, connection: sa.Connection, known: Message) -> Message:
        """All rows in the order of ids.

        Args:
            connection: An open connection.
            known: The same rows as far as memory has them, which tell the types of columns that others made.
        """
        table = self.table
        if not self.is_given:
            inspector = sa.inspect(connection)
            if not inspector.has_table(table.name):
                return Message()
            there = sa.Table(table.name, sa.MetaData(), autoload_with=connection)
            proposed = propose_columns(known)
            types = {name: proposed.get(name, column.type) for name, column in there.c.items()}
            table = create_table(table.name, {name: kind for name, kind in types.items() if name != _ID}).__table__
        types = parse_columns_and_types(table, ignore_id=False)
        columns = ", ".join(connection.dialect.identifier_preparer.quote(name) for name in types)
        source = connection.dialect.identifier_preparer.format_table(table)
        cursor = connection.connection.cursor()
        cursor.execute(f"SELECT {columns} FROM {source} ORDER BY id")
        rows = cursor.fetchall()
        cursor.close()
        plain = {str(name): kind for name, kind in types.items()}  # SQLAlchemy has a kind of str of its own
        return decode(rows, plain, connection.dialect)


def _is_float(kind: Any) -> bool:
    return isinstance(kind, sa.Float)


def _is_integer(kind: Any) -> bool:
    return isinstance(kind, sa.Integer) and not isinstance(kind, sa.Boolean)


def _plain_type(kind: Any) -> type:
    """The type of values that a column takes without a further look."""
    if isinstance(kind, sa.BigInteger):
        return int
    return float if type(kind) is sa.Double else type(None)


def _is_plain(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    return kind is float and type(value) is float and math.isfinite(value)
