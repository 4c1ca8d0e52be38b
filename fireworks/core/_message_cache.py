"""MessageCache itself: what all caches do, whichever rows leave first. `cache` has the policies and the overview."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from fireworks.core import _columns
from fireworks.core._slots import IndexTable, SlotColumns, Source
from fireworks.core.message import Message, MessageLike, cat
from fireworks.core.state import columns_from_state, columns_to_state, internal_state
from fireworks.utils.exceptions import CacheMissError, ColumnError, LengthError, StateError
from fireworks.utils.utils import RowIndex, as_indices, describe_rows

_FIRST_SLOTS = 64
_NO_ROW = np.array(-1)
NO_SLOTS = np.empty(0, dtype=np.int64)
_INT64 = np.dtype(np.int64)

Fetch = Message | Source | Callable[[np.ndarray], MessageLike]


class MessageCache(ABC):
    """Stores rows of a large data set by their index in it, at most `max_size` of them.

    A subclass says in `__setitem__` what happens when the cache is full; it calls `insert` to store rows and `delete`
    to let some go. `BufferedCache` and `RankingCache` do this; the finished classes are `UnlimitedCache`, `LRUCache`,
    `LFUCache`, `OptimalCache` and `RRCache`.

    Indices are ints from 0 up, slices with a stop, or sequences of such ints: a cache does not know how long the data
    set is. The first rows decide the columns. Tensors are kept as values, without the graph that made them. Messages
    that come out are copies.

    Args:
        max_size: The largest number of rows, or None for no limit.

    Raises:
        ValueError: `max_size` is no whole number from 0 up.
    """

    _heard: frozenset[str] = frozenset()  # hooks that a subclass has

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hooks = ("on_add_new", "on_update_existing")  # whose message costs something
        cls._heard = frozenset(name for name in hooks if getattr(cls, name) is not getattr(MessageCache, name))

    def __init__(self, max_size: int | None) -> None:
        if max_size is not None and not (isinstance(max_size, (int, np.integer)) and max_size >= 0):
            raise ValueError(f"max_size is a number of rows from 0 up, got {max_size!r}")
        self.max_size = max_size
        self._moment = 0  # rises with every read or write
        self._clear()

    def _clear(self) -> None:
        self._table = IndexTable()
        self._columns = SlotColumns()
        self._size = 0
        self._arrivals = 0
        self._used = 0  # slots that were ever used: the first ones
        self._free_slots: list[np.ndarray] = []  # a stack of slots that were used and are free again
        self._kept = NO_SLOTS  # slots of rows that stay while room is made
        # Per slot: the index of its row, a number that rises with insertion (negative: no row), and its place in
        # storage, which is the same number unless somebody sorted them.
        self._keys = self._births = self._places = NO_SLOTS

    # What is in it

    def __len__(self) -> int:
        return self._size

    @property
    def size(self) -> int:
        """Number of rows that are stored."""
        return self._size

    def __contains__(self, index: object) -> bool:
        if isinstance(index, (torch.Tensor, np.ndarray)) and index.ndim == 0:
            index = index.item()
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            return False
        return int(index) >= 0 and bool(self._table.find(np.array([index]))[0] >= 0)

    def __iter__(self) -> Iterator[int]:
        """The stored indices, in order of arrival."""
        return iter(self._keys[self._in_order()].tolist())

    def _in_order(self) -> np.ndarray:
        slots = self._occupied()
        return slots[np.argsort(self._places[slots], kind="stable")]

    @property
    def cache(self) -> Message:
        """All stored rows, in order of arrival (or as `sort` left them): a copy."""
        return self._columns.read(self._in_order())

    @property
    def pointers(self) -> dict[int, int]:
        """Which row of `cache` each stored index is."""
        return {index: row for row, index in enumerate(self)}

    def __repr__(self) -> str:
        limit = f"max_size={self.max_size}" if self.max_size is not None else ""
        return f"{type(self).__name__}({limit}): {self._size} rows of {', '.join(self._columns.names) or 'no columns'}"

    # Reading

    def __getitem__(self, index: RowIndex) -> Message:
        """The rows of these indices, in this order.

        Raises:
            CacheMissError: An index is not stored (a KeyError); the text names it.
        """
        keys = self._as_keys(index)
        slots, absent = self._table.look_up(keys)
        if absent is not None:
            raise self._miss(keys)
        self._moment += 1
        self._note_request(keys)
        self._note_read(keys, slots)
        self.on_getitem(keys)
        return self._columns.read(slots)

    def read_through(self, index: RowIndex, fetch: Fetch) -> Message:
        """The rows of these indices, in this order; those that are not stored are fetched, and stored.

        Rows of the request stay until it is answered. If they are more than fit, the answer is whole all the same,
        and the last ones are stored.

        Args:
            index: An int, a slice with a stop, or a list of ints.
            fetch: Gives the rows of an int64 array of indices, each named once. Or a message that has all rows, each
                under its number: those that are missing go from its columns to those of the cache.

        Raises:
            LengthError: `fetch` gave another number of rows.
            IndexError: The message has no such row.

        Example:
            >>> from fireworks.core.cache import LRUCache
            >>> cache = LRUCache(100)
            >>> cache.read_through([4, 2, 4], lambda indices: {"a": indices * 10}).to_dict()
            {'a': [40, 20, 40]}
            >>> cache.pointers
            {4: 0, 2: 1}
        """
        keys = self._as_keys(index)
        slots, absent = self._table.look_up(keys)
        if absent is None:
            self._moment += 1
            self._note_request(keys)
            self._note_read(keys, slots)
            self.on_getitem(keys)
            return self._columns.read(slots)
        missing = keys[absent.nonzero()[0]]  # by position is twice as fast as by mask
        distinct = dict.fromkeys(missing.tolist())
        if min(distinct) < 0:
            raise self._miss(keys)
        if len(distinct) < len(missing):
            missing = np.array(list(distinct))
        columns = self._fetched(missing, fetch)
        self._moment += 1
        self._note_request(keys)
        present = (~absent).nonzero()[0]
        kept = slots[present]
        if len(kept):
            found = keys[present]
            self._note_read(found, kept)
            self.on_getitem(found)
        if self.max_size is not None and self._size + len(missing) > self.max_size:
            chosen = self._choose(missing, kept, self.max_size)
            if chosen is not None:
                return self._answer(keys, absent, missing, columns, chosen)
            self._make_room(len(missing), kept)
        self._add(missing, columns)
        return self._columns.read(self._table.known(keys))

    def _fetched(self, missing: np.ndarray, fetch: Fetch) -> list[Any]:
        """The columns of these rows, as they can be written."""
        if isinstance(fetch, Message):
            fetch = Source(fetch)
        if isinstance(fetch, Source):
            if not self._size:
                self._begin(fetch.message)
            return self._columns.gather(fetch, missing, self._occupied)
        given = fetch(missing)
        rows = given._checked() if isinstance(given, Message) else Message(given)
        if len(rows) != len(missing):
            raise LengthError(f"asked for {describe_rows(missing)}: expected {len(missing)} rows, got {len(rows)}")
        return self._fit(rows)

    def _choose(self, missing: np.ndarray, kept: np.ndarray, max_size: int) -> np.ndarray | None:
        """Which of the missing rows to store when there is no room for all, by their positions.

        Args:
            missing: Their indices.
            kept: The slots of the other rows of the request.
            max_size: That of the cache.

        Returns:
            None to make room for all and leave the rows of the request in the cache; else rows may go before it is
            answered.
        """
        if len(missing) + len(kept) <= max_size or len(missing) + len(set(kept.tolist())) <= max_size:
            return None
        return np.arange(len(missing))

    def _answer(
        self, keys: np.ndarray, absent: np.ndarray, missing: np.ndarray, columns: list[Any], chosen: np.ndarray
    ) -> Message:
        """The answer to a request, put together before the chosen rows are stored, and others have to go."""
        stored, rows = self._columns.read(self._table.find(keys[~absent])), self._columns.message(columns)
        everything = cat([stored, rows])
        order = np.empty(len(keys), dtype=np.int64)
        order[~absent] = np.arange(len(stored))
        place = {key: len(stored) + position for position, key in enumerate(missing.tolist())}
        order[absent] = [place[key] for key in keys[absent].tolist()]
        if len(chosen):
            self[missing[chosen]] = rows[chosen]
        return everything[order]

    def _as_keys(self, index: RowIndex) -> np.ndarray:
        if type(index) is np.ndarray and index.dtype == _INT64 and index.ndim == 1:
            return index
        return as_indices(index, owner="cache")

    def _miss(self, keys: np.ndarray) -> Exception:
        keys = as_indices(keys, owner="cache")  # a negative index is another mistake
        absent = keys[self._table.find(keys) < 0]
        named = f"{describe_rows(absent)} are" if len(absent) > 1 else f"row {absent[0]} is"
        return CacheMissError(f"{named} not in the cache, which holds {self._size} rows")

    def search(self, **kwargs: Any) -> list[int]:
        """The stored indices, in order of arrival, of rows that have these values in these columns.

        Args:
            **kwargs: Column names and the value that each must have; for a column of vectors the whole vector.

        Raises:
            ColumnError: A name is no column.
            LengthError: A vector of another shape than the column's.

        Example:
            >>> from fireworks.core.cache import UnlimitedCache
            >>> cache = UnlimitedCache()
            >>> cache[10:13] = {"a": [1, 2, 1], "b": ["x", "x", "y"]}
            >>> cache.search(a=1), cache.search(a=1, b="x")
            ([10, 12], [10])
        """
        unknown = [name for name in kwargs if name not in self._columns.names]
        if unknown:
            raise ColumnError.unknown(unknown, self._columns.names)
        rows = self.cache
        found = np.ones(self._size, dtype=bool)
        for name, value in kwargs.items():
            found &= _equal_rows(rows[name], value, name)
        indices: list[int] = self._keys[self._in_order()[found]].tolist()
        return indices

    # Writing

    @abstractmethod
    def __setitem__(self, index: RowIndex, message: MessageLike) -> None:
        """Stores rows; makes room first when the cache is full."""

    def insert(self, index: RowIndex, message: MessageLike) -> None:
        """Stores the rows of a message under these indices; rows that are there already are overwritten.

        When an index is named twice, its last row counts. A failed insert changes nothing.

        Args:
            index: An int, a slice with a stop, or a list of ints.
            message: As many rows as indices, with the columns that the cache has.

        Raises:
            LengthError: Another number of rows, or rows of another shape.
            ColumnError: Columns are missing or extra; the text names them.
            ValueError: There is no room, and the cache frees none by itself.
        """
        keys, rows = self._incoming(index, message)
        if len(keys):
            self._insert(keys, rows)

    def _incoming(self, index: RowIndex, message: MessageLike) -> tuple[np.ndarray, Message]:
        """Indices, each once, and their rows."""
        keys = as_indices(index, owner="cache")
        rows = message._checked() if isinstance(message, Message) else Message(message)
        if len(keys) != len(rows):
            raise LengthError(f"expected one row per index: got {len(rows)} rows for {len(keys)} indices")
        if not isinstance(index, slice) and len(keys) > 1:
            ordered = np.sort(keys)
            if (ordered[1:] == ordered[:-1]).any():
                last = {key: position for position, key in enumerate(keys.tolist())}
                return np.array(list(last)), rows[list(last.values())]
        return keys, rows

    def _insert(self, keys: np.ndarray, rows: Message) -> None:
        """Stores rows under indices that are each named once."""
        columns = self._fit(rows)
        slots = self._table.find(keys)
        new = slots < 0
        present = slots[~new]
        count = len(keys) - len(present)
        if self.max_size is not None and self._size + count > self.max_size:
            self._make_room(count, present)
        self._moment += 1
        if not len(present):
            self._add(keys, columns)
            return
        if len(present) < len(keys):
            places = np.flatnonzero(new)
            self._add(keys[new], [column[places] for column in columns])
            places = np.flatnonzero(~new)
            keys, columns = keys[places], [column[places] for column in columns]
        self._columns.write(present, columns)
        self._note_replaced(keys, present)
        if "on_update_existing" in self._heard:
            self.on_update_existing(keys, self._columns.message(columns))

    def _fit(self, rows: Message) -> list[Any]:
        if not self._size:
            self._begin(rows)
        return self._columns.fit(rows, self._occupied)

    def _begin(self, rows: Message) -> None:
        """An empty cache takes rows of any columns."""
        if not self._columns.suits(rows):
            self._columns.begin(rows)

    def _add(self, keys: np.ndarray, columns: list[Any]) -> None:
        """Stores rows that are not there yet, and for which there is room."""
        count = len(keys)
        slots = self._allocate(count)
        self._columns.write(slots, columns)
        self._table.put(keys, slots)
        arrivals = np.arange(self._arrivals, self._arrivals + count)
        self._keys[slots] = keys
        self._births[slots] = arrivals
        if self._places is not self._births:
            self._places[slots] = arrivals
        self._arrivals += count
        self._size += count
        self._note_new(keys, slots)
        if "on_add_new" in self._heard:
            self.on_add_new(keys, self._columns.message(columns))

    def _occupied(self) -> np.ndarray:
        slots = np.flatnonzero(self._births[: self._used] >= 0)
        return slots[~np.isin(slots, self._kept)] if len(self._kept) else slots

    def _make_room(self, count: int, kept: np.ndarray) -> None:
        """Makes room for that many rows, as there is too little; not by deleting rows in the slots `kept`."""
        raise ValueError(
            f"no room for {count} more rows: the cache holds {self._size} of at most {self.max_size} rows; "
            "delete some first"
        )

    def _allocate(self, count: int) -> np.ndarray:
        if self._free_slots and len(self._free_slots[-1]) == count:  # room was made for these rows
            return self._free_slots.pop()
        parts: list[np.ndarray] = []
        while count and self._free_slots:
            slots = self._free_slots.pop()
            if len(slots) > count:
                self._free_slots.append(slots[:-count])
                slots = slots[-count:]
            parts.append(slots)
            count -= len(slots)
        if count:
            first, self._used = self._used, self._used + count
            if self._used > self._columns.capacity:
                self._grow(self._used)
            parts.insert(0, np.arange(first, self._used))
        return parts[0] if len(parts) == 1 else np.concatenate(parts[::-1])

    def _grow(self, needed: int) -> None:
        rows = max(needed, 2 * self._columns.capacity, _FIRST_SLOTS)
        if self.max_size is not None:
            rows = min(rows, self.max_size)
        self._columns.grow(rows)
        is_sorted = self._places is not self._births
        self._keys, self._births = longer(self._keys, rows), longer(self._births, rows)
        self._places = longer(self._places, rows) if is_sorted else self._births

    # Deleting and sorting

    def __delitem__(self, index: RowIndex) -> None:
        self.delete(index)

    def delete(self, index: RowIndex) -> None:
        """Deletes the rows of these indices; indices that are not stored are ignored.

        Example:
            >>> from fireworks.core.cache import UnlimitedCache
            >>> cache = UnlimitedCache()
            >>> cache[0:3] = {"a": [1, 2, 3]}
            >>> cache.delete([1, 7])
            >>> cache.pointers
            {0: 0, 2: 1}
        """
        keys = as_indices(index, owner="cache")
        slots = self._table.find(keys)
        if len(slots) > 1:
            slots = np.unique(slots)
        slots = slots[slots >= 0]
        if len(slots):
            self._remove(slots)

    def _remove(self, slots: np.ndarray) -> None:
        keys = self._keys[slots]
        self.on_delete(keys)
        self._table.drop(keys)
        self._columns.release(slots)
        self._births[slots] = _NO_ROW
        self._free_slots.append(slots)
        self._size -= len(slots)

    def sort(self) -> None:
        """Rearranges storage in order of the indices; which rows leave first does not change.

        Example:
            >>> from fireworks.core.cache import UnlimitedCache
            >>> cache = UnlimitedCache()
            >>> cache[[5, 2]] = {"a": ["five", "two"]}
            >>> cache.sort()
            >>> cache.cache.to_dict(), cache.pointers
            ({'a': ['two', 'five']}, {2: 0, 5: 1})
        """
        self._permute(np.argsort(self._keys[self._in_order()], kind="stable"))

    def _permute(self, order: Any) -> None:
        """Rearranges storage so that its row i is what row `order[i]` was."""
        slots = self._in_order()
        if self._places is self._births:
            self._places = self._births.copy()
        self._places[slots[np.asarray(order)]] = self._places[slots]

    def announce(self, index: RowIndex) -> None:  # noqa: B027
        """Tells the cache which rows are going to be asked for, in which order. Only an `OptimalCache` makes use of it.

        Args:
            index: All indices of the requests to come, one request after the other; in place of what was announced
                before.
        """

    # What a policy notes of rows, by their slots; it does so before the hooks are called.

    def _note_request(self, keys: np.ndarray) -> None:  # noqa: B027
        """Rows were asked for, in this order; those that are there will be noted as read, the others as new."""

    def _note_read(self, keys: np.ndarray, slots: np.ndarray) -> None:  # noqa: B027
        """Stored rows are about to be read."""

    def _note_new(self, keys: np.ndarray, slots: np.ndarray) -> None:  # noqa: B027
        """Rows were stored under new indices."""

    def _note_replaced(self, keys: np.ndarray, slots: np.ndarray) -> None:  # noqa: B027
        """Rows were stored in place of others."""

    # Hooks, with the indices concerned as an int64 array. A policy overrides those it needs (hence no
    # @abstractmethod).

    def on_getitem(self, index: np.ndarray) -> None:  # noqa: B027
        """Called when stored rows are about to be read."""

    def on_add_new(self, index: np.ndarray, message: Message) -> None:  # noqa: B027
        """Called when rows were stored under new indices."""

    def on_update_existing(self, index: np.ndarray, message: Message) -> None:  # noqa: B027
        """Called when rows were stored in place of others."""

    def on_delete(self, index: np.ndarray) -> None:  # noqa: B027
        """Called when rows are about to be deleted."""

    # State

    def get_state(self) -> dict[str, dict[str, Any]]:
        """All that the cache holds and knows, as plain values; `set_state` makes an equal cache of it."""
        occupied = self._occupied()
        return {
            "internal": {
                "slots": occupied,
                "indices": self._keys[occupied],
                "births": self._births[occupied],
                "places": self._places[occupied],
                "free_slots": np.concatenate([NO_SLOTS, *self._free_slots]),
                "arrivals": self._arrivals,
                "moment": self._moment,
                "rows": columns_to_state(self._columns.read(occupied)),
                **self._policy_state(occupied),
            },
            "external": {},
        }

    def _policy_state(self, slots: np.ndarray) -> dict[str, Any]:
        """What a policy knows of the rows in these slots, beside the rows themselves."""
        return {}

    def set_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Holds what another cache of this kind held when `get_state` was called.

        Raises:
            StateError: The state is of another kind of cache, or holds more rows than fit.
        """
        internal = internal_state(state)
        expected = self.get_state()["internal"]
        if internal.keys() != expected.keys():
            raise StateError(
                f"this is no state of a {type(self).__name__}: "
                f"expected {', '.join(sorted(expected))}; got {', '.join(sorted(internal))}"
            )
        slots, free = (np.asarray(internal[name], dtype=np.int64) for name in ("slots", "free_slots"))
        used = len(slots) + len(free)
        if self.max_size is not None and used > self.max_size:
            raise StateError(f"the state needs room for {used} rows, this cache has room for {self.max_size}")
        self._clear()
        self._moment = internal["moment"]
        if len(slots) or len(free):
            self._fill(slots, free, internal)
        self._restore_policy(slots, internal)

    def _fill(self, slots: np.ndarray, free: np.ndarray, internal: dict[str, Any]) -> None:
        rows = columns_from_state(internal["rows"])
        self._used = len(slots) + len(free)
        self._columns.begin(rows)
        self._grow(self._used)
        self._columns.write(slots, self._columns.fit(rows, self._occupied))
        keys = np.asarray(internal["indices"], dtype=np.int64)
        self._table.put(keys, slots)
        self._keys[slots], self._births[slots] = keys, internal["births"]
        if not np.array_equal(internal["places"], internal["births"]):
            self._places = self._births.copy()
            self._places[slots] = internal["places"]
        self._size = len(slots)
        self._arrivals = internal["arrivals"]
        self._free_slots = [free] if len(free) else []

    def _restore_policy(self, slots: np.ndarray, internal: Mapping[str, Any]) -> None:  # noqa: B027
        """Takes back what `_policy_state` gave."""


def longer(numbers: np.ndarray, length: int) -> np.ndarray:
    """The numbers, and as many -1 after them as are missing."""
    extended = np.full(length, _NO_ROW, dtype=numbers.dtype)
    extended[: len(numbers)] = numbers
    return extended


def _equal_rows(column: Any, value: Any, name: str) -> np.ndarray:
    """Which rows of a column equal a value."""
    if isinstance(column, torch.Tensor):
        wanted = torch.as_tensor(value, device=column.device)
        if wanted.ndim and wanted.shape != column.shape[1:]:
            expected, got = tuple(column.shape[1:]), tuple(wanted.shape)
            raise LengthError(f"column {name!r} has rows of shape {expected}, cannot search for one of shape {got}")
        same = column == wanted
        return same.reshape(len(same), -1).all(dim=1).cpu().numpy()
    if not _columns.is_scalar(value):  # pandas would compare it with the column as a whole
        return np.array([_columns.same_cell(cell, value) for cell in column], dtype=bool)
    same = column == value
    matches: np.ndarray = same.to_numpy(dtype=bool, na_value=False)
    return matches
