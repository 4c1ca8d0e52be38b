"""One run as the database has it, and its values by dotted names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fireworks.extensions.hyperspace._store import HEAVY, from_text, runs
from fireworks.extensions.hyperspace.utils import flatten

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping

__all__ = ["Run", "leaves", "runs_of"]


@dataclass(frozen=True)
class Run:
    """One run as the database has it.

    Attributes:
        id: Its number.
        task: The name of its task.
        status: 'waiting', 'paused', 'running', 'completed', 'failed', 'dead' or 'cancelled'.
        config: Its parameters; every default filled in once it was started.
        original_config: What `config` was before something was filled in, or None where nothing was.
        scenario: The scenario and its settings: with every default, once the run was started.
        seed: What the generators were seeded with.
        result: The quality metric, or several by name.
        info: What else the scenario noted.
        attempt: How many workers have had it.
        error: The traceback of a run that failed, or why it is dead.
        created, started, finished: Times, in UTC.
        owner: The worker: host, process.
        rerun_of: The run that it repeats.
    """

    id: int
    task: str
    status: str
    config: dict[str, Any]
    original_config: dict[str, Any] | None
    scenario: dict[str, Any]
    seed: int | None
    result: Any
    info: dict[str, Any]
    attempt: int
    error: str | None
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    owner: str | None
    rerun_of: int | None
    _flat: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, or None while there is no end."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()

    def flat(self) -> dict[str, Any]:
        """Everything that a query can ask for, by dotted names: parameters as they are, `result`, `info.…`, `status`…

        A parameter of the same name as one of these is found as `config.…`.
        """
        if not self._flat:
            self._flat.update(leaves("", self.config))
            for part in ("config", "info", "scenario", "result"):
                self._flat.update(leaves(part, getattr(self, part)))
            for part in ("id", "task", "status", "seed", "attempt", "error", "seconds"):
                self._flat[part] = getattr(self, part)
        return self._flat


def leaves(name: str, value: Any) -> dict[str, Any]:
    """Values by dotted name, below `name`; numbers of numpy and torch as Python's. What collides stays as it is."""
    if not isinstance(value, Mapping) or (name and not value):
        return {name: _leaf(value)}
    try:
        flat = flatten(value)
    except ValueError:  # {"a.b": 1, "a": {"b": 2}}: one such run must not hide all others
        flat = {str(key): item for key, item in value.items()}
    return {f"{name}.{key}" if name else key: _leaf(leaf) for key, leaf in flat.items()}


def _leaf(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 else value


def runs_of(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Run]:
    """The runs that match, by id, over an open connection."""
    light = [column for column in runs.c if column.name not in HEAVY]
    query = sa.select(*light).where(where).order_by(runs.c.id)
    return [_run(row) for row in connection.execute(query).mappings()]


def _run(row: RowMapping) -> Run:
    same = ("id", "task", "status", "seed", "attempt", "error", "owner", "rerun_of")
    before = row["original_config"]
    values: dict[str, Any] = {
        "config": json.loads(row["config"]),
        "original_config": None if before is None else json.loads(before),
        "scenario": json.loads(row["scenario"]),
        "result": from_text(row["result"]),
        "info": from_text(row["info"]) or {},
        **{name: row[name] for name in same},
        **{name: _time(row[name]) for name in ("created", "started", "finished")},
    }
    return Run(**values)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
