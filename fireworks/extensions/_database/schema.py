"""Tables and engines: described, reflected, proposed from data, and looked up in whatever form they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.orm import declarative_base
from sqlalchemy.types import TypeEngine

from fireworks.core.message import Message
from fireworks.extensions._database.connections import as_engine, read
from fireworks.extensions._database.proposals import proposed_type
from fireworks.extensions._database.types import as_key, big_integer, sql_type
from fireworks.utils.exceptions import ColumnError, TableError, did_you_mean

__all__ = [
    "as_engine",
    "as_table",
    "create_table",
    "parse_columns",
    "parse_columns_and_types",
    "propose_columns",
    "reflect_table",
]

ID = "id"


def create_table(
    name: str,
    columns: Mapping[str, Any] | Iterable[sa.Column[Any]],
    primary_key: str | Sequence[str] | None = None,
    Base: Any = None,
) -> Any:
    """A class that describes a table: its columns are attributes, its rows are made by keyword.

    The table itself is created in a database by `TablePipe(...)` or by `table.metadata.create_all(engine)`.

    Args:
        name: The table's name.
        columns: Names and types, or a list of `sqlalchemy.Column`. Types are SQLAlchemy's or plain Python's: int
            (64 bits), float (double), bool, str, bytes, datetime, date, time, timedelta, Decimal, dict or list (JSON)
            and torch.Tensor. SQLAlchemy's types without a size get the largest that MariaDB has.
        primary_key: The column, or columns, that identify a row. By default a column `id` of increasing integers is
            added, unless a given column is a primary key itself.
        Base: The class to inherit from; by default a fresh one with metadata of its own.

    Returns:
        The class; `__table__` is the `sqlalchemy.Table`. Columns called `metadata` or `registry`, which every such
        class has already, are its attributes `metadata_` and `registry_`.

    Raises:
        ColumnError: `primary_key` is not among the columns.
        TypeError: A type is none; the text lists what can be given.
        ValueError: A column is given twice, or is called `id` beside the one that would be added.

    Example:
        >>> import datetime
        >>> fruit = create_table("fruit", {"name": str, "weight": float, "picked": datetime.date})
        >>> fruit.__table__.columns.keys()
        ['id', 'name', 'weight', 'picked']
        >>> fruit(name="pear", weight=0.2).name
        'pear'
    """
    described = _described(columns)
    keys = [primary_key] if isinstance(primary_key, str) else list(primary_key or [])
    names = [column.name for column in described]
    unknown = [key for key in keys if key not in names]
    if unknown:
        raise ColumnError.unknown(unknown, names)
    keys = keys or [column.name for column in described if column.primary_key]
    for column in described:
        if column.name in keys:
            column.primary_key, column.nullable = True, False
            column.type = as_key(column.type, len(keys))
            column.autoincrement = "auto"
    if not keys:
        if ID in names:
            raise ValueError(f"{ID!r} is the name of the key that is added; say primary_key={ID!r} to use your column")
        described.insert(0, sa.Column(ID, big_integer(), primary_key=True, autoincrement=True))
    base = Base if Base is not None else declarative_base()
    attributes = {f"{c.name}_" if c.name in _RESERVED else c.name: c for c in described}
    return type(base)(name, (base,), {"__tablename__": name, "__table_args__": _OPTIONS} | attributes)


_RESERVED = {"metadata", "registry"}  # which every class of a table has of its own

# What MariaDB needs to be told to keep text of every language.
_OPTIONS = {f"{name}_{option}": value for name in ("mysql", "mariadb") for option, value in [("charset", "utf8mb4")]}


def _described(columns: Mapping[str, Any] | Iterable[sa.Column[Any]]) -> list[sa.Column[Any]]:
    """Columns of our own: those that were given stay as they are."""
    if isinstance(columns, Mapping):
        for name in columns:
            if not isinstance(name, str) or not name:
                raise TypeError(f"a column needs a name that is text, got {name!r}")
        given = [
            spec._copy(name=name) if isinstance(spec, sa.Column) else sa.Column(name, sql_type(spec, name))
            for name, spec in columns.items()
        ]
    else:
        given = []
        for column in columns:
            if not isinstance(column, sa.Column):
                raise TypeError(f"expected a dict of names and types or a list of sqlalchemy.Column, got {column!r}")
            given.append(column._copy())
    for column in given:
        if not column.name:
            raise TypeError(f"a column needs a name that is text, got {column.name!r}")
        column.type = sql_type(column.type, column.name)
    twice = {column.name for column in given if [other.name for other in given].count(column.name) > 1}
    if twice:
        raise ValueError(f"columns are given twice: {', '.join(map(repr, sorted(twice)))}")
    return given


def reflect_table(table_name: str, engine: Any) -> sa.Table:
    """The description of a table that a database holds already.

    Args:
        table_name: Its name; 'schema.name' where it is in another schema.
        engine: An engine, or the URL of the database.

    Raises:
        TableError: There is no such table; the text lists those that are there.

    Example:
        >>> engine = sa.create_engine("sqlite://")
        >>> create_table("fruit", {"name": str}).metadata.create_all(engine)
        >>> reflect_table("fruit", engine).columns.keys()
        ['id', 'name']
        >>> engine.dispose()
    """
    engine = as_engine(engine)
    schema, _, plain = table_name.rpartition(".")

    def look(connection: sa.Connection) -> sa.Table | list[str]:
        try:
            return sa.Table(table_name, sa.MetaData(), autoload_with=connection)
        except exc.NoSuchTableError:
            inspector = sa.inspect(connection)
            if schema and inspector.has_table(plain, schema=schema):
                return sa.Table(plain, sa.MetaData(), schema=schema, autoload_with=connection)
            return sorted([*inspector.get_table_names(), *inspector.get_view_names()])

    known = read(engine, f"looking for the table {table_name!r}", look)
    if isinstance(known, sa.Table):
        return known
    raise TableError(
        f"no table {table_name!r}{did_you_mean(table_name, known) or '.'} "
        f"Tables of {engine.url.render_as_string()}: {', '.join(known) or '(none)'}"
    )


def as_table(table: Any, engine: Any = None) -> sa.Table:
    """The `sqlalchemy.Table` of a class, a Table, or of the name of one in the database.

    Raises:
        TableError: The database has no table of this name.
        TypeError: Something else, or a name without an engine.
    """
    found = getattr(table, "__table__", table)
    if isinstance(found, sa.Table):
        return found
    if isinstance(table, str) and engine is not None:
        return reflect_table(table, engine)
    raise TypeError(
        f"expected a class made by create_table, a sqlalchemy.Table or its name, got {type(table).__name__}"
    )


def parse_columns(object: Any, ignore_id: bool = True) -> list[str]:
    """The names of the columns of a table or of a query.

    Args:
        object: A class of a table, a Table, a select, or a Query of the ORM.
        ignore_id: Leave out the column `id`, the key that `create_table` adds.

    Example:
        >>> fruit = create_table("fruit", {"name": str, "weight": float})
        >>> parse_columns(fruit), parse_columns(fruit, ignore_id=False)
        (['name', 'weight'], ['id', 'name', 'weight'])
    """
    return list(parse_columns_and_types(object, ignore_id))


def parse_columns_and_types(object: Any, ignore_id: bool = True) -> dict[str, TypeEngine[Any]]:
    """The names of the columns of a table or of a query, and their SQLAlchemy types.

    Args:
        object: A class of a table, a Table, a select, or a Query of the ORM.
        ignore_id: Leave out the column `id`, the key that `create_table` adds.

    Raises:
        TypeError: None of these.

    Example:
        >>> parse_columns_and_types(create_table("fruit", {"name": str, "weight": float}))
        {'name': ExactText(), 'weight': Double()}
    """
    source = getattr(object, "__table__", object)
    if hasattr(source, "statement"):
        source = source.statement  # a Query of the ORM
    if isinstance(source, sa.sql.base.ReadOnlyColumnCollection):
        columns: Any = source
    elif isinstance(source, sa.sql.selectable.SelectBase):
        columns = source.selected_columns
    elif isinstance(source, sa.FromClause):
        columns = source.columns
    else:
        raise TypeError(f"expected a table or a query, got {type(object).__name__}")
    return {name: column.type for name, column in columns.items() if not (ignore_id and name == ID)}


def propose_columns(message: Any) -> dict[str, TypeEngine[Any]]:
    """The types of columns that hold the columns of a message on every engine, for `create_table`.

    Args:
        message: A Message, or what one can be made of: a DataFrame, a dict of columns.

    Raises:
        CellError: A column holds values of kinds that no type of column holds together; the text names them.

    Example:
        >>> import torch
        >>> propose_columns(Message({"x": torch.zeros(2, 3), "n": [1, 2], "word": ["a", None]}))
        {'n': BigInteger(), 'word': ExactText(), 'x': TensorType()}
    """
    message = message if isinstance(message, Message) else Message(message)
    return {name: proposed_type(message, name) for name in message.columns}
