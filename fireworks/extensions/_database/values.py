"""Values of messages to values of a database and back, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import TypeEngine

from fireworks.core.message import Message
from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.decoding import decoded, decoded_arrow, from_results
from fireworks.extensions._database.encoding import bound, encoded
from fireworks.extensions._database.families import Target, target_of
from fireworks.extensions._database.schema import parse_columns_and_types
from fireworks.extensions._database.types import sql_type
from fireworks.utils.exceptions import ColumnError

_GENERAL = DefaultDialect()  # for values that go to no database yet

__all__ = ["bind", "cast", "convert", "decode", "decode_arrow", "encode", "to_message"]


def encode(
    batch: Any, table: sa.Table, names: Sequence[str] | None, dialect: sa.Dialect, required: bool = True
) -> dict[str, list[Any]]:
    """The columns of a batch as lists of what SQLAlchemy's types take, every value checked.

    Args:
        batch: A Message, a DataFrame or a dict of columns.
        table: The table that is written to.
        names: The columns to take; all of the batch by default.
        dialect: What is written to: each holds other values.
        required: Is a missing value in a NOT NULL column an error?

    Raises:
        ColumnError: The table lacks a column of the batch, or the batch one of `names`.
        CellError: A column cannot hold a value; the text says which, in which row, and what to do.
    """
    message = batch if isinstance(batch, Message) else Message(batch)
    wanted = message.columns if names is None else list(names)
    absent = [name for name in wanted if name not in message.columns]
    if absent:
        raise ColumnError.unknown(absent, message.columns)
    unknown = [name for name in wanted if name not in table.columns]
    if unknown:
        raise ColumnError(f"table {table.name!r}: {ColumnError.unknown(unknown, table.columns.keys())}")
    columns = {}
    for name in wanted:
        column = table.columns[name]
        values = encoded(Cells.of(message, name), target_of(column, dialect))
        if required and not column.nullable and None in values:
            raise _missing(column, values.index(None), dialect)
        columns[name] = values
    return columns


def _missing(column: sa.Column[Any], row: int, dialect: sa.Dialect) -> Exception:
    numbered = column is getattr(column.table, "autoincrement_column", None)
    has_own = column.default is not None or column.server_default is not None or numbered
    remedy = "leave the column out, and the database fills it" if has_own else "give a value, or declare it nullable"
    return target_of(column, dialect).error(row, None, "is missing in a NOT NULL column", remedy)


def bind(columns: Mapping[str, list[Any]], table: sa.Table, dialect: sa.Dialect) -> dict[str, list[Any]]:
    """What the driver's own cursor takes: encoded columns after the bind processor of each type.

    Raises:
        CellError: A type refuses a value.
    """
    return {name: bound(values, target_of(table.columns[name], dialect)) for name, values in columns.items()}


def decode(rows: Sequence[Sequence[Any]], types: Mapping[str, TypeEngine[Any]], dialect: sa.Dialect) -> Message:
    """Rows as the driver gives them, as one message with a typed column for each type.

    Args:
        rows: Tuples, before SQLAlchemy's result processors.
        types: The names of the columns, in the order of the rows, and their types.
        dialect: Where the rows come from.

    Raises:
        CellError: A value is not of the column's type, which SQLite allows.
    """
    names = list(types)
    if len(rows) and len(rows[0]) != len(names):
        raise ValueError(f"expected rows of {len(names)} values, got {len(rows[0])}")
    # zip(*rows) would make an iterator for every row, over which the garbage collector then goes.
    return Message(
        {
            name: decoded(list(map(itemgetter(place), rows)), Target(name, types[name], dialect))
            for place, name in enumerate(names)
        }
    )


def decode_arrow(table: Any, types: Mapping[str, TypeEngine[Any]], dialect: sa.Dialect) -> Message:
    """The same message as that of `decode`, from the Arrow table that an ADBC driver gives.

    Args:
        table: A `pyarrow.Table` with the columns in the order of `types`.
        types: The names of the columns and their types.
        dialect: Where the rows come from.

    Raises:
        CellError: A value is not of the column's type.
    """
    return Message(
        {
            name: decoded_arrow(table.column(position), Target(name, kind, dialect))
            for position, (name, kind) in enumerate(types.items())
        }
    )


def convert(value: Any, sqltype: Any, dialect: sa.Dialect | None = None) -> Any:
    """A value as SQLAlchemy takes it for a column of a type.

    Args:
        value: A number of numpy, a tensor with one element, a pandas Timestamp, plain Python; None when it is missing.
        sqltype: The type of the column, or a plain Python type.
        dialect: The database whose limits hold; those of the type alone by default.

    Raises:
        CellError: The type cannot hold the value.

    Example:
        >>> convert(np.int64(3), sa.Integer()), convert(np.float32(0.5), float), convert(float("nan"), sa.Integer())
        (3, 0.5, None)
    """
    target = Target("value", sql_type(sqltype, "value"), dialect or _GENERAL)
    return encoded(Cells.of_value(value, target.family == "tensor"), target)[0]


def cast(value: Any) -> Any:
    """A value of numpy, pandas or torch as the plain Python value that it equals; anything else as it is.

    Missing values (NaN of numpy, NaT, pandas' NA) become None; Python's own float NaN stays.

    Example:
        >>> cast(np.int64(3)), cast(torch.tensor(True)), cast(np.array([1.5, 2.0])), cast(pd.NaT)
        (3, True, [1.5, 2.0], None)
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    if isinstance(value, pd.Timedelta):
        return value.to_pytimedelta()
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else value.astype(f"{value.dtype.kind}8[us]").item()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, pd.Series):
        return [cast(item) for item in value]
    return value


def to_message(row: Any, columns_and_types: Mapping[str, Any] | None = None) -> Message:
    """The result of a query as a message: an object of a table's class, a row, or several of either.

    Args:
        row: An ORM object, a Row, a mapping, a Result, or a list of these.
        columns_and_types: Names and types of the columns to take; inferred where it is not given.

    Example:
        >>> from fireworks.extensions.database import create_table
        >>> fruit = create_table("fruit", {"name": str, "weight": float})
        >>> to_message([fruit(name="pear", weight=0.2), fruit(name="fig", weight=0.1)]).to_dict()
        {'name': ['pear', 'fig'], 'weight': [0.2, 0.1]}
    """
    rows = (
        list(row) if isinstance(row, (list, sa.Result)) or (isinstance(row, Iterable) and not _is_row(row)) else [row]
    )
    types = dict(columns_and_types) if columns_and_types is not None else _inferred_types(rows)
    mappings = [_mapping_of(item) for item in rows]
    absent = sorted({name for mapping in mappings for name in types if name not in mapping})
    if absent:
        raise ColumnError.unknown(absent, mappings[0])
    return Message({name: _result_column([m[name] for m in mappings], name, types[name]) for name in types})


def _is_row(item: Any) -> bool:
    return isinstance(item, (sa.Row, Mapping)) or hasattr(item, "__table__")


def _mapping_of(item: Any) -> Mapping[str, Any]:
    if isinstance(item, sa.Row):
        return dict(item._mapping) if not (len(item) == 1 and hasattr(item[0], "__table__")) else _mapping_of(item[0])
    if isinstance(item, Mapping):
        return item
    if hasattr(item, "__table__"):
        return {column.name: getattr(item, column.key) for column in item.__table__.columns}
    raise TypeError(f"expected a row, a mapping or an object of a table's class, got {type(item).__name__}")


def _inferred_types(rows: Sequence[Any]) -> dict[str, Any]:
    first = rows[0] if rows else {}
    if isinstance(first, sa.Row) and len(first) == 1 and hasattr(first[0], "__table__"):
        first = first[0]
    if hasattr(first, "__table__"):
        return dict(parse_columns_and_types(first))
    return dict.fromkeys(_mapping_of(first))


def _result_column(values: list[Any], name: str, kind: TypeEngine[Any] | None) -> Any:
    """A column of what SQLAlchemy's result processors gave."""
    return from_results(values, Target(name, sa.types.NULLTYPE if kind is None else sql_type(kind, name), _GENERAL))
