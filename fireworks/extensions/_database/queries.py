"""DBPipe: the rows of a query of a database as a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from fireworks.core._names import names_columns
from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.core.state import State, take_out
from fireworks.extensions._database import adbc
from fireworks.extensions._database.connections import as_engine, engine_url
from fireworks.extensions._database.editing import delete_rows, update_rows
from fireworks.extensions._database.filters import condition
from fireworks.extensions._database.keys import key_from_state, key_to_state
from fireworks.extensions._database.lookups import Lookups
from fireworks.extensions._database.reading import Pages
from fireworks.extensions._database.schema import as_table
from fireworks.extensions._database.selection import Selection, as_select, select_entities
from fireworks.extensions._database.sources import (
    Borrow,
    Row,
    Source,
    message_of,
    message_of_columns,
    rows_of,
)
from fireworks.utils.exceptions import StateError
from fireworks.utils.utils import RowIndex, as_positions

__all__ = ["DBBatches", "DBPipe"]

_PAGE = 1_000  # rows that are read at a time when they are given one by one
_OWN_STATE = ("table", "position", "page", "row", "after", "last", "ended")


class _Reading(Pipe):
    """Gives what Pages read, whole pages or their rows, and resumes between any two rows."""

    _pages: Pages

    def _start(self, pages: Pages) -> None:
        self._pages = pages
        self._go_to(0, None, False)

    def _go_to(self, count: int, after: Any, ended: bool) -> None:
        """Stands before the page after these rows."""
        self._pages.seek(count, after, ended)
        self.position = count
        self._page: Message | None = None
        self._rest: Iterator[Message] = iter(())  # the rows of the page that are still to come
        self._rows: list[Row] = []  # of the page, for their keys
        self._row = self._size = 0  # the next row of the page, and how many it has
        self._begin = count, after  # where the page began
        self._skip: tuple[int, Any] | None = None  # how many rows of the page were given, and the key of the last

    def _turn(self) -> bool:
        """Goes to the next page; whether there is one."""
        pages = self._pages
        before = pages.count, pages.after, pages.ended
        try:
            rows = pages.next()
            skipped = 0
            if self._skip is not None and rows:
                rows, skipped = self._skipped(rows)
            page = message_of(rows, pages.selection, pages.source.dialect) if rows else None
        except Exception:
            pages.seek(*before)
            raise
        self._begin = before[:2]
        self._page, self._rows, self._row, self._size = page, rows, skipped, len(rows)
        self._skip = None
        # Rows that were deleted meanwhile may leave nothing of a page.
        return self._row < self._size or (not pages.ended and self._turn())

    def _skipped(self, rows: list[Row]) -> tuple[list[Row], int]:
        """The page again in which a state was taken, and which row of it comes next."""
        pages = self._pages
        given, last = self._skip or (0, None)
        if last is None:
            return rows, given
        keys = [pages.key_of(row) for row in rows]
        if last in keys:
            return rows, keys.index(last) + 1
        pages.seek(self.position, last)  # the row was deleted
        return pages.next(), 0

    def reset(self) -> Any:
        """Starts over with the first row, and sees the table as it is by then."""
        self._go_to(0, None, False)
        return self

    def get_state(self) -> State:
        """How many rows were read, and the key of the last one."""
        state = super().get_state()
        pages, row, skip = self._pages, self._row, self._skip
        within = skip is not None or row < self._size
        (page, after), last = self._begin, None
        if skip is not None:
            row, last = skip
        elif not within:
            page, after, row = pages.count, pages.after, 0
        elif pages.selection.in_key_order and row:
            last = pages.key_of(self._rows[row - 1])
        state["internal"] |= {
            "table": pages.selection.table.name,
            "position": self.position,
            "page": page,
            "row": row,
            "after": key_to_state(after),
            "last": key_to_state(last),
            "ended": pages.ended and not within,
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on with the row after the last one, whatever was inserted or deleted before it since.

        Raises:
            StateError: The state is of another kind of pipe, or of another table.
        """
        own, rest = take_out(state, _OWN_STATE, what=type(self).__name__)
        selection = self._pages.selection
        after, last = key_from_state(own["after"]), key_from_state(own["last"])
        widths = {len(key) for key in (after, last) if key is not None}
        if own["table"] != selection.table.name or widths - {len(selection.keys)}:
            raise StateError(f"the state is of table {own['table']!r} or its keys, and this pipe reads {self!r}")
        super().set_state(rest)
        self._go_to(own["page"], after, own["ended"])
        self.position = own["position"]
        if own["row"]:
            self._skip = own["row"], last

    def __getstate__(self) -> dict[str, Any]:
        state = self.get_state()
        kept = {name: value for name, value in self.__dict__.items() if name not in _NOT_SENT}
        return kept | {"_state": state}


_NOT_SENT = {"_pages", "_page", "_rest", "_rows", "_row", "_size", "_begin", "_skip", "_lookups", "_source", "_cursor"}


class DBPipe(_Reading):
    """Reads the rows of a table, or of a query, from any database of SQLAlchemy.

    Rows come in the order of the primary key, unless the query has an order of its own: one by one by iteration, many
    at a time by `batches(n)`, all by `all()`, and by their numbers by `[]`. So a ShufflerPipe, a CachingPipe or a
    DataLoader can read from a table directly. Columns come back as they went in: see `TablePipe.insert`.

    Iteration reads the table page by page, each page what comes after the last key. Between pages no connection, lock
    or transaction is held, so a loop may write to the table that it reads; what it writes further on, it will see. Row
    numbers are fixed at the first `[]` until the next `reset`: the keys of all rows are read then, and each look-up is
    one by key. A row that is deleted meanwhile is an error. Where rows of a query have no key, because it joins, groups
    or computes from many rows, or the table has no primary key, rows come by a cursor of the server (which keeps a
    SQLite file locked against writers until the end), and not by number.

    A read on a connection that the server dropped is tried once more on a new one. Any other failure is an error, and
    the next read goes on with the next row. Pipes can be sent to worker processes, by the URL of the engine, and each
    process has connections of its own.

    Args:
        table: A class, a `sqlalchemy.Table`, or the name of a table of the database.
        engine: An engine of SQLAlchemy, or the URL of the database.
        query: What to read, as a select or a Query of SQLAlchemy; all columns by default.
        columns_and_types: The names of the columns to give, and the types to read them as (None: as the query says).
        connection_source: Gives the connection of a transaction that is not committed, to read what it wrote; while it
            gives None, the pipe connects by itself.

    Attributes:
        position: How many rows were read since the start.

    Raises:
        TableError: The database has no such table.
        ColumnError: The query has no such column.
        DatabaseConnectionError: The server cannot be reached, or went away.
        RowGoneError: A row was deleted after its number was read.

    Example:
        >>> engine = sa.create_engine("sqlite://")
        >>> with engine.begin() as connection:
        ...     _ = connection.exec_driver_sql("CREATE TABLE fruit (id INTEGER PRIMARY KEY, name TEXT, grams FLOAT)")
        ...     _ = connection.exec_driver_sql("INSERT INTO fruit VALUES (1, 'pear', 9), (5, 'fig', 4), (7, 'plum', 8)")
        >>> fruit = DBPipe("fruit", engine)
        >>> [row["name"][0] for row in fruit], fruit[-1]["name"][0], len(fruit)
        (['pear', 'fig', 'plum'], 'plum', 3)
        >>> fruit.filter("grams", "between", 5, 10).filter("name", "like", "p%").all()["id"].tolist()
        [1, 7]
        >>> engine.dispose()
    """

    name = "DBPipe"

    def __init__(
        self,
        table: Any,
        engine: sa.Engine | sa.URL | str,
        query: Any = None,
        columns_and_types: Mapping[str, Any] | Iterable[str] | None = None,
        *,
        connection_source: Borrow | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.engine = as_engine(engine)
        self._source = Source(self.engine, connection_source)
        statement = None if query is None else as_select(query)
        self.table = as_table(table, self.engine)
        if columns_and_types is not None and not isinstance(columns_and_types, Mapping):
            names = [columns_and_types] if isinstance(columns_and_types, str) else columns_and_types
            columns_and_types = dict.fromkeys(names)
        self._chosen = None if columns_and_types is None else dict(columns_and_types)
        self._select(sa.select(self.table) if statement is None else statement)

    def _select(self, statement: sa.Select[Any]) -> None:
        """Reads this from now on, from its start."""
        froms = statement.get_final_froms()
        table = self.table
        if len(froms) == 1 and isinstance(froms[0], sa.Table) and froms[0].fullname == table.fullname:
            table = froms[0]  # the query may have been built on another description of the table
        selection = Selection(table, statement, self._chosen).narrowed()
        self.columns_and_types = selection.types
        self.query = statement
        # Pipes behind this one read rows by index where that gives the same as iterating.
        self.iterates_differently = not selection.keys
        self._lookups = Lookups(self._source, selection)
        self._start(Pages(self._lookups, _PAGE))

    @property
    def _selection(self) -> Selection:
        return self._lookups.selection

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns_and_types)

    def _with(self, selection: Selection) -> DBPipe:
        """A pipe like this one over another selection."""
        return DBPipe(self.table, self.engine, selection.statement, self._chosen, connection_source=self._source.borrow)

    # Reading

    def __next__(self) -> Message:
        row = next(self._rest, None)
        if row is None:
            if not self._turn():
                raise StopIteration
            self._rest = rows_of(self._page, self._row)  # type: ignore[arg-type]
            row = next(self._rest)
        self._row += 1
        self.position += 1
        return row

    def batches(self, n: int, drop_last: bool = False) -> DBBatches:
        """A pipe of messages of n rows, the last one with what is left, that reads the query from its start.

        However many rows there are, only one batch of them is in memory. On PostgreSQL and MariaDB all batches of an
        epoch come from one cursor of the server, and so from one moment; its connection is given back at the end of the
        epoch, at a `reset`, and with the pipe. When it breaks, reading goes on behind the last key on a new one. SQLite
        has no server, and a cursor would lock its file against writers: there they come page by page.

        Args:
            n: Rows per batch.
            drop_last: Leave out a last batch that is shorter.

        Raises:
            ValueError: `n` is no number from 1 up.
        """
        return DBBatches(self, batch_size=n, drop_last=drop_last)

    def all(self) -> Message:
        """All rows as one message.

        The extra `adbc` makes this several times faster for whole tables in SQLite files and PostgreSQL, of columns of
        numbers, booleans, text, bytes, timestamps and tensors.
        """
        selection, source = self._selection, self._source
        if adbc.can_read(source, selection) and self._is_long():
            message = adbc.read_table(source, selection)
            if message is not None:
                return message
        columns = source.columns(selection.all_rows, f"reading table {selection.table.name!r}")
        return message_of_columns(columns, selection, source.dialect)

    def _is_long(self) -> bool:
        """Whether there are so many rows that to connect once more is worth it."""
        selection = self._selection
        beyond = selection.statement.order_by(None).offset(_PAGE).limit(1)
        return bool(self._source.fetch(beyond, f"reading table {selection.table.name!r}"))

    def __getitem__(self, index: RowIndex) -> Any:
        if names_columns(index):
            return self.all()[index]
        rows = self._lookups.rows(as_positions(index, len(self._lookups), "pipe"))
        return message_of(rows, self._selection, self._source.dialect)

    def __len__(self) -> int:
        """How many rows there are: as numbered by `[]`, or counted by the database."""
        if self._lookups.are_known:
            return len(self._lookups)
        return self._source.count(self._selection.count, f"counting the rows of table {self._selection.table.name!r}")

    @property
    def batches_per_epoch(self) -> int:
        """How many rows an epoch yields."""
        return len(self)

    def filter(self, column_name: str, predicate: str, *args: Any, **kwargs: Any) -> DBPipe:
        """A pipe of those rows of this one for which a condition holds; filters can be chained.

        Args:
            column_name: A column of the query, or one of the table that the query does not select.
            predicate: A method of SQLAlchemy's columns that gives a condition: `between`, `in_`, `not_in`, `is_`,
                `is_not`, `like`, `ilike`, `startswith`, `regexp_match`, `__eq__`, `__ne__`, `__lt__`, `__ge__`, …
            *args: Its arguments; lists, arrays, tensors and Series for those that take several values.
            **kwargs: Its keyword arguments.

        Raises:
            ColumnError: There is no such column.
            ValueError: There is no such predicate; proposes the nearest.
            TypeError: It does not give a condition, or takes other arguments.
        """
        selection = self._selection.whole()
        return self._with(selection.where(condition(selection.column(column_name), predicate, args, kwargs)))

    # Writing

    def delete(self) -> int:
        """Deletes the rows of this pipe from the table, and gives their number.

        All of them or none; at once, or as part of the transaction that the pipe reads from.

        Raises:
            TypeError: They are not rows of the table, but of a join or a group.
        """
        count = delete_rows(self._source, self._selection)
        self._lookups.forget()
        return count

    def update(self, batch: Any) -> int:
        """Replaces the contents of the rows of this pipe, and gives the number of rows.

        All of them or none; at once, or as part of the transaction that the pipe reads from.

        Args:
            batch: A Message, DataFrame or dict with the new values of some or all columns: a row for each row of the
                pipe, in its order. When the key's columns are among them, rows are found by them, and may be fewer. A
                dict of single values sets these in all rows.

        Raises:
            TypeError: The rows of the pipe are not rows of the table.
            LengthError: The batch has another number of rows.
            RowGoneError: The batch has a key that no row of the pipe has.
            CellError: A column cannot hold a value.
        """
        return update_rows(self._source, self._selection, batch)

    # Starting over

    def reset(self, entities: Any = None, *args: Any, **kwargs: Any) -> DBPipe:
        """Starts over with the first row, and sees the table as it is by then; or with another query.

        Args:
            entities: What to select from now on, instead of the query and the filters so far: names of columns,
                columns or expressions of SQLAlchemy; one or a list.
            *args: More of the same.
            **kwargs: Clauses of the select: `where`, `order_by`, `limit`, `group_by`, …

        Returns:
            The pipe itself.
        """
        if entities is not None or args or kwargs:
            statement = select_entities(self.table, entities, args, kwargs)
            self._pages.close()
            self._chosen = None
            self._select(statement)
        else:
            self._lookups.forget()
            super().reset()
        return self

    def reset_session(self) -> DBPipe:
        """Gives back connections and forgets row numbers, so that what others committed is seen; stays at its row."""
        self._lookups.forget()
        self.set_state(self.get_state())  # which reads the page anew
        return self

    # Other processes

    def __getstate__(self) -> dict[str, Any]:
        if self._source.borrowed() is not None:
            raise TypeError(
                "the pipe reads from a transaction that is not committed, which no other process sees; commit() first"
            )
        return super().__getstate__() | {"engine": engine_url(self.engine)}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        state = attributes.pop("_state")
        self.__dict__.update(attributes)
        self.engine = as_engine(self.engine)
        self._source = Source(self.engine)
        self._select(self.query)
        self.set_state(state)

    def __repr__(self) -> str:
        return f"DBPipe({self.table.name}: {', '.join(self.columns)})"


class DBBatches(_Reading):
    """Batches of the rows of a DBPipe; made by `pipe.batches(n)`. `[]` and `len` speak of rows all the same.

    Args:
        input: A DBPipe.
        batch_size: Rows per batch.
        drop_last: Leave out a last batch that is shorter.

    Raises:
        ValueError: `batch_size` is no number from 1 up.
    """

    name = "DBBatches"
    iterates_differently = True

    def __init__(self, input: DBPipe, batch_size: int = _PAGE, drop_last: bool = False, **kwargs: Any) -> None:
        super().__init__(input, **kwargs)
        if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size is a number of rows from 1 up, got {batch_size!r}")
        self.batch_size = int(batch_size)
        self.drop_last = drop_last
        self._start(self._fresh())

    def _fresh(self) -> Pages:
        return Pages(self.input._lookups, self.batch_size, live=True)

    def __next__(self) -> Message:
        if not self._turn() or (self.drop_last and self._size < self.batch_size):
            raise StopIteration
        self._row = self._size
        self.position += self._size
        return self._page  # type: ignore[return-value]

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch yields."""
        rows = len(self.input)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def reset(self) -> DBBatches:
        """Starts over with the first batch, and sees the table as it is by then."""
        self._pages.close()
        self.input._lookups.forget()
        self._start(self._fresh())
        return self

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        state = attributes.pop("_state")
        self.__dict__.update(attributes)
        self._start(self._fresh())
        self.set_state(state)
