"""Statements that write, by columns and not by rows: each driver in the way that is fastest with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import UpdateBase

from fireworks.extensions._database.copying import can_copy, copy_rows
from fireworks.extensions._database.values import bind, encode
from fireworks.utils.exceptions import CellError

__all__ = ["Columns", "count_rows", "delete_rows", "insert_rows", "run_for_rows", "update_rows", "with_defaults"]

Columns = Mapping[str, list[Any]]  # of encoded values, all of one length

# Whose cursors take many rows of values as they come from the types' bind processors.
_DRIVERS = {"pysqlite", "psycopg", "pymysql", "mysqldb"}
_VALUES_AT_ONCE = 1000
_SMALL = 10_000  # bytes of a statement besides its long values, at most; less than this never is too long
_PARAMETERS_AT_ONCE = 2_000  # of one INSERT into SQLite, where it takes so many
_STATEMENTS_AT_ONCE = 10  # so few that the processor has the values at hand while SQLite takes them


def count_rows(columns: Columns) -> int:
    """The number of rows of columns."""
    return next((len(values) for values in columns.values()), 0)


def insert_rows(connection: sa.Connection, table: sa.Table, columns: Columns) -> None:
    """Adds rows: by COPY on PostgreSQL, by an executemany of the driver elsewhere (on MariaDB, of many rows each).

    Args:
        connection: In a transaction.
        table: Where to.
        columns: From `encode`.
    """
    filled = with_defaults(table, columns, connection.dialect)
    if filled is not None and can_copy(connection, table, list(filled)):
        copy_rows(connection, table, bind(filled, table, connection.dialect))
    else:
        given = columns if filled is None else filled
        statement = sa.insert(table).values(_parameters(table, list(given)))
        run_for_rows(connection, statement, table, given, filled is not None)


def update_rows(connection: sa.Connection, table: sa.Table, keys: Sequence[str], columns: Columns) -> int:
    """Sets, in the rows whose key columns have the values of a row of `columns`, the other columns.

    Returns:
        How many rows there were.
    """
    new = _parameters(table, [name for name in columns if name not in keys])
    same = [table.columns[name] == value for name, value in _parameters(table, keys).items()]
    plain = all(column.onupdate is None for column in table.columns)
    return run_for_rows(connection, sa.update(table).where(*same).values(new), table, columns, plain)


def delete_rows(connection: sa.Connection, table: sa.Table, name: str, values: Sequence[Any]) -> int:
    """Deletes the rows that have one of the values (encoded; None is NULL) in a column, and counts them."""
    column, count = table.columns[name], 0
    if None in values:
        count += connection.execute(sa.delete(table).where(column.is_(None))).rowcount
    given = [value for value in values if value is not None]
    for start in range(0, len(given), _VALUES_AT_ONCE):
        count += connection.execute(sa.delete(table).where(column.in_(given[start : start + _VALUES_AT_ONCE]))).rowcount
    return count


def run_for_rows(
    connection: sa.Connection, statement: UpdateBase, table: sa.Table, columns: Columns, plain: bool = True
) -> int:
    """Runs a statement once for each row.

    Args:
        connection: In a transaction.
        statement: Its parameters are those of `parameter`.
        table: That the columns are of.
        columns: From `encode`.
        plain: Whether the statement is all there is to do; otherwise SQLAlchemy works out defaults for each row.

    Returns:
        The number of rows that it affected, as far as the driver counts them.
    """
    dialect = connection.dialect
    names = {parameter(table, name).key: name for name in columns}
    own_way = any(table.columns[name].type._has_bind_expression for name in columns)  # such as ST_GeomFromText(...)
    if not plain or own_way or dialect.driver not in _DRIVERS or _is_translated(connection):
        rows: Any = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return connection.execute(statement, rows).rowcount
    bound = bind(columns, table, dialect)
    if dialect.driver == "pymysql":
        _check_packets(connection, bound)
    compiled = statement.compile(dialect=dialect)
    text = str(compiled)
    if compiled.positional:
        ordered = [bound[names[key]] for key in compiled.positiontup or []]
        if dialect.name == "sqlite" and type(statement) is sa.Insert:
            return _insert_many(connection, text, ordered)
        rows = list(zip(*ordered, strict=True))
    else:
        rows = [dict(zip(names, row, strict=True)) for row in zip(*bound.values(), strict=True)]
    return connection.exec_driver_sql(text, rows).rowcount if rows else 0


def _check_packets(connection: sa.Connection, columns: Columns) -> None:
    """Refuses a row that MariaDB would not even read: it closes the connection instead.

    Raises:
        CellError: Names the row, its longest value, and the limit.
    """
    long = {name: values for name, values in columns.items() if {str, bytes} & set(map(type, values))}
    most = sum(max((len(value) for value in values if value is not None), default=0) for values in long.values())
    if most < _SMALL:
        return
    limit = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
    if 4 * most + _SMALL < limit:  # a character has up to four bytes, a byte that is escaped two
        return
    driver: Any = connection.connection.driver_connection
    for row, values in enumerate(zip(*long.values(), strict=True)):
        sizes = [
            0 if value is None else len(driver.escape(value).encode("utf-8", "surrogateescape")) for value in values
        ]
        if sum(sizes) + _SMALL > limit:
            name = list(long)[sizes.index(max(sizes))]
            raise CellError(
                f"column {name!r}, row {row}: {max(sizes)} bytes are more than the server takes at once; "
                f"its max_allowed_packet is {limit}, so raise that, or split the value"
            )


def _insert_many(connection: sa.Connection, text: str, columns: Sequence[list[Any]]) -> int:
    """Inserts many rows by each statement, which takes half of the time of one by each, and counts them."""
    width, count = len(columns), len(columns[0])
    driver: Any = connection.connection.driver_connection
    limit = min(_PARAMETERS_AT_ONCE, driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
    many = max(1, min(limit // width, count))
    start, _, one = text.rpartition(" VALUES ")

    def row_by_row(first: int, rows: int) -> tuple[Any, ...]:
        values: list[Any] = [None] * (width * rows)
        for place, column in enumerate(columns):
            values[place::width] = column[first : first + rows]
        return tuple(values)

    def insert(first: int, end: int, rows: int) -> None:
        parameters = [row_by_row(place, rows) for place in range(first, end, rows)]
        connection.exec_driver_sql(f"{start} VALUES {', '.join([one] * rows)}", parameters)

    whole = count - count % many
    for first in range(0, whole, many * _STATEMENTS_AT_ONCE):
        insert(first, min(first + many * _STATEMENTS_AT_ONCE, whole), many)
    if whole < count:
        insert(whole, count, count - whole)
    return count


def parameter(table: sa.Table, name: str) -> sa.BindParameter[Any]:
    """The parameter that stands for a value of a column; its own name holds whatever the column's name does not."""
    position = list(table.columns.keys()).index(name)
    return sa.bindparam(f"value_{position}", type_=table.columns[name].type)


def _parameters(table: sa.Table, names: Sequence[str]) -> dict[str, Any]:
    return {name: parameter(table, name) for name in names}


def _is_translated(connection: sa.Connection) -> bool:
    """Whether other schemas are to be put in while the statement is compiled."""
    return bool(connection.get_execution_options().get("schema_translate_map"))


def with_defaults(table: sa.Table, columns: Columns, dialect: sa.Dialect) -> dict[str, list[Any]] | None:
    """The columns and those that a constant fills; None where SQLAlchemy has to compute a default for each row."""
    filled = dict(columns)
    for name, column in table.columns.items():
        default: Any = column.default
        if name in columns or default is None:
            continue
        if not default.is_scalar:
            return None
        filled |= {name: encode({name: [default.arg]}, table, [name], dialect)[name] * count_rows(columns)}
    return filled
