"""Rows that are added or, where their key is there already, changed: in each dialect's own statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from fireworks.extensions._database.families import target_of
from fireworks.extensions._database.types import MYSQL, ExactText
from fireworks.extensions._database.writing import Columns, insert_rows, parameter, run_for_rows, update_rows
from fireworks.utils.exceptions import CellError, ColumnError

__all__ = ["check_keys", "key_of", "unique_keys", "upsert_rows"]

_KEYS_AT_ONCE = 500


def unique_keys(table: sa.Table, connection: sa.Connection | None = None) -> list[tuple[str, ...]]:
    """What identifies a row: the columns of the primary key, then those of each unique constraint or index.

    Args:
        table: As it is described.
        connection: To ask the database as well, which may know more of them.
    """
    keys = [tuple(table.primary_key.columns.keys())]
    keys += [
        tuple(constraint.columns.keys())
        for constraint in sorted(table.constraints, key=lambda constraint: str(constraint.name or ""))
        if isinstance(constraint, sa.UniqueConstraint)
    ]
    keys += [tuple(index.columns.keys()) for index in table.indexes if index.unique and not index.dialect_kwargs]
    if connection is not None:
        inspector = sa.inspect(connection)
        found = inspector.get_indexes(table.name, schema=table.schema)
        of_name = {column.name: key for key, column in table.columns.items()}
        keys += [
            tuple(of_name.get(str(name), str(name)) for name in index["column_names"])
            for index in found
            if index.get("unique")
        ]
    return list({frozenset(key): key for key in reversed(keys) if key}.values())[::-1]


def key_of(table: sa.Table, names: Sequence[str], key: str | Sequence[str] | None = None) -> tuple[str, ...]:
    """The key by which an upsert finds rows: the one asked for, or the primary key, or the only unique one.

    Args:
        table: What is written to.
        names: The columns of the batch.
        key: What was asked for.

    Raises:
        ColumnError: A column of the key is not in the batch.
        ValueError: No key, several keys to choose from, or columns that are no key.
    """
    keys = unique_keys(table)
    known = "; ".join(", ".join(each) for each in keys) or "(none)"
    if key is not None:
        wanted = (key,) if isinstance(key, str) else tuple(key)
        absent = [name for name in wanted if name not in names]
        if absent:
            raise ColumnError(f"the key of an upsert must be in the batch: {ColumnError.unknown(absent, names)}")
        if frozenset(wanted) not in map(frozenset, keys):
            raise ValueError(
                f"{', '.join(wanted)} cannot be the key of an upsert into {table.name!r}: it is neither the primary "
                f"key nor unique, so one row could change several. Keys: {known}"
            )
        return wanted
    there = [each for each in keys if set(each) <= set(names)]
    primary = tuple(table.primary_key.columns.keys())
    if primary in there or len(there) == 1:
        return primary if primary in there else there[0]
    if there:
        raise ValueError(f"several keys of {table.name!r} are in the batch; choose one with key=. Keys: {known}")
    raise ValueError(
        f"an upsert into {table.name!r} needs all columns of its primary key, or of a unique constraint, in the batch; "
        f"got {', '.join(names)}. Keys: {known}"
    )


def check_keys(columns: Columns, keys: Sequence[str], what: str) -> None:
    """Refuses rows that have no key, or the same key as another row of the batch.

    Raises:
        CellError: Names the row, or both.
    """
    rows: dict[tuple[Any, ...], int] = {}
    for number, values in enumerate(zip(*(columns[name] for name in keys), strict=True)):
        if None in values:
            name = keys[values.index(None)]
            raise CellError(f"column {name!r}, row {number}: {what} finds rows by it, so it needs a value; got None")
        first = rows.setdefault(values, number)
        if first != number:
            said = ", ".join(f"{name}={value!r:.60}" for name, value in zip(keys, values, strict=True))
            raise CellError(f"rows {first} and {number} have the same key ({said}); {what} takes one row for each")


def upsert_rows(connection: sa.Connection, table: sa.Table, key: Sequence[str], columns: Columns) -> None:
    """Adds the rows whose key is new, and sets the columns given in the rows whose key is there.

    Args:
        connection: In a transaction.
        table: Where to.
        key: From `key_of`.
        columns: From `encode`, after `check_keys`.
    """
    kind = connection.dialect.name
    values = {name: parameter(table, name) for name in columns}
    others = [name for name in columns if name not in key]
    plain = all(column.default is None and column.onupdate is None for column in table.columns)
    statement: Any
    if kind in ("sqlite", "postgresql"):
        statement = (sqlite if kind == "sqlite" else postgresql).insert(table).values(values)
        elements = [table.columns[name] for name in key]
        if others:
            statement = statement.on_conflict_do_update(
                index_elements=elements, set_={name: statement.excluded[name] for name in others}
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=elements)
        run_for_rows(connection, statement, table, columns, plain)
    elif kind in MYSQL and len(unique_keys(table, connection)) == 1:
        # It looks at every unique key, so with several it might change a row that has another key.
        statement = mysql.insert(table).values(values)
        # `statement.inserted[name]` would double percent signs in names twice.
        same = [
            (table.columns[name].name, sa.func.VALUES(sa.column(table.columns[name].name))) for name in others or key
        ]
        run_for_rows(connection, statement.on_duplicate_key_update(same), table, columns, plain)
    else:
        _look_then_write(connection, table, key, columns)
    _check_each_has_its_row(connection, table, key, columns)


def _check_each_has_its_row(connection: sa.Connection, table: sa.Table, key: Sequence[str], columns: Columns) -> None:
    """Refuses rows whose keys are one key for the database, as 'a' and 'A' in most collations: one was overwritten.

    Raises:
        CellError: There are fewer rows in the table than were written, or none with a key whose column is described as
            exact text.
    """
    elements = [table.columns[name] for name in key]
    targets = [target_of(element, connection.dialect) for element in elements]
    if all(target.family != "text" for target in targets):
        return
    keys = list(zip(*(columns[name] for name in key), strict=True))
    rows: set[tuple[Any, ...]] = set()
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        same = elements[0].in_([values[0] for values in some]) if len(key) == 1 else sa.tuple_(*elements).in_(some)
        rows.update(tuple(row) for row in connection.execute(sa.select(*elements).where(same)))
    if len(rows) < len(keys):
        raise CellError("two rows have keys that are equal for the collation of the column; give one row for each key")
    exact = [place for place, target in enumerate(targets) if isinstance(target.resolved, ExactText)]
    there = {tuple(row[place] for place in exact) for row in rows}
    for row, key_values in enumerate(keys):
        if tuple(key_values[place] for place in exact) not in there:
            raise CellError(
                f"row {row}: the key {key_values!r:.80} is equal to another one in the table for the collation of the "
                "column in the database, so that row would be overwritten; alter the column, or describe it by "
                "reflect_table"
            )


def _look_then_write(connection: sa.Connection, table: sa.Table, key: Sequence[str], columns: Columns) -> None:
    """Locks the rows that are there, updates these and inserts the rest."""
    elements = [table.columns[name] for name in key]
    keys = list(zip(*(columns[name] for name in key), strict=True))
    there: set[tuple[Any, ...]] = set()
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        found = sa.select(*elements).where(sa.tuple_(*elements).in_(some)).with_for_update()
        there.update(tuple(row) for row in connection.execute(found))
    for is_there in (True, False):
        rows = [row for row, values in enumerate(keys) if (values in there) is is_there]
        chosen = {name: [values[row] for row in rows] for name, values in columns.items()}
        if rows and not is_there:
            insert_rows(connection, table, chosen)
        elif rows and len(columns) > len(key):
            update_rows(connection, table, key, chosen)
