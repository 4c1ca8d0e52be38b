"""Deleting and updating exactly the rows of a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from fireworks.core._columns import is_scalar
from fireworks.core.message import Message
from fireworks.extensions._database.connections import connect
from fireworks.extensions._database.errors import translated
from fireworks.extensions._database.real_columns import RealColumns
from fireworks.extensions._database.selection import Key, Selection, among, raw
from fireworks.extensions._database.sources import Source
from fireworks.extensions._database.types import MYSQL
from fireworks.extensions._database.values import bind, encode
from fireworks.utils.exceptions import LengthError, RowGoneError

__all__ = ["delete_rows", "update_rows"]

_KEYS_AT_ONCE = 500


@contextmanager
def _writing(source: Source, what: str) -> Iterator[sa.Connection]:
    """A transaction of its own, or a part of the writer's: whole or undone."""
    borrowed = source.borrowed()
    with translated(source.engine, what):
        if borrowed is not None:
            with borrowed.begin_nested():
                yield borrowed
        else:
            with connect(source.engine) as connection, _strict(connection), connection.begin():
                yield connection


@contextmanager
def _strict(connection: sa.Connection) -> Iterator[None]:
    """A server may be set to change values that do not fit; not here."""
    if connection.dialect.name not in MYSQL:
        yield
        return
    mode = connection.exec_driver_sql("SELECT @@sql_mode").scalar_one()
    connection.exec_driver_sql("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
    connection.rollback()  # so that the block begins its own transaction
    try:
        yield
    finally:
        if not connection.invalidated:
            with suppress(sa.exc.DBAPIError):  # the server went away
                connection.exec_driver_sql(f"SET SESSION sql_mode = '{mode}'")


def delete_rows(source: Source, selection: Selection) -> int:
    """Deletes the rows of a selection, and gives their number."""
    _check_is_of_table(selection, "delete")
    table = selection.table
    with _writing(source, f"deleting rows of table {table.name!r}") as connection:
        if not selection.is_cut:
            return connection.execute(sa.delete(table).where(*selection.conditions)).rowcount
        keys = _keys(connection, selection)
        parts = (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))
        return sum(connection.execute(sa.delete(table).where(among(selection.keys, part))).rowcount for part in parts)


def update_rows(source: Source, selection: Selection, batch: Any) -> int:
    """Gives the rows of a selection other values, and gives the number of rows."""
    _check_is_of_table(selection, "update")
    is_one_value = isinstance(batch, Mapping) and batch and all(map(is_scalar, batch.values()))
    message = batch if isinstance(batch, Message) else Message(dict(batch) if isinstance(batch, Mapping) else batch)
    columns = encode(message, selection.table, None, source.dialect)
    if not columns:
        raise ValueError("there are no columns to update")
    with _writing(source, f"updating rows of table {selection.table.name!r}") as connection:
        RealColumns(selection.table).check(connection, columns)
        if is_one_value and not any(key.name in columns for key in selection.keys):
            return _set_everywhere(connection, selection, {name: values[0] for name, values in columns.items()})
        return _set_each(connection, selection, columns, len(message))


def _set_everywhere(connection: sa.Connection, selection: Selection, values: Mapping[str, Any]) -> int:
    statement = sa.update(selection.table).values(dict(values))
    if not selection.is_cut:
        return connection.execute(statement.where(*selection.conditions)).rowcount
    keys = _keys(connection, selection)
    parts = (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))
    return sum(connection.execute(statement.where(among(selection.keys, part))).rowcount for part in parts)


def _set_each(connection: sa.Connection, selection: Selection, columns: dict[str, list[Any]], rows: int) -> int:
    keys = _keys(connection, selection)
    names = [key.name for key in selection.keys]
    given = [name for name in names if name in columns]
    if given and len(given) == len(names):
        bound = bind({name: columns.pop(name) for name in names}, selection.table, connection.dialect)
        wanted = list(zip(*(bound[name] for name in names), strict=True))
        there = set(keys)
        absent = next((key for key in wanted if key not in there), None)
    elif given:
        raise ValueError(f"the batch has {', '.join(given)} of the key, but not all of it: {', '.join(names)}")
    else:
        wanted, absent = keys, None
        if rows != len(keys):
            raise LengthError(f"the pipe has {len(keys)} rows, the batch {rows}; give one for each, or the key too")
    if absent is not None:
        raise RowGoneError(f"the pipe has no row with the key {absent!r} ({', '.join(names)})")
    if not columns or not wanted:
        return len(wanted)
    table = selection.table
    matches = [raw(key, f"_key_{place}") for place, key in enumerate(selection.keys)]
    values = {name: sa.bindparam(f"_value_{place}", type_=table.c[name].type) for place, name in enumerate(columns)}
    statement = sa.update(table).where(*matches).values(values)
    parameters = [
        {f"_key_{place}": value for place, value in enumerate(key)}
        | {f"_value_{place}": value for place, value in enumerate(cells)}
        for key, cells in zip(wanted, zip(*columns.values(), strict=True), strict=True)
    ]
    connection.execute(statement, parameters)
    return len(wanted)


def _keys(connection: sa.Connection, selection: Selection) -> list[Key]:
    if not selection.keys:
        raise TypeError(
            f"table {selection.table.name!r} has no primary key, so nobody can tell its rows apart to write to them"
        )
    result = connection.execute(selection.all_keys)
    keys = [tuple(row) for row in result.cursor.fetchall()]
    result.close()
    return keys


def _check_is_of_table(selection: Selection, what: str) -> None:
    if not selection.is_of_table:
        raise TypeError(
            f"cannot {what} rows of a join, a group or a function: they are not rows of table {selection.table.name!r}"
        )
