"""Which rows of a batch a loss that is not finite comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.core.cursor import length_of
from fireworks.core.message import Message, TensorMessage

__all__ = ["blamed_rows"]

_ROWS_NAMED = 5
_CELLS_SHOWN = 4
_ROWS_TRIED = 10_000


def blamed_rows(batch: Any, output: Any, loss: Callable[[Any], Any]) -> str:
    """What kind of batch it is, and which of its rows are to blame, with the first cells of one; for an error's text.

    A row is to blame when its own loss is not finite; where a loss cannot be computed row by row, when it holds a value
    that is not, in the batch or else in what the model made of it.
    """
    # The rows of a pair of tensors are theirs, not the two of them.
    count = length_of(batch[0]) if isinstance(batch, (list, tuple)) and batch else length_of(batch)
    if count is None:
        return ""
    text = f" (a {type(batch).__name__} of {count} rows)"
    rows = _rows_by_loss(output, loss, count)
    for item in (batch, output):
        if rows is None or len(rows) == count:
            found = _rows_by_value(item, count)
            rows = found if len(found) else rows
    if rows is None or not len(rows):
        return text
    named = ", ".join(str(row) for row in rows[:_ROWS_NAMED].tolist())
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    noun = "row" if len(rows) == 1 else "rows"
    return f"{text}, because of {noun} {named}{more} of the batch{_cells(batch, int(rows[0]))}"


def _rows_by_loss(output: Any, loss: Callable[[Any], Any], count: int) -> np.ndarray | None:
    if length_of(output) != count or count > _ROWS_TRIED:
        return None
    try:
        with torch.no_grad():
            values = [float(loss(output[row : row + 1])) for row in range(count)]
    except Exception:  # a function of somebody else's, which need not work on one row; then we look elsewhere
        return None
    return np.flatnonzero(~np.isfinite(values))


def _rows_by_value(item: Any, count: int) -> np.ndarray:
    bad = np.zeros(count, dtype=bool)
    for column in _columns(item).values():
        if length_of(column) == count:
            bad |= _not_finite(column)
    return np.flatnonzero(bad)


def _columns(item: Any) -> dict[str, Any]:
    if isinstance(item, (Message, TensorMessage)):
        return {name: item[name] for name in item.columns}
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, (list, tuple)):
        return {str(number): part for number, part in enumerate(item)}
    return {"": item}


def _not_finite(column: Any) -> np.ndarray:
    """For each row of a column, whether it holds NaN or infinity; text and the like never do."""
    if isinstance(column, torch.Tensor):
        values = column.detach().cpu()
        if not (values.is_floating_point() or values.is_complex()):
            return np.zeros(len(values), dtype=bool)
        return (~torch.isfinite(values)).reshape(len(values), -1).any(dim=1).numpy()
    array = column.to_numpy() if isinstance(column, pd.Series) else np.asarray(column)
    if array.dtype.kind not in "fc":
        return np.zeros(len(array), dtype=bool)
    bad: np.ndarray = (~np.isfinite(array)).reshape(len(array), -1).any(axis=1)
    return bad


def _cells(batch: Any, row: int) -> str:
    """The row's first cells, those that are not finite before all others."""
    if not isinstance(batch, (Message, TensorMessage, Mapping)):
        return ""
    columns = {name: column for name, column in _columns(batch).items() if length_of(column) is not None}
    order = sorted(columns, key=lambda name: not _not_finite(columns[name])[row])
    shown = [f"{name}={_short(columns[name], row)}" for name in order[:_CELLS_SHOWN]]
    return f" (row {row}: {', '.join(shown)})" if shown else ""


def _short(column: Any, row: int) -> str:
    value = column.iloc[row] if isinstance(column, pd.Series) else column[row]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().tolist() if value.numel() <= 3 else f"{tuple(value.shape)} values"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return str(value) if isinstance(value, (float, int)) else f"{value!r:.40}"
