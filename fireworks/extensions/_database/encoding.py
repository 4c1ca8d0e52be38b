"""Columns of messages to lists of plain Python values, every one checked against what the column can hold."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch
from pandas.api.extensions import ExtensionArray

from fireworks.core._columns import NUMPY_DTYPES
from fireworks.core.message import Message
from fireworks.extensions._database.families import Target
from fireworks.extensions._database.tensor_bytes import rows_to_bytes, tensor_to_bytes

_NOTHING = (type(None), type(pd.NA), type(pd.NaT))
_MICROSECONDS = {"M": "datetime64[us]", "m": "timedelta64[us]"}


@dataclass
class Cells:
    """One column of a batch: numbers or times in an array, tensors, or else a list of objects."""

    array: np.ndarray | None = None  # of kind b, i, u, f, M or m
    mask: np.ndarray | None = None  # where the array has no value
    objects: list[Any] | None = None
    tensor: torch.Tensor | None = None
    zoned: bool = False  # the array holds instants in UTC

    @classmethod
    def of(cls, message: Message, name: str) -> Cells:
        """A column of a message."""
        if name in message._tensors:
            return cls(tensor=message._tensors[name])
        return cls.of_array(message._array(name)[0])

    @classmethod
    def of_array(cls, array: np.ndarray | ExtensionArray) -> Cells:
        """What a frame column holds."""
        if isinstance(array, np.ndarray):
            if array.dtype.kind in "biufMm":
                return cls(array=array)
            return cls(objects=array.tolist() if array.dtype.kind == "O" else list(array))
        if isinstance(array.dtype, pd.DatetimeTZDtype):
            instants = pd.Series(array).dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
            return cls(array=instants, zoned=True)
        if isinstance(array, (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)):
            mask = array.isna()
            return cls(array=array.to_numpy(array.dtype.numpy_dtype, na_value=0), mask=mask if mask.any() else None)
        return cls(objects=list(array.astype(object)))

    @classmethod
    def of_value(cls, value: Any) -> Cells:
        """A single value."""
        return (
            cls(tensor=value.reshape(1))
            if isinstance(value, torch.Tensor) and value.numel() == 1
            else cls(objects=[value])
        )

    def numbers(self) -> Cells:
        """The same, with a tensor of one dimension as an array."""
        tensor = self.tensor
        if tensor is None:
            return self
        tensor = tensor.detach().cpu()
        if tensor.ndim != 1 or tensor.is_complex():
            return Cells(objects=list(tensor))
        return Cells(array=(tensor if tensor.dtype in NUMPY_DTYPES else tensor.float()).numpy())

    def listed(self, keep_nan: bool = False) -> list[Any]:
        """Every value as an object; None for what is missing."""
        if self.tensor is not None:
            return list(self.tensor)
        if self.objects is not None:
            return _without_missing(self.objects, keep_nan)
        assert self.array is not None
        return _with_none(self.array, self.mask)


def _without_missing(objects: list[Any], keep_nan: bool) -> list[Any]:
    kinds = set(map(type, objects))
    if not kinds.isdisjoint({float, np.float64, np.float32, np.float16}) and not keep_nan:
        return [
            None if isinstance(o, _NOTHING) or (isinstance(o, (float, np.floating)) and o != o) else o for o in objects
        ]
    if kinds.isdisjoint(_NOTHING[1:]) and kinds.isdisjoint({np.datetime64, np.timedelta64}):
        return objects
    return [None if isinstance(o, _NOTHING) or _is_nat(o) else o for o in objects]


def _is_nat(value: Any) -> bool:
    return isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value))


def _with_none(array: np.ndarray, mask: np.ndarray | None) -> list[Any]:
    if mask is None or not mask.any():
        return list(array.tolist())
    values = array.astype(object)
    values[mask] = None
    return list(values.tolist())


def encoded(cells: Cells, target: Target) -> list[Any]:
    """The column as SQLAlchemy's type takes it.

    Raises:
        CellError: The column cannot hold a value.
    """
    return _ENCODERS[target.family](cells if target.family == "tensor" else cells.numbers(), target)


# Numbers


def _limits(target: Target) -> tuple[int, int]:
    """The least and the greatest integer."""
    bits = 64
    if target.dialect.name != "sqlite":
        name = str(target).split("(")[0].split()[0].upper()
        bits = {"TINYINT": 8, "BOOL": 8, "SMALLINT": 16, "SMALLSERIAL": 16, "MEDIUMINT": 24}.get(name, 32)
        if isinstance(target.stored, sa.BigInteger):
            bits = 64
    if getattr(target.stored, "unsigned", False):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _encode_int(cells: Cells, target: Target) -> list[Any]:
    low, high = _limits(target)
    array = cells.array
    if array is not None and array.dtype.kind in "biu":
        values = _with_none(array.astype(np.int64) if array.dtype.kind == "b" else array, cells.mask)
        if array.size and (int(array.min()) < low or int(array.max()) > high):
            _check_range(values, low, high, target)
        return values
    if array is not None and array.dtype.kind == "f":
        mask = np.isnan(array) if cells.mask is None else cells.mask | np.isnan(array)
        values = _with_none(array, mask)
        values = [v if v is None else _integral(v, row, target) for row, v in enumerate(values)]
    else:
        values = cells.listed()
        if not set(map(type, values)) <= {int, type(None)}:
            values = [v if v is None else _integral(v, row, target) for row, v in enumerate(values)]
    _check_range(values, low, high, target)
    return values


def _integral(value: Any, row: int, target: Target) -> int:
    value = value.item() if isinstance(value, (np.generic, torch.Tensor)) and np.ndim(value) == 0 else value
    if isinstance(value, (int, float, decimal.Decimal)) and math.isfinite(value) and value == int(value):
        return int(value)
    raise target.error(row, value, "is no integer", "convert the column with map() first, or declare it float")


def _check_range(values: list[Any], low: int, high: int, target: Target) -> None:
    for row, value in enumerate(values):
        if value is not None and not low <= value <= high:
            wider = "declare the column BigInteger" if high < 2**63 - 1 else "store it as a Decimal or as text"
            raise target.error(row, value, f"is not between {low} and {high}", wider)


def _encode_bool(cells: Cells, target: Target) -> list[Any]:
    if cells.array is not None and cells.array.dtype.kind == "b":
        return _with_none(cells.array, cells.mask)
    return [value if value is None else _truth(value, row, target) for row, value in enumerate(cells.listed())]


def _truth(value: Any, row: int, target: Target) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise target.error(row, value, "is neither true nor false", "compare the column with something first")


def _encode_float(cells: Cells, target: Target) -> list[Any]:
    array = cells.array
    if array is None or array.dtype.kind not in "fbiu":
        values = [
            value if value is None else _floating(value, row, target)
            for row, value in enumerate(cells.listed(keep_nan=True))
        ]
        mask = np.array([value is None for value in values], dtype=bool)
        array = np.array([0.0 if value is None else value for value in values], dtype=np.float64)
    else:
        mask = np.zeros(len(array), dtype=bool) if cells.mask is None else cells.mask
        array = _exact_floats(array, target)
    if target.dialect.name != "postgresql":
        mask = mask | np.isnan(array)
    _check_floats(array, mask, target)
    return _with_none(array, mask)


def _exact_floats(array: np.ndarray, target: Target) -> np.ndarray:
    floats = array.astype(np.float64)
    if array.dtype.kind in "iu" and array.size and max(abs(int(array.min())), abs(int(array.max()))) > 2**53:
        for row, value in enumerate(array.tolist()):
            _floating(value, row, target)
    return floats


def _floating(value: Any, row: int, target: Target) -> float:
    value = value.item() if isinstance(value, (np.generic, torch.Tensor)) and np.ndim(value) == 0 else value
    if isinstance(value, (int, float, decimal.Decimal)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if number == value or value != value:
            return number
        raise target.error(row, value, "is not exactly a float", "declare the column int or Decimal, or round it first")
    raise target.error(row, value, "is no number", "convert the column with map() first")


def _check_floats(array: np.ndarray, mask: np.ndarray, target: Target) -> None:
    there = ~mask
    if target.is_mysql:
        _refuse(there & np.isinf(array), array, target, "is infinite", "write NaN or a large number instead")
    if is_single(target):
        narrow = array.astype(np.float32)
        changed = (narrow.astype(np.float64) != array) & ~np.isnan(array)
        if target.is_mysql:  # which prints six digits of it
            printed = np.array([f"{v:.6g}" for v in narrow.tolist()], dtype=np.float64).astype(np.float32)
            changed = changed | (printed != narrow)
        _refuse(there & changed, array, target, "would change in single precision", "declare the column Double")


def is_single(target: Target) -> bool:
    """Has the column floats of 32 bits?"""
    kind, precision = target.stored, getattr(target.stored, "precision", None)
    if target.dialect.name == "postgresql":
        return isinstance(kind, sa.REAL) or (precision is not None and precision <= 24)
    if target.is_mysql:
        is_double = isinstance(kind, (sa.Double, sa.REAL))
        return not is_double and (precision is None or precision <= 24)
    return False


def _refuse(bad: np.ndarray, array: np.ndarray, target: Target, reason: str, remedy: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise target.error(row, array[row].item(), reason, remedy)


def _encode_decimal(cells: Cells, target: Target) -> list[Any]:
    return [value if value is None else _exact_decimal(value, row, target) for row, value in enumerate(cells.listed())]


def _exact_decimal(value: Any, row: int, target: Target) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (int, float, decimal.Decimal)):
        raise target.error(row, value, "is no number", "convert the column with map() first")
    return decimal.Decimal(value) if not isinstance(value, float) else decimal.Decimal(repr(value))


# Text and bytes


def _encode_text(cells: Cells, target: Target) -> list[Any]:
    values = cells.listed()
    kinds = set(map(type, values)) - {type(None)}
    if not kinds <= {str}:
        for row, value in enumerate(values):
            if value is not None and not isinstance(value, str):
                raise target.error(row, value, "is no text", "convert the column with map() first")
        values = [value if value is None else str(value) for value in values]
    text = "".join(filter(None, values))
    if target.dialect.name == "postgresql" and "\0" in text:
        row = next(row for row, value in enumerate(values) if value and "\0" in value)
        raise target.error(row, values[row], "has a NUL character", "remove it, or declare the column bytes")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        for row, value in enumerate(values):
            if value and value != value.encode("utf-8", "replace").decode("utf-8", "replace"):
                raise target.error(row, value, "is no valid unicode", "remove the lone surrogates") from None
    length = getattr(target.stored, "length", None)
    if length is not None and target.dialect.name != "sqlite":
        for row, value in enumerate(values):
            if value is not None and len(value) > length:
                raise target.error(row, value, f"is longer than {length} characters", "declare the column Text")
    return values


def _encode_bytes(cells: Cells, target: Target) -> list[Any]:
    values = cells.listed()
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {bytes}:
        return values
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
            raise target.error(row, value, "is no bytes", "encode it first, as in text.encode()")
    return [value if value is None else bytes(value) for value in values]


# Times


def _encode_timestamp(cells: Cells, target: Target) -> list[Any]:
    if cells.array is not None and cells.array.dtype.kind == "M":
        return _encode_times(cells.array, cells.zoned, target)
    values = []
    for row, value in enumerate(cells.listed()):
        value = value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value
        if value is not None and not isinstance(value, datetime.datetime):
            raise target.error(row, value, "is no point in time", "convert the column with map() first")
        if value is not None and (value.tzinfo is not None) != target.zoned:
            raise _wrong_zone(value, value.tzinfo is not None, row, target)
        if isinstance(value, pd.Timestamp):
            if value.nanosecond:
                raise target.error(row, value, "is finer than a microsecond", "round the column first")
            value = value.to_pydatetime()
        if value is not None and target.zoned and not target.has_zones:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        values.append(value)
    return _stored_instants(values, target)


def _encode_times(array: np.ndarray, zoned: bool, target: Target) -> list[Any]:
    missing = np.isnat(array)
    if zoned != target.zoned and not missing.all():
        row = int((~missing).argmax())
        raise _wrong_zone(array[row], zoned, row, target)
    coarse = array.astype("datetime64[us]")
    _refuse((coarse != array) & ~missing, array, target, "is finer than a microsecond", "round the column first")
    values = coarse.tolist()
    if target.zoned and target.has_zones:
        values = [value if value is None else value.replace(tzinfo=datetime.UTC) for value in values]
    return _stored_instants(values, target)


def _stored_instants(values: list[Any], target: Target) -> list[Any]:
    """Our own type wants instants with their zone; SQLAlchemy's would drop it where the database has none."""
    from fireworks.extensions._database.types import Timestamp

    if target.zoned and not target.has_zones and isinstance(target.resolved, Timestamp):
        return [value if value is None else value.replace(tzinfo=datetime.UTC) for value in values]
    return values


def _wrong_zone(value: Any, has_zone: bool, row: int, target: Target) -> Exception:
    if has_zone:
        return target.error(row, value, "has a time zone, and the column has none", "use tz_localize(None) on it first")
    return target.error(row, value, "has no time zone, and the column has one", "use tz_localize('UTC') on it first")


def _encode_date(cells: Cells, target: Target) -> list[Any]:
    if cells.array is not None and cells.array.dtype.kind == "M":
        days = cells.array.astype("datetime64[D]")
        changed = (days != cells.array) & ~np.isnat(cells.array)
        _refuse(changed, cells.array, target, "is no whole day", "use dt.normalize() on the column first")
        return list(days.tolist())
    values = cells.listed()
    return [value if value is None else _day(value, row, target) for row, value in enumerate(values)]


def _day(value: Any, row: int, target: Target) -> datetime.date:
    if type(value) is datetime.date:
        return value
    if isinstance(value, np.datetime64) and value == value.astype("datetime64[D]"):
        return value.astype("datetime64[D]").item()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None and value.time() == datetime.time() and not getattr(value, "nanosecond", 0):
            return value.date()
        raise target.error(row, value, "is no whole day", "use dt.normalize() on the column first")
    raise target.error(row, value, "is no date", "convert the column with map() first")


def _encode_time(cells: Cells, target: Target) -> list[Any]:
    values = cells.listed()
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, datetime.time):
            raise target.error(row, value, "is no time of a day", "convert the column with map() first")
    return values


def _encode_duration(cells: Cells, target: Target) -> list[Any]:
    if cells.array is not None and cells.array.dtype.kind == "m":
        coarse = cells.array.astype("timedelta64[us]")
        changed = (coarse != cells.array) & ~np.isnat(cells.array)
        _refuse(changed, cells.array, target, "is finer than a microsecond", "round the column first")
        return list(coarse.tolist())
    values = cells.listed()
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, (datetime.timedelta, np.timedelta64)):
            raise target.error(row, value, "is no span of time", "convert the column with map() first")
    return [v.astype("timedelta64[us]").item() if isinstance(v, np.timedelta64) else v for v in values]


# Objects


def _encode_json(cells: Cells, target: Target) -> list[Any]:
    values = cells.listed()
    return [value if value is None else _plain_json(value, row, target) for row, value in enumerate(values)]


def _plain_json(value: Any, row: int, target: Target) -> Any:
    value = _unpacked(value)
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise target.error(row, value, f"is no JSON ({error})", "convert the column with map() first") from error
    if json.loads(text) != value:
        raise target.error(row, value, "would change as JSON", "give every dict keys that are text")
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unpacked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unpacked(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _encode_tensor(cells: Cells, target: Target) -> list[Any]:
    try:
        if cells.tensor is not None:
            return rows_to_bytes(cells.tensor)
    except TypeError as error:
        raise target.error(0, cells.tensor, str(error), "convert the column first") from error
    return [value if value is None else _tensor_cell(value, row, target) for row, value in enumerate(cells.listed())]


def _tensor_cell(value: Any, row: int, target: Target) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, torch.Tensor):
        raise target.error(row, value, "is no tensor", "convert the column with map() first")
    try:
        return tensor_to_bytes(value)
    except TypeError as error:
        raise target.error(row, value, f"cannot be stored: {error}", "convert it first") from error


def _encode_other(cells: Cells, target: Target) -> list[Any]:
    return [value.item() if isinstance(value, np.generic) else value for value in cells.listed()]


_ENCODERS: dict[str, Callable[[Cells, Target], list[Any]]] = {
    "int": _encode_int,
    "bool": _encode_bool,
    "float": _encode_float,
    "decimal": _encode_decimal,
    "text": _encode_text,
    "bytes": _encode_bytes,
    "timestamp": _encode_timestamp,
    "date": _encode_date,
    "time": _encode_time,
    "duration": _encode_duration,
    "interval": _encode_duration,
    "json": _encode_json,
    "tensor": _encode_tensor,
    "other": _encode_other,
    "unknown": _encode_other,
}


def encoders() -> Sequence[str]:
    """The families that can be written."""
    return list(_ENCODERS)
