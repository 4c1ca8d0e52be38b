"""Rows of a query by their numbers, found by their keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fireworks.extensions._database.keys import KeyList, MissingKeyError
from fireworks.extensions._database.selection import Key, Selection
from fireworks.extensions._database.sources import Row, Source
from fireworks.utils.exceptions import RowGoneError

__all__ = ["Lookups"]

_PARAMETERS = 1_000  # in one statement; SQLite takes 32,766, PostgreSQL 65,535, and more are no faster


class Lookups:
    """Row numbers of a query, fixed when the first is asked for: the keys of all rows are read once, in their order.

    After that each look-up costs what the rows cost, however long the table is.

    Args:
        source: Where to read.
        selection: The query.
    """

    def __init__(self, source: Source, selection: Selection) -> None:
        self.source, self.selection = source, selection
        self._keys: KeyList | None = None

    @property
    def are_known(self) -> bool:
        """Whether the keys were read."""
        return self._keys is not None

    @property
    def keys(self) -> KeyList:
        """The keys of all rows.

        Raises:
            TypeError: Rows of this query have none.
        """
        if self._keys is None:
            selection = self.selection
            if not selection.keys:
                raise TypeError(
                    f"rows of this query cannot be told by number: {_why(selection)}; iterate over it, put a "
                    "LoopingPipe behind it, or keep its rows with all()"
                )
            what = f"reading the keys of table {selection.table.name!r}"
            width = len(selection.keys)

            def collect(blocks: Iterator[Sequence[Key]]) -> KeyList:
                try:
                    return KeyList(blocks, width)
                except MissingKeyError:
                    raise selection.row_without_key() from None

            self._keys = self.source.gather(selection.all_keys, what, collect)
        return self._keys

    def forget(self) -> None:
        """Read the keys anew when they are needed next."""
        self._keys = None

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, positions: slice | np.ndarray) -> list[Row]:
        """The rows with these numbers.

        Raises:
            RowGoneError: One of them is not there any more.
        """
        keys = self.keys[positions]
        found = self._found(keys)
        try:
            return [found[key] for key in keys]
        except KeyError:
            row = next(row for row, key in enumerate(keys) if key not in found)
            number = int(np.arange(len(self.keys))[positions][row])
            raise self._gone(number, keys[row]) from None

    def present(self, start: int, size: int) -> tuple[int, list[Row]]:
        """So many rows from one on, as far as they are still there; and how many there were."""
        keys = self.keys[slice(start, start + size)]
        found = self._found(keys)
        return len(keys), [found[key] for key in keys if key in found]

    def _found(self, keys: Sequence[Key]) -> dict[Key, Row]:
        wanted = keys if len(keys) == 1 else list(dict.fromkeys(keys))
        step = max(1, _PARAMETERS // len(self.selection.keys))
        found: dict[Key, Row] = {}
        places = self.selection.key_places
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            what = f"reading {len(some)} rows of table {self.selection.table.name!r} by their keys"
            for row in self.source.fetch(self.selection.rows_of(some), what):
                found[tuple([row[place] for place in places])] = row
        return found

    def _gone(self, row: int, key: Key) -> RowGoneError:
        named = ", ".join(f"{column.name}={value!r}" for column, value in zip(self.selection.keys, key, strict=True))
        return RowGoneError(
            f"row {row} of table {self.selection.table.name!r} ({named}) is gone: it was deleted, or changed so that "
            "the query does not give it any more, after its number was read; reset() numbers the rows anew"
        )


def _why(selection: Selection) -> str:
    if selection.is_of_table:
        return f"table {selection.table.name!r} has no primary key"
    return f"they are not rows of table {selection.table.name!r} (a join, a group, a function), so they have no key"
