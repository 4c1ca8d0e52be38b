"""Past runs of a study: found by their parameters, compared as a table, repeated with changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from fireworks.core._encoding import state_from_bytes
from fireworks.core.message import Message
from fireworks.extensions._claims import Claims
from fireworks.extensions._database.errors import translated
from fireworks.extensions.hyperspace._queries import MISSING, check_names, comparison, in_order
from fireworks.extensions.hyperspace._records import Run, leaves, runs_of
from fireworks.extensions.hyperspace._store import (
    HEAVY,
    STATUSES,
    artefacts,
    as_value,
    checkpoints,
    config_text,
    from_text,
    open_store,
    output,
    points,
    runs,
    store_url,
    to_text,
)
from fireworks.extensions.hyperspace.configurables import fill_in_defaults, update_config
from fireworks.extensions.hyperspace.queue import RunQueue, with_values
from fireworks.extensions.hyperspace.utils import drop_constant_columns, flatten, lists_to_tuples, unique_suffixes
from fireworks.utils.exceptions import ConfigError, did_you_mean

__all__ = ["Run", "Study", "Task", "results_comparison"]


class Study:
    """All runs of one study.

    Args:
        study: Its name.
        url: The database; None for the SQLite file `STUDY.sqlite` beside `tasks_dir`, or in the current folder.
        tasks_dir: The folder of the tasks; `rerun` needs it.

    Raises:
        FileNotFoundError: The SQLite file is not there.
        DatabaseConnectionError: The database cannot be reached.
    """

    def __init__(self, study: str, url: str | sa.URL | None = None, tasks_dir: str | Path | None = None) -> None:
        self.study, self.tasks_dir = study, None if tasks_dir is None else Path(tasks_dir)
        self.url = store_url(url, study, tasks_dir)
        file = self.url.database
        if self.url.get_backend_name() == "sqlite" and file and not Path(file).is_file():
            raise FileNotFoundError(
                f"no database {file}; a RunQueue makes it. Or give the url= that the queue was given"
            )
        self.engine = open_store(self.url)

    # --- tasks and single runs ---------------------------------------------------------------------------------------

    def get_task_names(self) -> list[str]:
        """The tasks that have runs, in alphabetical order."""
        query = sa.select(runs.c.task).where(runs.c.study == self.study).distinct()
        return sorted(row.task for row in self._rows(query, "listing tasks"))

    def get_task(self, name: str) -> Task:
        """The runs of one task.

        Raises:
            KeyError: It has no runs; the text names the tasks that have.
        """
        known = self.get_task_names()
        if name not in known:
            raise KeyError(
                f"no runs of a task {name!r}{did_you_mean(name, known)}; there are: {', '.join(known) or 'none'}"
            )
        return Task(self, name)

    def get_run(self, run_id: int) -> Run:
        """One run.

        Raises:
            KeyError: The study has no such run.
        """
        found = self._runs(runs.c.id == run_id)
        if not found:
            raise KeyError(f"study {self.study!r} has no run {run_id!r}")
        return found[0]

    def get_params(self, run_id: int) -> dict[str, Any]:
        """The configuration of a run: with every default, once it was started."""
        return self.get_run(run_id).config

    def get_environment(self, run_id: int) -> dict[str, Any]:
        """What a run ran with: code, command, host; `packages` as pip reads them, `changes` as git shows them."""
        query = sa.select(*(runs.c[name] for name in HEAVY)).where(runs.c.study == self.study, runs.c.id == run_id)
        self.get_run(run_id)
        (row,) = self._rows(query, f"reading run {run_id}")
        changes = (row.changes or b"").decode("utf-8", errors="replace")
        return {**(from_text(row.environment) or {}), "packages": row.packages, "changes": changes}

    def get_output(self, run_id: int) -> str:
        """What a run has printed so far, every attempt in turn."""
        self.get_run(run_id)
        query = sa.select(output.c.text).where(output.c.run == run_id).order_by(output.c.id)
        return "".join(row.text for row in self._rows(query, f"reading the output of run {run_id}"))

    def get_artefacts(self, run_id: int) -> dict[str, Any]:
        """What a run kept, by name: bytes of files, text, Messages and plain values."""
        self.get_run(run_id)
        query = sa.select(artefacts).where(artefacts.c.run == run_id).order_by(artefacts.c.name)
        return {row.name: _artefact(row.kind, row.content) for row in self._rows(query, f"reading run {run_id}")}

    def get_checkpoint(self, run_id: int) -> Any:
        """The last state that a run kept, or None."""
        self.get_run(run_id)
        found = self._rows(sa.select(checkpoints.c.state).where(checkpoints.c.run == run_id), f"reading run {run_id}")
        return state_from_bytes(found[0].state)["state"] if found else None

    def metrics_for_run(self, run_id: int) -> Message:
        """What a run logged: columns `name`, `step`, `value`, by name and step.

        Where a run went on from a checkpoint, the later attempt's value of a step counts.
        """
        self.get_run(run_id)
        query = sa.select(points).where(points.c.run == run_id).order_by(points.c.id)
        rows = self._rows(query, f"reading the metrics of run {run_id}")
        latest = {(row.name, row.step): as_value(row.value, row.special) for row in rows}
        ordered = sorted(latest)
        return Message(
            {
                "name": [name for name, _ in ordered],
                "step": [step for _, step in ordered],
                "value": [latest[key] for key in ordered],
            }
        )

    # --- many runs ---------------------------------------------------------------------------------------------------

    def fetch_results(
        self,
        query: Mapping[str, Any] | None = None,
        order: str | Sequence[str] | None = None,
        limit: int | None = None,
        *,
        task: str | None = None,
    ) -> list[Run]:
        """Completed runs that match.

        Args:
            query: Dotted name → value, or (comparison, value): `{"classifier.drop": 0.5, "result": (">", 0.9)}`, with
                ==, !=, <, <=, >, >= and in. Nested dicts do as well. Names are those of `Run.flat`. With a `status` in
                it, runs of that status.
            order: A dotted name, or several; with a minus before it from the greatest to the least. By id otherwise.
                Runs without a value come last.
            limit: At most so many.
            task: Only runs of this task.

        Raises:
            ValueError: A comparison is unknown, or the limit is negative.
            KeyError: No run at all has a name of the query; the text gives the nearest that is there.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"expected a limit from 0 up, or None for all runs, got {limit}")
        query = flatten(query or {})
        tests = {name: comparison(name, wanted) for name, wanted in query.items()}
        wanted = sa.true() if "status" in query else runs.c.status == "completed"
        candidates = self._runs(wanted if task is None else sa.and_(wanted, runs.c.task == task))
        by = [order] if isinstance(order, str) else list(order or [])
        check_names([*query, *(name.removeprefix("-") for name in by)], candidates)
        found = [run for run in candidates if all(test(run.flat().get(name, MISSING)) for name, test in tests.items())]
        for name in reversed(by):
            found = in_order(found, name.removeprefix("-"), name.startswith("-"))
        return found[:limit]

    def find_runs(self, query: Mapping[str, Any] | None = None, **options: Any) -> list[int]:
        """The ids of the runs that `fetch_results` finds."""
        return [run.id for run in self.fetch_results(query, **options)]

    def results_comparison(self, results: Sequence[Run] | None = None, hide_const_cols: bool = True) -> pd.DataFrame:
        """Runs side by side: see the function of this name."""
        return results_comparison(self.fetch_results() if results is None else results, hide_const_cols)

    def diff(self, first: int, second: int) -> pd.DataFrame:
        """Where two runs differ: a row for each dotted name, a column for each run; None for what one of them lacks."""
        sides = {number: _comparable(self.get_run(number)) for number in (first, second)}
        names = [name for name in {**sides[first], **sides[second]} if _differ(sides[first], sides[second], name)]
        return pd.DataFrame(
            {
                number: pd.Series([side.get(name) for name in names], names, dtype=object)
                for number, side in sides.items()
            },
            index=pd.Index(names, name="name", dtype=object),
        )

    # --- repeating and completing ------------------------------------------------------------------------------------

    def rerun(self, run_id: int, changes: Mapping[str, Any] | None = None, /, **more: Any) -> int:
        """Queue a run again with some parameters changed, in the scenario and with the seed that it had.

        Args:
            run_id: The run to repeat.
            changes: Dotted names (`{"classifier.drop": 0.1}`) or nested dicts, as `update_config` takes them.
            **more: The same, for names without dots.

        Returns:
            The id of the new run.

        Raises:
            KeyError: The study has no such run.
            ValueError: The study was opened without `tasks_dir`.
        """
        if self.tasks_dir is None:
            raise ValueError("expected a study with a folder of tasks; open it as Study(study, url, tasks_dir)")
        run = self.get_run(run_id)
        config = update_config(run.config, with_values({}, {**(changes or {}), **more}))
        queue = RunQueue(self.url, self.study, self.tasks_dir)
        try:
            return queue.submit(run.task, config, seed=run.seed, rerun_of=run_id, scenario=run.scenario)
        finally:
            queue.close()

    def backfill_defaults(self, task: str | None = None) -> int:
        """Write defaults that were added to the code since into the configurations of old runs.

        The configuration that a run had is kept in `original_config`. Runs that are waiting get theirs when they start,
        and a run under way is left alone. Import the scenarios first.

        Args:
            task: Only runs of this task.

        Returns:
            How many runs changed.

        Raises:
            ConfigError: A stored configuration names a class that the code no longer has; nothing was changed.
        """
        ended = runs.c.status.in_(["completed", "failed", "dead", "cancelled"])
        old = self._runs(ended if task is None else sa.and_(ended, runs.c.task == task))
        filled = {}
        for run in old:
            try:
                filled[run.id] = fill_in_defaults(run.config)
            except ConfigError as error:
                raise ConfigError(f"run {run.id} cannot be filled in, and nothing was changed: {error}") from error
        changed = [run for run in old if filled[run.id] != run.config]
        claims = Claims(self.engine, runs)
        try:
            with claims.transaction() as connection:
                for run in changed:
                    before = run.config if run.original_config is None else run.original_config
                    values = {"config": config_text(filled[run.id]), "original_config": config_text(before)}
                    connection.execute(runs.update().where(runs.c.id == run.id).values(**values))
        finally:
            claims.close()
        return len(changed)

    def counts(self) -> pd.DataFrame:
        """How many runs of each status every task has: a row for each task."""
        query = sa.select(runs.c.task, runs.c.status, sa.func.count().label("runs")).where(runs.c.study == self.study)
        rows = self._rows(query.group_by(runs.c.task, runs.c.status), "counting runs")
        table = pd.DataFrame(0, index=pd.Index(sorted({row.task for row in rows}), name="task"), columns=list(STATUSES))
        for row in rows:
            table.loc[row.task, row.status] = row.runs
        return table

    def close(self) -> None:
        """Close the connections to the database."""
        self.engine.dispose()

    def _runs(self, where: sa.ColumnElement[bool]) -> list[Run]:
        with translated(self.engine, "reading runs"), self.engine.connect() as connection:
            return runs_of(connection, sa.and_(runs.c.study == self.study, where))

    def _rows(self, query: sa.Select[Any], what: str) -> Sequence[Any]:
        with translated(self.engine, what), self.engine.connect() as connection:
            return connection.execute(query).all()


class Task:
    """The runs of one task of a study.

    Args:
        study: The study.
        name: The name of the task.
    """

    def __init__(self, study: Study, name: str) -> None:
        self.study, self.name = study, name

    def fetch_results(
        self,
        query: Mapping[str, Any] | None = None,
        order: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[Run]:
        """Completed runs of this task that match, as `Study.fetch_results` finds them."""
        return self.study.fetch_results(query, order, limit, task=self.name)

    def find_runs(self, query: Mapping[str, Any] | None = None, **options: Any) -> list[int]:
        """The ids of these runs."""
        return [run.id for run in self.fetch_results(query, **options)]

    def results_comparison(self, results: Sequence[Run] | None = None, hide_const_cols: bool = True) -> pd.DataFrame:
        """Runs side by side; all completed ones of this task by default."""
        return results_comparison(self.fetch_results() if results is None else results, hide_const_cols)

    def get_run(self, run_id: int) -> Run:
        """One run of this task.

        Raises:
            KeyError: The task has no such run.
        """
        run = self.study.get_run(run_id)
        if run.task != self.name:
            raise KeyError(f"run {run_id} belongs to the task {run.task!r}, not to {self.name!r}")
        return run

    def get_params(self, run_id: int) -> dict[str, Any]:
        """The configuration of one run of this task."""
        return self.get_run(run_id).config

    def metrics_for_run(self, run_id: int) -> Message:
        """What one run of this task logged."""
        self.get_run(run_id)
        return self.study.metrics_for_run(run_id)

    def __repr__(self) -> str:
        return f"Task({self.name!r} of {self.study.study!r})"


def results_comparison(results: Sequence[Run], hide_const_cols: bool = True) -> pd.DataFrame:
    """Runs side by side: a row for each by id, columns of parameters and results under their shortest unique names.

    Args:
        results: The runs.
        hide_const_cols: Leave out what is the same for all of them.

    Returns:
        A frame with the index `id`. Lists are tuples in it, so that rows can be grouped. Results come last.
    """
    rows = []
    for run in results:
        given = {f"config.{name}" if _is_result(name) else name: leaf for name, leaf in leaves("", run.config).items()}
        row = {**given, **leaves("result", run.result)}
        rows.append({name: lists_to_tuples(value) for name, value in row.items()})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=_is_result)
    table = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object).infer_objects() for name in columns}
    )
    table.index = pd.Index([run.id for run in results], name="id")
    if hide_const_cols and len(table) > 1:
        table = drop_constant_columns(table, keep=[name for name in columns if _is_result(name)])
    return table.rename(columns=unique_suffixes(table.columns))


def _is_result(name: str) -> bool:
    return name == "result" or name.startswith("result.")


def _artefact(kind: str, content: bytes) -> Any:
    if kind == "text":
        return content.decode("utf-8")
    if kind == "message":
        return Message.load(BytesIO(content))
    return state_from_bytes(content) if kind == "state" else content


def _comparable(run: Run) -> dict[str, Any]:
    named = {name: getattr(run, name) for name in ("task", "seed", "status", "scenario", "config", "info", "result")}
    return {key: leaf for name, value in named.items() for key, leaf in leaves(name, value).items()}


def _differ(first: Mapping[str, Any], second: Mapping[str, Any], name: str) -> bool:
    """As text, which NaN, arrays and tensors have too, and which tells True from 1."""
    return (name in first) != (name in second) or to_text(first[name]) != to_text(second[name])
