"""Types of columns: those of SQLAlchemy where they hold every value on every engine, and our own where they do not."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from fireworks.extensions._database.tensor_bytes import tensor_from_bytes, tensor_to_bytes

MYSQL = ("mysql", "mariadb")
_DECIMAL_DIGITS, _DECIMAL_SCALE = 65, 30  # the most that MariaDB's DECIMAL has


class TensorType(TypeDecorator[torch.Tensor]):
    """A column of tensors: each cell is one tensor of any dtype and shape, stored as the bytes of a safetensors file.

    Device, strides and gradients are not stored. A column whose tensors are all of one shape is read as one tensor of
    the shape (N, \\*shape), any other as objects.

    Example:
        >>> from fireworks.extensions.database import create_table
        >>> create_table("digits", {"image": TensorType(), "label": int}).__table__.c.image.type
        TensorType()
    """

    impl = sa.LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(mysql.LONGBLOB() if dialect.name in MYSQL else sa.LargeBinary())

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        if value is None or isinstance(value, bytes):
            return value
        return tensor_to_bytes(value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value)))

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> torch.Tensor | None:
        return None if value is None else tensor_from_bytes(value)


class ExactText(TypeDecorator[str]):
    """Text of any length that is compared character by character, as the other engines do, on MariaDB too.

    MariaDB's usual collations take 'a', 'A', 'á' and 'a ' for the same key.

    Args:
        length: The most characters, for a column that is part of a key.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        if dialect.name not in MYSQL:
            return dialect.type_descriptor(sa.Text())
        collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", True) else "utf8mb4_0900_bin"
        if self.length is None:
            return mysql.LONGTEXT(charset="utf8mb4", collation=collation)
        return mysql.VARCHAR(self.length, charset="utf8mb4", collation=collation)


class _Number(FunctionElement[decimal.Decimal]):
    """A column of exact decimals where it has to be a number."""

    type = sa.Numeric()
    name = "number"
    inherit_cache = True


@compiles(_Number)
def _compile_number(element: _Number, compiler: Any, **kwargs: Any) -> str:
    return str(compiler.process(element.clauses, **kwargs))


@compiles(_Number, "sqlite")
def _refuse_number(element: _Number, compiler: Any, **kwargs: Any) -> str:
    raise sa.exc.CompileError(
        f"{compiler.process(element.clauses, **kwargs)}: exact decimals are text on SQLite, which has no order of "
        "numbers; compare them by ==, != or in_, read them and compare there, or declare the column int or float"
    )


_NUMERIC_OPERATORS = {operators.lt, operators.le, operators.gt, operators.ge, operators.between_op}
_NUMERIC_OPERATORS |= {operators.not_between_op, operators.add, operators.sub, operators.mul, operators.truediv}


class ExactDecimal(TypeDecorator[decimal.Decimal]):
    """Decimals with every digit: NUMERIC on PostgreSQL, DECIMAL(65, 30) on MariaDB, text on SQLite, whose numbers are
    floats.

    Text is not ordered as numbers are: on SQLite, columns of this type can be compared by `==`, `!=` and `in_` only.
    """

    impl = sa.Numeric
    cache_ok = True

    class Comparator(TypeDecorator.Comparator[decimal.Decimal]):
        """Compares and computes with numbers, never with text."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            if op in _NUMERIC_OPERATORS:
                return op(_Number(self.expr), *other, **kwargs)
            return super().operate(op, *other, **kwargs)

    comparator_factory = Comparator

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL:
            return mysql.DECIMAL(_DECIMAL_DIGITS, _DECIMAL_SCALE)
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else sa.Numeric())

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return str(decimal.Decimal(value).normalize(_EVERY_DIGIT))

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> decimal.Decimal | None:
        return None if value is None else decimal.Decimal(repr(value) if isinstance(value, float) else value)


_EVERY_DIGIT = decimal.Context(prec=decimal.MAX_PREC, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


class Timestamp(TypeDecorator[datetime.datetime]):
    """Points in time to the microsecond: with `timezone`, instants, read as UTC; without, what a clock showed.

    SQLite and MariaDB have no time zones: instants are stored there as they are in UTC.
    """

    impl = sa.DateTime
    cache_ok = True

    def __init__(self, timezone: bool = False) -> None:
        super().__init__(timezone=timezone)
        self.timezone = timezone

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL:
            return mysql.DATETIME(fsp=6)
        return dialect.type_descriptor(sa.DateTime(timezone=self.timezone))

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        if (value.tzinfo is not None) != self.timezone:
            has, needs = ("a", "none") if value.tzinfo is not None else ("no", "one")
            raise ValueError(f"{value!r} has {has} time zone, and the column holds times with {needs}")
        if not self.timezone or dialect.name not in ("sqlite", *MYSQL):
            return value
        return value.astimezone(datetime.UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime.datetime | None:
        if value is None or not self.timezone:
            return value
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


class Duration(TypeDecorator[datetime.timedelta]):
    """Spans of time to the microsecond, stored as an integer of microseconds."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> int | None:
        return None if value is None else value // datetime.timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime.timedelta | None:
        return None if value is None else datetime.timedelta(microseconds=value)


def big_integer() -> TypeEngine[Any]:
    """64 bits everywhere; SQLite numbers the rows of a table only by a column that is called INTEGER."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _long_bytes() -> TypeEngine[Any]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), *MYSQL)


_OF_PYTHON: dict[type, Any] = {
    bool: sa.Boolean,
    int: big_integer,
    float: sa.Double,
    str: ExactText,
    bytes: _long_bytes,
    datetime.datetime: Timestamp,
    datetime.date: sa.Date,
    datetime.time: lambda: sa.Time().with_variant(mysql.TIME(fsp=6), *MYSQL),
    datetime.timedelta: Duration,
    decimal.Decimal: ExactDecimal,
    dict: lambda: sa.JSON(none_as_null=True),
    list: lambda: sa.JSON(none_as_null=True),
    torch.Tensor: TensorType,
}


def sql_type(spec: Any, name: str) -> TypeEngine[Any]:
    """The SQLAlchemy type that a plain Python type, a class of types or a type stands for.

    SQLAlchemy's types that name no size are widened where MariaDB would cut values.

    Raises:
        TypeError: Nothing of these; the text lists the Python types.
    """
    if isinstance(spec, type) and spec in _OF_PYTHON:
        return _OF_PYTHON[spec]()
    if isinstance(spec, type) and issubclass(spec, TypeEngine):
        spec = spec()
    if not isinstance(spec, TypeEngine):
        known = ", ".join(sorted(kind.__name__ for kind in _OF_PYTHON))
        raise TypeError(f"column {name!r}: expected a type of SQLAlchemy or one of {known}, got {spec!r}")
    return _widened(spec)


def _widened(given: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type, with variants for MariaDB where its own choice would be too small for what other engines hold."""
    if any(name in given._variant_mapping for name in MYSQL):
        return given
    kind = type(given)
    wide: TypeEngine[Any] | None = None
    if kind is sa.DateTime:
        wide = mysql.DATETIME(timezone=getattr(given, "timezone", False), fsp=6)
    elif kind is sa.Time:
        wide = mysql.TIME(fsp=6)
    elif kind is sa.Float and getattr(given, "precision", None) is None:
        wide = mysql.DOUBLE()
    elif kind is sa.LargeBinary and getattr(given, "length", None) is None:
        wide = mysql.LONGBLOB()
    elif kind in (sa.String, sa.Text, sa.Unicode, sa.UnicodeText) and getattr(given, "length", None) is None:
        wide = mysql.LONGTEXT(charset="utf8mb4")
    return given if wide is None else given.with_variant(wide, *MYSQL)


def as_key(given: TypeEngine[Any], columns: int) -> TypeEngine[Any]:
    """The type for a column of a key: MariaDB takes no text or bytes of open length, and 3,072 bytes per key."""
    kind = type(given)
    if kind is ExactText and given.length is None:  # type: ignore[attr-defined]
        return ExactText(_KEY_BYTES // 4 // columns)
    if kind is sa.BigInteger:
        return big_integer()
    if kind in (sa.String, sa.Text, sa.Unicode, sa.UnicodeText) and getattr(given, "length", None) is None:
        return given.with_variant(mysql.VARCHAR(_KEY_BYTES // 4 // columns, charset="utf8mb4"), *MYSQL)
    if kind is sa.LargeBinary:
        return sa.LargeBinary().with_variant(mysql.VARBINARY(_KEY_BYTES // columns), *MYSQL)
    return given


_KEY_BYTES = 3072


def concrete(given: TypeEngine[Any], dialect: sa.Dialect) -> TypeEngine[Any]:
    """What the type is on a dialect: the type of the column that the database itself sees."""
    return given.dialect_impl(dialect)
