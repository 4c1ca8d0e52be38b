"""CachingPipe: remembers rows that were read by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fireworks.core._slots import Source
from fireworks.core.cache import LFUCache, LRUCache, MessageCache, OptimalCache, RRCache, UnlimitedCache
from fireworks.core.message import Message
from fireworks.core.pipe import implements
from fireworks.core.state import State, take_out
from fireworks.toolbox._pipes.ordering import redrawn_stages
from fireworks.toolbox._pipes.reading import ReadsByIndex, known_length, require
from fireworks.utils.exceptions import did_you_mean
from fireworks.utils.utils import RowIndex, as_indices

__all__ = ["CachingPipe"]

_INT64 = np.dtype(np.int64)
_CACHES = ("LRU", "LFU", "RR", "optimal", "unlimited")


class CachingPipe(ReadsByIndex):
    """Remembers rows that were read by index, so that the next time they need not be read from the input.

    Rows that the cache lacks are read from the input in one call. Iteration passes through; a BatchingPipe behind this
    one reads by index, so its epochs are cached. When a ShufflerPipe upstream takes a new order, or an
    OversamplePipe or NoisePipe draws anew, the cache starts anew.

    What the cache holds is part of the state, so a resumed pipeline reads from the input exactly what it would have
    read.

    Args:
        input: A pipe, a Message, or any object with `__getitem__`. It must give the same row under the same index.
        cache_size: How many rows to remember.
        buffer_size: How many rows to forget at least when the cache is full.
        cache_type: Which rows to forget: 'LRU' the longest unused, 'LFU' the least often used, 'RR' random ones,
            'optimal' those that are needed last, or 'unlimited', none. `type` is another name of it. 'optimal' has to
            know the order of an epoch: a ShufflerPipe or OversamplePipe behind this one announces it, else call
            `announce`.
        infinite: The input has no end; asking for the length is then an error.
        seed: For 'RR': an int or a generator; by default drawn from torch's global generator.

    Attributes:
        cache: The MessageCache.
        length: Number of rows of the input, or None as long as it is not known.
        lower_bound: The largest index that was read.

    Raises:
        TypeError: The input has no rows by index.
        ValueError: There is no such type of cache.

    Example:
        >>> pipe = CachingPipe(Message({"x": list(range(100))}), cache_size=10)
        >>> pipe[20:24]["x"].tolist(), pipe[2, 3, 20]["x"].tolist()
        ([20, 21, 22, 23], [2, 3, 20])
        >>> list(pipe.cache)
        [20, 21, 22, 23, 2, 3]
    """

    name = "CachingPipe"

    def __init__(
        self,
        input: Any = None,
        *args: Any,
        cache_size: int = 100,
        buffer_size: int = 0,
        cache_type: str = "LRU",
        infinite: bool = False,
        seed: int | torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        cache_type = kwargs.pop("type", cache_type)
        super().__init__(input, *args, **kwargs)
        self.check_input()
        self.cache_size = cache_size
        self.buffer_size = buffer_size
        self.cache_type = cache_type
        self.infinite = infinite
        self.seed = seed
        self.length: int | None
        self.lower_bound = 0
        self.cache: MessageCache
        self._begin()
        self._orders = self._seen_orders()
        self.init_cache()

    def _begin(self) -> None:
        """Notes what the input is, by which another one is told."""
        self._source, self.length = self.input, None
        self._rows = Source(self.input) if type(self.input) is Message else None
        self._redrawn = redrawn_stages(self.input)

    def init_cache(self, *args: Any, **kwargs: Any) -> None:
        """Puts an empty cache into `self.cache`. A subclass may make another one.

        Args:
            *args: Positional arguments of the cache instead of `cache_size`.
            **kwargs: Keyword arguments of the cache instead of `buffer_size` (and `seed`).
        """
        kind = str(self.cache_type).upper()
        size = args or (self.cache_size,)
        options = {"buffer_size": self.buffer_size, **kwargs}
        if kind == "LRU":
            self.cache = LRUCache(*size, **options)
        elif kind == "LFU":
            self.cache = LFUCache(*size, **options)
        elif kind == "RR":
            self.cache = RRCache(*size, **{"seed": self.seed, **options})
        elif kind == "OPTIMAL":
            self.cache = OptimalCache(*size, **options)
        elif kind == "UNLIMITED":
            self.cache = UnlimitedCache()
        else:
            raise ValueError(
                f"no cache_type {self.cache_type!r}{did_you_mean(self.cache_type, _CACHES) or '.'} "
                f"Types: {', '.join(_CACHES)}"
            )

    def check_input(self) -> None:
        """Checks inputs to determine if they implement `__getitem__`.

        Raises:
            TypeError: They do not.
        """
        require(self, "__getitem__")

    def __getitem__(self, index: RowIndex) -> Message:
        keys = index if type(index) is np.ndarray and index.dtype == _INT64 else self._as_indices(index)
        if not len(keys):
            return self._read(keys) if not len(self.cache) else self.cache[keys]
        if self._source is not self.input or (self._redrawn and self._orders != self._seen_orders()):
            self._forget()
        rows = self.cache.read_through(keys, self._rows or self._fetch)
        largest = keys.item(keys.argmax())
        if largest > self.lower_bound:
            self.lower_bound = largest
        return rows

    def announce(self, indices: RowIndex) -> None:
        """Tells the cache which rows are going to be asked for, and in which order."""
        self.cache.announce(self._as_indices(indices))

    def _as_indices(self, index: RowIndex) -> np.ndarray:
        try:
            return as_indices(index, self.length, "pipe")
        except IndexError:
            if self.length is not None:
                raise
            return as_indices(index, len(self), "pipe")

    def _fetch(self, indices: np.ndarray) -> Message:
        """Rows of the input; neighbours as a slice, which many sources read faster."""
        first, last = int(indices[0]), int(indices[-1])
        if last - first + 1 == len(indices) and (indices[1:] > indices[:-1]).all():
            return self._read(slice(first, last + 1))
        return self._read(indices)

    def _seen_orders(self) -> list[int]:
        return [stage.draws for stage in self._redrawn]

    def _forget(self) -> None:
        """Starts anew, as the rows have other numbers now."""
        if self._source is not self.input:
            self._begin()
        self._orders = self._seen_orders()
        del self.cache[list(self.cache)]

    def known_length(self) -> int | None:
        """The length if that can be told without reading through the input, else None."""
        return self.length if self.length is not None or self.infinite else known_length(self.input)

    def __len__(self) -> int:
        if self.infinite:
            raise ValueError(
                "the length of an infinite CachingPipe is not defined; drop infinite=True if it has an end"
            )
        return self.compute_length() if self.length is None else self.length

    def compute_length(self) -> int:
        """Step forward as far as the inputs will allow and compute length, unless the input knows it.

        Note: If the inputs are infinite, then this will go on forever.
        """
        if implements(self.input, "__len__"):
            self.length = len(self.input)
        else:
            self.length = self._find_end()
        return self.length

    def _find_end(self) -> int:
        """The number of rows, by reading in steps that double until they overshoot, and halving the rest."""
        known, step = (self.lower_bound + 1 if self.lower_bound in self.cache else 0), 1
        while self._has_row(known + step - 1):
            known, step = known + step, step * 2
        beyond = known + step - 1  # the first row that is known to be missing
        while known < beyond:
            middle = (known + beyond) // 2
            if self._has_row(middle):
                known = middle + 1
            else:
                beyond = middle
        self.lower_bound = max(self.lower_bound, known - 1)
        return known

    def _has_row(self, row: int) -> bool:
        try:
            return len(self._read(slice(row, row + 1))) == 1
        except IndexError:
            return False

    def get_state(self) -> State:
        """What the cache holds, and what is known of the length."""
        state = super().get_state()
        state["internal"] |= {
            "cache": self.cache.get_state()["internal"],
            "length": self.length,
            "lower_bound": self.lower_bound,
            "orders": list(self._orders),
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on with the cache as it was.

        Raises:
            StateError: The state is of another kind of pipe or cache.
        """
        own, rest = take_out(state, ("cache", "length", "lower_bound", "orders"), what=type(self).__name__)
        self.cache.set_state({"internal": own["cache"], "external": {}})
        super().set_state(rest)
        self.length, self.lower_bound, self._orders = own["length"], own["lower_bound"], list(own["orders"])
