"""Pipes that change how many rows come at a time, and how often."""

from __future__ import annotations

from typing import Any

from fireworks.core.cursor import items_per_epoch
from fireworks.core.message import Message, cat
from fireworks.core.pipe import Pipe
from fireworks.core.state import State, columns_from_state, columns_to_state, take_out
from fireworks.toolbox._pipes.reading import (
    Reader,
    as_message,
    is_count,
    known_length,
    passes_on,
    reads_by_index,
    row_reader,
)
from fireworks.toolbox._pipes.sizing import SizedBatches
from fireworks.toolbox.junctions import HubJunction, SwitchJunction

__all__ = ["BatchingPipe", "RepeaterPipe"]


class BatchingPipe(Pipe):
    """Yields batches of rows. `[]` and `len` speak of rows all the same.

    Where iterating over the input gives its rows in order, batches are read as slices: one call each. Otherwise (a
    RepeaterPipe, a hub, a model, an iterable) what the input yields is collected, whatever its size, until a batch is
    full.

    Args:
        input: What to read from.
        batch_size: Rows per batch.
        drop_last: Leave out a last batch that is shorter.

    Raises:
        ValueError: `batch_size` is no positive number.

    Example:
        >>> batches = BatchingPipe(Message({"x": list(range(7))}), batch_size=3)
        >>> [batch["x"].tolist() for batch in batches]
        [[0, 1, 2], [3, 4, 5], [6]]
        >>> len(batches), batches.batches_per_epoch
        (7, 3)
    """

    name = "BatchingPipe"
    iterates_differently = True

    def __init__(
        self, input: Any = None, *args: Any, batch_size: int = 5, drop_last: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(input, *args, **kwargs)
        if not is_count(batch_size, least=1):
            raise ValueError(f"batch_size is a number of rows from 1 up, got {batch_size!r}")
        self.batch_size = int(batch_size)
        self.drop_last = drop_last
        self.position = 0  # rows read since the start, when they are read by index
        self._rows: int | None = None  # how many there are
        self._collected = Message()  # rows that did not fill a batch yet
        self._source: Any = None
        self._read: Reader | None = None

    def __next__(self) -> Message:
        if self._source is not self.input:
            self._prepare()
        if self._read is None:
            return self._collect()
        start = self.position
        stop = start + self.batch_size
        if self._rows is None:
            return self._search_end(start, stop)
        if stop > self._rows:
            if self.drop_last or start >= self._rows:
                raise StopIteration
            stop = self._rows
        batch = self._read(slice(start, stop))
        self.position = stop
        return batch

    def _prepare(self) -> None:
        self._source = self.input
        self._read = row_reader(self.input) if reads_by_index(self.input) else None
        self._rows = None if self._read is None else known_length(self.input)

    def _search_end(self, start: int, stop: int) -> Message:
        """A batch of a source that does not know its length: the longest that is there."""
        try:
            batch = self._read(slice(start, stop))  # type: ignore[misc]
        except IndexError:
            stop, batch = self._last_batch(start, stop)
            if self.drop_last or stop == start:
                raise StopIteration from None
        self.position = stop
        return batch

    def _last_batch(self, start: int, beyond: int) -> tuple[int, Message]:
        """Where the rows from `start` on end, and these rows; row `beyond - 1` is not there."""
        stop, batch = start, Message()
        while beyond - stop > 1:
            middle = (stop + beyond) // 2
            try:
                batch = self._read(slice(start, middle))  # type: ignore[misc]
                stop = middle
            except IndexError:
                beyond = middle
        return stop, batch

    def _collect(self) -> Message:
        parts, rows = [self._collected], len(self._collected)
        try:
            while rows < self.batch_size:
                parts.append(as_message(super().__next__()))
                rows += len(parts[-1])
        except StopIteration:
            pass
        finally:  # what came before an error is not lost
            self._collected = cat(parts)
        if rows >= self.batch_size:
            batch, self._collected = self._collected[: self.batch_size], self._collected[self.batch_size :]
            return batch
        if not rows or self.drop_last:
            raise StopIteration
        batch, self._collected = self._collected, Message()
        return batch

    def reset(self) -> BatchingPipe:
        """Starts over with the first batch."""
        super().reset()
        self.position = 0
        self._collected = Message()
        self._source = None
        return self

    @property
    def batches_per_epoch(self) -> int | None:
        """How many batches an epoch yields, or None where the number of rows is not known."""
        rows = rows_per_epoch(self.input)
        if rows is None:
            return None
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def get_state(self) -> State:
        """The position, and rows that did not fill a batch yet."""
        state = super().get_state()
        state["internal"] |= {
            "position": self.position,
            "collected": columns_to_state(self._collected) if len(self._collected) else None,
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on with the same batch.

        Raises:
            StateError: The state is of another kind of pipe.
        """
        own, rest = take_out(state, ("position", "collected"), what=type(self).__name__)
        super().set_state(rest)
        self.position = own["position"]
        self._collected = Message() if own["collected"] is None else columns_from_state(own["collected"])
        self._source = None


class RepeaterPipe(Pipe):
    """Passes over its input several times in one epoch. `[]` and `len` speak of the rows of the input.

    Each pass starts the input over, so a ShufflerPipe upstream gives each of them another order.

    Args:
        input: A pipe, a Message, a list, or any iterable that can be read again.
        repetitions: How many passes.

    Raises:
        ValueError: `repetitions` is no number from 0 up.

    Example:
        >>> [row["x"].item() for row in RepeaterPipe(Message({"x": [1, 2]}), repetitions=3)]
        [1, 2, 1, 2, 1, 2]
    """

    name = "RepeaterPipe"
    iterates_differently = True
    stateful_attributes = ("passes",)

    def __init__(self, input: Any = None, *args: Any, repetitions: int = 10, **kwargs: Any) -> None:
        super().__init__(input, *args, **kwargs)
        if not is_count(repetitions, least=0):
            raise ValueError(f"repetitions is a number from 0 up, got {repetitions!r}")
        self.repetitions = int(repetitions)
        self.passes = 0  # how many are complete

    def __next__(self) -> Any:
        while self.passes < self.repetitions:
            try:
                return super().__next__()
            except StopIteration:
                self.passes += 1
                if self.passes < self.repetitions:
                    super().reset()
        raise StopIteration

    def reset(self) -> RepeaterPipe:
        """Starts over with the first pass."""
        super().reset()
        self.passes = 0
        return self

    @property
    def batches_per_epoch(self) -> int | None:
        """How many items an epoch yields: those of the input, times the repetitions."""
        items = items_per_epoch(self.input)
        return None if items is None else items * self.repetitions


def rows_per_epoch(source: Any) -> int | None:
    """How many rows come in one epoch of a source, in all its items together, or None where that is not known."""
    if isinstance(source, SwitchJunction):
        return rows_per_epoch(source.route)
    if isinstance(source, HubJunction):
        counts = [rows_per_epoch(component) for component in source.components.values()]
        return None if None in counts else sum(count for count in counts if count is not None)
    if isinstance(source, RepeaterPipe):
        rows = rows_per_epoch(source.input)
        return None if rows is None else rows * source.repetitions
    if isinstance(source, SizedBatches):
        return rows_per_epoch(source.input)
    if isinstance(source, BatchingPipe):
        rows = rows_per_epoch(source.input)
        return rows - rows % source.batch_size if rows is not None and source.drop_last else rows
    if isinstance(source, Pipe) and source.input is not None and passes_on(source, "__next__"):
        return rows_per_epoch(source.input)
    if reads_by_index(source):
        return known_length(source)
    return items_per_epoch(source)
