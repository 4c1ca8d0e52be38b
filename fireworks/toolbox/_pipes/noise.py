"""NoisePipe: disturbs columns at random, the same way whenever and however a row is read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.core.message import Message
from fireworks.core.pipe import HookedPassThroughPipe
from fireworks.toolbox._pipes.ordering import Redrawn
from fireworks.toolbox._pipes.reading import as_message
from fireworks.utils.exceptions import ColumnError, did_you_mean
from fireworks.utils.seeding import make_generator
from fireworks.utils.utils import RowIndex, as_indices

__all__ = ["NoisePipe"]

_KINDS = ("gaussian", "uniform", "dropout")
_WORD = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


class NoisePipe(HookedPassThroughPipe, Redrawn):
    """Adds random noise to columns of floating point, new noise in every epoch.

    Noise depends on the seed, the epoch, the column and the number of the row, and on nothing else. So a row has the
    same noise in an epoch whether it is read by index or by iteration, alone or in a batch, and reading it changes no
    other row; `reset` and `iter` begin a new epoch. Rows that come by iteration are numbered from the start of the
    epoch, and so are those of calls, which have noise of their own.

    Args:
        input: What to read from.
        columns: The columns; by default those that `scale` names, or else every one of floating point.
        kind: 'gaussian' adds normally distributed numbers, 'uniform' numbers between -scale and scale; 'dropout' sets
            numbers to zero.
        scale: The standard deviation, the largest change, or the probability of a zero; one number, or column →
            number.
        seed: An int or a generator; by default drawn from torch's global generator.

    Shapes:
        each column: (N, *feature) of floating point, tensor or not, any device; the output has the same shape, dtype
        and device.

    Raises:
        ColumnError: A column named is not there.
        TypeError: A column named is not of floating point.
        ValueError: There is no such kind, or the scale is not possible.

    Source:
        Numbers are those of SplitMix64: G. L. Steele, D. Lea and C. H. Flood (2014), Fast splittable pseudorandom
        number generators, OOPSLA, 453-472. One generator per row, its seed made from the row's number by another.

    Example:
        >>> noisy = NoisePipe(Message({"x": torch.zeros(3), "y": [1, 2, 3]}), scale={"x": 0.5}, seed=0)
        >>> bool((noisy[0:3]["x"] != 0).all()), noisy[0:3]["y"].tolist()
        (True, [1, 2, 3])
        >>> torch.equal(noisy[0:3]["x"][2:], noisy[2]["x"])
        True
        >>> torch.equal(noisy[2]["x"], noisy.reset()[2]["x"])
        False
    """

    name = "NoisePipe"
    stateful_attributes = ("key", "epochs", "position", "called")

    def __init__(
        self,
        input: Any = None,
        columns: str | Iterable[str] | None = None,
        *args: Any,
        kind: str = "gaussian",
        scale: float | Mapping[str, float] = 0.1,
        seed: int | torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input, *args, **kwargs)
        if kind not in _KINDS:
            raise ValueError(f"no kind of noise {kind!r}{did_you_mean(kind, _KINDS)} Kinds: {', '.join(_KINDS)}")
        self.kind = kind
        self.scale = dict(scale) if isinstance(scale, Mapping) else scale
        if columns is None:
            self.columns = list(self.scale) if isinstance(self.scale, dict) else None
        else:
            self.columns = [columns] if isinstance(columns, str) else list(columns)
        _check_scale(self.scale, self.columns, kind)
        self.generator = make_generator(seed)
        self.epochs = 0  # how many have begun
        self.position = 0  # rows that came by iteration in this one
        self.called = 0  # rows that came by calls in this one
        self.key = self._draw_key()

    def _draw_key(self) -> int:
        return int(torch.randint(2**62, (), generator=self.generator))

    @property
    def draws(self) -> int:
        """How many epochs have begun so far."""
        return self.epochs

    def reset(self) -> NoisePipe:
        """Starts over, with new noise."""
        super().reset()
        self.key = self._draw_key()
        self.epochs += 1
        self.position = self.called = 0
        return self

    def __getitem__(self, index: RowIndex) -> Message:
        message = as_message(super().__getitem__(index))
        try:
            rows = as_indices(index)
        except IndexError:  # it needs the length
            rows = as_indices(index, len(self.input))
        return self._disturb(message, rows, "rows")

    # It changes what the input gives, row for row: who reads on past it may read the input's way.
    __getitem__.__dict__["passes_on"] = True

    def _next_hook(self, message: Any) -> Message:
        message = as_message(message)
        rows = np.arange(self.position, self.position + len(message))
        disturbed = self._disturb(message, rows, "rows")
        self.position += len(message)
        return disturbed

    def _call_hook(self, *args: Any, **kwargs: Any) -> Message:
        message = as_message(args[0] if args else None)
        rows = np.arange(self.called, self.called + len(message))
        disturbed = self._disturb(message, rows, "calls")
        self.called += len(message)
        return disturbed

    def _disturb(self, message: Message, rows: np.ndarray, series: str) -> Message:
        if not len(message):
            return message
        disturbed = Message(message)
        for name in self._chosen(message):
            column = message[name]
            uniform = _uniform(rows, tuple(column.shape[1:]), self.key, f"{series} {name}")
            scale = self.scale[name] if isinstance(self.scale, dict) else self.scale
            disturbed[name] = _with_noise(column, uniform, self.kind, scale)
        return disturbed

    def _chosen(self, message: Message) -> list[str]:
        if self.columns is None:
            return [name for name in message.columns if _is_floating(message[name])]
        unknown = [name for name in self.columns if name not in message.columns]
        if unknown:
            raise ColumnError.unknown(unknown, message.columns)
        for name in self.columns:
            if not _is_floating(message[name]):
                raise TypeError(
                    f"column {name!r} of dtype {message[name].dtype} cannot take noise; "
                    "make it one of floating point first, or leave it out"
                )
        return self.columns


def _check_scale(scale: Any, columns: list[str] | None, kind: str) -> None:
    scales = scale if isinstance(scale, dict) else {"all columns": scale}
    largest = 1.0 if kind == "dropout" else math.inf
    problems = [f"got {value!r} for {name}" for name, value in scales.items() if not _is_scale(value, largest)]
    if isinstance(scale, dict) and columns is not None:
        problems += [f"got none for column {name!r}" for name in columns if name not in scale]
        problems += [f"got one for {name!r}, which is not among the columns" for name in scale if name not in columns]
    if problems:
        expected = "a probability from 0 to 1" if kind == "dropout" else "a finite number from 0 up"
        raise ValueError(f"the scale of {kind} noise is {expected}, for each column; {'; '.join(problems)}")


def _is_scale(value: Any, largest: float) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(0 <= value <= largest) and math.isfinite(value)


def _is_floating(column: Any) -> bool:
    if isinstance(column, torch.Tensor):
        return column.is_floating_point()
    return bool(pd.api.types.is_float_dtype(column.dtype))


def _with_noise(column: Any, uniform: np.ndarray, kind: str, scale: float) -> Any:
    """A column with noise, made of numbers that are uniformly distributed between 0 and 1."""
    if isinstance(column, pd.Series):
        values = torch.from_numpy(column.to_numpy(dtype=np.float64, na_value=np.nan).copy())
        noisy = pd.Series(_with_noise(values, uniform, kind, scale).numpy())
        return noisy.astype(column.dtype)
    numbers = torch.from_numpy(uniform)
    if kind == "dropout":
        return column.masked_fill((numbers < scale).to(column.device), 0)
    noise = torch.special.ndtri(numbers) if kind == "gaussian" else 2 * numbers - 1
    return column + (noise * scale).to(column.dtype).to(column.device)


def _uniform(rows: np.ndarray, shape: tuple[int, ...], key: int, series: str) -> np.ndarray:
    """A number between 0 and 1, neither of them, for each element of each row: (N, *shape), float64."""
    salt = int.from_bytes(hashlib.blake2b(series.encode(), digest_size=8).digest(), "little")
    seeds = _mixed(rows.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64((key + salt) & _WORD))
    steps = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = _mixed(seeds[:, None] + steps)
    # 52 bits and a half: exact in float64, so that the result is never 1.
    return (((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(len(rows), *shape)


def _mixed(words: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64, of each word."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = words ^ (words >> np.uint64(31))
    return mixed
