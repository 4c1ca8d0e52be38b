"""Batches bounded by the size of the padded tensor they become: in the order of the rows, or by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from fireworks.core.cursor import is_stage
from fireworks.core.message import Message, TensorMessage, cat
from fireworks.core.pipe import Pipe, implements
from fireworks.core.state import (
    State,
    check_names,
    columns_from_state,
    columns_to_state,
    generator_state,
    set_generator_state,
)
from fireworks.toolbox._pipes.ordering import redrawn_stages
from fireworks.toolbox._pipes.reading import (
    Reader,
    ReadsByIndex,
    as_message,
    known_length,
    reads_by_index,
    require,
    row_reader,
)
from fireworks.toolbox.text import row_lengths
from fireworks.utils.exceptions import StateError
from fireworks.utils.seeding import make_generator

__all__ = ["BucketBatchingPipe", "SizeBatchingPipe", "SizedBatches"]

_ROWS_AHEAD = 64
_ROWS_PER_STEP = 4096  # read at once to measure them; bounds the memory that takes


class SizedBatches(Pipe):
    """Yields batches whose padded size is bounded: the rows, times the longest, times `dim`."""

    iterates_differently = True

    def __init__(
        self,
        input: Any = None,
        column: str | None = None,
        *args: Any,
        dim: int = 300,
        cutoff: int = 620000,
        max_rows: int | None = None,
        length: Callable[[Any], int] = len,
        allow_oversized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input, *args, **kwargs)
        for name, value in {"dim": dim, "cutoff": cutoff, "max_rows": 1 if max_rows is None else max_rows}.items():
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name} is a number from 1 up, got {value!r}")
        self.column = column
        self.dim = int(dim)
        self.cutoff = int(cutoff)
        self.max_rows = max_rows
        self.length = length
        self.allow_oversized = allow_oversized

    def _lengths(self, rows: Message) -> np.ndarray:
        return row_lengths(rows, self.column, self.length)

    def _fits(self, rows: int, widest: int) -> bool:
        """Whether so many rows, the longest of this length, are a batch."""
        # Rows without anything in them count as one item, so that there is an end to them too.
        size = rows * max(widest, 1) * self.dim
        return size <= self.cutoff and (self.max_rows is None or rows <= self.max_rows)

    def _check_alone(self, row: int, length: int) -> None:
        if not self.allow_oversized and not self._fits(1, length):
            raise ValueError(
                f"row {row} alone is too big for a batch: a length of {length} times dim={self.dim} exceeds "
                f"cutoff={self.cutoff}; give a larger cutoff, shorten such rows, or let them come alone by "
                "allow_oversized=True"
            )

    def _cuts(self, lengths: list[int], rows: Sequence[int] | np.ndarray) -> Iterator[tuple[int, int]]:
        """Where rows of these lengths, one after the other, are cut into batches; `rows` are their numbers."""
        start = widest = 0
        for place, length in enumerate(lengths):
            widest = max(widest, length)
            if not self._fits(place + 1 - start, widest):
                self._check_alone(rows[place], length)
                if place > start:
                    yield start, place
                    start, widest = place, length
        if start < len(lengths):
            yield start, len(lengths)


class SizeBatchingPipe(SizedBatches):
    """Yields batches of as many rows, in their order, as keep the padded size within a bound.

    Use it for sequences of different length: batches of short ones have many rows, and memory has a limit. The size is
    that of `text.too_big`: rows, times the length of the longest, times `dim`. `[]` and `len` speak of rows.

    Args:
        input: What to read from: anything that BatchingPipe reads.
        column: The column of the sequences; needed when there are several columns.
        dim: How many numbers an item of a sequence takes, such as the size of its embedding.
        cutoff: The largest size.
        max_rows: The largest number of rows, whatever their size.
        length: How long a sequence is. Of text that is the number of characters, so give a function that counts
            tokens, unless they are characters.
        allow_oversized: A row that is too big by itself comes in a batch of its own; otherwise it is an error.

    Raises:
        ColumnError: There is no such column, or several and none was named.
        ValueError: A row is too big by itself; a bound is no number from 1 up.

    Example:
        >>> texts = Message({"text": ["a", "bb", "cc", "dddddd", "e"]})
        >>> [batch["text"].tolist() for batch in SizeBatchingPipe(texts, "text", dim=1, cutoff=6)]
        [['a', 'bb', 'cc'], ['dddddd'], ['e']]
    """

    name = "SizeBatchingPipe"

    def __init__(self, input: Any = None, column: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(input, column, *args, **kwargs)
        self._start()

    def _start(self) -> None:
        self.position = 0  # rows read since the start, when they are read by index
        self.given = 0  # rows given out since then
        self._ahead: list[Message] = []  # rows that were read but not given out yet
        self._lengths_ahead: list[int] = []
        self._source: Any = None
        self._read: Reader | None = None
        self._rows: int | None = None

    def __next__(self) -> Message:
        rows = widest = 0
        while rows != self.max_rows and (rows < len(self._lengths_ahead) or self._read_on()):
            widest = max(widest, self._lengths_ahead[rows])
            if not self._fits(rows + 1, widest):
                break
            rows += 1
        if not self._lengths_ahead:
            raise StopIteration
        if not rows:
            self._check_alone(self.given, self._lengths_ahead[0])
            rows = 1
        ahead = cat(self._ahead)
        batch, self._ahead = ahead[:rows], [ahead[rows:]] if rows < len(ahead) else []
        del self._lengths_ahead[:rows]
        self.given += rows
        return batch

    def _read_on(self) -> bool:
        """Reads rows ahead; False at the end."""
        if self._source is not self.input:
            self._source = self.input
            self._rows = known_length(self.input) if reads_by_index(self.input) else None
            self._read = None if self._rows is None else row_reader(self.input)
        rows = self._next_rows()
        while rows is not None and not len(rows):
            rows = self._next_rows()
        if rows is None:
            return False
        self._lengths_ahead += self._lengths(rows).tolist()
        self._ahead.append(rows)
        return True

    def _next_rows(self) -> Message | None:
        if self._read is None or self._rows is None:
            try:
                return as_message(super().__next__())
            except StopIteration:
                return None
        start, stop = self.position, min(self.position + max(_ROWS_AHEAD, len(self._lengths_ahead)), self._rows)
        if stop <= start:
            return None
        rows = self._read(slice(start, stop))
        self.position = stop
        return rows

    def reset(self) -> SizeBatchingPipe:
        """Starts over with the first row."""
        super().reset()
        self._start()
        return self

    @property
    def batches_per_epoch(self) -> int | None:
        """How many batches an epoch yields, where that can be told from data in memory; else None."""
        if not reads_by_index(self.input) or not _is_in_memory(self.input) or redrawn_stages(self.input):
            return None
        lengths = _measured(self.input, row_reader(self.input), self._lengths).tolist()
        return sum(1 for _ in self._cuts(lengths, range(len(lengths))))

    def get_state(self) -> State:
        """The position, and rows that were read ahead."""
        state = super().get_state()
        state["internal"] |= {
            "position": self.position,
            "given": self.given,
            "ahead": columns_to_state(cat(self._ahead)) if self._ahead else None,
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on with the same batch.

        Raises:
            StateError: The state is of another kind of pipe.
        """
        names = ("position", "given", "ahead")
        internal = dict(state["internal"])
        own = {name: internal.pop(name) for name in names if name in internal}
        check_names(own, dict.fromkeys(names), what=type(self).__name__)
        super().set_state({"internal": internal, "external": {}})
        self._start()
        self.position, self.given = own["position"], own["given"]
        if own["ahead"] is not None:
            self._ahead = [columns_from_state(own["ahead"])]
            self._lengths_ahead = self._lengths(self._ahead[0]).tolist()


class BucketBatchingPipe(SizedBatches, ReadsByIndex):
    """Yields batches of rows of similar length, as many as keep the padded size within a bound, in random order.

    Little is lost to padding that way. All rows are measured once, when the first batch is asked for. Every epoch has
    each row once; rows of equal length, and the batches, are shuffled anew. `[]` and `len` speak of rows.

    Args:
        input: A pipe, a Message, or anything with `__getitem__` and `__len__`.
        column: The column of the sequences; needed when there are several columns.
        dim: How many numbers an item of a sequence takes, such as the size of its embedding.
        cutoff: The largest size.
        max_rows: The largest number of rows, whatever their size.
        length: How long a sequence is. Of text that is the number of characters, so give a function that counts
            tokens, unless they are characters.
        allow_oversized: A row that is too big by itself comes in a batch of its own; otherwise it is an error.
        window: How many rows are sorted by length among themselves, all by default. Rows are shuffled before, so a
            smaller window mixes the batches more, and pads them more.
        seed: An int or a generator; by default drawn from torch's global generator.

    Raises:
        ColumnError: There is no such column, or several and none was named.
        TypeError: The input has no rows by index, or no length.
        ValueError: A row is too big by itself; a bound is no number from 1 up.

    Example:
        >>> texts = Message({"text": ["aaa", "b", "cc", "d", "eee"]})
        >>> batches = BucketBatchingPipe(texts, "text", dim=1, cutoff=6, seed=0)
        >>> sorted(sorted(batch["text"]) for batch in batches)
        [['aaa', 'eee'], ['b', 'cc', 'd']]
        >>> batches.batches_per_epoch
        2
    """

    name = "BucketBatchingPipe"

    def __init__(
        self,
        input: Any = None,
        column: str | None = None,
        *args: Any,
        window: int | None = None,
        seed: int | torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input, column, *args, **kwargs)
        self.check_input()
        if window is not None and (isinstance(window, bool) or int(window) != window or window < 1):
            raise ValueError(f"window is a number of rows from 1 up, got {window!r}")
        self.window = window
        self.generator = make_generator(seed)
        self.position = 0  # batches given out since the start
        self._plan: list[np.ndarray] | None = None
        self._drawn_from: torch.Tensor | None = None  # the generator's state before the plan
        self._planned_rows: int | None = None
        self._known: tuple[Any, list[int], np.ndarray] | None = None  # lengths, and what was measured

    def check_input(self) -> None:
        """Checks that the input implements `__getitem__` and `__len__`.

        Raises:
            TypeError: It does not.
        """
        require(self, "__getitem__", "__len__")

    def _row_lengths(self) -> np.ndarray:
        seen = [stage.draws for stage in redrawn_stages(self.input)]
        if self._known is None or self._known[0] is not self.input or self._known[1] != seen:
            self._known = (self.input, seen, _measured(self.input, self._read, self._lengths))
        return self._known[2]

    def _batches(self) -> list[np.ndarray]:
        """The rows of each batch of this epoch."""
        if self._plan is None:
            lengths = self._row_lengths()
            if self._planned_rows not in (None, len(lengths)):
                raise StateError(f"the state is of {self._planned_rows} rows, but the input has {len(lengths)}")
            if self._drawn_from is None:
                self._drawn_from = self.generator.get_state()
                source = self.generator
            else:
                source = torch.Generator()
                source.set_state(self._drawn_from)
            self._plan, self._planned_rows = self._draw(lengths, source), len(lengths)
        return self._plan

    def _draw(self, lengths: np.ndarray, generator: torch.Generator) -> list[np.ndarray]:
        shuffled = torch.randperm(len(lengths), generator=generator).numpy()
        batches: list[np.ndarray] = []
        window = self.window or max(len(lengths), 1)
        for start in range(0, len(lengths), window):
            rows = shuffled[start : start + window]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            batches += [rows[first:stop] for first, stop in self._cuts(lengths[rows].tolist(), rows)]
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def __next__(self) -> Message:
        batches = self._batches()
        if self.position >= len(batches):
            raise StopIteration
        batch = self._read(batches[self.position])
        self.position += 1
        return batch

    def reset(self) -> BucketBatchingPipe:
        """Starts over, with other batches."""
        if is_stage(self.input) and implements(self.input, "reset"):
            self.input.reset()
        self.position = 0
        self._plan = self._drawn_from = self._planned_rows = None
        return self

    @property
    def batches_per_epoch(self) -> int | None:
        """How many batches an epoch yields; None where that differs from epoch to epoch."""
        if redrawn_stages(self.input) or (self.window is not None and self.window < len(self.input)):
            return None
        lengths = self._row_lengths()
        order = np.argsort(lengths)
        return sum(1 for _ in self._cuts(lengths[order].tolist(), order))

    def get_state(self) -> State:
        """Position, generator, and what the present batches were drawn from; not the batches themselves."""
        return {
            "internal": {
                "position": self.position,
                "generator": generator_state(self.generator),
                "drawn_from": None if self._drawn_from is None else self._drawn_from.clone(),
                "rows": self._planned_rows,
            },
            "external": {},
        }

    def set_state(self, state: State) -> None:
        """Goes on with the same batches at the same position.

        Raises:
            StateError: The state is of another kind of pipe.
        """
        internal = state["internal"]
        check_names(internal, self.get_state()["internal"], what=type(self).__name__)
        self.position = internal["position"]
        set_generator_state(self.generator, internal["generator"])
        self._drawn_from, self._planned_rows = internal["drawn_from"], internal["rows"]
        # Planned when the next batch is asked for: the input may get its own state after this.
        self._plan = self._known = None


def _measured(source: Any, read: Reader, measure: Callable[[Message], np.ndarray]) -> np.ndarray:
    """The length of each row of a source."""
    count = len(source)
    steps = [*range(0, count, _ROWS_PER_STEP), count]
    parts = [measure(read(slice(start, stop))) for start, stop in pairwise(steps)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _is_in_memory(source: Any) -> bool:
    while isinstance(source, Pipe) and source.input is not None:
        source = source.input
    return isinstance(source, (Message, TensorMessage, list, tuple))
