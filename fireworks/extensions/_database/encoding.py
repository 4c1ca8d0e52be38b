"""Columns of messages to lists of plain Python values, every one checked against what the column can hold."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch

from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.encoding_numbers import encode_bool, encode_decimal, encode_float, encode_int
from fireworks.extensions._database.encoding_objects import encode_json, encode_other, encode_tensor
from fireworks.extensions._database.encoding_text import encode_bytes, encode_text
from fireworks.extensions._database.encoding_times import (
    Moments,
    encode_date,
    encode_duration,
    encode_time,
    encode_timestamp,
)
from fireworks.extensions._database.families import Target, is_single
from fireworks.extensions._database.types import concrete
from fireworks.utils.exceptions import CellError


def _encode_array(cells: Cells, target: Target) -> list[Any]:
    """Lists, also of lists, of what a column of the elements' type takes."""
    element = Target(target.name, target.resolved.item_type, target.dialect)  # type: ignore[attr-defined]
    values: list[Any] = []
    for row, value in enumerate(cells.listed()):
        plain = value.tolist() if isinstance(value, (np.ndarray, torch.Tensor)) else value
        if plain is None:
            values.append(None)
        elif not isinstance(plain, (list, tuple)):
            raise target.error(row, value, "is no list", "convert the column with map() first")
        elif _has_hollow(plain):
            raise target.error(row, value, "has an empty list in a list", "store it as JSON")
        else:
            with in_cell(target, row, value):
                items = iter(encoded_elements(list(leaves(plain)), element))
            values.append(_like(plain, items))
    return values


def encoded_elements(values: list[Any], element: Target) -> list[Any]:
    """The elements of an array. Those of single precision come back as the shortest number that they print."""
    if not (element.family == "float" and is_single(element)):
        return encoded(Cells(objects=values), element)
    values = encoded(Cells(objects=values), Target(element.name, sa.Double(), element.dialect))
    for row, value in enumerate(values):
        with np.errstate(over="ignore"):
            printed = value if value is None else np.float32(value)
        if printed is not None and value == value and float(str(printed)) != value:
            raise element.error(row, value, f"would come back as {printed}", "round it first")
    return values


def _has_hollow(array: Sequence[Any]) -> bool:
    parts = [item for item in array if isinstance(item, (list, tuple))]
    return any(not part or _has_hollow(part) for part in parts)


def leaves(array: Sequence[Any]) -> Iterator[Any]:
    """The elements of an array, through all of its dimensions."""
    for item in array:
        if isinstance(item, (list, tuple)):
            yield from leaves(item)
        else:
            yield item


def _like(array: Sequence[Any], items: Iterator[Any]) -> list[Any]:
    return [_like(item, items) if isinstance(item, (list, tuple)) else next(items) for item in array]


@contextmanager
def in_cell(target: Target, row: int, value: Any) -> Iterator[None]:
    """Says of which array an element is refused."""
    try:
        yield
    except CellError as error:
        raise target.error(row, value, f"has an element that is refused ({error})", "change that first") from error


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
    "array": _encode_array,
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

    if isinstance(moments, Moments):
        array = moments.array
    else:
        array = pd.DatetimeIndex(moments).tz_localize(None).as_unit("us").to_numpy()
    return list(pa.array(array).cast(pa.string()).to_pylist())


def _processed(values: list[Any], process: Callable[[Any], Any], target: Target) -> list[Any]:
    processed = []
    for row, value in enumerate(values):
        try:
            processed.append(process(value))
        except Exception as error:
            remedy = "convert the column with map() first"
            raise target.error(row, value, f"is refused: {error}", remedy) from error
    return processed
