"""MessageCache: rows of a large data set, remembered by their index in it.

A cache resembles a dict from index to row that is read and written in batches: `cache[3:6] = message`, `cache[[5,
3]]`. It never holds more than `max_size` rows, not even for a moment. The classes differ in which rows leave first:
`LRUCache` the longest unused, `LFUCache` the least often used, `RRCache` random ones, `UnlimitedCache` none; and
`OptimalCache`, for a reader that announces its order, those that are needed last.

How it is kept: rows lie in numbered slots of preallocated columns (see `_slots`) and never move. A table leads from
index to slot, and arrays beside it hold, for each slot, its index, its place in the order of arrival and its rank. So
a batch is one look-up and one gather, and inserting or evicting touches only the rows concerned, whatever the cache
holds. What programs read from it as `cache`, `pointers` and `rank_dict` is put together when they ask.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch

from fireworks.core._message_cache import NO_SLOTS, MessageCache, longer
from fireworks.core._ranking import LowestFirst
from fireworks.core._uses import Uses
from fireworks.core.message import MessageLike
from fireworks.utils.exceptions import CacheMissError
from fireworks.utils.seeding import make_generator
from fireworks.utils.utils import RowIndex, as_indices, get_indices, index_to_list, slice_to_list

__all__ = [
    "BufferedCache",
    "LFUCache",
    "LRUCache",
    "MessageCache",
    "OptimalCache",
    "RRCache",
    "RankingCache",
    "UnlimitedCache",
    "get_indices",
    "index_to_list",
    "pointer_adjustment_function",
    "slice_to_list",
]


class UnlimitedCache(MessageCache):
    """Stores whatever it is given and lets nothing go by itself.

    Example:
        >>> cache = UnlimitedCache()
        >>> cache[3:6] = {"a": [30, 40, 50]}
        >>> cache[[5, 3]].to_dict(), 4 in cache, len(cache)
        ({'a': [50, 30]}, True, 3)
        >>> cache[9]
        Traceback (most recent call last):
        fireworks.utils.exceptions.CacheMissError: row 9 is not in the cache, which holds 3 rows
    """

    def __init__(self) -> None:
        super().__init__(None)

    def __setitem__(self, index: RowIndex, message: MessageLike) -> None:
        self.insert(index, message)


class BufferedCache(MessageCache):
    """A cache that makes room when it is full: as much as new rows need, but at least `buffer_size` rows at a time.

    A subclass says in `free(n)` which rows go. Rows that the same call overwrites stay. Of a batch that is larger
    than the cache the last `max_size` rows are stored.

    Args:
        max_size: The largest number of rows.
        buffer_size: How many rows to free at least when there is no room; from 0 to `max_size`.

    Raises:
        ValueError: `buffer_size` is out of range.
    """

    def __init__(self, max_size: int, buffer_size: int = 0) -> None:
        super().__init__(max_size)
        self.init_buffer(buffer_size)

    def init_buffer(self, buffer_size: int = 0) -> None:
        """Sets how many rows are freed at least when there is no room."""
        if not 0 <= buffer_size <= self._limit:
            raise ValueError(f"buffer_size is a number of rows from 0 to max_size={self.max_size}, got {buffer_size}")
        self.buffer_size = buffer_size

    @property
    def _limit(self) -> int:
        if self.max_size is None:
            raise ValueError(f"a {type(self).__name__} needs a max_size; use UnlimitedCache for no limit")
        return self.max_size

    def __setitem__(self, index: RowIndex, message: MessageLike) -> None:
        keys, rows = self._incoming(index, message)
        if len(keys) > self._limit:
            keys, rows = keys[len(keys) - self._limit :], rows[len(keys) - self._limit :]
        if len(keys):
            self._insert(keys, rows)

    def _make_room(self, count: int, kept: np.ndarray) -> None:
        limit = self._limit
        missing = self._size + count - limit
        number = max(missing, self.buffer_size)
        if number > self._size - len(kept):
            kept = np.unique(kept)  # a row may be asked for twice
            number = min(number, self._size - len(kept))
        if missing <= number:
            self._kept = kept
            try:
                self.free(number)
            finally:
                self._kept = NO_SLOTS
        if self._size + count > limit:
            super()._make_room(count, kept)

    @abstractmethod
    def free(self, n: int) -> None:
        """Deletes n rows; not those that the present call reads or overwrites, which iteration leaves out meanwhile."""


class RRCache(BufferedCache):
    """Random replacement: when there is no room, rows drawn at random go.

    Args:
        max_size: The largest number of rows.
        buffer_size: How many rows to free at least when there is no room.
        seed: An int or a generator; by default one is drawn from torch's global generator.

    Example:
        >>> cache = RRCache(2, seed=0)
        >>> cache[0:2] = {"a": [1, 2]}
        >>> cache[7] = {"a": [3]}
        >>> len(cache), 7 in cache
        (2, True)
    """

    def __init__(self, max_size: int, buffer_size: int = 0, seed: int | torch.Generator | None = None) -> None:
        super().__init__(max_size, buffer_size)
        self.generator = make_generator(seed)

    def free(self, n: int) -> None:
        """Deletes n rows drawn at random, each equally likely."""
        kept = set(self._kept.tolist())
        stored = self._size - len(kept)
        if 4 * n >= stored or 4 * stored < self._used:
            slots = self._occupied()
            slots = slots[torch.randperm(len(slots), generator=self.generator)[:n].numpy()]
        else:
            slots = self._draw(n, kept)
        self._remove(slots)

    def _draw(self, n: int, kept: set[int]) -> np.ndarray:
        """Draws until n different rows have come; quick, as most slots are in use."""
        drawn: dict[int, None] = {}
        while len(drawn) < n:
            slots = torch.randint(self._used, (2 * n,), generator=self.generator).numpy()
            stored = slots[self._births[slots] >= 0].tolist()
            drawn.update(dict.fromkeys(slot for slot in stored if slot not in kept))
        return np.array(list(drawn)[:n], dtype=np.int64)

    def _policy_state(self, slots: np.ndarray) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def _restore_policy(self, slots: np.ndarray, internal: Mapping[str, Any]) -> None:
        self.generator.set_state(internal["generator"])


class RankingCache(MessageCache):
    """A cache in which every row has a rank, and rows of low rank go first; of equal rank the lower insertion.

    A subclass ranks rows in the hooks, by writing to `rank_dict`, and combines this with `BufferedCache`:

    Example:
        >>> class FIFOCache(RankingCache, BufferedCache):
        ...     '''First in, first out: all ranks stay 0, and ties leave in order of insertion.'''
        >>> cache = FIFOCache(2)
        >>> cache[[4, 8]] = {"a": [1, 2]}
        >>> cache[6] = {"a": [3]}
        >>> cache.rank_dict
        {8: 0, 6: 0}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_rank_dict()

    def init_rank_dict(self) -> None:
        """Gives every stored row the rank 0, as new rows have it."""
        self._ranks = np.zeros(self._columns.capacity, dtype=np.int64)
        self._lowest = LowestFirst()

    @property
    def rank_dict(self) -> RankDict:
        """The rank of every stored index; ranks can be set."""
        return RankDict(self)

    def free(self, n: int, x: float = 0) -> None:
        """Deletes the n rows of lowest rank.

        Args:
            n: How many.
            x: Rows that rank below x are passed over.
        """
        if x > 0:
            slots = self._in_order()
            slots = slots[self._ranks[slots] >= x]
            slots = slots[np.lexsort((self._births[slots], self._ranks[slots]))][:n]
        else:
            slots = self._lowest.take(n, self._ranks, self._births, self._kept)
        self._remove(slots)

    def _set_rank(self, slot: int, rank: float) -> None:
        if rank != int(rank) and self._ranks.dtype == np.int64:
            self._ranks = self._ranks.astype(np.float64)
            self._lowest = LowestFirst()  # which compares ranks as they are written
        self._rank(np.array([slot]), rank)

    def _rank(self, slots: np.ndarray, rank: float) -> None:
        """Gives rows one rank."""
        self._ranks[slots] = rank
        if rank <= self._lowest.reach:
            self._lowest.lowered(slots, self._ranks, self._births)

    def _grow(self, needed: int) -> None:
        super()._grow(needed)
        self._ranks = longer(self._ranks, self._columns.capacity)

    def _note_new(self, keys: np.ndarray, slots: np.ndarray) -> None:
        self._rank(slots, 0)

    def _clear(self) -> None:
        super()._clear()
        self.init_rank_dict()

    def _policy_state(self, slots: np.ndarray) -> dict[str, Any]:
        return {"ranks": self._ranks[slots]}

    def _restore_policy(self, slots: np.ndarray, internal: Mapping[str, Any]) -> None:
        ranks = np.asarray(internal["ranks"])
        self._ranks = self._ranks.astype(ranks.dtype)
        self._ranks[slots] = ranks


class RankDict(MutableMapping[int, Any]):
    """The ranks of the rows of a cache, by index: a live view."""

    def __init__(self, cache: RankingCache) -> None:
        self._cache = cache

    def _slot(self, index: int) -> int:
        if index not in self._cache:
            raise CacheMissError(f"row {index} is not in the cache, so it has no rank")
        return int(self._cache._table.find(np.array([index]))[0])

    def __getitem__(self, index: int) -> Any:
        return self._cache._ranks[self._slot(index)].item()

    def __setitem__(self, index: int, rank: float) -> None:
        self._cache._set_rank(self._slot(index), rank)

    def __delitem__(self, index: int) -> None:
        """Sets the rank back to 0: every stored row has one."""
        self[index] = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache)

    def __repr__(self) -> str:
        return repr(dict(self))


class LRUCache(RankingCache, BufferedCache):
    """Least recently used: when there is no room, the rows go that were not read or written for the longest time.

    One read or write of a batch is one moment; rows of the same moment go in the order of their insertion. The hooks
    of a subclass are called when that is noted already; to rank otherwise, override `update_rank`.

    Args:
        max_size: The largest number of rows.
        buffer_size: How many rows to free at least when there is no room.

    Example:
        >>> cache = LRUCache(3)
        >>> cache[0:3] = {"a": [1, 2, 3]}
        >>> row = cache[0]
        >>> cache[9] = {"a": [4]}
        >>> cache.pointers.keys()
        dict_keys([0, 2, 9])
    """

    def __init__(self, *args: Any, buffer_size: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, buffer_size=buffer_size, **kwargs)

    def update_rank(self, index: np.ndarray) -> None:
        """Notes that stored rows are used at this moment; new ones, too."""
        self._rank(self._table.known(index), self._moment)

    def _note_read(self, keys: np.ndarray, slots: np.ndarray) -> None:
        if type(self).update_rank is LRUCache.update_rank:
            self._rank(slots, self._moment)  # which need not be looked for
        else:
            self.update_rank(keys)

    _note_replaced = _note_read

    def _note_new(self, keys: np.ndarray, slots: np.ndarray) -> None:
        if type(self).update_rank is LRUCache.update_rank:
            self._rank(slots, self._moment)
        else:
            super()._note_new(keys, slots)
            self.update_rank(keys)


class LFUCache(RankingCache, BufferedCache):
    """Least frequently used: when there is no room, the rows go that were read or overwritten least often.

    Insertion counts nothing, every read and every overwrite counts one. Rows of equal count go in the order of their
    insertion. The hooks of a subclass are called when that is noted already; to rank otherwise, override `update_rank`.

    Args:
        max_size: The largest number of rows.
        buffer_size: How many rows to free at least when there is no room.

    Example:
        >>> cache = LFUCache(3)
        >>> cache[0:3] = {"a": [1, 2, 3]}
        >>> rows = cache[[0, 2]]
        >>> cache[9] = {"a": [4]}
        >>> cache.rank_dict
        {0: 1, 2: 1, 9: 0}
    """

    def __init__(self, *args: Any, buffer_size: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, buffer_size=buffer_size, **kwargs)

    def update_rank(self, index: np.ndarray) -> None:
        """Counts one use of stored rows, one more for each time an index is named."""
        np.add.at(self._ranks, self._table.known(index), 1)

    def _note_read(self, keys: np.ndarray, slots: np.ndarray) -> None:
        if type(self).update_rank is LFUCache.update_rank:
            np.add.at(self._ranks, slots, 1)  # which need not be looked for
        else:
            self.update_rank(keys)

    _note_replaced = _note_read


class OptimalCache(RankingCache, BufferedCache):
    """Knows which rows will be asked for, and lets those go that are needed last: no policy has fewer misses.

    `announce` tells it the order of the requests to come. When there is no room, the rows stay, of those stored and
    those just fetched alike, whose next use is nearest; `read_through` does not store a row at all if the others are
    needed sooner. So over the announced requests the number of rows that are fetched is the least that any cache of
    this size can have, given what it holds at the start, if `buffer_size` is 0 and requests come as announced. Rows
    that are not needed again make room first, but not for each other: of an order that names each row once the cache
    fills, and stays as it is.

    Requests that were not announced are answered like others, from rows that are ranked by their announced use. One
    that stands further ahead in the order skips what lies between, as in a worker process that reads every other batch.
    Before anything is announced, rows go in the order of their insertion. `rank_dict` has the place in the order of
    the next use, as a negative number. A use costs a search in the order, of logarithmic cost.

    Args:
        max_size: The largest number of rows.
        buffer_size: How many rows to free at least when there is no room.

    Source:
        L. A. Belady (1966), IBM Systems Journal 5(2), 78-101: replace the page whose next use lies furthest ahead.

    Example:
        >>> cache = OptimalCache(2)
        >>> cache.announce([0, 1, 2, 0, 1, 3, 1])
        >>> fetched = []
        >>> for index in [0, 1, 2, 0, 1, 3, 1]:
        ...     row = cache.read_through(index, lambda missing: fetched.append(missing.item()) or {"a": missing * 10})
        >>> fetched, list(cache)
        ([0, 1, 2, 3], [0, 1])
    """

    def __init__(self, *args: Any, buffer_size: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, buffer_size=buffer_size, **kwargs)
        self._place = 0
        self._order = Uses(NO_SLOTS)

    def announce(self, index: RowIndex) -> None:
        """Tells which rows are going to be asked for, in which order.

        Args:
            index: All indices of the requests to come, one request after the other; in place of what was announced
                before.
        """
        self._order, self._place = Uses(as_indices(index, owner="cache").copy()), 0
        slots = self._occupied()
        self._ranks = np.zeros(self._columns.capacity, dtype=np.int64)
        self._ranks[slots] = self._next_uses(self._keys[slots])
        self._lowest = LowestFirst()

    def _next_uses(self, keys: np.ndarray) -> np.ndarray:
        """The ranks of these rows by now."""
        return -self._order.next_uses(keys, self._place)

    def _note_request(self, keys: np.ndarray) -> None:
        place = self._order.find(keys, self._place)
        if place is None:
            return
        skipped = self._order.order[self._place : place]
        self._place = place + len(keys)
        if len(skipped):
            slots = self._table.find(skipped)
            stored = slots >= 0
            self._note_read(skipped[stored], slots[stored])

    def _note_read(self, keys: np.ndarray, slots: np.ndarray) -> None:
        self._ranks[slots] = self._next_uses(keys)
        self._lowest.lowered(slots, self._ranks, self._births)

    _note_new = _note_read

    def _choose(self, missing: np.ndarray, kept: np.ndarray, max_size: int) -> np.ndarray | None:
        if not len(self._order):
            return super()._choose(missing, kept, max_size)
        excess = self._size + len(missing) - max_size
        ranks = self._next_uses(missing)
        lowest = self._ranks[self._lowest.peek(1, self._ranks, self._births)]
        if len(lowest) and np.count_nonzero(ranks <= lowest) < excess:
            lowest = self._ranks[self._lowest.peek(excess, self._ranks, self._births)]
            going = np.argsort(np.concatenate([ranks, lowest]), kind="stable")[:excess]
        else:
            going = np.argsort(ranks, kind="stable")[:excess]
        return np.setdiff1d(np.arange(len(missing)), going)

    def _policy_state(self, slots: np.ndarray) -> dict[str, Any]:
        return {**super()._policy_state(slots), "order": self._order.order.copy(), "place": self._place}

    def _restore_policy(self, slots: np.ndarray, internal: Mapping[str, Any]) -> None:
        super()._restore_policy(slots, internal)
        self._order = Uses(np.array(internal["order"], dtype=np.int64))
        self._place = int(internal["place"])


def pointer_adjustment_function(index: RowIndex) -> Callable[[int], int]:
    """A function of one integer that tells how many of the deleted indices are not greater than it.

    It is used for readjusting pointers after a deletion: when index 2 is deleted, the rows after it slide down by
    one, and rows 0 and 1 stay.

    Example:
        >>> adjustment = pointer_adjustment_function([2, 5])
        >>> adjustment(1), adjustment(2), adjustment(4), adjustment(9)
        (0, 1, 1, 2)
    """
    deleted = np.sort(as_indices(index, owner="cache"))

    def adjustment(x: int) -> int:
        """How many of the deleted indices are at most x."""
        return int(np.searchsorted(deleted, x, side="right"))

    return adjustment
