"""A factory whose blackboard is a SQL database, shared by any number of factories in any number of processes."""

from __future__ import annotations

import concurrent.futures
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa

from fireworks.core.message import Message
from fireworks.core.state import state_from_json, state_to_json
from fireworks.extensions._claims import Claim, Claims, Heartbeat, owner_name
from fireworks.extensions._database.errors import translated
from fireworks.extensions._database.schema import as_engine, as_table
from fireworks.extensions._factory.adopting import adopt
from fireworks.extensions._factory.base import Factory
from fireworks.extensions._factory.blackboard import Blackboard
from fireworks.extensions._factory.columns import metric_row, plain_row
from fireworks.extensions._factory.database_store import DatabaseStore
from fireworks.extensions._factory.evaluation import Outcome, has_argument
from fireworks.extensions._factory.handle import MemoryStore, Store
from fireworks.extensions._factory.protocol import ENDED, TrialRecord
from fireworks.extensions._factory.search import Assignment
from fireworks.extensions._factory.tables import ResultTable, one_row, search_tables
from fireworks.extensions._factory.texts import metrics_to_json, row_to_json
from fireworks.extensions._prepared import Prepared
from fireworks.utils.exceptions import CellError, ColumnError, DatabaseLockedError, LeaseLostError

__all__ = ["SQLFactory"]

_THINKS_LONG = 0.02  # seconds; a generator that takes longer does not keep a result waiting


class SQLFactory(Factory):
    """A factory that keeps trials in a SQL database, and a copy of what it needs of them in memory.

    Run the same script in as many processes, or with a server on as many hosts, as you like: each trial is claimed by
    one of them. When one is killed, another takes its trials over, from the last checkpoint that the trainer saved. A
    script that is started again goes on where the search was.

    Arguments are those of `Factory`, and:

    Args:
        params_table: A table (class, Table, or name) with a column `id` and one for each parameter. By default one
            is made from the first results, and gets more columns when later parameters have more.
        metrics_tables: Such a table for each metric, by name; those that are not given are made too. Rows that given
            tables hold when a search begins are its first trials.
        engine: The database: an engine or a URL.
        name: The name of the search, with which the names of its tables begin; two searches of one database need
            two. By default the name of `params_table`, or 'search'.
        lease: After so long without a sign of life a worker is thought dead; its factory gives five signs in that time.
        max_attempts: A trial that lost its worker so often is dead, and not tried again.

    Raises:
        ColumnError: A given table has no column `id`.

    Example:
        >>> import sqlalchemy as sa
        >>> from fireworks.extensions.factory import EndHyperparameterOptimization
        >>> class Square:
        ...     def __init__(self, params):
        ...         self.loss = (params["x"] - 2) ** 2
        ...     def run(self, data, max_epochs=1):
        ...         return self.loss
        >>> class Loss:
        ...     def attach(self, evaluator, name):
        ...         self.evaluator = evaluator
        ...     def compute(self):
        ...         return self.evaluator.loss
        >>> def generator(past_params, past_metrics):
        ...     if len(past_params) == 3:
        ...         raise EndHyperparameterOptimization
        ...     return {"x": len(past_params)}
        >>> engine = sa.create_engine("sqlite://")
        >>> factory = SQLFactory(Square, {"loss": Loss()}, generator, [], engine=engine)
        >>> factory.run()
        >>> params, metrics = factory.read_db()
        >>> params.to_dict(), metrics["loss"].to_dict()
        ({'id': [1, 2, 3], 'x': [0, 1, 2]}, {'id': [1, 2, 3], 'loss': [4, 1, 0]})
        >>> engine.dispose()
    """

    def __init__(
        self,
        *args: Any,
        params_table: Any = None,
        metrics_tables: Mapping[str, Any] | None = None,
        engine: Any,
        name: str | None = None,
        lease: timedelta = timedelta(seconds=60),
        max_attempts: int = 3,
        **kwargs: Any,
    ) -> None:
        self.engine = as_engine(engine)
        self.params_table, self.metrics_tables = params_table, dict(metrics_tables or {})
        given = None if params_table is None else as_table(params_table, self.engine).name
        self.name = name or given or "search"
        self.lease, self.max_attempts = lease, max_attempts
        self.owner = owner_name()
        super().__init__(*args, **kwargs)

    def get_connection(self) -> sa.Engine:
        """Makes the tables that are not there, reads the blackboard, and gives the engine."""
        with translated(self.engine, f"making the tables of the search {self.name!r}"):
            self._tables = search_tables(self.name)
            self._tables.create(self.engine)
            self._params = ResultTable(f"{self.name}_params", self.params_table, self.engine)
            self._metrics = {n: ResultTable(n, table, self.engine) for n, table in self.metrics_tables.items()}
        trials = self._tables.trials
        self._claims = Claims(
            self.engine, trials, lease=self.lease, max_attempts=self.max_attempts, busy_seconds=math.inf
        )
        self._held: dict[int, Claim] = {}
        self._local_store: Any = None
        self._heartbeat: Heartbeat | None = None
        self._thought = 0.0
        self._looked = -self.lease.total_seconds()
        names = ("id", "status", "form", "params", "metrics", "reported", "error")
        self._select = sa.select(*(trials.c[name] for name in names)).order_by(trials.c.id)
        newer = self._select.where(trials.c.id > sa.bindparam("last", type_=sa.BigInteger))
        self._newer = Prepared(newer, self.engine.dialect)
        self._lock = Prepared(sa.select(self._tables.lock.c.id).with_for_update(), self.engine.dialect)
        with self._transaction(alone=self.params_table is not None) as connection:
            if self.params_table is not None:
                adopt(connection, trials, self._params, self._metrics)
            self._sync(connection)
        return self.engine

    @contextmanager
    def _transaction(self, alone: bool = False) -> Iterator[sa.Connection]:
        """A transaction, if `alone` one in which nobody else proposes. Outside of `run` it closes the connection."""
        try:
            with self._alone() if alone else self._claims.transaction() as connection:
                yield connection
        except BaseException:
            self._forget_board()  # memory may know of more than what was committed
            raise
        finally:
            if self._heartbeat is None:
                self._claims.close()

    def _alone(self) -> AbstractContextManager[sa.Connection]:
        """A transaction in which nobody else proposes; waits for that however long the generators of others think."""
        # On SQLite each one is such, as it begins by locking the file.
        return self._claims.transaction() if self.engine.dialect.name == "sqlite" else self._with_lock()

    @contextmanager
    def _with_lock(self) -> Iterator[sa.Connection]:
        with ExitStack() as stack:
            connection = None
            while connection is None:
                try:
                    with ExitStack() as attempt:
                        opened = attempt.enter_context(self._claims.transaction())
                        self._lock.run(opened).fetchall()
                        stack.push(attempt.pop_all())
                        connection = opened
                except DatabaseLockedError:  # the server waits so long, and no longer
                    continue
            yield connection

    def _forget_board(self) -> None:
        self._board, self._best, self._compared = Blackboard(), None, 0

    # Reading

    def read(self) -> tuple[Message, dict[str, Message]]:
        """Parameters and metrics of the completed trials, from memory after a look at what is new.

        Returns:
            A Message, and a dict of Messages by the name of the metric, each with the column `id`; row i of each
            belongs together.
        """
        self.sync()
        ids = self._board.ids
        return _with_ids(ids, self._board.params), {n: _with_ids(ids, m) for n, m in self._board.metrics.items()}

    def read_db(self) -> tuple[Message, dict[str, Message]]:
        """The same as `read`, from the tables of parameters and metrics, in the order of ids."""
        self.sync()
        metrics = self._board.metrics
        with self._transaction() as connection:
            params = self._params.read(connection, self._board.params)
            tables = {name: self._metric_table(name) for name in [*metrics, *self._metrics]}
            found = {n: table.read(connection, metrics.get(n, Message())) for n, table in tables.items()}
        return params, found

    def sync(self) -> None:
        """Reads what other factories wrote since the last time; what is known already is not read again."""
        with self._transaction() as connection:
            self._sync(connection)

    def _sync(self, connection: sa.Connection) -> None:
        foreign = self._foreign()
        if foreign:
            query = self._select.where(self._tables.trials.c.id.in_(foreign))
            for row in connection.execute(query):
                self._learn(row)
        for row in self._newer.run(connection, last=self._board.last_id).fetchall():
            self._learn(row)

    def _learn(self, row: Any) -> None:
        number, state, _, params, metrics, reported, error = row
        is_over = state in ENDED
        record = TrialRecord(number, state_from_json(params), state, error=error)
        if is_over:
            record.metrics = state_from_json(metrics) if metrics else {}
            record.reported = state_from_json(reported) if reported else {}
        self._board.put(record)

    def _foreign(self) -> list[int]:
        """Trials that are under way and not held here."""
        return [record.id for record in self._board.pending if record.id not in self._held]

    def has_foreign_trials(self) -> bool:
        """Whether trials of other factories are under way."""
        return bool(self._foreign())

    # Writing

    def write(self, params: Any, metrics: Mapping[str, Any]) -> int:
        """Records a completed trial, in one transaction; returns its id.

        Raises:
            CellError: A table cannot hold a value.
            ColumnError: A given table lacks a column.
        """
        outcome = Outcome("completed", {name: metric_row(name, value) for name, value in metrics.items()})
        row = _checked_row(params)
        rows = self._prepare_rows(row, outcome)
        with self._transaction(alone=True) as connection:
            self._sync(connection)
            assignment = self._add(connection, params, row, row_to_json(row))
            self._record(connection, assignment, outcome, rows)
        return assignment.id

    def _add(self, connection: sa.Connection, params: Any, row: dict[str, Any], text: str) -> Assignment:
        """A new trial, which is ours."""
        values = {"params": text, "form": "message" if isinstance(params, Message) else "dict"}
        claim = self._claims.add(self.owner, values, connection=connection)
        self._board.put(TrialRecord(claim.id, row, "running"))
        return Assignment(claim.id, params, row, 1, claim)

    def _prepare_rows(self, params: Mapping[str, Any], outcome: Outcome) -> dict[str | None, dict[str, Any]]:
        """Rows for the table of parameters (None) and of each metric; the tables get the columns that they need."""
        rows: dict[str | None, dict[str, Any]] = {None: self._params.prepare(params)}
        for name, row in outcome.metrics.items():
            rows[name] = self._metric_table(name).prepare(_without_id(row, "metric"))
        return rows

    def _metric_table(self, name: str) -> ResultTable:
        if name not in self._metrics:
            self._metrics[name] = ResultTable(f"{self.name}_{name}", None, self.engine)
        return self._metrics[name]

    def _record(
        self, connection: sa.Connection, assignment: Assignment, outcome: Outcome, rows: Mapping[str | None, Any]
    ) -> None:
        """Writes how a trial ended, and its results; nothing if it was taken over (LeaseLostError)."""
        values: dict[str, Any] = {"metrics": metrics_to_json(outcome.metrics), "error": outcome.error}
        values["reported"] = state_to_json(outcome.reported) if outcome.reported else None
        self._claims.finish(assignment.claim, values, status=outcome.state, connection=connection)
        for name, row in rows.items():
            (self._params if name is None else self._metrics[name]).insert(connection, assignment.id, row)
        self._held.pop(assignment.id, None)
        self._board.put(
            TrialRecord(assignment.id, assignment.row, outcome.state, outcome.metrics, outcome.reported, outcome.error)
        )
        if self._keeps_checkpoints:
            table = self._tables.checkpoints
            connection.execute(table.delete().where(table.c.trial == assignment.id))

    # The search

    _keeps_checkpoints = False

    def run(
        self,
        executor: concurrent.futures.Executor | None = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> None:
        """Run trials until the generator raises EndHyperparameterOptimization, and the trials of all others have ended.

        Before it returns, trials whose worker died are taken over. A trial that is under way when this run is
        interrupted waits for the next factory.

        Args:
            executor: As for `Factory.run`. Its workers reach the database too if trials save checkpoints or report.
            workers: As for `Factory.run`.
            progress: As for `Factory.run`.

        Raises:
            SearchFailedError: More than `max_failures` trials failed.
        """
        try:
            with Heartbeat(self._claims) as self._heartbeat:
                self.sync()  # trials that somebody gave back come before new ones
                super().run(executor, workers, progress)
        finally:
            self._heartbeat = None
            self._claims.close()
            if isinstance(self._local_store, DatabaseStore):
                self._local_store.close()

    def exchange(self, done: list[tuple[Assignment, Outcome]], ask: bool) -> Assignment | None:
        """Records trials that ended and claims the next, in one transaction unless the generator thinks long."""
        prepared = [self._prepared(assignment, outcome) for assignment, outcome in done]
        takes_over = ask and self._may_take_over()
        if prepared and (takes_over or self._thought > _THINKS_LONG):
            self._turn(prepared, ask=False)
            prepared = []
        taken = self._take_over() if takes_over else None
        if prepared or (ask and taken is None):
            taken = self._turn(prepared, ask and taken is None) or taken
        self._count_failures(done)
        return taken

    def _prepared(self, assignment: Assignment, outcome: Outcome) -> tuple[Assignment, Outcome, dict[Any, Any]]:
        rows: dict[Any, Any] = {}
        if outcome.state == "completed":
            try:
                rows = self._prepare_rows(assignment.row, outcome)
            except (CellError, ColumnError) as error:  # such as an infinite loss on MariaDB, which has no infinity
                outcome.state, outcome.error = "failed", f"its results cannot be stored: {error}"
                outcome.metrics = {}
        return assignment, outcome, rows

    def _turn(self, prepared: list[tuple[Assignment, Outcome, dict[Any, Any]]], ask: bool) -> Assignment | None:
        taken, problem = None, None
        with self._alone() as connection:
            for assignment, outcome, rows in prepared:
                self._end(connection, assignment, outcome, rows)
            if ask:
                self._sync(connection)
            if ask and not self._ended:
                try:
                    proposal = self._proposal()
                except Exception as error:  # what ended before is recorded nevertheless
                    problem, proposal = error, None
                if self.engine.dialect.name == "sqlite" and self._thought > _THINKS_LONG:
                    self._claims.prolong(self._thought, connection=connection)
                if proposal is not None:
                    taken = self._add(connection, *proposal)
        if problem is not None:
            raise problem
        return None if taken is None else self._hold(taken)

    def _hold(self, taken: Assignment) -> Assignment:
        self._held[taken.id] = taken.claim
        if self._heartbeat is not None:
            self._heartbeat.watch(taken.claim)
        return taken

    def _end(self, connection: sa.Connection, assignment: Assignment, outcome: Outcome, rows: dict[Any, Any]) -> None:
        if self._heartbeat is not None:
            self._heartbeat.unwatch(assignment.claim)
        try:
            if outcome.state != "lost":
                self._record(connection, assignment, outcome, rows)
        except LeaseLostError:
            outcome.state = "lost"
        self._held.pop(assignment.id, None)

    def _may_take_over(self) -> bool:
        """Whether somebody gave a trial back, or it is time to look whether a worker died."""
        foreign = [record for record in self._board.pending if record.id not in self._held]
        if not foreign:
            return False
        is_due = time.monotonic() - self._looked > self.lease.total_seconds() / 5
        return is_due or any(record.state == "waiting" for record in foreign)

    def _take_over(self) -> Assignment | None:
        """A trial that somebody gave back, or whose worker died.

        In a transaction of its own: MariaDB keeps locks on trials that it only looked at, and would do so while a
        generator thinks.
        """
        self._looked = time.monotonic()
        claim = self._claims.claim(self.owner)
        if claim is None:
            self.sync()
            return None
        row = state_from_json(claim.row["params"])
        params = one_row(row) if claim.row["form"] == "message" else row
        taken = self._hold(Assignment(claim.id, params, row, claim.attempt, claim))
        self.sync()  # before the board has this one: it reads on behind the last that it knows
        self._board.put(TrialRecord(claim.id, row, "running"))
        return taken

    def _proposal(self) -> tuple[Any, dict[str, Any], str] | None:
        """What the generator proposes next, as it is, as a row, and as text; None when it has ended the search."""
        start = time.perf_counter()
        try:
            params = self._propose()
        finally:
            self._thought = time.perf_counter() - start
        if params is None:
            return None
        row = _checked_row(params)
        return params, row, row_to_json(row)

    def give_back(self, assignments: list[Assignment], error: str | None) -> None:
        """Puts trials that were not finished among those that wait; those that were lost too often are dead."""
        for claim in list(self._held.values()):
            if self._heartbeat is not None:
                self._heartbeat.unwatch(claim)
            was_running = any(assignment.id == claim.id for assignment in assignments)
            try:
                if error is None or not was_running:
                    self._claims.release(claim)
                else:
                    self._claims.fail(claim, error, retry=True)
            except LeaseLostError:
                continue
        self._held.clear()
        self._forget_board()

    def _store(self, executor: concurrent.futures.Executor | None) -> Store:
        threads = executor is None or isinstance(executor, concurrent.futures.ThreadPoolExecutor)
        if self._claims.is_private:
            if not threads:
                raise ValueError(
                    "a SQLite database in memory cannot be seen by other processes; give the engine a file, "
                    "sqlite:///search.sqlite, or let trials run in threads"
                )
            self._local_store = self._local_store or MemoryStore()
        else:
            url = self.engine.url.render_as_string(hide_password=False)
            self._local_store = self._local_store or DatabaseStore(url, self.name, self.owner, self.lease, self.engine)
            self._keeps_checkpoints = has_argument(self.trainer, "trial")
        store: Store = self._local_store
        return store


def _checked_row(params: Any) -> dict[str, Any]:
    return _without_id(plain_row(params, "parameters"), "parameter")


def _without_id(row: dict[str, Any], what: str) -> dict[str, Any]:
    if "id" in row:
        raise ValueError(f"expected another name than 'id' for a {what}: it is the number of the trial in the tables")
    return row


def _with_ids(ids: Any, message: Message) -> Message:
    columns = {name: message[name] for name in message.columns}
    return Message({"id": np.array(ids, dtype=np.int64), **columns})
