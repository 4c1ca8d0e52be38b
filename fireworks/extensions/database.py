"""Databases as pipes: tables that messages are written to, queries that messages are read from.

`create_table` describes a table, `reflect_table` finds one that is there; `propose_columns` reads the description off a
message. Every engine of SQLAlchemy is meant; SQLite, PostgreSQL and MariaDB are tested. A value that a column cannot
hold on an engine is an error before anything is written, and never another value.
"""

from fireworks.extensions._database.queries import DBPipe
from fireworks.extensions._database.schema import (
    create_table,
    parse_columns,
    parse_columns_and_types,
    propose_columns,
    reflect_table,
)
from fireworks.extensions._database.tables import TablePipe
from fireworks.extensions._database.types import TensorType
from fireworks.extensions._database.values import cast, convert, to_message

__all__ = [
    "DBPipe",
    "TablePipe",
    "TensorType",
    "cast",
    "convert",
    "create_table",
    "parse_columns",
    "parse_columns_and_types",
    "propose_columns",
    "reflect_table",
    "to_message",
]
