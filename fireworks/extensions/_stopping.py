"""EarlyStopping: when training has learned what it can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fireworks.extensions._checkpoints import MODES

__all__ = ["EarlyStopping", "StoppingRule"]


@dataclass(frozen=True)
class EarlyStopping:
    """When an IgniteJunction stops before its last epoch: a metric has not become better for some epochs.

    Args:
        patience: After how many epochs in a row without a better value.
        metric: A name in the metric history: 'loss', 'eval_loss', or that of an ignite metric (with `eval_` before it
            where it is attached to the evaluator). By default 'eval_loss' where there is an eval_set, else 'loss'.
        mode: 'min' when low values are good, 'max' when high ones are.
        min_delta: What counts as better: by more than this.

    Raises:
        ValueError: An argument is none of the values that it can have.

    Example:
        >>> EarlyStopping(patience=3, metric="eval_accuracy", mode="max").min_delta
        0.0
    """

    patience: int
    metric: str | None = None
    mode: str = "min"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.metric is not None and not isinstance(self.metric, str):
            raise TypeError(f"expected the name of a metric or None as metric, got {self.metric!r:.80}")
        if type(self.patience) is not int or self.patience < 1:
            raise ValueError(f"expected a whole number of epochs from 1 up as patience, got {self.patience!r}")
        if self.mode not in MODES:
            raise ValueError(f"expected mode 'min' or 'max', got {self.mode!r}")
        if not isinstance(self.min_delta, (int, float)) or not 0 <= self.min_delta < math.inf:
            raise ValueError(f"expected a number from 0 up as min_delta, got {self.min_delta!r}")


class StoppingRule:
    """Applies an EarlyStopping: remembers the best value, and for how many epochs there was no better one."""

    def __init__(self, plan: EarlyStopping, metric: str) -> None:
        self.plan = plan
        self.metric = metric
        self.best: float | None = None
        self.waited = 0

    @property
    def is_met(self) -> bool:
        """Whether training should end."""
        return self.waited >= self.plan.patience

    def see(self, value: float) -> None:
        """Take note of the value of one more epoch."""
        if self._is_better(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        gain = self.best - value if self.plan.mode == "min" else value - self.best
        return gain > self.plan.min_delta

    def get_state(self) -> dict[str, Any]:
        """The best value so far, and how long ago it was."""
        return {"best": self.best, "waited": self.waited}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `get_state` was called."""
        self.best, self.waited = state["best"], state["waited"]
