"""One trial from parameters to metrics: what runs in this process, in a thread, or on another machine."""

from __future__ import annotations

import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fireworks.extensions._factory.columns import metric_row
from fireworks.extensions._factory.handle import Store, Trial
from fireworks.extensions._factory.protocol import Pruner
from fireworks.utils.exceptions import LeaseLostError

__all__ = ["Evaluation", "Outcome", "has_argument"]


@dataclass(slots=True)
class Outcome:
    """How a trial ended: 'completed', 'failed', 'pruned', or 'lost' to somebody who took it over."""

    state: str
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    reported: dict[int, float] = field(default_factory=dict)
    error: str | None = None


class Evaluation:
    """Trains with given parameters and evaluates the result; picklable if its parts are.

    Args:
        trainer: Takes parameters (and, if it has an argument `trial`, a Trial), returns an evaluator.
        metrics: Name → metric, with `attach(evaluator, name)` and `compute()`.
        eval_set: What the evaluator runs over.
        store: Where checkpoints and reported values go.
        pruner: Decides whether a trial goes on.
    """

    def __init__(
        self,
        trainer: Callable[..., Any],
        metrics: Mapping[str, Any],
        eval_set: Any,
        store: Store,
        pruner: Pruner | None = None,
    ) -> None:
        self.trainer, self.metrics, self.eval_set = trainer, metrics, eval_set
        self.store, self.pruner = store, pruner
        self.wants_trial = has_argument(trainer, "trial")
        self._lock = threading.Lock()  # metrics and the evaluation set are shared by threads

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __call__(self, trial_id: int, params: Any, attempt: int) -> Outcome:
        """Run one trial; what goes wrong in it is part of the outcome."""
        trial = Trial(trial_id, params, attempt, self.store, self.pruner) if self.wants_trial else None
        try:
            evaluator = self.trainer(params) if trial is None else self.trainer(params, trial=trial)
            if trial is not None and trial.was_stopped:
                return Outcome("pruned", reported=self.store.of(trial_id))
            with self._lock:
                metrics = self._evaluate(evaluator)
        except LeaseLostError:
            return Outcome("lost")
        except Exception:
            reported = {} if trial is None else self.store.of(trial_id)
            return Outcome("failed", reported=reported, error=traceback.format_exc())
        return Outcome("completed", metrics, {} if trial is None else self.store.of(trial_id))

    def _evaluate(self, evaluator: Any) -> dict[str, dict[str, Any]]:
        for name, metric in self.metrics.items():
            metric.attach(evaluator, name)
        evaluator.run(self.eval_set, max_epochs=1)
        return {name: metric_row(name, metric.compute()) for name, metric in self.metrics.items()}


def has_argument(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument of this name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C do not say
        return False
