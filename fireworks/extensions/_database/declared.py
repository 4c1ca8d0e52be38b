"""Types of columns as a database itself writes them, such as 'numeric(5,2)', to types of SQLAlchemy."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine, UserDefinedType

__all__ = ["affinity_of", "declared_type"]

_PARTS = re.compile(r"(?P<name>[^(]+)(?:\((?P<sizes>.*)\))?(?P<rest>[^)]*)", re.DOTALL)
_MEMBERS = re.compile(r"'((?:[^']|'')*)'")
_CUT = ('"char"', "name")  # SQLAlchemy takes them for text; PostgreSQL cuts what is longer than a character or 63 bytes


class _Declared(UserDefinedType[Any]):
    """A type that is known by its name only."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **kwargs: Any) -> str:
        return self.text


def declared_type(text: str, dialect: sa.Dialect, charset: str | None = None) -> TypeEngine[Any]:
    """The type that a server names by a text, with its sizes; one that holds nothing but its name where it is unknown.

    Args:
        text: As `format_type` of PostgreSQL or `SHOW COLUMNS` of MariaDB write it.
        dialect: The server.
        charset: Of text on MariaDB.

    Example:
        >>> from sqlalchemy.dialects import postgresql
        >>> declared_type("numeric(5,2)", postgresql.dialect())
        NUMERIC(precision=5, scale=2)
    """
    if dialect.name == "postgresql" and text.endswith("[]"):
        return postgresql.ARRAY(declared_type(text.removesuffix("[]"), dialect))
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return _Declared(text)
    name, inside, rest = parts["name"].strip(), parts["sizes"] or "", parts["rest"].strip()
    of_server: dict[str, Any] = getattr(dialect, "ischema_names", {})
    fields = name.removeprefix("interval ") if name.startswith("interval ") else None
    kind = of_server.get("interval" if fields else f"{name} {rest}" if rest.endswith("time zone") else name)
    if kind is None or name in _CUT:
        return _Declared(text)
    sizes = [int(size) for size in inside.split(",")] if re.fullmatch(r"[-\d, ]+", inside) else []
    if dialect.name == "postgresql":
        return _of_postgresql(kind, sizes, "with time zone" in text, fields)
    return _of_mariadb(kind, sizes, rest, charset, [m.replace("''", "'") for m in _MEMBERS.findall(inside)])


def _of_postgresql(kind: Any, sizes: list[int], timezone: bool, fields: str | None) -> TypeEngine[Any]:
    if issubclass(kind, (sa.DateTime, sa.Time)):
        return kind(timezone=timezone, precision=next(iter(sizes), None))
    if issubclass(kind, postgresql.INTERVAL):
        return kind(fields=fields, precision=next(iter(sizes), None))
    made: TypeEngine[Any] = kind(*sizes)
    return made


def _of_mariadb(kind: Any, sizes: list[int], rest: str, charset: str | None, members: list[str]) -> TypeEngine[Any]:
    made: TypeEngine[Any]
    if issubclass(kind, sa.Integer):
        return kind(unsigned="unsigned" in rest)  # what is in parentheses is how wide it is shown
    if issubclass(kind, (mysql.ENUM, mysql.SET)):
        return kind(*members, charset=charset)
    if issubclass(kind, (mysql.DATETIME, mysql.TIMESTAMP, mysql.TIME)):
        return kind(fsp=next(iter(sizes), None))
    if issubclass(kind, sa.String):
        return kind(*sizes, charset=charset)
    made = kind(*sizes)
    return made


def affinity_of(declared: str) -> str:
    """What SQLite makes of values in a column that is declared so: https://sqlite.org/datatype3.html, section 3.1."""
    declared = declared.upper()
    rules = [("INTEGER", ("INT",)), ("TEXT", ("CHAR", "CLOB", "TEXT")), ("BLOB", ("BLOB",))]
    rules += [("REAL", ("REAL", "FLOA", "DOUB"))]
    found = (affinity for affinity, words in rules if any(word in declared for word in words))
    return next(found, "NUMERIC" if declared.strip() else "BLOB")
