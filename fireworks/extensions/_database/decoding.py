"""What drivers give to typed columns of messages, each column in one go."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch

from fireworks.core._columns import OBJECT, TEXT, Column, object_array
from fireworks.extensions._database.decoding_times import days, instants_column, timestamps
from fireworks.extensions._database.families import Target, is_single
from fireworks.extensions._database.tensor_bytes import rows_from_bytes
from fireworks.extensions._database.types import concrete
from fireworks.utils.exceptions import FormatError

Values: TypeAlias = Sequence[Any]
_NONE = type(None)
_NUMERIC_OID = 1700  # SQLAlchemy asks for the type of a number on PostgreSQL; the cursor that knows it is gone


def decoded(values: Values, target: Target) -> Column | torch.Tensor:
    """One column of raw values of the driver.

    Raises:
        CellError: A value is not of the column's type.
    """
    column: Column | torch.Tensor = _DECODERS[target.family](values, target)
    return column


def decoded_arrow(chunked: Any, target: Target) -> Column | torch.Tensor:
    """The same column, from an Arrow array."""
    values = _without_copies(chunked, target)
    return decoded(chunked.to_pylist(), target) if values is None else values


def from_results(values: Values, target: Target) -> Column | torch.Tensor:
    """One column of values that SQLAlchemy's result processors made."""
    if target.family == "tensor":
        shapes = {None if value is None else (value.shape, value.dtype) for value in values}
        if len(shapes) == 1 and None not in shapes:
            return torch.stack(list(values))
    if target.family == "duration":
        array = np.array(values, dtype="timedelta64[us]")
        return Column(array, array.dtype)
    if target.family in ("int", "bool", "float", "text", "timestamp", "date", "unknown"):
        return decoded(values, target)
    return Column(object_array(values), OBJECT)


def _kinds(values: Values, target: Target, *expected: type) -> set[type]:
    """The types of the values, when all are expected ones; SQLite stores anything anywhere."""
    kinds = set(map(type, values))
    if not kinds <= {*expected, _NONE}:
        row = next(row for row, value in enumerate(values) if value is not None and type(value) not in expected)
        wanted = " or ".join(kind.__name__ for kind in expected)
        raise target.error(row, values[row], f"was read where {wanted} was expected", "mend the row in the database")
    return kinds


def _filled(values: Values, kinds: set[type], filler: Any) -> tuple[Values, np.ndarray | None]:
    if _NONE not in kinds:
        return values, None
    return [filler if value is None else value for value in values], np.array([value is None for value in values])


def _of_atoms(values: Values) -> np.ndarray:
    """An object array of text, bytes and other things that numpy does not take apart."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _decode_int(values: Values, target: Target) -> Column:
    values = _without_point(values)
    full, mask = _filled(values, _kinds(values, target, int, bool), 0)
    try:
        array: np.ndarray = np.array(full, dtype=np.int64)
    except OverflowError:
        array = np.array(full, dtype=np.uint64)
    return _masked(array, mask)


def _without_point(values: Values) -> Values:
    """Whole decimals, as a sum of integers is, as integers."""
    if type(next((value for value in values if value is not None), None)) is not decimal.Decimal:
        return values
    return [
        int(value) if isinstance(value, decimal.Decimal) and value.is_finite() and not value % 1 else value
        for value in values
    ]


def _masked(array: np.ndarray, mask: np.ndarray | None) -> Column:
    if mask is None:
        return Column(array, array.dtype)
    kind: Any = pd.arrays.BooleanArray if array.dtype.kind == "b" else pd.arrays.IntegerArray
    masked = kind(array, mask)
    return Column(masked, masked.dtype)


def _decode_bool(values: Values, target: Target) -> Column:
    full, mask = _filled(values, _kinds(values, target, int, bool), False)
    try:
        bits = np.frombuffer(bytearray(full), dtype=np.uint8)  # in a third of the time of np.array
    except ValueError:  # a number beyond a byte
        bits = None
    if bits is None or (bits > 1).any():
        row = next(row for row, value in enumerate(full) if value not in (0, 1))
        raise target.error(row, values[row], "was read where 0 or 1 was expected", "mend the row in the database")
    return _masked(bits.view(np.bool_), mask)


def _decode_float(values: Values, target: Target) -> Column:
    kinds = _kinds(values, target, float, int, decimal.Decimal)
    array = np.array(values, dtype=np.float64)
    if not kinds <= {float, _NONE} and not target.is_computed:
        for row, (value, number) in enumerate(zip(values, array.tolist(), strict=True)):
            if value is not None and value != number and decimal.Decimal(repr(number)) != value and value == value:
                raise target.error(row, value, "has more digits than a float", "read the column as Decimal or int")
    if is_single(target):
        array = _as_single(array, target)
    return Column(array, array.dtype)


def _as_single(array: np.ndarray, target: Target) -> np.ndarray:
    """Floats of 32 bits, if that is what the column has: MariaDB sends six digits of each."""
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    changed = (narrow != array) & ~np.isnan(array)
    for row in np.flatnonzero(changed).tolist() if not target.is_computed else ():
        value = float(array[row])
        if float(f"{value:.6g}" if target.is_mysql else str(narrow[row])) != value:
            raise target.error(row, value, "has more digits than a float of 32 bits", "read the column as Double")
    return narrow


def _decode_text(values: Values, target: Target) -> Column:
    kinds = _kinds(values, target, str)
    return Column(_of_atoms(_filled(values, kinds, np.nan)[0]), TEXT)


def _decode_bytes(values: Values, target: Target) -> Column:
    kinds = _kinds(values, target, bytes, bytearray, memoryview)
    if not kinds <= {bytes, _NONE}:
        values = [value if value is None else bytes(value) for value in values]
    return Column(_of_atoms(values), OBJECT)


def _decode_decimal(values: Values, target: Target) -> Column:
    if not getattr(target.resolved, "asdecimal", True):
        return _decode_float(values, target)
    if set(map(type, values)) <= {decimal.Decimal, _NONE}:
        return Column(_of_atoms(values), OBJECT)
    column = _decode_objects(values, target)
    if target.dialect.name == "sqlite" and isinstance(target.stored, sa.Numeric):
        _keep_digits(column.array, values)
    return column


def _keep_digits(read: Any, values: Values) -> None:
    """SQLAlchemy rounds the floats of SQLite to the digits of the type, also where they have more."""
    for row, value in enumerate(values):
        if isinstance(value, int) or (isinstance(value, float) and decimal.Decimal(f"{value:.15g}") != read[row]):
            read[row] = decimal.Decimal(repr(value))


def _decode_objects(values: Values, target: Target) -> Column:
    coltype = _NUMERIC_OID if target.dialect.name == "postgresql" else None
    process = concrete(target.type, target.dialect).result_processor(target.dialect, coltype)
    return Column(object_array(values if process is None else _processed(values, process, target)), OBJECT)


def _processed(values: Values, process: Callable[[Any], Any], target: Target) -> list[Any]:
    cells = []
    for row, value in enumerate(values):
        try:
            cells.append(process(value))
        except Exception as error:
            raise target.error(row, value, f"cannot be read: {error}", "mend the row in the database") from error
    return cells


def _decode_timestamp(values: Values, target: Target) -> Column:
    array = timestamps(values, target)
    return instants_column(array) if target.zoned else Column(array, array.dtype)


def _decode_date(values: Values, target: Target) -> Column:
    return Column(_of_atoms(days(values, target)), OBJECT)


def _decode_duration(values: Values, target: Target) -> Column:
    values = _without_point(values)
    full, mask = _filled(values, _kinds(values, target, int), 0)
    array = np.array(full, dtype=np.int64).view("timedelta64[us]")
    if mask is not None:
        array[mask] = np.timedelta64("NaT")
    return Column(array, array.dtype)


def _decode_tensor(values: Values, target: Target) -> Column | torch.Tensor:
    _kinds(values, target, bytes, bytearray, memoryview)
    try:
        rows = rows_from_bytes(values)
    except FormatError:
        return _decode_objects(values, target)  # which names the row
    return rows if isinstance(rows, torch.Tensor) else Column(rows, OBJECT)


def _decode_unknown(values: Values, target: Target) -> Column:
    """A column of an expression whose type SQLAlchemy does not know: what its values are."""
    kinds = set(map(type, values)) - {_NONE}
    families: list[tuple[set[type], Callable[[Values, Target], Column]]] = [
        ({int}, _decode_int),
        ({bool}, _decode_bool),
        ({float, int}, _decode_float),
        ({str}, _decode_text),
    ]
    decode = next((decode for expected, decode in families if kinds and kinds <= expected), _decode_objects)
    return decode(values, target)


_DECODERS: dict[str, Callable[[Values, Target], Any]] = {
    "int": _decode_int,
    "bool": _decode_bool,
    "float": _decode_float,
    "decimal": _decode_decimal,
    "text": _decode_text,
    "bytes": _decode_bytes,
    "timestamp": _decode_timestamp,
    "date": _decode_date,
    "duration": _decode_duration,
    "tensor": _decode_tensor,
    "time": _decode_objects,
    "interval": _decode_objects,
    "json": _decode_objects,
    "array": _decode_objects,
    "other": _decode_objects,
    "unknown": _decode_unknown,
}


# Arrow


def _without_copies(chunked: Any, target: Target) -> Column | None:
    """Numbers, truth values, text and times of Arrow as columns, where its type is that of the column."""
    import pyarrow as pa

    kind, missing = chunked.type, chunked.null_count
    family = target.family
    if family == "int" and pa.types.is_integer(kind):
        mask = chunked.is_null().to_numpy() if missing else None
        array = (chunked.fill_null(0) if missing else chunked).to_numpy()
        return _masked(np.array(array, dtype=np.int64 if array.dtype != np.uint64 else np.uint64), mask)
    if family == "bool" and pa.types.is_boolean(kind):
        mask = chunked.is_null().to_numpy() if missing else None
        return _masked(np.array((chunked.fill_null(False) if missing else chunked).to_numpy()), mask)
    if family == "float" and pa.types.is_floating(kind):
        array = np.array(chunked.to_numpy(), dtype=np.float32 if is_single(target) else np.float64)
        return Column(array, array.dtype)
    if family == "text" and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        array = chunked.to_numpy(zero_copy_only=False)
        if missing:
            array = np.array(array)
            array[chunked.is_null().to_numpy()] = np.nan
        return Column(array, TEXT)
    if family == "timestamp" and pa.types.is_timestamp(kind) and (kind.tz is not None) == target.zoned:
        array = np.array(chunked.cast(pa.timestamp("us", kind.tz)).to_numpy(), dtype="datetime64[us]")
        return instants_column(array) if target.zoned else Column(array, array.dtype)
    return None
