"""What holds for the names and lengths of columns, with the errors that say so."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.utils.exceptions import ColumnError, LengthError


def names_columns(index: Any) -> bool:
    """Does this index name columns (one name or a list of them), rather than rows?"""
    kind = type(index)
    if kind is slice or kind is int:
        return False
    if kind is list or kind is tuple:
        return bool(index) and isinstance(index[0], str)
    if kind is torch.Tensor or (kind is np.ndarray and index.dtype.kind in "iub"):
        return False
    if isinstance(index, (np.ndarray, pd.Index, pd.Series)):
        return np.ndim(index) == 1 and len(index) > 0 and isinstance(np.asarray(index)[0], str)
    return isinstance(index, (str, KeysView))


def check_names(names: Iterable[Any]) -> None:
    """Column names are text, and each is there once."""
    seen = set()
    for name in names:
        if not isinstance(name, str):
            kind = type(name).__name__
            raise TypeError(f"column names are text, got {name!r} ({kind}); rename it, as in frame.rename(columns=str)")
        if name in seen:
            raise ValueError(f"column {name!r} is there twice; names are unique")
        seen.add(name)


def check_same_columns(expected: Sequence[str], got: Sequence[str]) -> None:
    """The same columns, in whatever order; all that are missing or extra in one error."""
    missing = [name for name in expected if name not in got]
    extra = [name for name in got if name not in expected]
    if missing or extra:
        problems = [f"missing {quoted(missing)}"] * bool(missing) + [f"extra {quoted(extra)}"] * bool(extra)
        raise ColumnError(f"columns differ: {', '.join(problems)}. Expected columns: {', '.join(expected)}")


def check_replacement(columns: Sequence[str], rows: int, new_columns: Sequence[str], new_rows: int) -> None:
    """Rows are replaced by as many rows with the same columns."""
    check_same_columns(columns, new_columns)
    if new_rows != rows:
        raise LengthError(f"{rows} rows cannot be replaced by {new_rows}")


def one_length(lengths: Mapping[str, int]) -> int:
    """The number of rows that all columns have; 0 when there are none."""
    names = iter(lengths)
    first = next(names, None)
    if first is None:
        return 0
    for name in names:
        if lengths[name] != lengths[first]:
            raise LengthError(f"columns differ in rows: {first} has {lengths[first]}, {name} has {lengths[name]}")
    return lengths[first]


def quoted(names: Iterable[str]) -> str:
    """Names as they stand in an error text."""
    return ", ".join(repr(name) for name in names)
