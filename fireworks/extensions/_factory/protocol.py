"""What a factory shows to the generator that proposes parameters, and what it asks of it.

A generator is any callable `generator(past_params, past_metrics)`: a Message with one row per completed trial, and a
dict of such Messages by the name of the metric. It returns the next parameters, a dict or a Message of one row, or
raises EndHyperparameterOptimization. Before the first trial the Message is empty, and so is the dict.

A generator that needs more has a method `propose(history)` instead, which gets a `History`: trials that are under way,
that failed or were pruned, their numbers and the values that they reported. It returns or raises the same.

What holds for both:

- All that counts is on the blackboard. A restarted search has a new generator and the old history, and other factories
  work on the same blackboard: what comes next follows from the history, not from how often the generator was called.
- Proposals are serialised over all factories of a blackboard. While a generator thinks, nobody else proposes, so a
  point that is neither completed nor pending can be taken without asking further.
- The history of a factory is one object for as long as the factory lives, and `history.ended` only grows. Who keeps a
  position in it starts again at 0 when `history` is another object than the last time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fireworks.core.message import Message

__all__ = ["Generator", "History", "Proposer", "Pruner", "TrialRecord"]

ENDED = ("completed", "failed", "pruned", "dead", "cancelled")
PENDING = ("waiting", "running")


@dataclass(slots=True)
class TrialRecord:
    """What the blackboard says about one trial.

    Args:
        id: Its number; numbers grow in the order of proposals.
        params: The parameters by name, as plain values (tensors for columns of tensors).
        state: 'waiting' (to be taken up again), 'running', 'completed', 'failed', 'pruned', 'dead' (its worker was lost
            too often) or 'cancelled'.
        metrics: Of a completed trial: metric → column → value.
        reported: The values that the trainer reported, by step.
        error: The traceback of a failed trial.

    Example:
        >>> TrialRecord(3, {"rate": 0.1}, "completed", {"loss": {"loss": 0.25}}).value("loss")
        0.25
    """

    id: int
    params: Mapping[str, Any]
    state: str
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reported: Mapping[int, float] = field(default_factory=dict)
    error: str | None = None

    def value(self, objective: str) -> float:
        """One number of a completed trial.

        Args:
            objective: The name of a metric that has one column, or 'metric.column'.

        Raises:
            KeyError: There is no such metric or column; lists those that are.
        """
        for name, columns in self.metrics.items():
            if name == objective and len(columns) == 1:
                return float(next(iter(columns.values())))
            for column, value in columns.items():
                if f"{name}.{column}" == objective:
                    return float(value)
        known = ", ".join(f"{name}.{column}" for name, columns in self.metrics.items() for column in columns)
        raise KeyError(f"trial {self.id} has no metric {objective!r}; it has {known or 'none'}")


class History(Protocol):
    """The blackboard as a generator sees it. Looking at it changes nothing, and costs no query."""

    @property
    def params(self) -> Message:
        """Parameters of the completed trials: a row for each, in the order in which this factory learned of them."""

    @property
    def metrics(self) -> Mapping[str, Message]:
        """Metrics of the completed trials by name; row i belongs to row i of `params`."""

    @property
    def ids(self) -> Sequence[int]:
        """The ids of these rows."""

    @property
    def ended(self) -> Sequence[TrialRecord]:
        """Every trial that ended, however it ended, in the order in which this factory learned of it; only grows."""

    @property
    def pending(self) -> Sequence[TrialRecord]:
        """Trials that are under way, here or elsewhere, by id."""


@runtime_checkable
class Proposer(Protocol):
    """A generator that wants to see the whole history."""

    def propose(self, history: History) -> Message | Mapping[str, Any]:
        """The next parameters.

        Raises:
            EndHyperparameterOptimization: There are none.
        """


class Generator(Protocol):
    """A generator as in the manual."""

    def __call__(self, past_params: Message, past_metrics: Mapping[str, Message], /) -> Message | Mapping[str, Any]:
        """The next parameters, or EndHyperparameterOptimization."""


class Pruner(Protocol):
    """Decides whether a trial goes on; must be picklable where trials run in other processes.

    A generator that has an attribute `pruner` brings its own; the argument `pruner=` of a factory comes first.
    """

    def __call__(self, trial_id: int, reported: Mapping[int, Mapping[int, float]], /) -> bool:
        """Whether the trial should stop, given the values reported by all trials: id → step → value.

        `reported` has this trial, and every trial that reported something and did not fail.
        """
