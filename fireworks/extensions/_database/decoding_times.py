"""Points in time and days as drivers give them: text of SQLite, objects of the servers."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fireworks.core._columns import Column
from fireworks.extensions._database.families import Target
from fireworks.extensions._database.types import concrete

_FIRST_YEAR = np.datetime64("0001-01-01", "us")  # of Python's datetime
_MEND = "mend the row in the database, or read the column as text"


def timestamps(values: Sequence[Any], target: Target) -> np.ndarray:
    """Microseconds; in UTC where the column holds instants.

    Raises:
        CellError: A value is no point in time, or has a time zone where the column has none.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {str} and target.dialect.name == "sqlite":
        return _parsed(values, target)
    if kinds <= {datetime.datetime}:
        zoned = {value.tzinfo is not None for value in values if value is not None}
        if zoned <= {False} and not _keeps_zones(target):
            return from_datetimes(values)
        if zoned == {True} and target.zoned:
            return from_datetimes(pd.to_datetime(list(values), utc=True).tz_localize(None))
    return np.array([_one(value, row, target) for row, value in enumerate(values)], dtype="datetime64[us]")


def _keeps_zones(target: Target) -> bool:
    """Does the database send every point in time with its zone?"""
    return target.zoned and target.dialect.name == "postgresql"


def from_datetimes(values: Any) -> np.ndarray:
    """Microseconds of datetime objects without a zone: pandas is twenty times as fast as numpy here."""
    return np.array(pd.DatetimeIndex(values).as_unit("us"), dtype="datetime64[us]")


def instants_column(array: np.ndarray) -> Column:
    """A column of points in UTC."""
    instants = pd.Series(array, copy=False).dt.tz_localize("UTC").array
    return Column(instants, instants.dtype)


def _parsed(values: Sequence[Any], target: Target) -> np.ndarray:
    import pyarrow as pa

    array = of_texts(pa.array(values, pa.string())) if target.has_usual_format else None
    if array is None:  # one by one, to say which
        array = np.array([_one(value, row, target) for row, value in enumerate(values)], dtype="datetime64[us]")
    return array


def of_texts(cells: Any) -> np.ndarray | None:
    """Microseconds of an Arrow column of texts; None where it has one that Python alone can read, or nobody."""
    import pyarrow as pa

    try:
        moments = np.array(cells.cast(pa.timestamp("us")), dtype="datetime64[us]")
    except pa.ArrowInvalid:
        return None
    return None if (moments < _FIRST_YEAR).any() else moments


def _one(value: Any, row: int, target: Target) -> datetime.datetime | None:
    if value is None:
        return None
    try:
        moment = _from_text(value, target) if isinstance(value, str) else value
    except (ValueError, TypeError) as error:
        raise target.error(row, value, "was read where a point in time was expected", _MEND) from error
    if not isinstance(moment, datetime.datetime):
        raise target.error(row, value, "was read where a point in time was expected", _MEND)
    if moment.tzinfo is None:
        if _keeps_zones(target):
            raise target.error(row, value, "was read without a time zone, and the column has one", _MEND)
        return moment
    if not target.zoned:
        raise target.error(row, value, "was read with a time zone, and the column has none", _MEND)
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)


def _from_text(text: str, target: Target) -> Any:
    if target.has_usual_format:
        return datetime.datetime.fromisoformat(text)
    process = concrete(target.type, target.dialect).result_processor(target.dialect, None)
    return text if process is None else process(text)


def days(values: Sequence[Any], target: Target) -> Sequence[Any]:
    """Days as `datetime.date`.

    Raises:
        CellError: A value is no day.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {datetime.date}:
        return values
    process = concrete(target.type, target.dialect).result_processor(target.dialect, None)
    found = []
    for row, value in enumerate(values):
        try:
            is_text = isinstance(value, str) and process is not None
            found.append(process(value) if is_text and process is not None else value)
        except (ValueError, TypeError) as error:
            raise target.error(row, value, "was read where a day was expected", _MEND) from error
        if value is not None and type(found[-1]) is not datetime.date:
            raise target.error(row, value, "was read where a day was expected", _MEND)
    return found
