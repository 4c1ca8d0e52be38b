"""Which row of a batch a database refused: it names the constraint at best, so halves of the batch are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._database.errors import error_class
from fireworks.extensions._database.writing import Columns, count_rows
from fireworks.utils.exceptions import CellError

__all__ = ["find_row", "naming_row"]


def naming_row(
    connection: sa.Connection, write: Callable[[sa.Connection, Columns], Any], columns: Columns, what: str
) -> Any:
    """Writes rows; when the database refuses them, the error names the first row that it does not take.

    Args:
        connection: In a transaction.
        write: Gets the connection and columns of all rows, or of some.
        columns: From `encode`.
        what: What is being done, for the text.

    Returns:
        What `write` gave.

    Raises:
        CellError: The database refuses a value; nothing of the batch was written.
    """
    try:
        with _savepoint(connection):
            return write(connection, columns)
    except Exception as error:
        row = find_row(connection, write, columns, error) if _is_refusal(error, connection) else None
        if row is None:
            raise
        said = ", ".join(f"{name}={values[row]!r:.60}" for name, values in columns.items())
        raise CellError(
            f"while {what}: row {row} ({said:.400}) was refused; the database says {_said(error)!r}. Nothing of the "
            "batch was written"
        ) from error


def find_row(
    connection: sa.Connection, write: Callable[[sa.Connection, Columns], Any], columns: Columns, error: Exception
) -> int | None:
    """The first row that cannot be written after those before it, or None where it is refused for another reason."""
    low, high, last = 0, count_rows(columns), error
    trial = connection.begin_nested()
    try:
        while high - low > 1:
            middle = (low + high) // 2
            refusal = _tried(connection, write, _some(columns, low, middle))
            if refusal is None:
                low = middle
            else:
                high, last = middle, refusal
        last = _tried(connection, write, _some(columns, low, high)) or last
    finally:
        with suppress(Exception):
            trial.rollback()
    # A row may also be refused because those behind it, which it refers to, were left out.
    return low if _constraint(last) == _constraint(error) else None


def _tried(
    connection: sa.Connection, write: Callable[[sa.Connection, Columns], Any], columns: Columns
) -> Exception | None:
    """The refusal, or None when the rows were written."""
    try:
        with _savepoint(connection):
            write(connection, columns)
        return None
    except Exception as error:
        if not _is_refusal(error, connection):
            raise
        return error


@contextmanager
def _savepoint(connection: sa.Connection) -> Iterator[None]:
    """What the block writes is undone when it fails; its own error is raised even if that is impossible."""
    savepoint = connection.begin_nested()
    try:
        yield
        savepoint.commit()
    except BaseException:
        with suppress(Exception):
            savepoint.rollback()
        raise


def _some(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def _is_refusal(error: Exception, connection: sa.Connection) -> bool:
    return isinstance(error, CellError) or error_class(error, connection.dialect) is CellError


def _original(error: BaseException) -> BaseException:
    if isinstance(error, CellError) and error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "orig", None) or error


def _constraint(error: BaseException) -> Any:
    """What the rows offend against, as far as the database says so: not the values, which differ from row to row."""
    original = _original(error)
    diagnostics: Any = getattr(original, "diag", None)
    if diagnostics is not None:
        return original.sqlstate, diagnostics.constraint_name, diagnostics.column_name  # type: ignore[attr-defined]
    return original.args[0] if original.args else type(original)


def _said(error: BaseException) -> str:
    original = _original(error)
    diagnostics: Any = getattr(original, "diag", None)
    if diagnostics is not None:  # without the line of the COPY, which counts from the first row that was tried
        text = " ".join(filter(None, [diagnostics.message_primary, diagnostics.message_detail])) or str(original)
    else:
        text = str(original.args[1] if len(original.args) > 1 else original)
    return " ".join(text.split())
