"""Rows into PostgreSQL by COPY in binary form, through SQLAlchemy's own connection."""

from __future__ import annotations

import decimal
import struct
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._database.families import Target, target_of
from fireworks.utils.exceptions import CellError

__all__ = ["can_copy", "copy_rows"]

# What psycopg makes the binary form of a number from, and what such columns are described as.
_NUMBERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(["int2", "int4", "int8"], ("int", int)),
    **dict.fromkeys(["float4", "float8"], ("float", float)),
    "numeric": ("decimal", lambda value: decimal.Decimal(repr(value) if isinstance(value, float) else value)),
}

# Types of columns whose binary form psycopg makes of the plain values that SQLAlchemy's types give.
_BINARY = frozenset(
    [
        "bool",
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "numeric",
        "text",
        "varchar",
        "bytea",
        "date",
        "time",
        "timetz",
        "timestamp",
        "timestamptz",
        "interval",
        "uuid",
        "json",
        "jsonb",
    ]
)


def can_copy(connection: sa.Connection, table: sa.Table, names: list[str]) -> bool:
    """Whether COPY does what an INSERT of these columns would do."""
    return (
        connection.dialect.name == "postgresql"
        and connection.dialect.driver == "psycopg"
        and not connection.get_execution_options().get("schema_translate_map")
        and not any(table.columns[name].type._has_bind_expression for name in names)
        and bool(names)
        and _is_plain_table(connection, table)
    )


def _is_plain_table(connection: sa.Connection, table: sa.Table) -> bool:
    """COPY knows neither views nor the policies of rows, which INSERT does."""
    name = connection.dialect.identifier_preparer.format_table(table).replace("%%", "%")
    found = "SELECT relkind <> 'v' AND NOT relrowsecurity FROM pg_catalog.pg_class WHERE oid = to_regclass(%(name)s)"
    return connection.exec_driver_sql(found, {"name": name}).scalar() is not False


def copy_rows(connection: sa.Connection, table: sa.Table, columns: Mapping[str, list[Any]]) -> None:
    """Adds rows.

    The types are those of the table in the database, because binary values of other types would be refused. Where there
    is one that is not known here (an enum, a domain), the server reads text.

    Args:
        connection: In a transaction.
        table: Where to.
        columns: From `bind`.

    Raises:
        CellError: A value does not fit the type that the column has in the database.
    """
    quote = connection.dialect.identifier_preparer
    # It doubles percent signs for statements with parameters, which these are not.
    target = quote.format_table(table).replace("%%", "%")
    names = ", ".join(quote.quote(table.columns[name].name) for name in columns).replace("%%", "%")
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute(f"SELECT {names} FROM {target} LIMIT 0")
        types = [column.type_code for column in cursor.description]
        known = [driver.adapters.types.get(oid) for oid in types]
        is_binary = all(
            kind is not None and kind.name in _BINARY and kind.oid == oid
            for kind, oid in zip(known, types, strict=True)
        )
        way = "(FORMAT BINARY)" if is_binary else "(FORMAT TEXT)"
        values = list(columns.values())
        if is_binary:
            targets = [target_of(table.columns[name], connection.dialect) for name in columns]
            values = [_numbers(*each) for each in zip(values, targets, (kind.name for kind in known), strict=True)]
        try:
            with cursor.copy(f"COPY {target} ({names}) FROM STDIN {way}") as copy:
                if is_binary:
                    copy.set_types(types)
                write = copy.write_row
                for row in zip(*values, strict=True):
                    write(row)
        except (OverflowError, struct.error, TypeError) as error:
            raise CellError(
                f"a value does not fit the type of its column in the database ({error}); the table is not the one that "
                "is described, so reflect it again"
            ) from error


def _numbers(values: list[Any], described: Target, kind: str) -> list[Any]:
    """Numbers as those of the column in the database, where it is described as another; that they fit was checked."""
    family, convert = _NUMBERS.get(kind, ("", None))
    if convert is None or described.family not in ("int", "float", "decimal") or family == described.family:
        return values
    return [None if value is None else convert(value) for value in values]
