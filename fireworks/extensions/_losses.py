"""LossRecord: the loss of every training step, kept at next to no cost and read when somebody looks."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import State

from fireworks.core.message import Message

__all__ = ["LossRecord", "loss_of", "not_finite", "not_finite_in_evaluation"]

# A look at one loss costs as much as recording ten, and on a GPU it waits for the step to end, too.
_LOSSES_PER_LOOK = 64


class LossRecord:
    """Epoch, iteration and loss of every step; epochs and iterations count on from one run of an engine to the next."""

    def __init__(self) -> None:
        self._epochs, self._iterations, self._losses = array("q"), array("q"), array("d")
        self._unread: list[torch.Tensor] = []
        self._checked = 0
        self._epochs_before = self._iterations_before = 0

    def start_run(self, state: State) -> None:
        """Take note that an engine starts with this state; not that it goes on with a run that is recorded already."""
        if self._epochs:
            self._epochs_before = self._epochs[-1] - state.epoch
            self._iterations_before = self._iterations[-1] - state.iteration

    def record(self, output: Any, state: State) -> None:
        """Keep the loss of a step, if its output has one.

        Raises:
            FloatingPointError: This loss, or one of the last few, is not finite.
        """
        loss = loss_of(output)
        if loss is None:
            return
        self._epochs.append(self._epochs_before + state.epoch)
        self._iterations.append(self._iterations_before + state.iteration)
        self._unread.append(loss.detach() if loss.requires_grad else loss)
        if len(self._unread) >= _LOSSES_PER_LOOK:
            self.check()

    def check(self) -> None:
        """Look at the losses that were not looked at yet.

        Raises:
            FloatingPointError: One of them is not finite; names the first.
        """
        self._read()
        start, self._checked = self._checked, len(self._losses)
        if not all(map(math.isfinite, self._losses[start:])):
            step = next(step for step in range(start, self._checked) if not math.isfinite(self._losses[step]))
            raise not_finite(self._losses[step], self._epochs[step], self._iterations[step])

    def _read(self) -> None:
        """Make numbers of the tensors that were recorded since the last time."""
        if self._unread:
            self._losses.extend(torch.stack(self._unread).tolist())
            self._unread.clear()

    def last(self) -> float | None:
        """The latest loss, or None when there is none yet."""
        if self._unread:
            return self._unread[-1].item()
        return self._losses[-1] if self._losses else None

    def mean_of_last_epoch(self) -> float:
        """The mean loss of the steps of the epoch that was trained last."""
        self._read()
        start = bisect_left(self._epochs, self._epochs[-1])
        return float(np.mean(self._losses[start:]))

    def place(self, state: State) -> tuple[int, int]:
        """Epoch and iteration of an engine, counted over all runs."""
        return self._epochs_before + state.epoch, self._iterations_before + state.iteration

    def points(self, start: int) -> tuple[list[int], list[float]]:
        """Iterations and losses from a step on."""
        self._read()
        return self._iterations[start:].tolist(), self._losses[start:].tolist()

    def __len__(self) -> int:
        return len(self._epochs)

    def get_state(self) -> dict[str, Any]:
        """Everything recorded, as arrays."""
        self._read()
        return {
            "epochs": np.array(self._epochs),
            "iterations": np.array(self._iterations),
            "losses": np.array(self._losses),
            "before": [self._epochs_before, self._iterations_before],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self._unread.clear()
        self._epochs = array("q", state["epochs"].tolist())
        self._iterations = array("q", state["iterations"].tolist())
        self._losses = array("d", state["losses"].tolist())
        self._checked = len(self._losses)
        self._epochs_before, self._iterations_before = state["before"]

    def message(self) -> Message:
        """All of it, with the columns `epoch`, `iteration` and `loss`."""
        self._read()
        columns = {"epoch": self._epochs, "iteration": self._iterations, "loss": self._losses}
        return Message({name: np.array(values) for name, values in columns.items()})


def loss_of(output: Any) -> torch.Tensor | None:
    """The loss that a training step gave out, alone or under 'loss' of a mapping; None when there is none."""
    # The type of most outputs first: asking whether it is a Mapping takes as long as all the rest.
    loss = output.get("loss") if type(output) is dict or isinstance(output, Mapping) else output
    if type(loss) is torch.Tensor and loss.ndim == 0:
        return loss
    if isinstance(loss, (int, float)):
        return torch.tensor(float(loss), dtype=torch.float64)
    return loss.reshape(()) if isinstance(loss, torch.Tensor) and loss.numel() == 1 else None


def not_finite(value: float, epoch: int, iteration: int, more: str = "") -> FloatingPointError:
    """The error for a loss that is NaN or infinite."""
    return FloatingPointError(
        f"the loss is {value} in epoch {epoch}, iteration {iteration}{more}. "
        "Look for values that are not finite in the data, or lower the learning rate"
    )


def not_finite_in_evaluation(value: float, batch: int, more: str = "") -> FloatingPointError:
    """The error for a loss of an evaluation that is NaN or infinite."""
    return FloatingPointError(
        f"the loss is {value} in batch {batch} of an evaluation{more}. "
        "Look for values that are not finite in the data, or in the model's parameters"
    )
