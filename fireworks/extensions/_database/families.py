"""What a column holds, as far as values are concerned: one family of types for each way to check and convert them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from fireworks.extensions._database.types import (
    MYSQL,
    Duration,
    ExactDecimal,
    ExactText,
    TensorType,
    Timestamp,
)
from fireworks.utils.exceptions import CellError

_OWN: list[tuple[type, str]] = [
    (TensorType, "tensor"),
    (ExactText, "text"),
    (ExactDecimal, "decimal"),
    (Timestamp, "timestamp"),
    (Duration, "duration"),
]
# In this order: an Enum is a String, a Float is a Numeric.
_GENERIC: list[tuple[type | tuple[type, ...], str]] = [
    ((sa.Interval, postgresql.INTERVAL), "interval"),
    (sa.ARRAY, "array"),
    ((TypeDecorator, sa.Enum, mysql.SET, mysql.BIT), "other"),
    (sa.Boolean, "bool"),
    ((sa.Integer, mysql.YEAR), "int"),
    (sa.Float, "float"),
    (sa.Numeric, "decimal"),
    (sa.DateTime, "timestamp"),
    (sa.Date, "date"),
    (sa.Time, "time"),
    (sa.JSON, "json"),
    (sa.types._Binary, "bytes"),
    (sa.String, "text"),
    (sa.types.NullType, "unknown"),
]


@dataclass(frozen=True)
class Target:
    """One column as values meet it: its name, its type and where it is."""

    name: str
    type: TypeEngine[Any]
    dialect: sa.Dialect
    charset: str | None = None
    is_computed: bool = False  # by a query, which has no column of this type

    @cached_property
    def resolved(self) -> TypeEngine[Any]:
        """The type itself, or its variant for this dialect."""
        return self.type._variant_mapping.get(self.dialect.name, self.type)

    @cached_property
    def stored(self) -> TypeEngine[Any]:
        """What the table in the database is described by."""
        stored = self.resolved
        while isinstance(stored, TypeDecorator) and not isinstance(stored, sa.Interval):
            stored = stored.load_dialect_impl(self.dialect)
            stored = stored._variant_mapping.get(self.dialect.name, stored)
        return stored

    @cached_property
    def sql(self) -> str:
        """The type as the database writes it."""
        try:
            return self.dialect.type_compiler_instance.process(self.stored)
        except (sa.exc.CompileError, AttributeError):
            return repr(self.type)

    @property
    def sql_name(self) -> str:
        """The type's name, without its size and its character set."""
        return self.sql.partition("(")[0].split()[0].upper()

    @cached_property
    def family(self) -> str:
        """How values of this column are checked and converted."""
        if not type(self.resolved).__module__.startswith(("sqlalchemy.", "fireworks.")):
            return "other"  # somebody's own class may convert values in its own way
        for kind, family in [*_OWN, *_GENERIC]:
            if isinstance(self.resolved, kind):
                return family
        return "other"

    @property
    def is_mysql(self) -> bool:
        """Is this MariaDB or MySQL?"""
        return self.dialect.name in MYSQL

    @property
    def zoned(self) -> bool:
        """Does the column hold instants, rather than what a clock showed?"""
        return bool(getattr(self.resolved, "timezone", False))

    @property
    def has_zones(self) -> bool:
        """Does the database itself know instants?"""
        return self.dialect.name not in ("sqlite", *MYSQL)

    @property
    def has_usual_format(self) -> bool:
        """Is time written on SQLite as SQLAlchemy does, when nobody says otherwise?"""
        usual = getattr(type(self.stored), "_storage_format", None)
        return self.dialect.name == "sqlite" and getattr(self.stored, "_storage_format", None) == usual

    def __str__(self) -> str:
        return f"{self.sql} on {'mariadb' if getattr(self.dialect, 'is_mariadb', False) else self.dialect.name}"

    def error(self, row: int, value: Any, reason: str, remedy: str) -> CellError:
        """The error for one value that the column cannot hold."""
        shown = f"{value!r}"
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return CellError(
            f"column {self.name!r} ({self}), row {row}: {shown} ({type(value).__name__}) {reason}; {remedy}"
        )


def is_single(target: Target) -> bool:
    """Has the column floats of 32 bits?"""
    kind, precision = target.stored, getattr(target.stored, "precision", None)
    if target.dialect.name == "postgresql":
        return isinstance(kind, sa.REAL) or (precision is not None and precision <= 24)
    if target.is_mysql:
        is_double = isinstance(kind, (sa.Double, sa.REAL))
        return not is_double and (precision is None or precision <= 24)
    return False


def target_of(column: sa.Column[Any], dialect: sa.Dialect) -> Target:
    """A column of a table as values meet it."""
    options = getattr(column.table, "kwargs", {})
    charsets = [options.get(f"{name}_{option}") for name in MYSQL for option in ("charset", "default charset")]
    return Target(column.name, column.type, dialect, next(filter(None, charsets), None))


def refuse(bad: np.ndarray, array: np.ndarray, target: Target, reason: str, remedy: str) -> None:
    """The error for the first row that is bad, if any is."""
    if bad.any():
        row = int(bad.argmax())
        value = array[row]
        raise target.error(row, value.item() if value.dtype.kind in "biuf" else value, reason, remedy)
