"""Integers, truth values, floats and decimals, each checked against the range and the digits of a column."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch

from fireworks.extensions._database.cells import Cells, with_none
from fireworks.extensions._database.families import Target, is_single, refuse
from fireworks.extensions._database.types import concrete


def _limits(target: Target) -> tuple[int, int]:
    """The least and the greatest integer."""
    bits = 64
    if target.dialect.name != "sqlite":
        if target.sql_name == "YEAR":  # which takes 1 for 2001
            return 1901, 2155
        sizes = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "BIGINT": 64}
        bits = sizes.get(target.sql_name, 64 if isinstance(target.stored, sa.BigInteger) else 32)
    if getattr(target.stored, "unsigned", False):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def encode_int(cells: Cells, target: Target) -> list[Any]:
    """Integers within the range of the column; floats that are whole, and truth values as 0 and 1, are integers too."""
    low, high = _limits(target)
    array = cells.array
    if array is not None and array.dtype.kind in "biu":
        values = with_none(array.astype(np.int64) if array.dtype.kind == "b" else array, cells.mask)
        if array.dtype.kind != "b" and array.size and (int(array.min()) < low or int(array.max()) > high):
            _check_range(values, low, high, target)
        return values
    if array is not None and array.dtype.kind == "f":
        mask = np.isnan(array) if cells.mask is None else cells.mask | np.isnan(array)
        values = with_none(array, mask)
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


def encode_bool(cells: Cells, target: Target) -> list[Any]:
    """Truth values; 0 and 1 are such too."""
    if cells.array is not None and cells.array.dtype.kind == "b":
        return with_none(cells.array, cells.mask)
    return [value if value is None else _truth(value, row, target) for row, value in enumerate(cells.listed())]


def _truth(value: Any, row: int, target: Target) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise target.error(row, value, "is neither true nor false", "compare the column with something first")


def encode_float(cells: Cells, target: Target) -> list[Any]:
    """Floats; NaN is a missing value wherever the database cannot hold it."""
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
    return with_none(array, mask if mask.any() else None)


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
        refuse(there & np.isinf(array), array, target, "is infinite", "write NaN or a large number instead")
        scale = getattr(target.stored, "scale", None)
        if scale is not None:
            changed = np.array([round(value, scale) != value for value in array.tolist()], dtype=bool)
            refuse(there & changed, array, target, f"has more than {scale} digits behind the point", "round it first")
    if is_single(target):
        with np.errstate(over="ignore"):  # what overflows has changed
            narrow = array.astype(np.float32)
        changed = (narrow.astype(np.float64) != array) & ~np.isnan(array)
        if target.is_mysql:  # which prints six digits of it
            printed = np.array([f"{v:.6g}" for v in narrow.tolist()], dtype=np.float64).astype(np.float32)
            changed = changed | (printed != narrow)
        refuse(there & changed, array, target, "would change in single precision", "declare the column Double")


def encode_decimal(cells: Cells, target: Target) -> list[Any]:
    """Decimals; a float is taken for the shortest decimal that gives it."""
    digits = _digits(target)
    through_float = target.dialect.name == "sqlite" and isinstance(target.stored, sa.Numeric)
    values = []
    for row, value in enumerate(cells.listed()):
        value = value if value is None else _as_decimal(value, row, target)
        if value is not None and digits is not None:
            _check_digits(value, *digits, row, target)
        if value is not None and through_float:
            _check_through_float(value, row, target)
        values.append(value)
    return values


def _as_decimal(value: Any, row: int, target: Target) -> decimal.Decimal:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (int, float, decimal.Decimal)):
        raise target.error(row, value, "is no number", "convert the column with map() first")
    return decimal.Decimal(repr(value) if isinstance(value, float) else value)


def _digits(target: Target) -> tuple[int, int] | None:
    """How many digits the column has before and behind the point, where that is limited."""
    if target.dialect.name == "sqlite" or not isinstance(target.stored, sa.Numeric):
        return None
    precision, scale = target.stored.precision, target.stored.scale
    if precision is None:
        return (10, 0) if target.is_mysql else (131_072, 16_383) if target.dialect.name == "postgresql" else None
    return precision - (scale or 0), scale or 0


def _check_digits(value: decimal.Decimal, before: int, behind: int, row: int, target: Target) -> None:
    if not value.is_finite():
        if target.is_mysql or (value.is_infinite() and target.stored.precision is not None):  # type: ignore[attr-defined]
            raise target.error(row, value, "is no finite number", "write None instead")
        return
    if not value:
        return
    digits = "".join(map(str, value.as_tuple().digits)).rstrip("0")
    first = value.adjusted()
    if first >= before or len(digits) - 1 - first > behind:
        has = f"has more than {before} digits before or {behind} behind the point"
        raise target.error(row, value, has, "round it first, or declare the column Decimal or wider")


def _check_through_float(value: decimal.Decimal, row: int, target: Target) -> None:
    """SQLite keeps numbers as floats, and SQLAlchemy makes decimals of these again."""
    kind = concrete(target.type, target.dialect)
    there, back = kind.bind_processor(target.dialect), kind.result_processor(target.dialect, None)
    stored = there(value) if there else value
    read = back(stored) if back else stored
    same = stored == read if isinstance(read, float) else read == value
    if not (value.is_finite() and same):
        raise target.error(row, value, "would change on its way through a float", "declare the column Decimal")
