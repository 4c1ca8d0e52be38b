"""The history of a search in the memory of one factory: trials by id, and the completed ones in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fireworks.core.message import Message
from fireworks.extensions._factory.columns import GrowingColumns
from fireworks.extensions._factory.protocol import ENDED, TrialRecord

__all__ = ["Blackboard"]


class Blackboard:
    """What a generator sees (`History`), and how a factory adds to it.

    Example:
        >>> board = Blackboard()
        >>> board.put(TrialRecord(1, {"rate": 0.5}, "running"))
        >>> len(board.pending), len(board.ended)
        (1, 0)
        >>> board.put(TrialRecord(1, {"rate": 0.5}, "completed", {"loss": {"loss": 2.0}}))
        >>> len(board.pending), board.metrics["loss"].to_dict()
        (0, {'loss': [2.0]})
    """

    def __init__(self) -> None:
        self._ended: list[TrialRecord] = []
        self._open: dict[int, TrialRecord] = {}
        self._ids: list[int] = []
        self._params = GrowingColumns()
        self._metrics: dict[str, GrowingColumns] = {}
        self.last_id = 0

    def put(self, record: TrialRecord) -> None:
        """A new trial, or news of one that is pending."""
        self.last_id = max(self.last_id, record.id)
        if record.state not in ENDED:
            self._open[record.id] = record
            return
        self._open.pop(record.id, None)
        self._ended.append(record)
        if record.state == "completed":
            self._complete(record)

    def _complete(self, record: TrialRecord) -> None:
        rows = len(self._params)
        for name in record.metrics:
            if name not in self._metrics:
                self._metrics[name] = GrowingColumns()
                for _ in range(rows):  # a metric that earlier trials did not have
                    self._metrics[name].append({})
        self._params.append(record.params)
        for name, columns in self._metrics.items():
            columns.append(record.metrics.get(name, {}))
        self._ids.append(record.id)

    @property
    def params(self) -> Message:
        """Parameters of the completed trials: a row for each, in the order in which this factory learned of them."""
        return self._params.message()

    @property
    def metrics(self) -> dict[str, Message]:
        """Metrics of the completed trials by name; row i belongs to row i of `params`."""
        return {name: columns.message() for name, columns in self._metrics.items()}

    @property
    def ids(self) -> Sequence[int]:
        """The ids of these rows."""
        return self._ids

    @property
    def ended(self) -> Sequence[TrialRecord]:
        """Every trial that ended, in the order in which this factory learned of it."""
        return self._ended

    @property
    def pending(self) -> Sequence[TrialRecord]:
        """Trials that are under way, here or elsewhere, by id."""
        return [self._open[number] for number in sorted(self._open)] if self._open else ()

    @property
    def completed(self) -> list[TrialRecord]:
        """The completed trials, row for row as in `params`."""
        return [record for record in self._ended if record.state == "completed"]

    def is_pending(self, number: int) -> bool:
        """Whether this trial is under way."""
        return number in self._open

    def trials(self) -> list[TrialRecord]:
        """All trials by id."""
        return sorted([*self._ended, *self._open.values()], key=lambda record: record.id)

    def reported(self) -> Mapping[int, Mapping[int, Any]]:
        """Values reported by the trials that did not fail: id → step → value."""
        useful = [record for record in self.trials() if record.state not in ("failed", "dead", "cancelled")]
        return {record.id: record.reported for record in useful if record.reported}
