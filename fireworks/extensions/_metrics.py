"""MetricRecord: what was measured now and then during training, one row per step at which something was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fireworks.core.message import Message
from fireworks.extensions._losses import LossRecord

__all__ = ["HistoryLines", "MetricRecord", "as_numbers"]


class MetricRecord:
    """Numbers by name, in rows of epoch and iteration; what is measured twice at one step counts the last time."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def record(self, epoch: int, iteration: int, values: Mapping[str, Any]) -> None:
        """Keep those of the values that are numbers."""
        numbers = {name: value for name, value in as_numbers(values).items() if name not in _PLACE}
        if not numbers:
            return
        if not self._rows or self._rows[-1]["iteration"] != iteration:
            self._rows.append({"epoch": epoch, "iteration": iteration})
        self._rows[-1].update(numbers)

    def at(self, iteration: int, name: str) -> float | None:
        """What was measured at a step, if it is the last one at which something was."""
        row = self._rows[-1] if self._rows else {}
        return row.get(name) if row.get("iteration") == iteration else None

    def names(self) -> list[str]:
        """Everything that was ever measured."""
        return [name for name in {name: None for row in self._rows for name in row} if name not in _PLACE]

    def rows(self) -> list[dict[str, float]]:
        """Each row as a dict, with what was measured at its step."""
        return self._rows

    def message(self) -> Message:
        """All of it: `epoch`, `iteration`, and a column for each name, NaN where it was not measured."""
        columns: dict[str, Any] = {name: np.array([row[name] for row in self._rows], dtype=np.int64) for name in _PLACE}
        for name in self.names():
            columns[name] = np.array([row.get(name, math.nan) for row in self._rows])
        return Message(columns)

    def get_state(self) -> dict[str, Any]:
        """All rows."""
        return {"rows": [dict(row) for row in self._rows]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._rows = [dict(row) for row in state["rows"]]


_PLACE = ("epoch", "iteration")


def as_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those values that are numbers; others, such as a confusion matrix, have no place among lines."""
    numbers = {}
    for name, value in values.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue
    return numbers


class HistoryLines:
    """The histories of a training as lines for plots: the loss by step, the mean loss of epochs, each metric."""

    def __init__(self, losses: LossRecord, metrics: MetricRecord) -> None:
        self._losses, self._metrics = losses, metrics

    def names(self) -> list[str]:
        """`loss`, `epoch_loss`, and the metrics by their names."""
        return [*(["loss"] if len(self._losses) else []), *(_line_name(name) for name in self._metrics.names())]

    def points(self, name: str, start: int) -> tuple[list[int], list[float]]:
        """Iterations and values from a number on."""
        if name == "loss":
            return self._losses.points(start)
        key = "loss" if name == "epoch_loss" else name
        rows = [row for row in self._metrics.rows() if key in row]
        return [int(row["iteration"]) for row in rows[start:]], [row[key] for row in rows[start:]]


def _line_name(metric: str) -> str:
    return "epoch_loss" if metric == "loss" else metric
