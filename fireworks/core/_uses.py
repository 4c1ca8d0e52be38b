"""When each row of a known order of requests is used next."""

from __future__ import annotations

import numpy as np


class Uses:
    """An order of rows, and for each row the places where it stands there.

    The places of all rows lie in one sorted array, as numbers made of the row and the place, so the next use of a
    whole batch is found by one binary search.

    Args:
        order: Row numbers, which may repeat.
    """

    def __init__(self, order: np.ndarray) -> None:
        self.order = order
        places = np.argsort(order, kind="stable")
        ordered = order[places]
        starts = np.ones(len(order), dtype=bool)
        np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
        self._rows = ordered[starts]
        self._stride = len(order) + 1
        self._uses = np.append((np.cumsum(starts) - 1) * self._stride + places, np.iinfo(np.int64).max)

    def __len__(self) -> int:
        return len(self.order)

    def next_uses(self, rows: np.ndarray, place: int) -> np.ndarray:
        """The first place of each row from `place` on; the length of the order where there is none."""
        uses = np.full(len(rows), len(self.order))
        groups = np.searchsorted(self._rows, rows)
        known = groups < len(self._rows)
        known[known] = self._rows[groups[known]] == rows[known]
        firsts = groups[known] * self._stride
        found = np.searchsorted(self._uses, firsts + place)
        ends = firsts + len(self.order)
        uses[known] = np.minimum(self._uses[found], ends) - firsts
        return uses

    def find(self, rows: np.ndarray, place: int) -> int | None:
        """The first place, from `place` on, where these rows stand one after the other."""
        if self._stands(rows, place):
            return place
        if not len(rows):
            return None
        group = int(np.searchsorted(self._rows, rows[0])) * self._stride
        first, end = np.searchsorted(self._uses, [group + place, group + len(self.order)])
        places = self._uses[first:end] - group
        places = places[places + len(rows) <= len(self.order)]
        places = places[self.order[places + len(rows) - 1] == rows[-1]]
        return next((found for found in places.tolist() if self._stands(rows, found)), None)

    def _stands(self, rows: np.ndarray, place: int) -> bool:
        return np.array_equal(self.order[place : place + len(rows)], rows)
