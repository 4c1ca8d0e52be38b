"""Conditions on columns by the names of SQLAlchemy's methods."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.operators import is_boolean

from fireworks.extensions._database.families import Target
from fireworks.extensions._database.values import cast
from fireworks.utils.exceptions import did_you_mean

__all__ = ["condition"]

_COMPARISONS = ("__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__ne__")
_OF_VALUES = {*_COMPARISONS, "between", "in_", "not_in", "is_distinct_from", "is_not_distinct_from"}
_NUMBERS = (int, float, decimal.Decimal)
_KINDS: dict[str, tuple[type, ...]] = dict.fromkeys(["int", "float", "decimal", "bool"], _NUMBERS) | {
    "text": (str,),
    "bytes": (bytes, bytearray, memoryview),
    "timestamp": (datetime.datetime,),
    "date": (datetime.date,),
    "time": (datetime.time,),
    "duration": (datetime.timedelta,),
}
_GENERAL = DefaultDialect()
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
    given = [_plain(value) for value in args]
    named = {name: _plain(value) for name, value in kwargs.items()}
    if predicate in _OF_VALUES:
        _check_kinds(column, predicate, [*given, *named.values()])
    try:
        made = method(*given, **named)
    except sa.exc.ArgumentError as error:
        raise TypeError(f"{predicate!r} of column {column.key!r}: {error}") from error
    if not _is_condition(made):
        raise TypeError(
            f"{predicate!r} gives no condition on column {column.key!r}, but {made!s:.60}. "
            f"Predicates: {', '.join(_USUAL)}"
        )
    return made


def _check_kinds(column: sa.ColumnElement[Any], predicate: str, values: Sequence[Any]) -> None:
    """Refuses what is of another kind than the column: MariaDB would take 'abc' for 0, and find the rows that have 0.

    Raises:
        TypeError: A value is of a kind that no value of the column equals.
    """
    kinds = _KINDS.get(Target(str(column.key), column.type, _GENERAL).family)
    if kinds is None:
        return
    for value in values:
        many = value if isinstance(value, (list, tuple)) and predicate in ("in_", "not_in") else [value]
        for one in many:
            if one is not None and not isinstance(one, (*kinds, sa.sql.ClauseElement)) and not _leads_to_sql(one):
                raise TypeError(
                    f"column {column.key!r} ({column.type!r}): {predicate!r} compares it with {kinds[0].__name__}, got "
                    f"{one!r:.60} ({type(one).__name__})"
                )


def _leads_to_sql(value: Any) -> bool:
    """A select, an attribute of a class of a table, and the like."""
    return hasattr(value, "__clause_element__")


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
