"""Columns of messages to lists of plain Python values, every one checked against what the column can hold."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pandas as pd

from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.encoding_numbers import encode_bool, encode_decimal, encode_float, encode_int
from fireworks.extensions._database.encoding_objects import encode_json, encode_other, encode_tensor
from fireworks.extensions._database.encoding_text import encode_bytes, encode_text
from fireworks.extensions._database.encoding_times import (
    encode_date,
    encode_duration,
    encode_time,
    encode_timestamp,
)
from fireworks.extensions._database.families import Target
from fireworks.extensions._database.types import concrete

_ENCODERS: dict[str, Callable[[Cells, Target], list[Any]]] = {
    "int": encode_int,
    "bool": encode_bool,
    "float": encode_float,
    "decimal": encode_decimal,
    "text": encode_text,
    "bytes": encode_bytes,
    "timestamp": encode_timestamp,
    "date": encode_date,
    "time": encode_time,
    "duration": encode_duration,
    "interval": encode_duration,
    "json": encode_json,
    "tensor": encode_tensor,
    "other": encode_other,
    "unknown": encode_other,
}


def encoded(cells: Cells, target: Target) -> list[Any]:
    """The column as SQLAlchemy's type takes it.

    Raises:
        CellError: The column cannot hold a value.
    """
    return _ENCODERS[target.family](cells if target.family == "tensor" else cells.numbers(), target)


def bound(values: list[Any], target: Target) -> list[Any]:
    """An encoded column as the driver takes it.

    Raises:
        CellError: The type refuses a value.
    """
    if target.family == "bool" and target.dialect.name == "sqlite":
        return list(map(_NUMBERS.get, values))  # the driver looks for an adapter of everything that is no plain number
    if target.family in _AS_THEY_ARE:
        return values
    if target.family == "timestamp":
        if target.has_usual_format:
            return _as_text(values)
        if target.dialect.name != "sqlite":
            return values if target.has_zones or not target.zoned else [v and v.replace(tzinfo=None) for v in values]
    process = concrete(target.type, target.dialect).bind_processor(target.dialect)
    return values if process is None else _processed(values, process, target)


_AS_THEY_ARE = {"bool", "int", "float", "text", "bytes", "tensor"}
_NUMBERS = {False: 0, True: 1}


def _as_text(moments: list[datetime.datetime | None]) -> list[str | None]:
    """What SQLAlchemy writes for each, 'YYYY-MM-DD HH:MM:SS.ffffff', for all of them at once; instants are in UTC."""
    import pyarrow as pa

    array = pa.array(pd.DatetimeIndex(moments).tz_localize(None).as_unit("us"))
    return list(array.cast(pa.string()).to_numpy(zero_copy_only=False).tolist())


def _processed(values: list[Any], process: Callable[[Any], Any], target: Target) -> list[Any]:
    processed = []
    for row, value in enumerate(values):
        try:
            processed.append(process(value))
        except Exception as error:
            remedy = "convert the column with map() first"
            raise target.error(row, value, f"is refused: {error}", remedy) from error
    return processed
