"""Columns that grow row by row, and give a message of all their rows at any time for the price of a copy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.core.message import Message

__all__ = ["GrowingColumns", "metric_row", "plain_row"]

_START = 16
_DTYPES = {"i": np.int64, "f": np.float64, "b": np.bool_, "o": np.object_}
_EXACT = 2**53  # up to here a float holds every integer


def plain_row(values: Any, what: str) -> dict[str, Any]:
    """One row as a dict: numbers of numpy as Python's, cells of tensor columns as tensors.

    Args:
        values: A mapping, or a message of one row.
        what: What it is, for the text of an error.

    Raises:
        TypeError: Neither a mapping nor a message, or a name that is not text.
        ValueError: A message that has not exactly one row, or nothing in it.
    """
    if isinstance(values, Message):
        if len(values) != 1:
            raise ValueError(f"expected {what} in a message of one row, got {len(values)} rows")
        tensors = values.tensor_message.columns
        values = {name: values[name][0] if name in tensors else values[name].iloc[0] for name in values.columns}
    if not isinstance(values, Mapping):
        raise TypeError(f"expected {what} as a dict or a Message, got {type(values).__name__}")
    if not values:
        raise ValueError(f"expected {what} with at least one value, got none")
    row = {}
    for name, value in values.items():
        if not isinstance(name, str):
            raise TypeError(f"expected {what} with names that are text, got {name!r}")
        row[str(name)] = value.item() if isinstance(value, np.generic) else value
    return row


def metric_row(name: str, value: Any) -> dict[str, Any]:
    """What a metric computed, as a row: a message or mapping by its columns, a number under the metric's own name.

    A tensor, array or Series of one element is a number too.
    """
    if isinstance(value, torch.Tensor | np.ndarray | pd.Series) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, (int, float, np.generic)):
        value = {name: value}
    return plain_row(value, f"what the metric {name!r} computed")


class GrowingColumns:
    """Rows that are only added, kept as columns; a column may appear later, and a row may lack some.

    Example:
        >>> rows = GrowingColumns()
        >>> rows.append({"rate": 0.5, "layers": 2})
        >>> rows.append({"rate": 1})
        >>> rows.message().to_dict()
        {'rate': [0.5, 1.0], 'layers': [2, <NA>]}
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Column | _TensorColumn] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        for name, value in row.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _started(value, self._length)
            if not column.put(self._length, value):
                self._columns[name] = column = column.as_objects(self._length)
                column.put(self._length, value)
        self._length += 1

    def message(self) -> Message:
        """All rows so far, copied: what is done to the message is not done here."""
        return Message({name: column.values(self._length) for name, column in self._columns.items()})


def _kind(value: Any) -> str:
    kind = type(value)
    if kind is bool:
        return "b"
    if kind is int:
        return "i" if -(2**63) <= value < 2**63 else "o"
    return "f" if kind is float else "o"


def _started(value: Any, rows: int) -> _Column | _TensorColumn:
    """A column for a first value, without values in the rows before."""
    if isinstance(value, torch.Tensor) and rows == 0:
        return _TensorColumn(value)
    column = _Column(_kind(value))
    column.missing_until(rows)
    return column


class _TensorColumn:
    """Tensors of one shape and type, stacked."""

    def __init__(self, first: torch.Tensor) -> None:
        self._buffer = torch.empty((_START, *first.shape), dtype=first.dtype)

    def put(self, row: int, value: Any) -> bool:
        """Whether the value could be put into this row."""
        buffer = self._buffer
        if not isinstance(value, torch.Tensor) or value.shape != buffer.shape[1:] or value.dtype != buffer.dtype:
            return False
        if row >= len(buffer):
            self._buffer = torch.cat([buffer, torch.empty_like(buffer)])
        self._buffer[row] = value.detach()
        return True

    def values(self, rows: int) -> Any:
        """The first rows as a column of a message."""
        return self._buffer[:rows].clone()

    def as_objects(self, rows: int) -> _Column:
        """The same rows in a column that holds anything."""
        column = _Column("o")
        for row in range(rows):
            column.put(row, self._buffer[row].clone())
        return column


class _Column:
    """Numbers of one kind, with gaps, or objects."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._buffer: Any = np.zeros(_START, dtype=_DTYPES[kind])
        self._filled = np.zeros(_START, dtype=np.bool_)
        self._rows = 0
        self._has_gaps = False

    def missing_until(self, rows: int) -> None:
        """The rows from the last one up to this have no value."""
        self._has_gaps |= rows > self._rows
        self._rows = rows
        while rows >= len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros_like(self._buffer)])
            self._filled = np.concatenate([self._filled, np.zeros_like(self._filled)])

    def put(self, row: int, value: Any) -> bool:
        """Whether the value could be put into this row."""
        if value is None:
            return True
        kind = _kind(value)
        if kind != self._kind and self._kind != "o":
            if kind == "i" and self._kind == "f" and abs(value) <= _EXACT:
                value = float(value)
            elif kind == "f" and self._kind == "i" and self._fits_floats():
                self._buffer, self._kind = self._buffer.astype(np.float64), "f"
            else:
                return False
        if row > self._rows or row >= len(self._buffer):
            self.missing_until(row)
        self._buffer[row] = value
        self._filled[row] = True
        self._rows = row + 1
        return True

    def _fits_floats(self) -> bool:
        return bool((np.abs(self._buffer) <= _EXACT).all())

    def values(self, rows: int) -> Any:
        """The first rows as a column of a message."""
        self.missing_until(rows)
        values = self._buffer[:rows]
        if not self._has_gaps:
            return values
        gaps = ~self._filled[:rows]
        if self._kind == "f":
            return np.where(gaps, np.nan, values)
        if self._kind == "o":
            return np.where(gaps, np.array(None), values)
        array: Any = pd.arrays.IntegerArray if self._kind == "i" else pd.arrays.BooleanArray
        return array(values.copy(), gaps)

    def as_objects(self, rows: int) -> _Column:
        """The same rows in a column that holds anything."""
        column = _Column("o")
        for row in np.flatnonzero(self._filled[:rows]).tolist():
            column.put(row, self._buffer[row].item() if self._kind != "o" else self._buffer[row])
        column.missing_until(rows)
        return column
