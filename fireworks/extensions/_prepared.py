"""Statements compiled once and run on the driver's own cursor, for work that is repeated thousands of times.

`connection.execute(statement)` takes 30 to 50 µs before SQLite sees the text; this takes about 2.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

__all__ = ["Prepared"]


class Prepared:
    """A statement whose parameters are given by keyword; rows come back as the driver gives them.

    For columns whose values need no translation on the way back, such as numbers and text.

    Args:
        statement: What to run, with `sa.bindparam(name)` for each value; without lists for IN.
        dialect: Whose text it becomes.

    Example:
        >>> engine = sa.create_engine("sqlite://")
        >>> a, b = (sa.bindparam(name, type_=sa.Integer) for name in "ab")
        >>> with engine.connect() as connection:
        ...     Prepared(sa.select(a + b), engine.dialect).run(connection, a=2, b=3).fetchone()
        (5,)
        >>> engine.dispose()
    """

    __slots__ = ("_constants", "_dialect", "_order", "_processors", "_statement", "_text")

    def __init__(self, statement: sa.Executable, dialect: sa.Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._text = ""

    def _compile(self) -> None:
        """At the first use, as many a statement that is ready has none."""
        compiled = self._statement.compile(dialect=self._dialect)  # type: ignore[attr-defined]
        state = compiled.construct_expanded_state(dict.fromkeys(compiled.params))
        parameters = {key: parameter for parameter, key in compiled.bind_names.items()}
        self._constants = {key: compiled.params[key] for key, parameter in parameters.items() if not parameter.required}
        types = {key: parameter.type.dialect_impl(self._dialect) for key, parameter in parameters.items()}
        found = {name: kind.bind_processor(self._dialect) for name, kind in types.items()}
        self._processors = [(name, process) for name, process in found.items() if process is not None]
        self._order = state.positiontup  # None for drivers that take values by name
        self._text = state.statement

    def run(self, connection: sa.Connection, **values: Any) -> Any:
        """Run it on an open connection; returns the driver's cursor, which has `rowcount` and rows."""
        if not self._text:
            self._compile()
        for name, process in self._processors:
            if name in values:
                values[name] = process(values[name])
        given = {**self._constants, **values}
        driver: Any = connection.connection.dbapi_connection
        cursor = driver.cursor()
        cursor.execute(self._text, given if self._order is None else [given[name] for name in self._order])
        return cursor
