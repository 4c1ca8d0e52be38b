"""A queue of runs in a SQL database: notebooks submit, workers claim, results stay.

What is promised, on SQLite, PostgreSQL and MariaDB:

- A waiting run is claimed by exactly one worker: the highest priority first, among equals the oldest.
- A claim is a lease, by the clock of the database, which its worker renews. A worker that is killed, or loses the
  network, stops renewing; when the lease is over the run waits again, and goes on from its last checkpoint.
- A worker that was replaced writes nothing any more: no metric, no output, no result.
- After `max_attempts` lost workers a run is dead. It is kept, and so is a failed one, with the traceback.
- What a run stored is never dropped. Only a run that nobody has started yet can be removed.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._claims import Claim, Claims, database_time, owner_name
from fireworks.extensions._database.errors import translated
from fireworks.extensions.hyperspace._store import (
    ENDED,
    STATUSES,
    checked_config,
    config_text,
    open_store,
    runs,
    store_url,
)
from fireworks.extensions.hyperspace.configurables import CLASS_NAME, factories, fill_in_defaults, update_config
from fireworks.extensions.hyperspace.tasks import TaskFile, load_task, load_tasks
from fireworks.utils.exceptions import ConfigError

__all__ = ["RunQueue"]


class RunQueue:
    """The runs of one study that wait, are running, or have ended.

    Args:
        url: The database, as SQLAlchemy writes it; None for a SQLite file named after the study, beside the tasks.
            On SQLite all workers run on one host; several hosts need a server.
        study: The project's name. Several studies may share a database; each sees its own runs only.
        tasks_dir: The folder of the task files.
        lease: How long a worker may be silent before its run is given to another.
        max_attempts: How many workers a run may lose before it is dead.

    Raises:
        NotADirectoryError: There is no such folder of tasks.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> import json, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "tasks")
        >>> folder.mkdir()
        >>> _ = (folder / "imdb.json").write_text(json.dumps({"Scenario": {"className": "Classification"}}))
        >>> queue = RunQueue(None, "reviews", folder)
        >>> queue.available_tasks()
        ['imdb']
        >>> queue.submit_grid("imdb", {"classifier": {"drop": 0.5}}, {"classifier.layers": [1, 2], "rate": [0.1]})
        [1, 2]
        >>> queue.counts()["waiting"]
        2
        >>> queue.close()
    """

    def __init__(
        self,
        url: str | sa.URL | None,
        study: str,
        tasks_dir: str | Path,
        *,
        lease: timedelta = timedelta(seconds=60),
        max_attempts: int = 3,
    ) -> None:
        if not isinstance(study, str) or not 0 < len(study) <= 150:
            raise ValueError(f"expected the name of a study, 1 to 150 characters, got {study!r:.80}")
        self.study, self.tasks_dir = study, Path(tasks_dir)
        load_tasks(self.tasks_dir)  # a folder that is not there, or a broken file, is told now
        self.url = store_url(url, study, tasks_dir)
        self.engine = open_store(self.url)
        self.claims = Claims(self.engine, runs, lease=lease, max_attempts=max_attempts)

    def available_tasks(self) -> list[str]:
        """The names of the tasks that can be submitted."""
        return list(load_tasks(self.tasks_dir))

    # --- submitting --------------------------------------------------------------------------------------------------

    def submit(
        self,
        task_name: str,
        params: Mapping[str, Any] | None = None,
        priority: int = 0,
        *,
        seed: int | None = None,
        rerun_of: int | None = None,
        scenario: Mapping[str, Any] | None = None,
        connection: sa.Connection | None = None,
    ) -> int:
        """Add a run to the queue.

        Args:
            task_name: The name of a task file, without `.json`.
            params: The configuration of this run; what is left out gets its default when the run starts.
            priority: Higher ones go first.
            seed: For this run; the task's by default.
            rerun_of: The run that this one repeats with changes.
            scenario: The scenario and its settings; those of the task's file by default.
            connection: That of an open transaction (`queue.claims.transaction()`), to take part in it.

        Returns:
            The id of the run.

        Raises:
            FileNotFoundError: There is no such task; the text names those there are.
            ConfigError: The configuration is nothing that JSON holds, or names classes or parameters that do not exist
                (where the scenario's code is imported here; else the worker finds out).
        """
        (number,) = self._add(
            task_name, [{} if params is None else params], priority, seed, rerun_of, scenario, connection
        )
        return number

    def submit_many(self, task_name: str, params: Iterable[Mapping[str, Any]], priority: int = 0) -> list[int]:
        """Add a run for each configuration: all of them, or none when one is wrong. Returns their ids."""
        return self._add(task_name, list(params), priority, None, None)

    def submit_grid(
        self,
        task_name: str,
        params: Mapping[str, Any],
        grid: Mapping[str, Sequence[Any]],
        priority: int = 0,
    ) -> list[int]:
        """Add a run for each combination of values.

        Args:
            task_name: The name of a task.
            params: What all runs have in common.
            grid: Dotted key → its values, as in `{"classifier.drop": [0.1, 0.5]}`; the last key changes fastest.
            priority: Higher ones go first.

        Returns:
            The ids, in the order of the combinations.

        Raises:
            ConfigError: A key has no values, or leads through something that is no dict.
        """
        empty = [key for key, values in grid.items() if not isinstance(values, Sequence) or isinstance(values, str)]
        empty += [key for key, values in grid.items() if key not in empty and not len(values)]
        if empty:
            raise ConfigError(f"expected a list of one or more values for {', '.join(map(repr, empty))}")
        combinations = itertools.product(*grid.values())
        configs = [with_values(params, dict(zip(grid, values, strict=True))) for values in combinations]
        return self._add(task_name, configs, priority, None, None)

    def _add(
        self,
        task_name: str,
        configs: Sequence[Mapping[str, Any]],
        priority: int,
        seed: int | None,
        rerun_of: int | None,
        scenario: Mapping[str, Any] | None = None,
        connection: sa.Connection | None = None,
    ) -> list[int]:
        task = load_task(self.tasks_dir / f"{task_name}.json")
        if scenario is not None:
            task = replace(task, scenario=checked_config(scenario, f"the scenario of a run of {task_name!r}"))
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(f"expected an integer as priority, got {priority!r:.60}")
        checked = [_checked(task, config) for config in configs]
        common = {
            "study": self.study,
            "task": task_name,
            "scenario": config_text(task.scenario),
            "seed": task.seed if seed is None else seed,
            "priority": priority,
            "rerun_of": rerun_of,
            "created": database_time(self.engine.dialect),
        }
        with self.claims.transaction(connection) as opened:
            results = [opened.execute(runs.insert().values(config=text, **common)) for text in checked]
            return [int(result.inserted_primary_key[0]) for result in results]  # type: ignore[index]

    # --- claiming ----------------------------------------------------------------------------------------------------

    def fetch_one(self, owner: str | None = None, task_name: str | None = None) -> Claim | None:
        """Claim the next run, as a worker does; None when none is waiting.

        Whoever calls this has to extend, finish, fail or release the claim through `queue.claims`.

        Args:
            owner: A name that no other worker has; made from host and process by default.
            task_name: Only runs of this task.
        """
        where = runs.c.study == self.study
        if task_name is not None:
            where = sa.and_(where, runs.c.task == task_name)
        return self.claims.claim(owner or owner_name(), where)

    # --- looking, stopping, starting again ---------------------------------------------------------------------------

    def counts(self, task_name: str | None = None) -> dict[str, int]:
        """How many runs there are of each status: every status, those without runs too."""
        query = (
            sa.select(runs.c.status, sa.func.count().label("count"))
            .where(runs.c.study == self.study)
            .group_by(runs.c.status)
        )
        if task_name is not None:
            query = query.where(runs.c.task == task_name)
        with translated(self.engine, "counting runs"), self.engine.connect() as connection:
            found = {row.status: row[1] for row in connection.execute(query)}
        return {status: found.get(status, 0) for status in STATUSES}

    def status(self, run_id: int) -> str:
        """The status of one run.

        Raises:
            KeyError: The study has no such run.
        """
        query = sa.select(runs.c.status).where(runs.c.study == self.study, runs.c.id == run_id)
        with translated(self.engine, "looking for a run"), self.engine.connect() as connection:
            found = connection.execute(query).scalar()
        if found is None:
            raise KeyError(f"study {self.study!r} has no run {run_id!r}")
        return str(found)

    def wait(self, run_ids: Iterable[int] | None = None, *, poll_seconds: float = 1.0) -> dict[int, str]:
        """Wait until runs have ended, whatever became of them; a paused one is waited for too. Interrupt as you like.

        Args:
            run_ids: The runs; every one of the study by default.
            poll_seconds: The time between two looks.

        Returns:
            Their statuses by id.

        Raises:
            KeyError: The study has no such run.
        """
        wanted = None if run_ids is None else list(run_ids)
        while True:
            query = sa.select(runs.c.id, runs.c.status).where(runs.c.study == self.study).order_by(runs.c.id)
            with translated(self.engine, "waiting for runs"), self.engine.connect() as connection:
                found = {row.id: row.status for row in connection.execute(query)}
            missing = [number for number in wanted or () if number not in found]
            if missing:
                raise KeyError(f"study {self.study!r} has no run {missing[0]!r}")
            statuses = found if wanted is None else {number: found[number] for number in wanted}
            if all(status in ENDED for status in statuses.values()):
                return statuses
            time.sleep(poll_seconds)

    def remove(self, run_id: int) -> None:
        """Take a run off the queue that nobody has started.

        Raises:
            KeyError: The study has no such run.
            ValueError: Somebody has started it. What a run stored is kept; `cancel` stops one.
        """
        never_started = runs.c.status.in_(["waiting", "paused"]) & (runs.c.attempt == 0)
        self._change(run_id, runs.delete().where(never_started), "removed; `cancel` stops it and keeps what it stored")

    def cancel(self, run_id: int) -> None:
        """Stop a run: one that waits is not started, one that is running is ended by its worker at the next heartbeat.

        Raises:
            KeyError: The study has no such run.
            ValueError: It has ended already.
        """
        going = runs.c.status.in_(["waiting", "paused", "running"])
        values = {"status": "cancelled", "finished": database_time(self.engine.dialect), "lease_until": None}
        self._change(run_id, runs.update().where(going).values(**values), "cancelled")

    def requeue(self, run_id: int) -> None:
        """Let a run that failed, died or was cancelled wait again; it continues from its last checkpoint.

        Raises:
            KeyError: The study has no such run.
            ValueError: It is waiting, running or completed; `Study.rerun` repeats a completed one as a new run.
        """
        ended = runs.c.status.in_(["failed", "dead", "cancelled"])
        values = {"status": "waiting", "finished": None, "lease_until": None, "owner": None, "losses": 0}
        remedy = "queued again; `Study.rerun` repeats a completed run as a new one"
        self._change(run_id, runs.update().where(ended).values(**values), remedy)

    def pause_all(self) -> int:
        """Keep waiting runs from being started; returns how many. Runs under way go on."""
        return self._change_all("waiting", "paused")

    def resume_all(self) -> int:
        """Let paused runs wait again; returns how many."""
        return self._change_all("paused", "waiting")

    def _change_all(self, old: str, new: str) -> int:
        query = runs.update().where(runs.c.study == self.study, runs.c.status == old).values(status=new)
        with self.claims.transaction() as connection:
            return int(connection.execute(query).rowcount)

    def _change(self, run_id: int, statement: Any, what: str) -> None:
        with self.claims.transaction() as connection:
            statement = statement.where(runs.c.study == self.study, runs.c.id == run_id)
            if connection.execute(statement).rowcount == 1:
                return
        raise ValueError(f"run {run_id} is {self.status(run_id)} and cannot be {what}")

    def close(self) -> None:
        """Close the connections to the database."""
        self.claims.close()
        self.engine.dispose()

    def __repr__(self) -> str:
        shown = ", ".join(f"{count} {status}" for status, count in self.counts().items() if count) or "empty"
        return f"RunQueue(study={self.study!r}, url={self.url.render_as_string()!r}: {shown})"


def with_values(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the parameters with values at dotted keys.

    Raises:
        ConfigError: A key leads through something that is no dict.

    Example:
        >>> with_values({"model": {"size": 1}}, {"model.rate": 0.1, "seed": 2})
        {'model': {'size': 1, 'rate': 0.1}, 'seed': 2}
    """
    config = update_config({}, params)
    for key, value in values.items():
        *path, last = key.split(".")
        place: Any = config
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(
                    f"{key!r} leads through {part!r}, which is {type(place).__name__} {place!r:.60}, not a dict"
                )
        place[last] = copy.deepcopy(value)
    return config


def _checked(task: TaskFile, config: Mapping[str, Any]) -> str:
    """The configuration as text, checked as far as the code that is imported here allows."""
    checked = checked_config(config, f"the configuration of a run of {task.name!r}")
    registry = factories.get("Scenario")
    if registry is not None and task.scenario[CLASS_NAME] in registry.subclass_registry:
        fill_in_defaults(task.scenario, "Scenario")
        fill_in_defaults(checked)
    return config_text(checked)
