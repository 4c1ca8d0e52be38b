"""Generators ready to use: every point of a grid, and points drawn at random. Both go by the blackboard alone."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from fireworks.extensions._factory.protocol import History
from fireworks.extensions._factory.spaces import Dimension, as_space, comparable
from fireworks.utils.exceptions import EndHyperparameterOptimization
from fireworks.utils.seeding import make_generator

__all__ = ["GridGenerator", "RandomGenerator"]


class GridGenerator:
    """Proposes each combination of values once, the last parameter changing fastest.

    What is on the blackboard in any state, by this search or an earlier one, is not proposed again; nor is a point that
    failed. Assign to `space` to change it in the middle: the points of the new space that are still missing follow.

    Args:
        space: Parameter → list of values, or a dimension that can be listed: `Integers`, `Uniform` with a step.

    Raises:
        EndHyperparameterOptimization: By `propose`, once all points are there.

    Example:
        >>> from fireworks.extensions.factory import GridGenerator
        >>> grid = GridGenerator({"layers": [1, 2], "rate": [0.1, 0.01]})
        >>> len(grid)
        4
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        self._taken = _Taken()
        self._point: dict[str, Any] | None
        self.space = space

    @property
    def space(self) -> dict[str, Dimension]:
        """The search space. Points of old spaces stay on the blackboard as they are."""
        return self._space

    @space.setter
    def space(self, space: Mapping[str, Any]) -> None:
        self._space = as_space(space)
        self._axes = {name: dimension.grid() for name, dimension in self._space.items()}
        self._taken.restart(tuple(self._axes))
        self._from_the_start()

    def __len__(self) -> int:
        """The number of points."""
        count = 1
        for values in self._axes.values():
            count *= len(values)
        return count

    def propose(self, history: History) -> dict[str, Any]:
        """The first point that nobody has tried or is trying."""
        taken, is_new = self._taken.update(history)
        if is_new:
            self._from_the_start()
        while self._point is not None and comparable(list(self._point.values())) in taken:
            self._point = next(self._points, None)
        if self._point is None:
            raise EndHyperparameterOptimization(f"all {len(self)} points of the grid are on the blackboard")
        return dict(self._point)

    def _from_the_start(self) -> None:
        combinations = itertools.product(*self._axes.values())
        self._points: Iterator[dict[str, Any]] = (dict(zip(self._axes, c, strict=True)) for c in combinations)
        self._point = next(self._points, None)  # passed only once it is on the blackboard


class RandomGenerator:
    """Draws each parameter at random, independently; often better than a grid when few parameters matter.

    Which point comes next follows from the seed and the number of trials on the blackboard: a search that was stopped
    and started again draws what it would have drawn. Assign to `space` to change it in the middle.

    Args:
        space: Parameter → `Uniform`, `Integers`, `Choice` or a list of values.
        trials: How many trials the blackboard gets in all, in whatever state; None draws until somebody stops it.
        seed: An int; drawn from torch's global generator by default.

    Raises:
        EndHyperparameterOptimization: By `propose`, once there are `trials`.

    Source:
        J. Bergstra, Y. Bengio (2012), Random search for hyper-parameter optimization, JMLR 13, 281-305.

    Example:
        >>> from fireworks.extensions.factory import RandomGenerator, Uniform
        >>> generator = RandomGenerator({"rate": Uniform(1e-4, 1e-1, log=True)}, trials=20, seed=0)
    """

    def __init__(self, space: Mapping[str, Any], trials: int | None = None, seed: int | None = None) -> None:
        self.space = space
        self.trials = checked_limit(trials)
        self.seed = drawn_seed(seed)
        # One stream for all trials, of which each has a stretch of its own: a new generator per trial takes 9 µs.
        self._random = np.random.Generator(np.random.Philox(self.seed))
        self._start = self._random.bit_generator.state

    @property
    def space(self) -> dict[str, Dimension]:
        """The search space. Trials of old spaces stay on the blackboard as they are."""
        return self._space

    @space.setter
    def space(self, space: Mapping[str, Any]) -> None:
        self._space = as_space(space)

    def propose(self, history: History) -> dict[str, Any]:
        """The next point."""
        self._start["state"]["counter"][-1] = next_number(history, self.trials)
        self._random.bit_generator.state = self._start
        return {name: dimension.sample(self._random) for name, dimension in self._space.items()}


class _Taken:
    """The points of a grid that are on the blackboard. What has ended is read once."""

    def __init__(self) -> None:
        self.restart(())

    def restart(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._history: History | None = None
        self._read = 0
        self._ended: dict[Any, bool] = {}

    def update(self, history: History) -> tuple[Mapping[Any, bool], bool]:
        """The keys of all points there are, and whether this is another history than the last time."""
        is_new = history is not self._history
        if is_new:
            self._history, self._read, self._ended = history, 0, {}
        ended = history.ended
        for number in range(self._read, len(ended)):
            self._ended[self._key(ended[number].params)] = True
        self._read = len(ended)
        return ChainMap({self._key(trial.params): True for trial in history.pending}, self._ended), is_new

    def _key(self, params: Mapping[str, Any]) -> Any:
        missing = object()  # equal to nothing: a trial of a space without this parameter takes no point of this one
        return comparable([params.get(name, missing) for name in self._names])


def next_number(history: History, trials: int | None) -> int:
    """How many trials there are, or the end of the search when these are enough."""
    number = len(history.ended) + len(history.pending)
    if trials is not None and number >= trials:
        raise EndHyperparameterOptimization(f"there are {number} of {trials} trials on the blackboard")
    return number


def checked_limit(trials: int | None) -> int | None:
    """The number of trials, which must be one or more, or None."""
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise ValueError(f"expected a number of trials from 1 on, or None for no end, got {trials!r}")
    return trials


def drawn_seed(seed: int | None) -> int:
    """The seed, or one from torch's global generator; never negative, as numpy wants it."""
    if seed is None:
        return int(torch.randint(2**32, (), generator=make_generator()))
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected an int from 0 on as seed, or None, got {seed!r}")
    return seed
