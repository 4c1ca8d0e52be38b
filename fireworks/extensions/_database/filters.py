"""Conditions on columns by the names of SQLAlchemy's methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch
from sqlalchemy.sql.operators import is_boolean

from fireworks.extensions._database.values import cast
from fireworks.utils.exceptions import did_you_mean

__all__ = ["condition"]

_COMPARISONS = ("__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__ne__")
_USUAL = (
    *_COMPARISONS,
    *("between", "contains", "endswith", "icontains", "iendswith", "ilike", "in_", "is_", "is_distinct_from", "is_not"),
    *("is_not_distinct_from", "istartswith", "like", "match", "not_ilike", "not_in", "not_like", "regexp_match"),
    "startswith",
)


def condition(
    column: sa.ColumnElement[Any], predicate: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> sa.ColumnElement[bool]:
    """What a method of a column gives for these values.

    Raises:
        ValueError: The column has no such method; proposes the nearest.
        TypeError: The method does not give a condition, or takes other arguments.
    """
    is_public = isinstance(predicate, str) and (not predicate.startswith("_") or predicate in _COMPARISONS)
    method = getattr(column, predicate, None) if is_public else None
    if not callable(method):
        raise ValueError(
            f"no predicate {predicate!r} for column {column.key!r}{did_you_mean(predicate, _USUAL) or '.'} "
            f"Predicates: {', '.join(_USUAL)}"
        )
    try:
        made = method(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
    except sa.exc.ArgumentError as error:
        raise TypeError(f"{predicate!r} of column {column.key!r}: {error}") from error
    if not _is_condition(made):
        raise TypeError(
            f"{predicate!r} gives no condition on column {column.key!r}, but {made!s:.60}. "
            f"Predicates: {', '.join(_USUAL)}"
        )
    return made


def _is_condition(made: Any) -> bool:
    if not isinstance(made, sa.ColumnElement):
        return False
    operator = getattr(made, "operator", None)  # SQLAlchemy gives BETWEEN and some others no type
    return isinstance(made.type, sa.Boolean) or (operator is not None and is_boolean(operator))


def _plain(value: Any) -> Any:
    """Values of numpy, pandas and torch as Python's own: SQLite would take an int64 of numpy for bytes."""
    if isinstance(value, (set, frozenset, range, list, tuple, pd.Index)):
        plain = [_plain(item) for item in value]
        return tuple(plain) if isinstance(value, tuple) else plain
    if isinstance(value, (torch.Tensor, np.generic, np.ndarray, pd.Series, pd.Timestamp, pd.Timedelta)):
        return cast(value)
    return cast(value) if value is pd.NA or value is pd.NaT else value
