"""When to give a trial up."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["MedianPruner"]


class MedianPruner:
    """Stops a trial whose best reported value so far is worse than the median of the others at the same step.

    Args:
        direction: 'minimize' or 'maximize'.
        trials: So many others must have reported something for the step, or none is stopped.
        steps: No trial is stopped before it reported so many values.

    Raises:
        ValueError: An unknown direction.

    Source:
        D. Golovin et al. (2017), Google Vizier: a service for black-box optimization, KDD: the median stopping rule.

    Example:
        >>> others = {1: {0: 0.5}, 2: {0: 0.6}, 3: {0: 0.9}}
        >>> MedianPruner("minimize", trials=2)(3, others), MedianPruner("minimize", trials=2)(1, others)
        (True, False)
    """

    def __init__(self, direction: str, trials: int = 5, steps: int = 1) -> None:
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"expected 'minimize' or 'maximize' as direction, got {direction!r}")
        self.direction, self.trials, self.steps = direction, trials, steps

    def __call__(self, trial_id: int, reported: Mapping[int, Mapping[int, float]]) -> bool:
        """Whether the trial should stop."""
        own = reported.get(trial_id, {})
        if len(own) < max(self.steps, 1):
            return False
        last = max(own)
        others = [self._best(values, last) for trial, values in reported.items() if trial != trial_id]
        scores = sorted(score for score in others if score is not None)
        if len(scores) < max(self.trials, 1):
            return False
        middle = len(scores) // 2
        median = scores[middle] if len(scores) % 2 else (scores[middle - 1] + scores[middle]) / 2
        best = self._best(own, last)
        return best is None or best > median

    def _best(self, values: Mapping[int, float], last: int) -> float | None:
        """The least value up to this step (of the negated ones to maximize) of a trial that came so far."""
        if not values or max(values) < last:
            return None
        sign = 1 if self.direction == "minimize" else -1
        found = [sign * value for step, value in values.items() if step <= last and not math.isnan(value)]
        return min(found, default=math.inf)
