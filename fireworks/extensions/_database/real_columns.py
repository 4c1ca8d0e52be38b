"""Values checked against the columns that the database has, where these are not what the description of the table says.

A description may be older than the table, or somebody else's guess. The database rounds, cuts and converts what its own
column does not hold, mostly without a word.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa

from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.declared import affinity_of, declared_type
from fireworks.extensions._database.encoding import bound, encoded, encoded_elements, in_cell, leaves
from fireworks.extensions._database.families import Target, is_single, target_of
from fireworks.extensions._database.types import MYSQL
from fireworks.extensions._database.writing import Columns, with_defaults
from fireworks.utils.exceptions import CellError

__all__ = ["RealColumns"]

_Check: TypeAlias = Callable[[list[Any]], None]
# By name: the type, its character set, and whether a missing value is made to something else.
_Declarations: TypeAlias = dict[str, tuple[str, str | None, bool]]


class RealColumns:
    """The columns of a table as the database has them: it is asked once in each transaction.

    From then on until the transaction ends, a server lets nobody alter the table.

    Args:
        table: As it is described.
    """

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        self._transaction: Callable[[], Any] = lambda: None
        self._traits: Any = None
        self._checks: list[tuple[str, _Check]] = []

    def check(self, connection: sa.Connection, columns: Columns, adds_rows: bool = False) -> None:
        """Refuses values that the columns in the database would change.

        Args:
            connection: In a transaction.
            columns: From `encode`.
            adds_rows: Whether columns that are not there are filled by their defaults.

        Raises:
            CellError: Names column, row and value, the type that the column has and the one that it should have.
        """
        transaction = connection.get_transaction()
        if transaction is None or self._transaction() is not transaction:
            traits = _traits(connection, self.table)
            if traits != self._traits:
                declared = _declarations(connection, self.table, traits)
                self._traits, self._checks = traits, list(_checks(self.table, declared, connection.dialect))
            if transaction is not None:
                self._transaction = weakref.ref(transaction)
        if not self._checks:
            return
        if adds_rows:
            some = {name: values[:1] for name, values in columns.items()}
            columns = {**(with_defaults(self.table, some, connection.dialect) or {}), **columns}
        for name, check in self._checks:
            if name in columns:
                check(columns[name])


def _checks(table: sa.Table, declared: _Declarations, dialect: sa.Dialect) -> Iterator[tuple[str, _Check]]:
    """What is to be checked of the columns that differ."""
    for key, column in table.columns.items():
        known = declared.get(column.name if dialect.name == "postgresql" else column.name.lower())
        if known is None:
            continue  # the database will say that it lacks the column
        described = target_of(column, dialect)
        if dialect.name == "sqlite":
            found, wanted = affinity_of(known[0]), affinity_of(described.sql)
            if found not in (wanted, "BLOB"):
                yield key, _with_remedy(described, known[0], _AffinityCheck(described, known[0], found))
        else:
            real = Target(column.name, declared_type(known[0], dialect, known[1]), dialect, known[1])
            if _said(real) != _said(described):
                yield key, _with_remedy(described, real.sql, _TypeCheck(described, real))
            if known[2]:
                yield key, _with_remedy(described, f"{real.sql} NOT NULL", partial(_check_missing, described))


def _with_remedy(described: Target, real: str, check: _Check) -> _Check:
    def checked(values: list[Any]) -> None:
        try:
            check(values)
        except CellError as error:
            raise CellError(
                f"{error}. The column is {real} in the database, and {described.sql} in the description of the table: "
                "alter the one, or correct the other (reflect_table)"
            ) from error

    return checked


def _check_missing(described: Target, values: list[Any]) -> None:
    if None in values:
        raise described.error(values.index(None), None, "would become the time of the clock", "give a value")


# SQLite


_NUMBER = re.compile(r"[ \t-\r]*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[ \t-\r]*", re.IGNORECASE | re.ASCII)


class _AffinityCheck:
    """Refuses what the affinity of a column would convert to something else."""

    def __init__(self, described: Target, declared: str, affinity: str) -> None:
        self.described = described
        self.declared = declared
        self.affinity = affinity

    def __call__(self, values: list[Any]) -> None:
        for row, value in enumerate(bound(values, self.described)):
            if self._changes(value):
                kind = "text" if self.affinity == "TEXT" else "a number" if isinstance(value, str) else "a float"
                raise self.described.error(row, value, f"would become {kind}", "convert the column with map() first")

    def _changes(self, value: Any) -> bool:
        if self.affinity == "TEXT":
            return isinstance(value, (int, float))
        if isinstance(value, str):
            return _NUMBER.fullmatch(value) is not None
        return self.affinity == "REAL" and isinstance(value, int)


# Servers


# Which families of columns keep values, as they come to the driver, for what they are.
_FAMILIES: dict[type, set[str]] = {
    bool: {"bool"},
    int: {"int", "decimal"},
    float: {"int", "float", "decimal"},
    decimal.Decimal: {"int", "float", "decimal"},
    str: {"text", "enum"},
    bytes: {"bytes"},
    datetime.datetime: {"timestamp"},
    datetime.date: {"date"},
    datetime.time: {"time"},
    datetime.timedelta: {"interval"},
}


class _TypeCheck:
    """Refuses what the type of a column would round, cut or convert, by what is checked where it is described so."""

    def __init__(self, described: Target, real: Target) -> None:
        self.described = described
        self.real = real
        self._family = "enum" if isinstance(real.resolved, sa.Enum) else real.family

    def __call__(self, values: list[Any]) -> None:
        if self.described.family == self.real.family == "array":
            self._check_elements(values)
            return
        if self.described.family == self.real.family == "json":
            given = values
        else:
            given = bound(values, self.described)
            kinds = set(map(type, given)) - {type(None)}
            if not all(self._takes(kind) for kind in kinds):
                if self.described.family == "other":
                    return  # only the database knows
                row = next(row for row, value in enumerate(given) if value is not None and not self._takes(type(value)))
                raise self.real.error(row, values[row], "would be converted", "convert the column with map() first")
        encoded(Cells(objects=given), self.real)
        self._check_digits(given)

    def _check_elements(self, values: list[Any]) -> None:
        dialect = self.real.dialect
        described, real = (
            Target(target.name, target.stored.item_type, dialect)  # type: ignore[attr-defined]
            for target in (self.described, self.real)
        )
        check = _TypeCheck(described, real)
        for row, value in enumerate(values):
            if value is not None:
                with in_cell(self.real, row, value):
                    if described.family == real.family == "float":
                        encoded_elements(list(leaves(value)), real)
                    else:
                        check(list(leaves(value)))

    def _takes(self, kind: type) -> bool:
        if kind is bool and self.real.is_mysql:  # whose BOOL is an integer
            return self._family == "int"
        return self._family in _FAMILIES.get(kind, ())

    def _check_digits(self, values: list[Any]) -> None:
        """Some conversions go by fewer digits than the value has, and the column."""
        single = self.real.family == "float" and is_single(self.real) and not is_single(self.described)
        cut = self.real.family == "decimal" and self.described.family == "float" and not self.real.is_mysql
        if not single and not cut:
            return
        for row, value in enumerate(values):
            if value is None or not math.isfinite(value):
                continue
            printed = f"{value:.15g}" if cut else f"{value:.6g}" if self.real.is_mysql else str(np.float32(value))
            if float(printed) != value:
                raise self.real.error(row, value, f"would come back as {printed}", "round it first")


_SAME_ON_POSTGRESQL = {"VARCHAR": "TEXT", "FLOAT": "DOUBLE PRECISION"}
_SAME_ON_MARIADB = {"BOOL": "TINYINT", "JSON": "LONGTEXT", "NUMERIC": "DECIMAL", "REAL": "DOUBLE"}


def _said(target: Target) -> tuple[str, str | None]:
    """A type as the database writes it, and its character set: equal where there is no difference between columns."""
    if not target.is_mysql:
        return _SAME_ON_POSTGRESQL.get(target.sql, target.sql), None
    sql = re.sub(r" (CHARACTER SET|COLLATE) \w+", "", target.sql)
    sql = re.sub(r"INT(EGER)?\(\d+\)", r"INT\1", sql)  # how wide it is shown
    name = re.match(r"\w*", sql)[0]  # type: ignore[index]
    charset = getattr(target.stored, "charset", None) or target.charset or "utf8mb4"
    has_letters = target.family in ("text", "json")
    return _SAME_ON_MARIADB.get(name, name) + sql[len(name) :], charset if has_letters else None


# What the database says


def _traits(connection: sa.Connection, table: sa.Table) -> Any:
    """What changes when the table is altered, and costs less than its columns; None where nothing is known.

    A server to which a table is named locks it, so that nobody alters it before the transaction ends.
    """
    kind = connection.dialect.name
    schema, plain = _named(connection, table)
    name = schema + plain
    if kind == "sqlite":
        return connection.exec_driver_sql(f"PRAGMA {schema}table_xinfo({plain})").all()
    if kind == "postgresql":
        literal = "'" + name.replace("'", "''") + "'"
        return connection.exec_driver_sql(
            f"SELECT attname, atttypid, atttypmod FROM pg_catalog.pg_attribute LEFT JOIN {name} ON false "
            f"WHERE attrelid = {literal}::regclass AND attnum > 0 AND NOT attisdropped"
        ).all()
    if kind in MYSQL:
        connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 0").close()
        row = connection.exec_driver_sql(f"SHOW CREATE TABLE {name}").one()
        is_table = len(row) == 2  # the text of a view says nothing about its types
        return re.sub(r" AUTO_INCREMENT=\d+", "", row[1]) if is_table else object()
    return None


def _named(connection: sa.Connection, table: sa.Table) -> tuple[str, str]:
    """The schema, with the point behind it, and the name, as the text of a statement has them."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = connection.schema_for_object(table)
    return f"{quote(schema)}." if schema else "", quote(table.name)


def _declarations(connection: sa.Connection, table: sa.Table, traits: Any) -> _Declarations:
    """The columns that the database has."""
    kind = connection.dialect.name
    if kind == "sqlite":
        return {name.lower(): (declared, None, False) for _, name, declared, *_ in traits}
    if kind == "postgresql":
        return {name: (_written(connection, oid, modifier), None, False) for name, oid, modifier in traits}
    if kind not in MYSQL:
        return {}
    found = connection.exec_driver_sql(f"SHOW FULL COLUMNS FROM {''.join(_named(connection, table))}")
    return {
        name.lower(): (
            declared,
            None if collation is None else collation.partition("_")[0],
            nullable == "NO" and declared.startswith("timestamp"),
        )
        for name, declared, collation, nullable, *_ in found
    }


_TYPE = sa.table("pg_type", *map(sa.column, ["oid", "typtype", "typbasetype", "typtypmod"]), schema="pg_catalog")


def _written(connection: sa.Connection, oid: int, modifier: int) -> str:
    """A type of PostgreSQL: what is behind a domain; text for an enum, which refuses what is none of its values."""
    columns = _TYPE.c
    written = sa.func.format_type(sa.literal(oid), sa.literal(modifier))
    kind, base, of_base, text = connection.execute(
        sa.select(columns.typtype, columns.typbasetype, columns.typtypmod, written).where(columns.oid == oid)
    ).one()
    if kind == "d":
        return _written(connection, base, of_base)
    return "text" if kind == "e" else str(text)
