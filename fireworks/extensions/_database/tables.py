"""TablePipe: a table of a database that messages are written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import class_mapper, declarative_base

from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.core.state import State
from fireworks.extensions._database.connections import as_engine, engine_url
from fireworks.extensions._database.culprits import naming_row
from fireworks.extensions._database.errors import translated
from fireworks.extensions._database.feeding import batches_of, is_batch, message_of
from fireworks.extensions._database.queries import DBPipe
from fireworks.extensions._database.real_columns import RealColumns
from fireworks.extensions._database.schema import as_table, parse_columns, parse_columns_and_types
from fireworks.extensions._database.transactions import Transaction
from fireworks.extensions._database.upserting import check_keys, key_of, upsert_rows
from fireworks.extensions._database.values import encode
from fireworks.extensions._database.writing import Columns, count_rows, delete_rows, insert_rows, update_rows
from fireworks.utils.exceptions import CellError, ColumnError, LengthError, TableError

__all__ = ["TablePipe"]


class TablePipe(Pipe):
    """A table of a database as something to write messages to.

    What is written takes part in one transaction, which begins with the first of it and ends with `commit` or
    `rollback`, or with the `with` block: committed at its end, rolled back when an exception leaves it. Each call is
    done whole or not at all: a batch with a value that the table cannot hold is refused, and what was written before
    stays. `query` reads, in an open transaction what is not committed yet, too; iteration and indices do the same.

    Between transactions no connection is held, so a server may restart then. When a connection breaks in the middle of
    one, what was not committed is gone: the error says so, and so does every later call until `rollback`.

    Args:
        table: A class of a table (see `create_table`) or a `sqlalchemy.Table`, created where it is missing; or the name
            of a table that is there.
        engine: An engine, or the URL of a database.
        columns: Those that are written; others of a batch are left out. By default all that a batch has.
        input: What to read from: `insert(pipe.input)` writes it.
        lock_timeout: How long to wait for somebody else's lock.

    Raises:
        ColumnError: The table has no such columns.
        TableError: No table of this name.

    Example:
        >>> from fireworks.extensions.database import create_table
        >>> fruit = TablePipe(create_table("fruit", {"name": str, "weight": float}), "sqlite://")
        >>> with fruit:
        ...     fruit.insert({"name": ["fig", "pear"], "weight": [0.05, 0.2]})
        2
        >>> fruit.query("name").all().to_dict()
        {'name': ['fig', 'pear']}
    """

    name = "TablePipe"

    def __init__(
        self,
        table: Any,
        engine: sa.Engine | sa.URL | str,
        columns: Sequence[str] | None = None,
        input: Any = None,
        *,
        lock_timeout: timedelta = timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(input, **kwargs)
        self.engine = as_engine(engine)
        self.table = as_table(table, self.engine) if isinstance(table, str) else table
        self._table = as_table(table if hasattr(table, "__table__") else self.table)
        self.lock_timeout = lock_timeout
        self._chosen = None if columns is None else list(columns)
        unknown = [name for name in self._chosen or [] if name not in self._table.columns]
        if unknown:
            raise ColumnError(f"table {self._table.name!r}: {ColumnError.unknown(unknown, self._table.columns.keys())}")
        self._transaction = Transaction(self.engine, lock_timeout)
        self._real = RealColumns(self._table)
        self._reader: DBPipe | None = None
        self._rows: DBPipe | None = None
        if not isinstance(table, str):
            self.init_db()

    @property
    def columns(self) -> list[str]:
        """The names of the columns that are written: those given, or all but `id`."""
        return list(self._chosen) if self._chosen is not None else parse_columns(self._table)

    @property
    def columns_and_types(self) -> dict[str, Any]:
        """The names of these columns, and their SQLAlchemy types."""
        types = parse_columns_and_types(self._table, ignore_id=False)
        return {name: types[name] for name in self.columns}

    # The transaction

    def init_db(self) -> None:
        """Creates the table, and those that it refers to, where they are missing.

        Raises:
            TableError: Somebody dropped the table while a transaction on it is open.
        """
        connection = self._transaction.connection
        with translated(self.engine, f"creating the table {self._table.name!r}"):
            if connection is not None:
                if not sa.inspect(connection).has_table(self._table.name, schema=self._table.schema):
                    raise TableError(
                        f"table {self._table.name!r} is gone; commit or roll back before you create it again"
                    )
                return
            try:
                self._table.metadata.create_all(self.engine, tables=_with_parents(self._table))
            except sa.exc.DBAPIError:
                # Somebody else may have created it since we looked.
                if not sa.inspect(self.engine).has_table(self._table.name, schema=self._table.schema):
                    raise

    def commit(self) -> None:
        """Commits what was written since the last commit.

        Raises:
            DatabaseConnectionError: The connection broke: before, and nothing is saved, or now, and nobody knows.
            DatabaseLockedError: Somebody else reads from a SQLite file. Everything is kept, so commit again later.
            CellError: A constraint that is checked at the end does not hold; nothing is saved.
        """
        self._transaction.commit()

    def rollback(self) -> None:
        """Undoes what was written since the last commit."""
        self._rows = None
        self._transaction.rollback()

    def __enter__(self) -> TablePipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.rollback()

    # Writing

    def insert(self, batch: Any, *, rows_at_once: int = 10_000, progress: bool | None = None) -> int:
        """Adds rows to the table.

        Args:
            batch: A Message, a DataFrame or a dict of columns; or a pipe, a list or a generator that yields such
                batches or rows, which are read and written some at a time, but all of them or none.
            rows_at_once: How many rows of a pipe are held in memory, if its batches are no larger.
            progress: Show a progress bar for a pipe; by default where somebody can see it, in a terminal or a notebook.

        Returns:
            How many rows were added.

        Raises:
            ColumnError: The table lacks a column of the batch.
            CellError: The table cannot hold a value, or a constraint forbids it; the text names the row if it can be
                found. Nothing of the batch is written.
        """
        if is_batch(batch):
            return self._write("inserting {rows} rows into {table}", batch, self._insert)
        if not isinstance(batch, Iterable):
            raise TypeError(
                f"expected a Message, a DataFrame, a dict of columns or what yields them, got {type(batch).__name__}"
            )
        parts = batches_of(batch, rows_at_once, progress)
        begin = next(parts, None)  # before the transaction, which should not wait for a source
        if begin is None:
            return 0
        self._rows, count = None, 0
        with self._transaction.step(f"inserting into {self._table.name!r}") as connection:
            for first, part in chain([begin], parts):
                try:
                    columns = self._encoded(part, connection.dialect)
                    self._real.check(connection, columns, adds_rows=True)
                    what = f"inserting {len(part)} rows into {self._table.name!r}"
                    naming_row(connection, self._insert, columns, what)
                except CellError as error:
                    raise CellError(
                        f"in the rows from {first} to {first + len(part) - 1} of the input: {error}"
                    ) from error
                count += len(part)
        return count

    def _insert(self, connection: sa.Connection, columns: Columns) -> int:
        insert_rows(connection, self._table, columns)
        return count_rows(columns)

    def update(self, filter_column: str | Sequence[str], batch: Any) -> int:
        """Changes rows: those whose `filter_column` has the value of a row of the batch get its other columns.

        Args:
            filter_column: The column that finds rows, or several.
            batch: A Message, a DataFrame or a dict of columns; each value of `filter_column` once.

        Returns:
            How many rows of the table were found.

        Raises:
            ColumnError: The batch lacks `filter_column`, or has no other; or the table lacks a column of it.
            CellError: A value cannot be held, a row has no value to find rows by, or the same as another row.
        """
        keys = [filter_column] if isinstance(filter_column, str) else list(filter_column)

        def write(connection: sa.Connection, columns: Columns) -> int:
            return update_rows(connection, self._table, keys, columns)

        def check(columns: Columns) -> None:
            absent = [name for name in keys if name not in columns]
            if absent or not keys:
                raise ColumnError(
                    f"an update finds rows by columns of the batch: {ColumnError.unknown(absent, columns)}"
                )
            if len(columns) == len(keys):
                raise ColumnError(f"the batch has no column to update, only {', '.join(keys)}, which finds the rows")
            check_keys(columns, keys, "an update")

        return self._write("updating {table} by {rows} rows", batch, write, check, keys, adds_rows=False)

    def upsert(self, batch: Any, key: str | Sequence[str] | None = None) -> int:
        """Adds the rows whose key is new, and changes those whose key is in the table: their columns that are given.

        Args:
            batch: A Message, a DataFrame or a dict of columns; each key once.
            key: The column or columns of the primary key or of a unique constraint; by default the primary key, or the
                only unique constraint whose columns are in the batch.

        Returns:
            How many rows the batch has.

        Raises:
            ValueError: The batch has no key of the table, or several; or `key` is none.
            ColumnError: The table lacks a column of the batch, or the batch one of `key`.
            CellError: A value cannot be held, or a row has no key, or that of another row.
        """
        chosen: list[str] = []

        def write(connection: sa.Connection, columns: Columns) -> int:
            upsert_rows(connection, self._table, chosen, columns)
            return count_rows(columns)

        def check(columns: Columns) -> None:
            chosen[:] = key_of(self._table, list(columns), key)
            check_keys(columns, chosen, "an upsert")

        keys = [key] if isinstance(key, str) else list(key or self._table.primary_key.columns.keys())
        return self._write("upserting {rows} rows into {table}", batch, write, check, keys)

    def delete(self, column_name: str, values: Any) -> int:
        """Deletes the rows that have one of the values in a column.

        Args:
            column_name: The column to look at.
            values: A value, or many; None deletes the rows that have none.

        Returns:
            How many rows were deleted.

        Raises:
            ColumnError: The table has no such column.
            CellError: The column could not even hold a value.
        """
        many = [values] if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) else list(values)
        self._rows = None
        what = f"deleting from {self._table.name!r} by {column_name!r}"
        dialect = self.engine.dialect
        batch = message_of({column_name: many})
        wanted = encode(batch, self._table, [column_name], dialect, required=False)[column_name]
        with self._transaction.step(what) as connection:
            self._real.check(connection, {column_name: wanted})
            return delete_rows(connection, self._table, column_name, wanted)

    def _write(
        self,
        what: str,
        batch: Any,
        write: Callable[[sa.Connection, Columns], int],
        check: Callable[[Columns], None] = lambda columns: None,
        keys: Sequence[str] = (),
        adds_rows: bool = True,
    ) -> int:
        """Encodes and checks a batch, and writes it in one step."""
        columns = self._encoded(batch, self.engine.dialect, keys)
        check(columns)
        rows = count_rows(columns)
        what = what.format(rows=rows, table=repr(self._table.name))
        if not rows:
            return 0
        self._rows = None
        with self._transaction.step(what) as connection:
            self._real.check(connection, columns, adds_rows)
            return int(naming_row(connection, write, columns, what))

    def _encoded(self, batch: Any, dialect: sa.Dialect, keys: Sequence[str] = ()) -> Columns:
        message = batch if isinstance(batch, Message) else message_of(batch)
        names = None
        if self._chosen is not None:
            names = [name for name in message.columns if name in self._chosen or name in keys]
        computed = [
            c.key for c in self._table.columns if c.computed is not None and c.key in (names or message.columns)
        ]
        if computed:
            raise ColumnError(
                f"{', '.join(map(repr, computed))}: the database computes it, so leave it out of the batch"
            )
        return encode(message, self._table, names, dialect)

    # Rows

    def make_row(self, row: Any) -> Any:
        """A row as an object of the table's class, for a session of SQLAlchemy's ORM.

        Args:
            row: A Message of one row, or a dict of values.

        Raises:
            LengthError: Not one row.
            TypeError: The table has no primary key, which the ORM needs; `make_row_dict` does not.
        """
        values = self.make_row_dict(row)
        class_ = self._mapped_class()
        mapper = class_mapper(class_)
        return class_(**{mapper.get_property_by_column(self._table.columns[n]).key: v for n, v in values.items()})

    def make_row_dict(self, row: Any) -> dict[str, Any]:
        """A row as a dict of plain values, as SQLAlchemy's statements and sessions take it.

        Args:
            row: A Message of one row, or a dict of values.

        Raises:
            LengthError: Not one row.

        Example:
            >>> import numpy as np
            >>> from fireworks.extensions.database import create_table
            >>> fruit = TablePipe(create_table("fruit", {"name": str, "weight": float}), "sqlite://")
            >>> fruit.make_row_dict({"name": ["fig"], "weight": np.float32([0.5])})
            {'name': 'fig', 'weight': 0.5}
        """
        columns = self._encoded(row, self.engine.dialect)
        if count_rows(columns) != 1:
            raise LengthError(f"expected one row, got {count_rows(columns)}; insert() takes many")
        return {name: values[0] for name, values in columns.items()}

    def _mapped_class(self) -> Any:
        if hasattr(self.table, "__table__"):
            return self.table
        if not self._table.primary_key.columns:
            raise TypeError(
                f"table {self._table.name!r} has no primary key, so SQLAlchemy cannot map it to a class; "
                "use make_row_dict"
            )
        if "_class" not in self.__dict__:
            self._class = type(self._table.name, (declarative_base(),), {"__table__": self._table})
        return self._class

    # Reading

    def query(self, entities: Any = None, *args: Any, **kwargs: Any) -> DBPipe:
        """A DBPipe of rows of the table: of all columns, or of those named.

        Args:
            entities: A name of a column, a column, an expression of SQLAlchemy, or a list of these.
            *args: More of them.
            **kwargs: Parts of the select, such as `where`, `order_by` or `limit`.

        Example:
            >>> from fireworks.extensions.database import create_table
            >>> fruit = TablePipe(create_table("fruit", {"name": str, "weight": float}), "sqlite://")
            >>> fruit.insert({"name": ["fig", "pear"], "weight": [0.05, 0.2]})
            2
            >>> fruit.query(["name", "weight"]).filter("weight", "__gt__", 0.1).all().to_dict()
            {'name': ['pear'], 'weight': [0.2]}
        """
        pipe = DBPipe(self._table, self.engine, connection_source=self._open_connection)
        return pipe.reset(entities, *args, **kwargs) if entities is not None or args or kwargs else pipe

    def _open_connection(self) -> sa.Connection | None:
        return self._transaction.connection

    def __iter__(self) -> Iterator[Message]:
        return iter(self.query())

    def __next__(self) -> Message:
        if self._reader is None:
            self._reader = self.query()
        return next(self._reader)

    def __getitem__(self, index: Any) -> Message:
        return self._indexed()[index]

    def __len__(self) -> int:
        return len(self._indexed())

    def _indexed(self) -> DBPipe:
        """Remembers which row has which number until something is written here."""
        if self._rows is None:
            self._rows = self.query()
        return self._rows

    def reset(self) -> TablePipe:
        """Starts over, with the rows that are in the table now."""
        self._reader = self._rows = None
        return self

    def get_state(self) -> State:
        """Where the pipe stands in the table."""
        return super().get_state() if self._reader is None else self._reader.get_state()

    def set_state(self, state: State) -> None:
        """Goes to where a state was taken."""
        self.reset()
        if state["internal"]:
            self._reader = self.query()
            self._reader.set_state(state)

    # Other processes

    def __getstate__(self) -> dict[str, Any]:
        if self._transaction.is_open:
            raise TypeError("a TablePipe with an open transaction cannot be sent to another process; commit first")
        state = {name: value for name, value in self.__dict__.items() if name not in _NOT_SENT}
        return state | {"engine": engine_url(self.engine), "table": self._table}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.engine = as_engine(state["engine"])
        self._transaction = Transaction(self.engine, self.lock_timeout)
        self._real = RealColumns(self._table)
        self._reader = self._rows = None


_NOT_SENT = ("_transaction", "_real", "_reader", "_rows", "_class")


def _with_parents(table: sa.Table) -> list[sa.Table]:
    """The table and those that it refers to, and so on."""
    found = [table]
    for one in found:
        found += [key.column.table for key in one.foreign_keys if key.column.table not in found]
    return list(dict.fromkeys(found))
