"""The rows of a query, page by page.

A reader stands behind the last row that it gave, and knows that row's key. What comes next is one more statement, so
between two pages it holds no connection, no lock and no transaction, and a server may come and go.
"""

from __future__ import annotations

import os

from fireworks.extensions._database.connections import is_disconnect
from fireworks.extensions._database.errors import error_class, translated
from fireworks.extensions._database.lookups import Lookups
from fireworks.extensions._database.selection import Key, Selection
from fireworks.extensions._database.sources import FETCHED, Row, Source, Stream, keeps_versions
from fireworks.extensions._database.types import MYSQL
from fireworks.utils.exceptions import DatabaseConnectionError

__all__ = ["Pages"]


class Pages:
    """The rows of a selection in their order, so many at a time, from any place.

    Where the order is that of the key, a page is what comes after the last key. Where it is another, the keys of all
    rows are read first, and then rows by their keys; rows that are deleted meanwhile do not come. Rows without keys
    come by a cursor of the server; and so do, where there is one, those in the order of their keys if `live` is given.

    Args:
        lookups: What to read, by row numbers.
        size: Rows per page.
        live: Whether to keep a cursor of the server open between pages where that harms nobody; SQLite's would lock out
            writers.

    Attributes:
        count: Rows before the next page.
        after: The key of the last of them.
        ended: Whether there are no more.
    """

    def __init__(
        self,
        lookups: Lookups,
        size: int,
        live: bool = False,
    ) -> None:
        self.source: Source = lookups.source
        self.selection: Selection = lookups.selection
        self.size = size
        self.live = live and self.source.dialect.name in ("postgresql", *MYSQL)
        self._is_apart: bool | None = None  # whether a stream leaves writers alone; asked before the first
        self._lookups = lookups
        self._stream: Stream | None = None
        self._buffer: list[Row] | None = None
        self.seek(0, None)

    def seek(self, count: int, after: Key | None, ended: bool = False) -> None:
        """Go to where so many rows were read, the last one with this key."""
        self.close()
        self.count, self.after, self.ended = count, after, ended

    def close(self) -> None:
        """Give back the connection that a stream holds, if there is one."""
        stream, self._stream, self._buffer = self._stream, None, None
        if stream is not None:
            stream.close(self.ended)

    def __del__(self) -> None:
        if self.__dict__.get("_stream") is not None:
            self.close()

    def next(self) -> list[Row]:
        """The rows of the next page, none at the end."""
        if self.ended:
            return []
        selection = self.selection
        if selection.keys and not selection.in_key_order:
            taken, rows = self._lookups.present(self.count, self.size)
            self.ended = taken < self.size
            self.count += taken
            return rows
        rows = self._next_rows()
        self.ended = len(rows) < self.size
        if self.ended:
            self.close()
        if rows and selection.keys:
            last = self.key_of(rows[-1])
            if self.key_of(rows[0]) == self.after:
                raise ValueError(
                    f"the key {last!r} of table {selection.table.name!r} does not equal itself in the database, as "
                    "single-precision FLOATs do not; rows of such a key cannot be told apart"
                )
            if None in last:
                raise selection.row_without_key()
            self.after = last
        self.count += len(rows)
        return rows

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        return tuple([row[place] for place in self.selection.key_places])

    @property
    def _what(self) -> str:
        return f"reading table {self.selection.table.name!r} from row {self.count} on"

    def _next_rows(self) -> list[Row]:
        borrowed = self.source.borrowed()
        by_key = self.selection.in_key_order
        streams = borrowed is None and (self.live or not by_key) and self._streams_apart()
        if by_key and not streams:
            statement, parameters = self.selection.page(self.after, self.size)
            return self.source.fetch(statement, self._what, parameters)
        if not streams:  # a cursor of the server might keep the writer from writing
            if self._buffer is None:
                self._buffer = self.source.fetch(self.selection.ordered, self._what)
            return self._buffer[self.count : self.count + self.size]
        return self._from_stream()

    def _streams_apart(self) -> bool:
        """Whether writers need not wait for a reader: on MariaDB, only those to tables of InnoDB need not."""
        if self._is_apart is None:
            selection, dialect = self.selection, self.source.dialect
            self._is_apart = dialect.name not in MYSQL or self.source.run(
                self._what, lambda connection: keeps_versions(connection, selection.statement)
            )
        return self._is_apart

    def _from_stream(self) -> list[Row]:
        try:
            with translated(self.source.engine, self._what):
                return self._streamed()
        except DatabaseConnectionError as error:
            again = (
                "read on, or resume from the state, and it goes on with the next row"
                if self.selection.has_order
                else "the query names no order of its rows, so start it over with reset()"
            )
            raise DatabaseConnectionError(f"{error}; {self.count} rows had come: {again}") from error.__cause__

    def _streamed(self) -> list[Row]:
        """The next rows; where keys tell what they are, by another stream if this one broke."""
        if self._stream is not None and self._stream.process != os.getpid():
            self.close()
        opened_before = self._stream is not None
        try:
            return self._fetch()
        except Exception as error:
            lost = error_class(error, self.source.dialect) is DatabaseConnectionError
            stream, self._stream = self._stream, None
            if stream is not None:
                if is_disconnect(error, stream.connection):
                    stream.connection.invalidate()
                stream.close(ended=False)
            if not lost or not self.selection.has_order or (opened_before and not self.selection.keys):
                raise
        return self._fetch()

    def _fetch(self) -> list[Row]:
        if self._stream is None:
            by_key = self.selection.in_key_order
            statement, parameters = self.selection.page(self.after) if by_key else (self.selection.ordered, None)
            self._stream = Stream(self.source.engine, statement, parameters)
            skipped = 0 if by_key else self.count
            while skipped:
                skipped -= len(self._stream.fetch(min(skipped, FETCHED))) or skipped
        return self._stream.fetch(self.size)
