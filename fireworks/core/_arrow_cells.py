"""Columns of Python objects as Arrow arrays and back: exactly, or as the text of plain values."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from fireworks.core._encoding import state_from_json, state_to_json
from fireworks.utils.exceptions import ConversionError, StateError

# What Arrow keeps exactly when a column of objects holds nothing else.
_CELLS = {bytes, Decimal, datetime.date, datetime.datetime, datetime.time, datetime.timedelta}


def object_column(cells: list[Any], name: str, nested: bool) -> tuple[Any, str]:
    """Python objects as an Arrow array, and the kind that `to_cells` needs to read it.

    Args:
        cells: The objects.
        name: The column's name, for errors.
        nested: Also try Arrow's types of text, numbers, lists and structs, where they give back the very same objects.
    """
    import pyarrow as pa

    kinds = {type(cell) for cell in cells if cell is not None}
    try:
        if len(kinds) == 1 and kinds <= _CELLS:
            array = pa.array(cells)
            if kinds == {bytes} or array.to_pylist() == cells:
                return array, "cells"
        elif nested:
            array = _exact_array(cells)
            if array is not None:
                return array, "cells"
        return pa.array([state_to_json(cell) for cell in cells], pa.large_string()), "json"
    except (StateError, pa.ArrowException) as error:
        advice = "Convert it with map(), or use to('pickle', path)"
        raise ConversionError(f"column {name!r} of dtype object cannot be saved: {error}. {advice}") from error


def _exact_array(cells: list[Any]) -> Any:
    """The cells in a type that Arrow finds for them, or None if some would come back otherwise."""
    import pyarrow as pa

    try:
        array = pa.array(cells)
        return array if _identical(array.to_pylist(), cells) else None
    except (pa.ArrowException, ValueError, TypeError, OverflowError):  # no such type
        return None


def _identical(a: Any, b: Any) -> bool:
    """Are these the same plain values, of the same types?"""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_identical, a, b))
    if isinstance(a, dict):  # without fields, it is no type that files can hold; a zero byte ends a name in C
        sound = bool(a) and a.keys() == b.keys() and not any("\0" in key for key in a)
        return sound and all(_identical(value, b[key]) for key, value in a.items())
    if isinstance(a, float):
        return a == b or (a != a and b != b)
    return a is None or (type(a) in _CELLS | {bool, int, str} and bool(a == b))


def to_cells(column: Any, kind: str) -> list[Any]:
    """The values of an Arrow column as Python objects."""
    if kind == "json":
        return [None if cell is None else state_from_json(cell) for cell in column.to_pylist()]
    storage = _tensor_lists(column)
    if storage is not None:
        return storage
    exact = _in_microseconds(column.type)
    return list((column if exact == column.type else column.cast(exact)).to_pylist())


def _in_microseconds(arrow_type: Any) -> Any:
    """The type with times of day as Python has them; a cast to it fails where nanoseconds would be cut off."""
    import pyarrow as pa

    types = pa.types
    if types.is_time64(arrow_type):
        return pa.time64("us")
    if types.is_struct(arrow_type):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in arrow_type])
    if types.is_fixed_size_list(arrow_type):
        item = arrow_type.value_field
        return pa.list_(item.with_type(_in_microseconds(item.type)), arrow_type.list_size)
    for is_kind, make in ((types.is_list, pa.list_), (types.is_large_list, pa.large_list)):
        if is_kind(arrow_type):
            item = arrow_type.value_field
            return make(item.with_type(_in_microseconds(item.type)))
    return arrow_type


def _tensor_lists(column: Any) -> list[Any] | None:
    """Tensors of which some are missing as nested lists; None when this is no column of tensors."""
    import pyarrow as pa

    kind = column.type
    if not isinstance(kind, pa.FixedShapeTensorType):
        return None
    order = kind.permutation or range(len(kind.shape))
    lists: list[Any] = []
    for cell in column.to_pylist():
        if cell is None:
            lists.append(None)
            continue
        values = np.empty(len(cell), dtype=object)
        values[:] = cell
        lists.append(values.reshape(kind.shape).transpose(order).tolist())
    return lists
