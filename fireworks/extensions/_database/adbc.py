"""Whole tables by ADBC, in columns all the way, where the extra `adbc` is installed.

What comes is the message that the driver's rows would have made. Where ADBC would give anything else, or fails, nothing
comes from here, and the driver is asked.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from fireworks.core._columns import TEXT, Column
from fireworks.core.message import Message
from fireworks.extensions._database.connections import read
from fireworks.extensions._database.decoding import decoded
from fireworks.extensions._database.decoding_times import instants_column, of_texts
from fireworks.extensions._database.families import Target, is_single
from fireworks.extensions._database.selection import Selection
from fireworks.extensions._database.sources import Source

__all__ = ["can_read", "read_table"]

_DRIVERS = {"sqlite": "adbc_driver_sqlite.dbapi", "postgresql": "adbc_driver_postgresql.dbapi"}
_BY_CELL = {"bytes", "tensor"}  # Arrow has their cells as the driver does
_FIRST_YEAR, _AFTER_LAST = np.datetime64("0001-01-01", "us"), np.datetime64("10000-01-01", "us")


def can_read(source: Source, selection: Selection) -> bool:
    """Whether ADBC would see what the engine sees, and give what the driver gives."""
    engine = source.engine
    plain = selection.in_key_order and not selection.conditions
    return (
        plain
        and source.borrowed() is None
        and type(engine.pool) in (QueuePool, NullPool)  # the others may share a connection with open transactions
        and (engine.dialect.name, engine.dialect.driver) in (("sqlite", "pysqlite"), ("postgresql", "psycopg"))
        and selection.table.schema is None
        and all(column in set(selection.table.c) for column in selection.statement.selected_columns)
        and all(
            target.family in _CONVERTERS or target.family in _BY_CELL for target, _ in selection.targets(engine.dialect)
        )
        and _driver(engine.dialect.name) is not None
    )


def _driver(dialect: str) -> Any:
    try:
        return importlib.import_module(_DRIVERS[dialect])
    except ImportError:
        return None


def read_table(source: Source, selection: Selection) -> Message | None:
    """All rows of a selection that `can_read` allows, or None where only the driver can tell what they are."""
    dialect = source.dialect
    driver = _driver(dialect.name)
    text = str(selection.all_rows.compile(dialect=dialect))
    where = read(source.engine, f"reading table {selection.table.name!r}", _place)
    if where is None or "%" in text:  # which this dialect doubles
        return None
    uri, search_path = where
    try:
        with driver.connect(uri) as connection, connection.cursor() as cursor:
            if search_path:
                cursor.execute("SELECT set_config('search_path', $1, false)", (search_path,))
                cursor.fetchall()
            if dialect.name == "sqlite":  # it guesses types from the first batch, and takes what comes later for them
                cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(2**31 - 2)})
            cursor.execute(text)
            table = cursor.fetch_arrow_table()
    except (driver.Error, OSError, ValueError):  # what is wrong, the driver will say
        return None
    columns = {}
    for target, place in selection.targets(dialect):
        column = _column(table.column(place), target)
        if column is None:
            return None
        columns[target.name] = column
    return Message(columns)


def _place(connection: sa.Connection) -> tuple[str, str] | None:
    """Where the engine's own connections lead: what ADBC connects to, and the schemas that it looks in."""
    if connection.dialect.name == "sqlite":
        files = {name: file for _, name, file in connection.exec_driver_sql("PRAGMA database_list")}
        own = connection.exec_driver_sql("SELECT count(*) FROM sqlite_temp_master").scalar_one()
        return (files["main"], "") if files.keys() <= {"main", "temp"} and files["main"] and not own else None
    from psycopg.conninfo import make_conninfo

    info = connection.connection.driver_connection.info  # type: ignore[union-attr]
    search_path = connection.exec_driver_sql("SELECT current_setting('search_path')").scalar_one()
    return make_conninfo(
        "", **info.get_parameters(), **({"password": info.password} if info.password else {})
    ), search_path


def _column(cells: Any, target: Target) -> Any:
    """A column of a message, or None where Arrow does not have what the driver gives."""
    kind = str(cells.type)
    if cells.null_count == len(cells):
        return decoded([None] * len(cells), target)
    if target.family in _BY_CELL:
        return decoded(cells.to_pylist(), target) if kind in ("binary", "large_binary") else None
    return _CONVERTERS[target.family](cells, kind, target)


def _mask(cells: Any) -> np.ndarray | None:
    return np.asarray(cells.is_null()) if cells.null_count else None


def _int(cells: Any, kind: str, target: Target) -> Column | None:
    if kind not in ("int16", "int32", "int64"):
        return None
    mask = _mask(cells)
    array = np.array(cells if mask is None else cells.fill_null(0), dtype=np.int64)
    if mask is None:
        return Column(array, array.dtype)
    masked = pd.arrays.IntegerArray(array, mask)
    return Column(masked, masked.dtype)


def _bool(cells: Any, kind: str, target: Target) -> Column | None:
    if kind not in ("bool", "int64"):
        return None
    mask = _mask(cells)
    array = np.asarray(cells if mask is None else cells.fill_null(False if kind == "bool" else 0))
    if kind == "int64" and ((array != 0) & (array != 1)).any():
        return None
    array = array.astype(bool)
    if mask is None:
        return Column(array, array.dtype)
    masked = pd.arrays.BooleanArray(array, mask)
    return Column(masked, masked.dtype)


def _float(cells: Any, kind: str, target: Target) -> Column | None:
    if kind not in ("float", "double") or (kind == "double" and is_single(target)):
        return None
    array = np.array(cells, dtype=np.float32 if is_single(target) else np.float64)
    return Column(array, array.dtype)


def _text(cells: Any, kind: str, target: Target) -> Column | None:
    if kind not in ("string", "large_string"):
        return None
    array = np.array(cells, dtype=object)
    if cells.null_count:
        array[_mask(cells)] = np.nan
    return Column(array, TEXT)


def _timestamp(cells: Any, kind: str, target: Target) -> Column | None:
    if kind in ("string", "large_string") and target.has_usual_format:
        moments = of_texts(cells)
    elif kind == ("timestamp[us, tz=UTC]" if target.zoned else "timestamp[us]"):
        moments = np.array(cells, dtype="datetime64[us]")
    else:
        return None
    if moments is None:
        return None
    known = moments[~np.isnat(moments)]
    if len(known) and (known.min() < _FIRST_YEAR or known.max() >= _AFTER_LAST):
        return None  # infinity, which Python's datetime lacks
    return instants_column(moments) if target.zoned else Column(moments, moments.dtype)


_CONVERTERS = {"int": _int, "bool": _bool, "float": _float, "text": _text, "timestamp": _timestamp}
