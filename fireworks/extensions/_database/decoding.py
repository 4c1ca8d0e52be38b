"""What drivers give to typed columns of messages, each column in one go."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.core._columns import OBJECT, TEXT, Column, object_array
from fireworks.extensions._database.encoding import is_single
from fireworks.extensions._database.families import Target
from fireworks.extensions._database.tensor_bytes import rows_from_bytes
from fireworks.extensions._database.types import concrete

_NONE = type(None)


def decoded(values: Sequence[Any], target: Target) -> Column | torch.Tensor:
    """One column of raw values of the driver.

    Raises:
        CellError: A value is not of the column's type.
    """
    return _DECODERS[target.family](values, target)


def _checked_kinds(values: Sequence[Any], target: Target, expected: set[type]) -> set[type]:
    """The types of the values, when all are expected ones; SQLite stores anything anywhere."""
    kinds = set(map(type, values))
    if not kinds <= expected | {_NONE}:
        row = next(row for row, value in enumerate(values) if value is not None and type(value) not in expected)
        wanted = ", ".join(sorted(kind.__name__ for kind in expected))
        raise target.error(row, values[row], f"was read, and {wanted} was expected", "mend the row, or read it as text")
    return kinds


def _filled(values: Sequence[Any], kinds: set[type], filler: Any) -> tuple[Sequence[Any], np.ndarray | None]:
    if _NONE not in kinds:
        return values, None
    return [filler if value is None else value for value in values], np.array([value is None for value in values])


def _decode_int(values: Sequence[Any], target: Target) -> Column:
    kinds = _checked_kinds(values, target, {int, bool})
    full, mask = _filled(values, kinds, 0)
    try:
        array = np.array(full, dtype=np.int64)
    except OverflowError:
        array = np.array(full, dtype=np.uint64)
    if mask is None:
        return Column(array, array.dtype)
    masked = pd.arrays.IntegerArray(array, mask)
    return Column(masked, masked.dtype)


def _decode_bool(values: Sequence[Any], target: Target) -> Column:
    kinds = _checked_kinds(values, target, {int, bool})
    full, mask = _filled(values, kinds, False)
    array = np.array(full, dtype=bool)
    if int in kinds and not set(full) <= {0, 1}:
        row = next(row for row, value in enumerate(full) if value not in (0, 1))
        raise target.error(row, values[row], "was read, and 0 or 1 was expected", "mend the row")
    if mask is None:
        return Column(array, array.dtype)
    masked = pd.arrays.BooleanArray(array, mask)
    return Column(masked, masked.dtype)


def _decode_float(values: Sequence[Any], target: Target) -> Column:
    _checked_kinds(values, target, {float, int, decimal.Decimal})
    array = np.array(values, dtype=np.float32 if is_single(target) else np.float64)
    return Column(array, array.dtype)


def _decode_text(values: Sequence[Any], target: Target) -> Column:
    kinds = _checked_kinds(values, target, {str})
    return Column(object_array(_filled(values, kinds, np.nan)[0]), TEXT)


def _decode_objects(values: Sequence[Any], target: Target) -> Column:
    process = concrete(target.type, target.dialect).result_processor(target.dialect, None)
    cells = values if process is None else [process(value) for value in values]
    return Column(object_array(cells), OBJECT)


def _decode_decimal(values: Sequence[Any], target: Target) -> Column:
    if not getattr(target.resolved, "asdecimal", True):
        return _decode_float(values, target)
    if set(map(type, values)) <= {decimal.Decimal, _NONE}:
        return Column(object_array(values), OBJECT)
    return _decode_objects(values, target)


def _decode_timestamp(values: Sequence[Any], target: Target) -> Column:
    kinds = _checked_kinds(values, target, {str, datetime.datetime})
    if target.zoned:
        if str not in kinds:
            values = [
                v if v is None or v.tzinfo is None else v.astimezone(datetime.UTC).replace(tzinfo=None) for v in values
            ]
        array = np.array(values, dtype="datetime64[us]")
        zoned = pd.Series(array).dt.tz_localize("UTC").array
        return Column(zoned, zoned.dtype)
    array = np.array(values, dtype="datetime64[us]")
    return Column(array, array.dtype)


def _decode_date(values: Sequence[Any], target: Target) -> Column:
    kinds = _checked_kinds(values, target, {str, datetime.date})
    days = np.array(values, dtype="datetime64[D]").tolist() if str in kinds else values
    return Column(object_array(days), OBJECT)


def _decode_duration(values: Sequence[Any], target: Target) -> Column:
    kinds = _checked_kinds(values, target, {int})
    full, mask = _filled(values, kinds, 0)
    array = np.array(full, dtype=np.int64).view("timedelta64[us]")
    if mask is not None:
        array[mask] = np.timedelta64("NaT")
    return Column(array, array.dtype)


def _decode_tensor(values: Sequence[Any], target: Target) -> Column | torch.Tensor:
    rows = rows_from_bytes(values)
    return rows if isinstance(rows, torch.Tensor) else Column(rows, OBJECT)


def _decode_unknown(values: Sequence[Any], target: Target) -> Column:
    """A column of an expression whose type SQLAlchemy does not know: what its values are."""
    kinds = set(map(type, values)) - {_NONE}
    families: list[tuple[set[type], Callable[..., Any]]] = [
        ({int}, _decode_int),
        ({bool}, _decode_bool),
        ({float}, _decode_float),
        ({float, int}, _decode_float),
        ({str}, _decode_text),
    ]
    decode = next((decode for expected, decode in families if kinds and kinds <= expected), _decode_objects)
    return decode(values, target)


def from_results(values: Sequence[Any], target: Target) -> Column | torch.Tensor:
    """One column of values that SQLAlchemy's result processors made."""
    if target.family == "tensor":
        shapes = {(value.shape, value.dtype) if value is not None else None for value in values}
        if len(shapes) == 1 and None not in shapes:
            return torch.stack(list(values))
    if target.family == "duration":
        array = np.array(values, dtype="timedelta64[us]")
        return Column(array, array.dtype)
    if target.family in ("int", "bool", "float", "text", "timestamp", "date", "unknown"):
        return decoded(values, target)
    return Column(object_array(values), OBJECT)


_DECODERS: dict[str, Callable[[Sequence[Any], Target], Any]] = {
    "int": _decode_int,
    "bool": _decode_bool,
    "float": _decode_float,
    "text": _decode_text,
    "timestamp": _decode_timestamp,
    "date": _decode_date,
    "duration": _decode_duration,
    "tensor": _decode_tensor,
    "decimal": _decode_decimal,
    "bytes": _decode_objects,
    "time": _decode_objects,
    "interval": _decode_objects,
    "json": _decode_objects,
    "other": _decode_objects,
    "unknown": _decode_unknown,
}
