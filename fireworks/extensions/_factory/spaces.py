"""Search spaces: what values a parameter may take, for every generator alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Choice", "Dimension", "Integers", "Uniform", "as_space", "comparable"]


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`, both included.

    Args:
        low: The least value.
        high: The greatest value.
        log: Spread evenly over orders of magnitude, as suits learning rates; needs `low` above 0.
        step: Only `low + k * step`; a grid needs it.

    Example:
        >>> Uniform(0.0, 1.0, step=0.5).grid()
        [0.0, 0.5, 1.0]
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range(self, real=True)

    def sample(self, random: np.random.Generator) -> float:
        """One value, drawn at random."""
        if self.step is not None:
            return self.low + self.step * int(random.integers(self._steps + 1))
        if self.log:
            drawn = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
            return min(max(drawn, self.low), self.high)  # exp and log round
        return float(random.uniform(self.low, self.high))

    def contains(self, value: Any) -> bool:
        """Whether it is one of these numbers."""
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(round(steps := (value - self.low) / self.step), steps, abs_tol=1e-6)

    def grid(self) -> list[float]:
        """All values, for a grid.

        Raises:
            ValueError: There is no step.
        """
        if self.step is None:
            raise ValueError(f"a grid needs every value: give {self} a step=, or list the values")
        return [self.low + self.step * k for k in range(self._steps + 1)]

    @property
    def _steps(self) -> int:
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9)


@dataclass(frozen=True)
class Integers:
    """Whole numbers from `low` to `high`, both included.

    Args:
        low: The least value.
        high: The greatest value.
        log: Spread evenly over orders of magnitude, as suits sizes of layers; needs `low` above 0 and no `step`.
        step: Only `low + k * step`.

    Example:
        >>> Integers(1, 8, step=3).grid()
        [1, 4, 7]
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_range(self, real=False)

    def sample(self, random: np.random.Generator) -> int:
        """One value, drawn at random."""
        if self.log:
            drawn = math.exp(random.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        return self.low + self.step * int(random.integers((self.high - self.low) // self.step + 1))

    def contains(self, value: Any) -> bool:
        """Whether it is one of these numbers."""
        return _is_number(value) and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def grid(self) -> list[int]:
        """All values, for a grid."""
        return list(range(self.low, self.high + 1, self.step))


@dataclass(frozen=True)
class Choice:
    """One of some values, of whatever kind.

    Example:
        >>> Choice(["relu", "tanh"]).contains("relu")
        True
    """

    values: tuple[Any, ...]

    def __init__(self, values: Sequence[Any]) -> None:
        object.__setattr__(self, "values", tuple(getattr(values, "tolist", lambda: values)()))
        distinct = {comparable(value) for value in self.values}
        if not self.values or len(distinct) < len(self.values):
            raise ValueError(f"expected one or more distinct values to choose from, got {list(self.values)!r:.200}")

    def sample(self, random: np.random.Generator) -> Any:
        """One value, drawn at random."""
        return self.values[int(random.integers(len(self.values)))]

    def contains(self, value: Any) -> bool:
        """Whether it is one of these values."""
        return self.position(value) is not None

    def position(self, value: Any) -> int | None:
        """The place of a value among the choices, or None."""
        sought = comparable(value)
        return next((i for i, choice in enumerate(self.values) if comparable(choice) == sought), None)

    def grid(self) -> list[Any]:
        """All values, for a grid."""
        return list(self.values)


Dimension: TypeAlias = Uniform | Integers | Choice


def as_space(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """A search space, with lists, ranges and arrays as choices, and any other value as the only choice.

    Raises:
        TypeError: The space is no mapping from names.
        ValueError: It is empty, or one of its lists is.

    Example:
        >>> as_space({"rate": Uniform(0.001, 0.1, log=True), "layers": [1, 2], "seed": 7})["seed"]
        Choice(values=(7,))
    """
    if not isinstance(space, Mapping) or not all(isinstance(name, str) for name in space):
        raise TypeError(
            f"expected a search space as a dict from names to values, got {type(space).__name__} {space!r:.80}"
        )
    if not space:
        raise ValueError("expected a search space with one or more parameters, got an empty one")
    dimensions: dict[str, Dimension] = {}
    for name, values in space.items():
        if isinstance(values, (Uniform, Integers, Choice)):
            dimensions[name] = values
        else:
            several = isinstance(values, (list, tuple, range, np.ndarray))
            try:
                dimensions[name] = Choice(values if several else [values])
            except ValueError as error:
                raise ValueError(f"parameter {name!r}: {error}") from error
    return dimensions


def comparable(value: Any) -> Any:
    """Something hashable that is equal for equal values, whether they come from Python, numpy or a database."""
    value = getattr(value, "tolist", lambda: value)()
    if isinstance(value, Mapping):
        return "dict", tuple(sorted((str(key), comparable(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(comparable(item) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return None  # what a database makes of None in a column of numbers
    return value


def _check_range(dimension: Uniform | Integers, real: bool) -> None:
    low, high, step = dimension.low, dimension.high, dimension.step
    kind = "finite numbers" if real else "whole numbers"
    given = [value for value in (low, high, step) if value is not None]
    if not all(_is_number(value) and (real or value == int(value)) for value in given):
        raise ValueError(f"expected {kind} as low, high and step, got {dimension}")
    if low > high:
        raise ValueError(f"expected low to be at most high, got {dimension}")
    if step is not None and step <= 0:
        raise ValueError(f"expected a step above 0, got {dimension}")
    if dimension.log and (low <= 0 or step not in (None, 1)):
        raise ValueError(f"log=True needs low above 0 and no step, got {dimension}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
