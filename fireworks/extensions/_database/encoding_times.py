"""Points in time, days, times of day and spans of time, checked against the precision and the zone of a column."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.families import Target, refuse

_ROUND = "round the column first"
_CONVERT = "convert the column with map() first"


class Moments(list[Any]):
    """Points in time as a list, and the array that they were: to make one of them takes longer than all else."""

    def __init__(self, moments: Iterable[datetime.datetime | None], array: np.ndarray) -> None:
        super().__init__(moments)
        self.array = array  # of microseconds, in UTC where they are instants


def encode_timestamp(cells: Cells, target: Target) -> list[Any]:
    """Points in time: in UTC where the column holds instants, else without a zone."""
    if cells.array is not None and cells.array.dtype.kind == "M":
        return _timestamps_of_array(cells.array, cells.zoned, target)
    values = [value if value is None else _timestamp(value, row, target) for row, value in enumerate(cells.listed())]
    step = _step(target)
    if step > 1:
        for row, value in enumerate(values):
            if value is not None and value.microsecond % step:
                raise target.error(row, value, f"is finer than {_named(step)}", _ROUND)
    return values


def _timestamp(value: Any, row: int, target: Target) -> datetime.datetime:
    if isinstance(value, np.datetime64):
        value = _of_numpy(value, row, target)
    if not isinstance(value, datetime.datetime):
        raise target.error(row, value, "is no point in time", _CONVERT)
    has_zone = value.utcoffset() is not None
    if has_zone != target.zoned:
        raise _wrong_zone(value, has_zone, row, target)
    if isinstance(value, pd.Timestamp):
        if value.nanosecond:
            raise target.error(row, value, "is finer than a microsecond", _ROUND)
        value = value.to_pydatetime()
    try:
        return value.astimezone(datetime.UTC) if has_zone else value
    except OverflowError as error:
        raise target.error(row, value, "is not between the years 1 and 9999 in UTC", _CONVERT) from error


def _of_numpy(value: np.datetime64, row: int, target: Target) -> datetime.datetime:
    moment = value.astype("datetime64[us]")
    if moment != value:
        raise target.error(row, value, "is finer than a microsecond", _ROUND)
    if not isinstance(moment.item(), datetime.datetime):
        raise target.error(row, value, _OUTSIDE, _CONVERT)
    return moment.item()


_OUTSIDE = "is not between the years 1 and 9999"


def _timestamps_of_array(array: np.ndarray, zoned: bool, target: Target) -> list[Any]:
    missing = np.isnat(array)
    if zoned != target.zoned and not missing.all():
        row = int((~missing).argmax())
        raise _wrong_zone(array[row], zoned, row, target)
    coarse = _in_microseconds(array, target)
    step = _step(target)
    if step > 1:
        refuse((coarse.view(np.int64) % step != 0) & ~missing, array, target, f"is finer than {_named(step)}", _ROUND)
    values = coarse.tolist()
    if zoned:
        values = [None if value is None else value.replace(tzinfo=datetime.UTC) for value in values]
    return Moments(values, coarse)


def _in_microseconds(array: np.ndarray, target: Target) -> np.ndarray:
    missing = np.isnat(array)
    years = array.astype("datetime64[Y]").view(np.int64) + 1970
    outside = ((years < 1) | (years > 9999)) & ~missing
    refuse(outside, array, target, _OUTSIDE, _CONVERT)
    coarse = array.astype("datetime64[us]")
    refuse((coarse != array) & ~missing, array, target, "is finer than a microsecond", _ROUND)
    return coarse


_UNITS = {"MINUTE": 60 * 10**6, "HOUR": 3600 * 10**6, "DAY": 86_400 * 10**6}  # months are none of Python's


def _step(target: Target) -> int:
    """How many microseconds the smallest difference is that the column keeps."""
    if target.is_mysql:
        return int(10 ** (6 - (getattr(target.stored, "fsp", None) or 0)))
    fields = getattr(target.stored, "fields", None)  # of an interval, such as DAY TO HOUR
    if fields is not None and (unit := fields.split()[-1].upper()) != "SECOND":
        return _UNITS.get(unit, 10**30)
    precision = getattr(target.stored, "precision", None) if target.dialect.name == "postgresql" else None
    return 1 if precision is None else int(10 ** (6 - precision))


def _named(step: int) -> str:
    return "a second" if step == 1_000_000 else f"{step} microseconds"


def _wrong_zone(value: Any, has_zone: bool, row: int, target: Target) -> Exception:
    if has_zone:
        return target.error(row, value, "has a time zone, and the column has none", "use tz_localize(None) on it first")
    return target.error(row, value, "has no time zone, and the column has one", "use tz_localize('UTC') on it first")


def encode_date(cells: Cells, target: Target) -> list[Any]:
    """Days; a point in time is one when it is midnight."""
    if cells.array is not None and cells.array.dtype.kind == "M" and not cells.zoned:
        coarse = _in_microseconds(cells.array, target)
        days = coarse.astype("datetime64[D]")
        refuse((days != coarse) & ~np.isnat(coarse), cells.array, target, _NO_DAY, _NORMALIZE)
        return list(days.tolist())
    return [value if value is None else _day(value, row, target) for row, value in enumerate(cells.listed())]


_NO_DAY, _NORMALIZE = "is no whole day", "use dt.normalize() on the column first"


def _day(value: Any, row: int, target: Target) -> datetime.date:
    if isinstance(value, np.datetime64):
        value = _of_numpy(value, row, target)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None or value.time() != datetime.time() or getattr(value, "nanosecond", 0) != 0:
            raise target.error(row, value, _NO_DAY, _NORMALIZE)
        return value.date()
    if isinstance(value, datetime.date):
        return value
    raise target.error(row, value, "is no date", _CONVERT)


def encode_time(cells: Cells, target: Target) -> list[Any]:
    """Times of a day."""
    values, step = cells.listed(), _step(target)
    keeps_zone = target.zoned and target.has_zones
    for row, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, datetime.time):
            raise target.error(row, value, "is no time of a day", _CONVERT)
        if (value.tzinfo is not None) != keeps_zone:
            raise _wrong_zone(value, value.tzinfo is not None, row, target)
        if value.microsecond % step:
            raise target.error(row, value, f"is finer than {_named(step)}", _ROUND)
    return values


def encode_duration(cells: Cells, target: Target) -> list[Any]:
    """Spans of time."""
    if cells.array is not None and cells.array.dtype.kind == "m":
        coarse = cells.array.astype("timedelta64[us]")
        refuse(
            (coarse != cells.array) & ~np.isnat(cells.array), cells.array, target, "is finer than a microsecond", _ROUND
        )
        values = list(coarse.tolist())
    else:
        values = [value if value is None else _span(value, row, target) for row, value in enumerate(cells.listed())]
    if target.family == "interval":
        _check_interval(values, target)
    if target.family == "duration":
        longest = datetime.timedelta(microseconds=2**63 - 1)  # one less on the other side means NaT
        for row, value in enumerate(values):
            if value is not None and not -longest <= value <= longest:
                raise target.error(row, value, "has more microseconds than 64 bits hold", "store it as text or a float")
    return values


def _span(value: Any, row: int, target: Target) -> datetime.timedelta:
    if isinstance(value, np.timedelta64):
        value = pd.Timedelta(value)
    if not isinstance(value, datetime.timedelta):
        raise target.error(row, value, "is no span of time", _CONVERT)
    if isinstance(value, pd.Timedelta):
        if value.nanoseconds:
            raise target.error(row, value, "is finer than a microsecond", _ROUND)
        return value.to_pytimedelta()
    return value


def _check_interval(values: list[Any], target: Target) -> None:
    """SQLAlchemy's Interval is a point in time after 1970 where the database has no type of its own."""
    has_own = target.dialect.name == "postgresql"
    epoch, step = datetime.datetime(1970, 1, 1), _step(target)
    for row, value in enumerate(values):
        if value is None:
            continue
        if not has_own and not datetime.datetime.min - epoch <= value <= datetime.datetime.max - epoch:
            raise target.error(row, value, "is too long for the column", "declare the column timedelta")
        if value // datetime.timedelta(microseconds=1) % step:
            raise target.error(row, value, f"is finer than {_named(step)}", "declare the column timedelta")
