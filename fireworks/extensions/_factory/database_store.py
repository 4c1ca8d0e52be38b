"""Checkpoints and reported values of trials in the database of their search."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._claims import Claim, Claims
from fireworks.extensions._factory.tables import search_tables

__all__ = ["DatabaseStore"]

_PART = 4 * 2**20


class DatabaseStore:
    """What trials keep while they run, in tables; picklable, with a connection of its own in each process.

    Args:
        url: The database, with the password.
        name: The name of the search.
        owner: Whose trials these are; who lost a trial saves no checkpoint for it any more.
        lease: How long a claim lasts, which saving a checkpoint extends.
        engine: The engine that this process has for the database; others make one from the URL.
    """

    def __init__(self, url: str, name: str, owner: str, lease: timedelta, engine: sa.Engine | None = None) -> None:
        self.url, self.name, self.owner, self.lease, self._engine = url, name, owner, lease, engine
        self._lock = threading.Lock()
        self._claims: Claims | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "name": self.name, "owner": self.owner, "lease": self.lease}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _opened(self) -> Claims:
        with self._lock:
            if self._claims is None:
                self.tables = search_tables(self.name)
                engine = self._engine or sa.create_engine(self.url)
                self._claims = Claims(engine, self.tables.trials, lease=self.lease, busy_seconds=math.inf)
            return self._claims

    def save(self, trial_id: int, attempt: int, data: bytes) -> None:
        """Keep this checkpoint instead of the one before."""
        claims = self._opened()
        table = self.tables.checkpoints
        parts = [
            {"trial": trial_id, "part": part, "data": data[start : start + _PART]}
            for part, start in enumerate(range(0, len(data), _PART))
        ]
        with claims.transaction() as connection:
            claims.extend(Claim(trial_id, self.owner, attempt, {}), connection=connection)
            connection.execute(table.delete().where(table.c.trial == trial_id))
            for part in parts:  # one at a time: together they may be more than MariaDB takes
                connection.execute(table.insert(), [part])

    def load(self, trial_id: int) -> bytes | None:
        """The last checkpoint, whichever attempt saved it."""
        claims = self._opened()
        table = self.tables.checkpoints
        query = sa.select(table.c.data).where(table.c.trial == trial_id).order_by(table.c.part)
        with claims.transaction() as connection:
            parts = connection.execute(query).scalars().all()
        return b"".join(parts) if parts else None

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Keep a value."""
        claims = self._opened()
        table = self.tables.reports
        with claims.transaction() as connection:
            connection.execute(table.delete().where(table.c.trial == trial_id, table.c.step == step))
            connection.execute(table.insert().values(trial=trial_id, step=step, value=repr(float(value))))

    def reported(self) -> Mapping[int, Mapping[int, float]]:
        """The values of all trials that did not fail: id → step → value."""
        claims = self._opened()
        reports, trials = self.tables.reports, self.tables.trials
        useful = trials.c.status.not_in(["failed", "dead", "cancelled"])
        query = sa.select(reports).join(trials, trials.c.id == reports.c.trial).where(useful)
        return self._read(claims, query)

    def of(self, trial_id: int) -> dict[int, float]:
        """The values of one trial."""
        claims = self._opened()
        reports = self.tables.reports
        return self._read(claims, sa.select(reports).where(reports.c.trial == trial_id)).get(trial_id, {})

    def _read(self, claims: Claims, query: Any) -> dict[int, dict[int, float]]:
        found: dict[int, dict[int, float]] = defaultdict(dict)
        with claims.transaction() as connection:
            for trial, step, value in connection.execute(query.order_by(self.tables.reports.c.step)):
                found[trial][step] = math.nan if value == "nan" else float(value)
        return dict(found)

    def forget(self, trial_id: int, keep_values: bool) -> None:
        """Remove the checkpoint of a trial that ended; values of failed trials are not read any more."""
        claims = self._opened()
        table = self.tables.checkpoints
        with claims.transaction() as connection:
            connection.execute(table.delete().where(table.c.trial == trial_id))

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            if self._claims is not None:
                self._claims.close()
                if self._engine is None:
                    self._claims.engine.dispose()
                self._claims = None
