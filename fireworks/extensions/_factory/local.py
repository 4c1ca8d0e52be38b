"""A factory whose blackboard is in memory."""

from __future__ import annotations

import concurrent.futures
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from fireworks.core.message import Message
from fireworks.extensions._factory.base import Factory
from fireworks.extensions._factory.blackboard import Blackboard
from fireworks.extensions._factory.columns import metric_row, plain_row
from fireworks.extensions._factory.evaluation import Outcome
from fireworks.extensions._factory.handle import FolderStore, MemoryStore, Store
from fireworks.extensions._factory.protocol import TrialRecord
from fireworks.extensions._factory.search import Assignment

__all__ = ["LocalMemoryFactory"]

_MAX_ATTEMPTS = 3


class LocalMemoryFactory(Factory):
    """A factory that keeps parameters and metrics in memory; they go with the process.

    Arguments are those of `Factory`.

    Example:
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
        >>> from fireworks.extensions.factory import GridGenerator
        >>> factory = LocalMemoryFactory(Square, {"loss": Loss()}, GridGenerator({"x": [0, 1, 2, 3]}), [])
        >>> factory.run()
        >>> params, metrics = factory.read()
        >>> params.to_dict(), metrics["loss"].to_dict()
        ({'x': [0, 1, 2, 3]}, {'loss': [4, 1, 0, 1]})
        >>> factory.best(direction="minimize").params
        {'x': 2}
    """

    def get_connection(self) -> Blackboard:
        """The blackboard, which is empty at first."""
        self._waiting: dict[int, tuple[Any, int, int]] = {}  # id → parameters, attempts, how many of them were lost
        self._stores: dict[type, Any] = {}
        self._under_way: dict[int, int] = {}
        return self._board

    def read(self) -> tuple[Message, Mapping[str, Message]]:
        """Parameters and metrics of the completed trials; row i of each belongs together.

        Returns:
            A Message, and a defaultdict of Messages by the name of the metric.
        """
        return self._board.params, defaultdict(Message, self._board.metrics)

    def write(self, params: Any, metrics_dict: Mapping[str, Any]) -> int:
        """Records a completed trial; returns its id."""
        row = plain_row(params, "parameters")
        metrics = {name: metric_row(name, value) for name, value in metrics_dict.items()}
        record = TrialRecord(self._board.last_id + 1, row, "completed", metrics)
        self._board.put(record)
        return record.id

    def exchange(self, done: list[tuple[Assignment, Outcome]], ask: bool) -> Assignment | None:
        """Records trials that ended, and hands out the next: one that waits, or a new one."""
        for assignment, outcome in done:
            self._under_way.pop(assignment.id, None)
            self._board.put(
                TrialRecord(
                    assignment.id, assignment.row, outcome.state, outcome.metrics, outcome.reported, outcome.error
                )
            )
            for store in self._stores.values():
                store.forget(assignment.id, keep_values=outcome.state != "failed")
        self._count_failures(done)
        if not ask:
            return None
        if self._waiting:
            number = min(self._waiting)
            params, attempts, lost = self._waiting.pop(number)
            return self._started(Assignment(number, params, plain_row(params, "parameters"), attempts + 1), lost)
        params = None if self._ended else self._propose()
        if params is None:
            return None
        return self._started(Assignment(self._board.last_id + 1, params, plain_row(params, "parameters")), 0)

    def _started(self, assignment: Assignment, lost: int) -> Assignment:
        self._board.put(TrialRecord(assignment.id, assignment.row, "running"))
        self._under_way[assignment.id] = lost
        return assignment

    def give_back(self, assignments: list[Assignment], error: str | None) -> None:
        """Puts trials that were not finished among those that wait; those that were lost too often are dead."""
        for assignment in assignments:
            if assignment.id not in self._under_way:
                continue
            lost = self._under_way.pop(assignment.id) + (error is not None)
            dead = lost >= _MAX_ATTEMPTS
            self._board.put(TrialRecord(assignment.id, assignment.row, "dead" if dead else "waiting", error=error))
            if not dead:
                self._waiting[assignment.id] = (assignment.params, assignment.attempt, lost)

    def _store(self, executor: concurrent.futures.Executor | None) -> Store:
        shared = executor is None or isinstance(executor, concurrent.futures.ThreadPoolExecutor)
        kind: type = MemoryStore if shared else FolderStore
        if kind not in self._stores:
            self._stores[kind] = kind()
        store: Store = self._stores[kind]
        return store
