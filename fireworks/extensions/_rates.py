"""A search for the learning rate: raise it step by step, and see where the loss falls fastest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ignite.engine import Engine
from torch.optim import Optimizer

from fireworks.core.message import Message
from fireworks.extensions._losses import loss_of
from fireworks.extensions._reading import BatchReader
from fireworks.extensions._steps import Step

__all__ = ["LearningRates", "sweep"]

_SMOOTHING = 0.8
_DIVERGED = 4.0
_FEWEST = 5


@dataclass(frozen=True)
class LearningRates:
    """What a search for the learning rate found.

    Attributes:
        history: A row per step, in the columns `lr`, `loss` and `smoothed`.
        suggestion: The rate at which the loss fell fastest.
    """

    history: Message
    suggestion: float


def sweep(
    step: Step, optimizer: Optimizer, reader: BatchReader, lowest: float, highest: float, steps: int
) -> LearningRates:
    """Train with rates that grow from the lowest to the highest, until the loss is a multiple of its best value.

    Raises:
        FloatingPointError: The first loss is not finite; says in which rows of the batch.
        ValueError: The rates or their number make no sense, there are no batches, or the loss grows from the start.
    """
    are_numbers = all(isinstance(rate, (int, float)) and math.isfinite(rate) for rate in (lowest, highest))
    if not are_numbers or not 0 < lowest < highest:
        raise ValueError(f"expected 0 < lowest < highest, got lowest={lowest!r} and highest={highest!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < _FEWEST:
        raise ValueError(f"expected {_FEWEST} steps or more, a whole number, got {steps!r}")
    engine = Engine(step)
    engine.state.epoch, engine.state.iteration = 1, 0
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for rate in np.geomspace(lowest, highest, steps).tolist():
        for group in optimizer.param_groups:
            group["lr"] = rate
        engine.state.iteration += 1
        try:
            loss = loss_of(step(engine, _next_batch(reader)))
        except FloatingPointError:
            if not rates:  # nothing was trained yet, so the rate is not to blame
                raise
            break
        if loss is None:
            raise TypeError("the training step gives no loss, neither by itself nor under 'loss' of a dict")
        value = loss.item()
        if not np.isfinite(value):
            break
        rates.append(rate)
        losses.append(value)
        average = _SMOOTHING * average + (1 - _SMOOTHING) * value
        smoothed.append(average / (1 - _SMOOTHING ** len(losses)))
        if 0 < _DIVERGED * min(smoothed) < smoothed[-1]:
            break
    return _judge(rates, losses, smoothed)


def _next_batch(reader: BatchReader) -> Any:
    """The next batch; after the last one the first."""
    for _ in range(2):
        try:
            return next(reader)
        except StopIteration:
            continue
    raise ValueError(f"the data set yields no batches: {reader.dataset!r:.200}")


def _judge(rates: list[float], losses: list[float], smoothed: list[float]) -> LearningRates:
    if len(rates) < _FEWEST:
        raise ValueError(f"the loss grows too much within {len(rates)} steps; give a value below {rates[:1]} as lowest")
    columns = {"lr": np.array(rates), "loss": np.array(losses), "smoothed": np.array(smoothed)}
    return LearningRates(Message(columns), rates[_steepest(np.log(rates), np.array(losses))])


def _steepest(places: np.ndarray, losses: np.ndarray) -> int:
    """Where the loss falls fastest: the middle of the stretch whose fitted line does; single losses are mere noise."""
    width = max(_FEWEST, len(losses) // 4)
    stretches = [slice(start, start + width) for start in range(len(losses) - width + 1)]
    slopes = [np.polyfit(places[stretch], losses[stretch], 1)[0] for stretch in stretches]
    return int(np.argmin(slopes)) + width // 2
