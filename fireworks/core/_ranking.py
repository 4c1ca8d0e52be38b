"""Which rows of a cache have the lowest rank, without sorting all of them each time.

Rows are compared by (rank, birth): rows of equal rank leave in the order of their insertion. Most ranks only rise (a
row is used again), and a row that rises needs no work here: entries are checked against the row when their turn
comes.

The queue knows every row up to a bound: a part sorted once, and a heap of the few that came below the bound since.
When both are used up it looks at all rows again and sorts at least a quarter of them, so one look is paid by as many
uses or evictions: the cost per row does not depend on how many rows there are.
"""

from __future__ import annotations

import heapq
from math import inf

import numpy as np

_SHARE = 4
_CHUNK = 32
_TAKEN = -1
_NO_SLOTS = np.empty(0, dtype=np.int64)


class LowestFirst:
    """Gives rows in order of (rank, birth). A slot with a negative birth holds no row."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._slots = self._ranks = self._births = _NO_SLOTS
        self._next = 0
        self._heap: list[tuple[float, int, int]] = []
        # Rows up to here, and no others, are in the queue. A row that comes to a rank beyond need not be told of.
        self._bound: tuple[float, int] | None = None
        self.reach = -inf

    def lowered(self, slots: np.ndarray, ranks: np.ndarray, births: np.ndarray) -> None:
        """Must be told of rows that are new or whose rank fell; not of those whose rank rose."""
        if len(self._heap) > len(births):  # a row that falls again leaves what it was before
            self._forget()
        self._add_below(slots, ranks, births)

    def _add_below(self, slots: np.ndarray, ranks: np.ndarray, births: np.ndarray) -> None:
        if self._bound is None or not len(slots):
            return
        rank, birth = self._bound
        values = ranks[slots]
        if values[values.argmin()] > rank:
            return
        below = (values < rank) | ((values == rank) & (births[slots] <= birth))
        for entry in zip(values[below].tolist(), births[slots][below].tolist(), slots[below].tolist(), strict=True):
            heapq.heappush(self._heap, entry)

    def take(self, count: int, ranks: np.ndarray, births: np.ndarray, kept: np.ndarray = _NO_SLOTS) -> np.ndarray:
        """The lowest `count` rows, or all when there are fewer. The caller must remove them, or tell of them as new.

        Args:
            count: How many.
            ranks: The rank of each slot.
            births: A number per slot that rises from one inserted row to the next, negative where there is no row.
            kept: Slots of rows that are passed over.
        """
        taken: list[np.ndarray] = []
        hidden: list[tuple[np.ndarray, np.ndarray]] = []  # rows that the queue must not see, and their births
        queued = _NO_SLOTS  # the kept rows, as soon as some of them may be in the queue
        while count > 0:
            if len(kept) and not len(queued) and self._bound is not None:
                values = ranks[kept]
                if values.item(values.argmin()) <= self.reach:
                    hidden.append((kept, births[kept]))
                    births[kept] = _TAKEN
                    queued = kept
            if self._heap and (self._next == len(self._slots) or self._heap[0] < self._head()):
                slots = self._pop_heap(ranks, births)
            elif self._next < len(self._slots):
                slots = self._pop_sorted(count, ranks, births)
            elif self._look_again(count, ranks, births):
                continue
            else:
                break
            taken.append(slots)
            count -= len(slots)
            if count > 0 and len(slots):
                hidden.append((slots, births[slots]))
                births[slots] = _TAKEN
        for slots, before in hidden:
            births[slots] = before
        if len(queued):
            self.lowered(queued, ranks, births)
        return taken[0] if len(taken) == 1 else np.concatenate([_NO_SLOTS, *taken])

    def peek(self, count: int, ranks: np.ndarray, births: np.ndarray) -> np.ndarray:
        """The lowest `count` rows, or all when there are fewer; they stay."""
        slots = self.take(count, ranks, births)
        self.lowered(slots, ranks, births)
        return slots

    def _head(self) -> tuple[float, int, int]:
        place = self._next
        return self._ranks[place].item(), self._births[place].item(), self._slots[place].item()

    def _pop_heap(self, ranks: np.ndarray, births: np.ndarray) -> np.ndarray:
        rank, birth, slot = heapq.heappop(self._heap)
        if births[slot] == birth:
            now = ranks[slot].item()
            if now == rank:
                return np.array([slot])
            if now > rank and (now, birth) <= self._bound:  # type: ignore[operator]
                heapq.heappush(self._heap, (now, birth, slot))
        return _NO_SLOTS

    def _pop_sorted(self, count: int, ranks: np.ndarray, births: np.ndarray) -> np.ndarray:
        """Of the next sorted rows those that are as they were noted, unless the heap has to sort them with its own."""
        if not self._heap:
            first, end = self._next, self._next + count
            slots = self._slots[first:end]
            if (
                ranks[slots].tobytes() == self._ranks[first:end].tobytes()
                and births[slots].tobytes() == self._births[first:end].tobytes()
            ):
                self._next += len(slots)
                return slots
        self._sift(count, ranks, births)
        return _NO_SLOTS

    def _sift(self, count: int, ranks: np.ndarray, births: np.ndarray) -> None:
        """Drops what changed from the next sorted rows, and moves them to the heap if that has any."""
        end = min(self._next + max(count, _CHUNK), len(self._slots))
        chunk = slice(self._next, end)
        slots, noted = self._slots[chunk], self._ranks[chunk]
        alive = births[slots] == self._births[chunk]
        now = ranks[slots]
        fresh = alive & (now == noted)
        self._add_below(slots[alive & (now > noted)], ranks, births)
        left = slots[fresh]
        if self._heap:
            for entry in zip(noted[fresh].tolist(), births[left].tolist(), left.tolist(), strict=True):
                heapq.heappush(self._heap, entry)
            self._next = end
            return
        self._next = end - len(left)
        rest = slice(self._next, end)
        self._slots[rest], self._ranks[rest], self._births[rest] = left, now[fresh], births[left]

    def _look_again(self, count: int, ranks: np.ndarray, births: np.ndarray) -> bool:
        """Sorts the lowest of all rows; whether there are any."""
        self._forget()
        slots = np.flatnonzero(births >= 0)
        if not len(slots):
            return False
        wanted = max(count, len(slots) // _SHARE, _CHUNK)
        if wanted < len(slots):
            values = ranks[slots]
            slots = slots[values <= np.partition(values, wanted - 1)[wanted - 1]]
        order = np.lexsort((births[slots], ranks[slots]))
        self._slots = slots[order]
        self._ranks, self._births = ranks[self._slots], births[self._slots]
        self._bound = (self._ranks[-1].item(), self._births[-1].item())
        self.reach = self._bound[0]
        return True
