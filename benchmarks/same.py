"""Are these the same data? Brings what competitors deliver to plain columns, and compares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from fireworks import Message, cat

__all__ = ["check_same", "plain"]


def check_same(what: str, one: tuple[str, Any], other: tuple[str, Any], sort_by: str | None) -> None:
    """Compares what two competitors delivered.

    Both must have the same columns. Who has no frame at all may have the tensors of the first one alone: exactly these.

    Raises:
        AssertionError: They differ; says in which column.
    """
    (name, data), (other_name, other_data) = one, other
    columns, other_columns = _sorted(plain(data), sort_by), _sorted(plain(other_data), sort_by)
    if other_columns.keys() not in (columns.keys(), _tensors(data)):
        raise AssertionError(
            f"{what}: {name} ({', '.join(columns)}) and {other_name} ({', '.join(other_columns)}) differ in columns"
        )
    for column in sorted(other_columns):
        left, right = columns[column], other_columns[column]
        if not _equal(left, right):
            raise AssertionError(
                f"{what}: {name} and {other_name} differ in {column!r}: {left.shape} {left[:3]!r:.200}, "
                f"{right.shape} {right[:3]!r:.200}"
            )


def _tensors(data: Any) -> set[str]:
    """The names of the tensors of a Message, or of a list of them."""
    first = data[0] if isinstance(data, list) and data else data
    return set(first.tensors().columns) if isinstance(first, Message) else set()


def plain(data: Any) -> dict[str, np.ndarray]:
    """Columns as arrays; batches in a list become one."""
    if isinstance(data, (list, tuple)) and data and _is_batch(data[0]):
        if isinstance(data[0], Message):
            return plain(cat(data))  # 100,000 rows one by one take a while
        parts = [plain(part) for part in data]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if isinstance(data, pa.Table):
        data = data.to_pandas()
    if isinstance(data, pd.DataFrame):
        return {name: _array(data[name]) for name in data.columns}
    if isinstance(data, Message):
        return {name: _array(data[name]) for name in data.columns}
    if _is_batch(data):  # dicts, TensorDicts
        columns: dict[str, np.ndarray] = {}
        for name, values in data.items():
            columns |= plain(values) if _is_batch(values) else {name: _array(values)}
        return columns
    return {"value": np.atleast_1d(_array(data))}


def _is_batch(data: Any) -> bool:
    if isinstance(data, pd.Series):  # which has items, too, but is a column
        return False
    return isinstance(data, (Mapping, Message, pd.DataFrame, pa.Table)) or (
        hasattr(data, "keys") and hasattr(data, "items")
    )


def _array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().numpy()
    if isinstance(values, pd.Series):
        if isinstance(values.dtype, pd.DatetimeTZDtype) or values.dtype.kind == "M":
            return values.to_numpy("datetime64[us]")
        if values.dtype.kind == "b":
            return values.to_numpy(dtype=bool)
        if pd.api.types.is_numeric_dtype(values.dtype):
            return values.to_numpy(dtype=np.float64, na_value=np.nan) if values.hasnans else values.to_numpy()
        return values.to_numpy(dtype=object)
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], torch.Tensor):
        return np.stack([value.detach().numpy() for value in values])
    return np.asarray(values)


def _sorted(columns: dict[str, np.ndarray], by: str | None) -> dict[str, np.ndarray]:
    if by is None or by not in columns:
        return columns
    order = np.argsort(columns[by], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype.kind in "fc" or right.dtype.kind in "fc":
        return bool(np.allclose(left.astype(float), right.astype(float), rtol=1e-5, atol=1e-7, equal_nan=True))
    return bool((left == right).all())
