"""The keys of all rows of a query in their order, which is what row numbers stand for; and keys as plain values."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from fireworks.core._columns import object_array
from fireworks.extensions._database.selection import Key
from fireworks.utils.exceptions import StateError

__all__ = ["KeyList", "MissingKeyError", "key_from_state", "key_to_state"]


class MissingKeyError(Exception):
    """A row has no value in its primary key."""


class KeyList:
    """Keys by row number, in little memory: 8 bytes for an integer, 16 for a UUID or a short text.

    Args:
        blocks: The keys, many at a time.
        width: How many columns a key has.

    Raises:
        MissingKeyError: A key lacks a value.
    """

    def __init__(self, blocks: Iterator[Sequence[Key]], width: int) -> None:
        parts: list[list[np.ndarray]] = [[] for _ in range(width)]
        for block in blocks:
            for place, part in enumerate(parts):
                # zip(*block) would make an iterator for every row, over which the garbage collector then goes.
                part.append(_packed(list(map(itemgetter(place), block))))
        self._columns = [_joined(part) for part in parts]

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, positions: slice | np.ndarray) -> list[Key]:
        return list(zip(*(_unpacked(column[positions]) for column in self._columns), strict=True))


_UUIDS = np.dtype("V16")
_TEXT = np.dtypes.StringDType()


def _packed(values: Sequence[Any]) -> np.ndarray:
    kinds = set(map(type, values))
    if type(None) in kinds:
        raise MissingKeyError
    if kinds == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    if kinds == {uuid.UUID}:
        return np.frombuffer(b"".join([value.bytes for value in values]), dtype=_UUIDS)
    if kinds == {str}:
        return np.array(values, dtype=_TEXT)
    return object_array(values)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    if not parts:
        return np.empty(0, dtype=np.int64)
    if len({part.dtype for part in parts}) > 1:  # numbers of different sizes, or what SQLite mixes
        parts = [object_array(_unpacked(part)) for part in parts]
    return np.concatenate(parts)


def _unpacked(column: np.ndarray) -> list[Any]:
    if column.dtype == _UUIDS:
        data = np.ascontiguousarray(column).tobytes()
        return [uuid.UUID(bytes=data[start : start + 16]) for start in range(0, len(data), 16)]
    return column.tolist()


_WRITTEN: dict[str, tuple[type, Any, Any]] = {
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
}


def key_to_state(key: Key | None) -> list[Any] | None:
    """A key as plain values.

    Raises:
        StateError: It holds a value that cannot be written down.

    Example:
        >>> key_to_state((7, "a", datetime.date(2020, 2, 1)))
        [7, 'a', {'date': '2020-02-01'}]
    """
    return None if key is None else [_written(value) for value in key]


def _written(value: Any) -> Any:
    if type(value) in (bool, int, float, str):
        return value
    for name, (kind, write, _) in _WRITTEN.items():
        if type(value) is kind:
            return {name: write(value)}
    raise StateError(
        f"the key {value!r} ({type(value).__name__}) cannot be written down, so nobody can resume after it"
    )


def key_from_state(state: list[Any] | None) -> Key | None:
    """The key that `key_to_state` wrote."""
    if state is None:
        return None
    return tuple([_read(value) for value in state])


def _read(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((name, text),) = value.items()
    return _WRITTEN[name][2](text)
