"""Results that given tables hold already, from before there was a table of trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import sqlalchemy as sa

from fireworks.core.message import Message
from fireworks.extensions._claims import database_time
from fireworks.extensions._factory.columns import plain_row
from fireworks.extensions._factory.tables import ResultTable
from fireworks.extensions._factory.texts import metrics_to_json, row_to_json

__all__ = ["adopt"]


def adopt(connection: sa.Connection, trials: sa.Table, params: ResultTable, metrics: Mapping[str, ResultTable]) -> None:
    """Enters the rows of given tables as completed trials, unless there are trials already.

    Args:
        connection: An open transaction, in which nobody else proposes.
        trials: The table of trials.
        params: The table of parameters.
        metrics: Those of metrics by name.
    """
    if connection.execute(sa.select(trials.c.id).limit(1)).first() is not None:
        return
    results = {name: _by_id(table.read(connection, Message())) for name, table in metrics.items() if table.is_given}
    now = database_time(connection.dialect)
    common = {"status": "completed", "priority": 0, "attempt": 1, "losses": 0, "form": "dict"}
    insert = trials.insert().values(**common, created=now, finished=now)
    rows, last = [], 0
    for number, row in _by_id(params.read(connection, Message())).items():
        found = {name: by_id[number] for name, by_id in results.items() if number in by_id}
        last = max(last, number)
        rows.append({"id": number, "params": row_to_json(row), "metrics": metrics_to_json(found)})
    for values in rows:
        connection.execute(insert.values(**values))
    if rows and connection.dialect.name == "postgresql":  # whose sequence does not see ids that are given
        sequence = sa.func.pg_get_serial_sequence(trials.name, "id")
        connection.execute(sa.select(sa.func.setval(sequence, last)))


def _by_id(message: Message) -> dict[int, dict[str, Any]]:
    """Each row by its id, without what is missing in it."""
    found = {}
    for position in range(len(message)):
        row = plain_row(message[position], "a row")
        number = int(row.pop("id"))
        found[number] = {n: v for n, v in row.items() if not (pd.api.types.is_scalar(v) and pd.isna(v))}
    return found
