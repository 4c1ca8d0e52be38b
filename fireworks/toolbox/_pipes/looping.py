"""LoopingPipe: rows by index, over something that can only be iterated."""

from __future__ import annotations

from typing import Any

import numpy as np

from fireworks.core.message import Message, cat
from fireworks.core.pipe import Pipe
from fireworks.core.state import State, columns_from_state, columns_to_state, take_out
from fireworks.toolbox._pipes.reading import as_message, require
from fireworks.utils.utils import RowIndex, as_indices

__all__ = ["LoopingPipe"]


class LoopingPipe(Pipe):
    """Makes anything that can be iterated over indexable, by reading on, and starting over, until the rows have come.

    Use it where rows cannot be read by index, such as lines of a file, with a CachingPipe behind it that remembers
    them: reading a row before the present one starts from the beginning. The input needs `__next__` and `reset`, and
    must give the same rows each time.

    Args:
        input: A pipe, or any object with `__next__` and `reset`.

    Attributes:
        position: How many rows were read since the input was last at its start.
        length: Number of rows, or None as long as it is not known. An index that needs it (`len`, `-1`, `2:`) reads to
            the end; with an endless input that goes on forever.

    Raises:
        TypeError: The input lacks one of these methods.

    Example:
        >>> clock = LoopingPipe(Message({"hour": list(range(12))}))
        >>> clock[[5, 3]]["hour"].tolist(), clock.position, clock.length
        ([5, 3], 6, None)
        >>> len(clock), clock[-1]["hour"].item()
        (12, 11)
    """

    name = "LoopingPipe"

    def __init__(self, input: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(input, *args, **kwargs)
        self.check_input()
        self.length: int | None = None
        self.position = 0
        self._source: Any = None  # the input that position and length speak of
        self._row = 0  # the next one to yield
        # The item read last, when it has several rows: the next row may be among them.
        self._held = Message()

    def check_input(self) -> None:
        """Checks input to determine if it implements `__next__` and reset methods.

        Raises:
            TypeError: It does not.
        """
        require(self, "__next__", "reset")

    def reset(self) -> LoopingPipe:
        """Calls reset on input Pipes and sets position to 0."""
        self._rewind()
        self._row = 0
        return self

    def _rewind(self) -> None:
        super().reset()
        if self._source is not self.input:
            self._source, self.length = self.input, None
        self.position = 0
        self._held = Message()

    def _start_on_input(self) -> None:
        """Begins with an input at its start, wherever others have left it."""
        if self._source is not self.input:
            self._rewind()

    def __getitem__(self, index: RowIndex) -> Message:
        self._start_on_input()
        wanted = self._as_indices(index)
        if not len(wanted):
            return Message()
        rows = np.unique(wanted)
        if rows[0] < self.position - len(self._held):
            self._rewind()
        parts = []
        done = 0
        while done < len(rows):
            first = self.position - len(self._held)
            until = int(np.searchsorted(rows, self.position))
            if until > done:
                parts.append(self._held[rows[done:until] - first])
                done = until
            else:
                self._step(int(rows[done]))
        found = cat(parts)
        return found if len(parts) == len(wanted) == 1 else found[np.searchsorted(rows, wanted)]

    def _as_indices(self, index: RowIndex) -> np.ndarray:
        try:
            return as_indices(index, self.length, "pipe")
        except IndexError:
            if self.length is not None:
                raise
            return as_indices(index, self.compute_length(), "pipe")

    def _step(self, row: int | None = None) -> None:
        """Reads one more item; `row` is the one that is looked for."""
        try:
            self._held = as_message(super().__next__())
        except StopIteration:
            self.length = self.position
            raise IndexError(f"row {row} is out of range for a pipe of {self.length} rows") from None
        self.position += len(self._held)

    def __next__(self) -> Message:
        if self.length is not None and self._row >= self.length:
            raise StopIteration
        try:
            message = self[self._row]
        except IndexError:
            if self.length is None or self._row < self.length:
                raise
            raise StopIteration from None
        self._row += 1
        return message

    def __len__(self) -> int:
        return self.compute_length() if self.length is None else self.length

    def known_length(self) -> int | None:
        """The length if the end was reached before, else None."""
        return self.length

    def compute_length(self) -> int:
        """Step forward as far as the inputs will allow and compute length.

        Length is also calculated implicitly as items are accessed.

        Note: If the inputs are infinite, then this will go on forever.
        """
        self._start_on_input()
        while self.length is None:
            try:
                self._step()
            except IndexError:
                if self.length is None:
                    raise
        return self.length

    def step_forward(self, n: int) -> Message:
        """Steps forward through inputs until row n has come, and returns that row.

        This also updates the internal length variable if the iterator ends due to this method call.

        Raises:
            IndexError: The input ends before row n.
            ValueError: Row n lies behind; `pipe[n]` would start over.
        """
        if n < self.position - len(self._held):
            raise ValueError(f"row {n} lies behind position {self.position}; use pipe[{n}], which starts over")
        return self[n]

    @property
    def batches_per_epoch(self) -> int | None:
        """How many rows an epoch yields, as far as that is known."""
        return self.length

    def get_state(self) -> State:
        """Where the input stands, what is known of its length, and the next row to yield."""
        state = super().get_state()
        state["internal"] |= {
            "position": self.position,
            "length": self.length,
            "row": self._row,
            "held": columns_to_state(self._held),
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on where the state was taken.

        Raises:
            StateError: The state is of another kind of pipe.
        """
        own, rest = take_out(state, ("position", "length", "row", "held"), what=type(self).__name__)
        super().set_state(rest)
        self._source = self.input
        self.position, self.length, self._row = own["position"], own["length"], own["row"]
        self._held = columns_from_state(own["held"])
