"""Text and bytes, checked against the length and the alphabet of a column."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.families import Target

# The most bytes of MariaDB's types that name no length.
_MOST_BYTES = {"TINYTEXT": 255, "TEXT": 65_535, "MEDIUMTEXT": 2**24 - 1, "LONGTEXT": 2**32 - 1}
_MOST_BYTES |= {name.replace("TEXT", "BLOB"): most for name, most in _MOST_BYTES.items()}


def encode_text(cells: Cells, target: Target) -> list[Any]:
    """Text that the column takes whole."""
    values = cells.listed()
    kinds = set(map(type, values)) - {type(None)}
    if not kinds <= {str}:
        _refuse_first(values, lambda value: not isinstance(value, str), target, "is no text", _CONVERT)
        values = [value if value is None else str(value) for value in values]
    text = "".join(filter(None, values))
    if target.dialect.name == "postgresql" and "\0" in text:
        _refuse_first(
            values, lambda v: "\0" in v, target, "has a NUL character", "remove it, or declare the column bytes"
        )
    size = _utf8_size(text)
    if size is None:
        _refuse_first(
            values, lambda v: _utf8_size(v) is None, target, "is no valid unicode", "remove the lone surrogates"
        )
    if target.dialect.name != "sqlite":
        _check_length(values, target, text, size or 0)
    return values


_CONVERT = "convert the column with map() first"


def _utf8_size(text: str) -> int | None:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return None


def _refuse_first(values: list[Any], is_bad: Callable[[Any], bool], target: Target, reason: str, remedy: str) -> None:
    for row, value in enumerate(values):
        if value is not None and is_bad(value):
            raise target.error(row, value, reason, remedy)


def _check_length(values: list[Any], target: Target, text: str, size: int) -> None:
    kind = target.stored
    length = getattr(kind, "length", None)
    longer, remedy = "is longer than the {} the column has", "shorten it, or declare the column str"
    if length is not None:
        _refuse_first(values, lambda v: len(v) > length, target, longer.format(f"{length} characters"), remedy)
    if isinstance(kind, sa.CHAR):
        _refuse_first(
            values, lambda v: v.endswith(" "), target, "would lose its last spaces", "declare the column String"
        )
        if not target.is_mysql:
            count = length or 1
            _refuse_first(
                values, lambda v: len(v) != count, target, f"is not {count} long", "declare the column String"
            )
    if target.is_mysql:
        most = _MOST_BYTES.get(target.sql_name)
        if most is not None and size > most:
            _refuse_first(values, lambda v: (_utf8_size(v) or 0) > most, target, longer.format(f"{most} bytes"), remedy)
        _check_alphabet(values, target, text)


def _check_alphabet(values: list[Any], target: Target, text: str) -> None:
    """MariaDB has a character set for each column, and may write question marks for what is not in it."""
    charset = (getattr(target.stored, "charset", None) or target.charset or "utf8mb4").lower()
    if charset == "utf8mb4" or text.isascii():
        return
    if charset in ("utf8", "utf8mb3", "ucs2"):

        def fits(value: str) -> bool:
            return max(value, default="") <= "\uffff"

    else:
        try:
            codec = codecs.lookup({"latin1": "cp1252", "latin2": "iso8859-2"}.get(charset, charset)).name
        except LookupError:
            codec = "ascii"

        def fits(value: str) -> bool:
            try:
                return value.encode(codec) is not None
            except UnicodeEncodeError:
                return False

    _refuse_first(
        values, lambda v: not fits(v), target, f"is not in the character set {charset}", "convert the table to utf8mb4"
    )


def encode_bytes(cells: Cells, target: Target) -> list[Any]:
    """Bytes that the column takes whole."""
    values = cells.listed()
    if not set(map(type, values)) <= {bytes, type(None)}:
        _refuse_first(
            values,
            lambda value: not isinstance(value, (bytes, bytearray, memoryview)),
            target,
            "is no bytes",
            "encode it first, as in text.encode(); declare TensorType for tensors",
        )
        values = [value if value is None else bytes(value) for value in values]
    if target.is_mysql:
        length = getattr(target.stored, "length", None)
        most = length if length is not None else _MOST_BYTES.get(target.sql_name, 65_535)
        remedy = "declare the column bytes"
        _refuse_first(
            values, lambda v: len(v) > most, target, f"is longer than the {most} bytes the column has", remedy
        )
        if isinstance(target.stored, sa.BINARY):
            _refuse_first(values, lambda v: len(v) != most, target, f"would be filled up to {most} bytes", remedy)
    return values
