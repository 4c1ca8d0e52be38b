"""Which type of column holds a column of a message on every engine."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import torch
from sqlalchemy.types import TypeEngine

from fireworks.core.message import Message
from fireworks.extensions._database.types import Timestamp, sql_type
from fireworks.utils.exceptions import CellError


def proposed_type(message: Message, name: str) -> TypeEngine[Any]:
    """The type for one column of a message."""
    if name in message.tensor_message.columns:
        return sql_type(_of_tensor(message[name]), name)
    dtype = message[name].dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        return Timestamp(timezone=True)
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    if isinstance(dtype, pd.StringDtype):
        return sql_type(str, name)
    kind = getattr(dtype, "kind", "O")
    if kind != "O":
        return sql_type(_of_kind(kind, dtype, name), name)
    return _of_cells(message[name].tolist(), name)


def _of_tensor(tensor: torch.Tensor) -> type:
    if tensor.ndim > 1 or tensor.is_complex() or tensor.dtype not in _PLAIN:
        return torch.Tensor
    return bool if tensor.dtype is torch.bool else float if tensor.is_floating_point() else int


_PLAIN = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}
_PLAIN |= {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32}


def _of_kind(kind: str, dtype: Any, name: str) -> type:
    kinds = {"b": bool, "i": int, "f": float, "M": datetime.datetime, "m": datetime.timedelta}
    if kind == "u":
        return decimal.Decimal if dtype.itemsize == 8 else int
    if kind not in kinds:
        raise CellError(f"column {name!r}: no type of column holds {dtype}; make it a tensor column or split it")
    return kinds[kind]


def _of_cells(cells: list[Any], name: str) -> TypeEngine[Any]:
    present = [cell for cell in cells if not (pd.api.types.is_scalar(cell) and pd.isna(cell))]
    kinds = {_kind_of(cell) for cell in present}
    if kinds <= {int, float, np.integer, np.floating} and kinds:
        kinds = {float} if float in kinds else {int}
    if kinds == {dict, list}:
        kinds = {dict}
    if not kinds:
        return sql_type(str, name)
    if len(kinds) > 1 or None in kinds:
        found = ", ".join(sorted({type(cell).__name__ for cell in present}))
        raise CellError(f"column {name!r}: no type of column holds {found} together; convert the column with map()")
    (kind,) = kinds
    if kind is datetime.datetime:
        zoned = {cell.tzinfo is not None for cell in present}
        if len(zoned) > 1:
            raise CellError(f"column {name!r} holds times with and without a time zone; convert the column with map()")
        return Timestamp(timezone=zoned.pop())
    return sql_type(kind, name)


def _kind_of(cell: Any) -> Any:
    order: list[tuple[Any, Any]] = [
        (bool, bool),
        (np.bool_, bool),
        (int, int),
        (np.integer, int),
        (float, float),
        (np.floating, float),
        (str, str),
        (bytes, bytes),
        (bytearray, bytes),
        (datetime.datetime, datetime.datetime),
        (datetime.date, datetime.date),
        (datetime.time, datetime.time),
        (datetime.timedelta, datetime.timedelta),
        (decimal.Decimal, decimal.Decimal),
        (torch.Tensor, torch.Tensor),
        (np.ndarray, torch.Tensor),
        (dict, dict),
        (list, list),
        (tuple, list),
    ]
    return next((kind for base, kind in order if isinstance(cell, base)), None)
