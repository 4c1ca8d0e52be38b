"""Pipes that give rows other numbers: in random order, or by a map."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from fireworks.core.cursor import is_stage
from fireworks.core.message import Message
from fireworks.core.pipe import Pipe, announce, implements
from fireworks.core.state import State, stages, take_out
from fireworks.toolbox._pipes.reading import ReadsByIndex, permuted_reader, require
from fireworks.utils.exceptions import StateError
from fireworks.utils.seeding import make_generator
from fireworks.utils.utils import RowIndex, as_indices, as_positions

__all__ = ["IndexMapperPipe", "ShufflerPipe"]


class _ByRow(ReadsByIndex):
    """Iterates over its rows one by one, reading them by index."""

    stateful_attributes = ("position",)
    position = 0

    @abstractmethod
    def _row(self, position: int) -> Message:
        """The row that comes at this position."""

    @abstractmethod
    def _count(self) -> int:
        """How many rows there are."""

    def __len__(self) -> int:
        return self._count()

    def __next__(self) -> Message:
        position = self.position
        if position >= self._count():
            raise StopIteration
        row = self._row(position)
        self.position = position + 1
        return row

    @property
    def batches_per_epoch(self) -> int:
        """How many rows an epoch yields."""
        return len(self)


class Redrawn(Pipe):
    """A pipe that gives something else under the same index each time it starts over."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """How often that was so far; a stage that remembers rows knows by it when to forget them."""


def redrawn_stages(source: Any) -> list[Redrawn]:
    """Those of the stages of a pipeline whose rows change when they start over."""
    return [stage for stage in stages(source).values() if isinstance(stage, Redrawn)]


class ShufflerPipe(_ByRow, Redrawn):
    """Gives the rows of its input in a random order, by index and by iteration: a new order each epoch.

    Until the first `reset` or `iter` rows are in the order of the input. The input needs `__getitem__` and `__len__`.
    It is told each new order (`announce`), which a CachingPipe with `cache_type='optimal'` makes use of.

    Args:
        input: A pipe, a Message, a list, a Dataset.
        seed: An int or a generator; by default drawn from torch's global generator.

    Raises:
        TypeError: The input has no rows by index, or no length.

    Example:
        >>> shuffled = ShufflerPipe(Message({"x": list(range(5))}), seed=0)
        >>> shuffled[:]["x"].tolist()
        [0, 1, 2, 3, 4]
        >>> shuffled.reset()[:]["x"].tolist() == [row["x"].item() for row in shuffled]
        False
        >>> sorted(shuffled[:]["x"])
        [0, 1, 2, 3, 4]
    """

    name = "ShufflerPipe"
    _make_reader = staticmethod(permuted_reader)

    def __init__(self, input: Any = None, *args: Any, seed: int | torch.Generator | None = None, **kwargs: Any) -> None:
        super().__init__(input, *args, **kwargs)
        self.check_input()
        self.seed = seed
        self.generator = make_generator(seed)
        self.shuffles = 0  # how many orders there were so far
        self._order: np.ndarray | None = None
        self._drawn_from: torch.Tensor | None = None  # the generator's state before the order; None: a given order

    @property
    def draws(self) -> int:
        """How many orders there were so far."""
        return self.shuffles

    def check_input(self) -> None:
        """Check inputs to see if they implement `__getitem__` and `__len__`.

        Raises:
            TypeError: They do not.
        """
        require(self, "__getitem__", "__len__")

    def shuffle(self, order: Any = None) -> None:
        """Puts the rows in a new random order, or in a given one.

        Args:
            order: Every row number of the input once; None for a random order.

        Raises:
            ValueError: `order` is not that.

        Example:
            >>> shuffled = ShufflerPipe(Message({"x": ["a", "b", "c"]}))
            >>> shuffled.shuffle([2, 0, 1])
            >>> shuffled[:]["x"].tolist()
            ['c', 'a', 'b']
        """
        rows = len(self.input)
        if order is None:
            self._drawn_from = self.generator.get_state()
            self._order = torch.randperm(rows, generator=self.generator).numpy()
        else:
            given = as_indices(order, rows).copy()
            if len(given) != rows or (np.bincount(given, minlength=rows) != 1).any():
                raise ValueError(
                    f"an order has every row from 0 to {rows - 1} once; got {len(given)} rows: {order!r:.80}"
                )
            self._drawn_from, self._order = None, given
        self.shuffles += 1
        announce(self.input, self._order)

    def reset(self) -> ShufflerPipe:
        """Starts over, in a new order."""
        self.position = 0
        if is_stage(self.input) and implements(self.input, "reset"):
            self.input.reset()
        self.shuffle()
        return self

    def __getitem__(self, index: RowIndex) -> Message:
        return self._read(self._rows_of_input(index))

    def announce(self, indices: RowIndex) -> None:
        """Tells the input which of its rows are going to be asked for."""
        announce(self.input, self._rows_of_input(indices))

    def _rows_of_input(self, index: RowIndex) -> slice | np.ndarray:
        order = self._order
        if order is None:
            return as_positions(index, len(self.input), "pipe")
        return order[as_positions(index, len(order), "pipe")]

    def _count(self) -> int:
        return len(self.input) if self._order is None else len(self._order)

    def _row(self, position: int) -> Message:
        row = position if self._order is None else self._order.item(position)
        return self._read(slice(row, row + 1))

    def get_state(self) -> State:
        """Position, generator, and what the present order was drawn from; not the order itself, unless it was given."""
        given = self._order is not None and self._drawn_from is None
        state = super().get_state()
        state["internal"] |= {
            "shuffles": self.shuffles,
            "drawn_from": None if self._drawn_from is None else self._drawn_from.clone(),
            "order": self._order.copy() if given and self._order is not None else None,
            "rows": None if self._order is None else len(self._order),
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on with the same order at the same position.

        Raises:
            StateError: The state is of another kind of pipe, or of an input with another number of rows.
        """
        own, rest = take_out(state, ("shuffles", "drawn_from", "order", "rows"), what=type(self).__name__)
        rows, order, drawn_from = own["rows"], own["order"], own["drawn_from"]
        if rows is not None and rows != len(self.input):
            raise StateError(f"the state is of {rows} shuffled rows, but the input has {len(self.input)}")
        super().set_state(rest)
        self._drawn_from, self._order = drawn_from, None if order is None else np.asarray(order, dtype=np.int64)
        if drawn_from is not None:
            source = torch.Generator()
            source.set_state(drawn_from)
            self._order = torch.randperm(rows, generator=source).numpy()
        self.shuffles = own["shuffles"]


class IndexMapperPipe(_ByRow):
    """Gives the rows of its input other numbers: `pipe[input_indices[i]]` is `input[output_indices[i]]`.

    Iteration goes through `input_indices` in their order. The input is read by index only and never reset, so several
    pipes can share one input, as the two halves of a split do. A state fits only a pipe that has the same numbers.

    Args:
        input_indices: The row numbers that this pipe has, each once.
        output_indices: The row of the input that each stands for; as many.
        input: A pipe, a Message, a list, a Dataset.

    Raises:
        TypeError: The input has no rows by index.
        ValueError: The two lists differ in length, or a row number is there twice.

    Example:
        >>> pipe = IndexMapperPipe([10, 20], [2, 0], input=Message({"x": ["a", "b", "c"]}))
        >>> pipe[10]["x"][0], pipe[[20, 10]]["x"].tolist()
        ('c', ['a', 'c'])
    """

    name = "IndexMapperPipe"

    def __init__(self, input_indices: Any, output_indices: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_input()
        self.input_indices = as_indices(input_indices, owner="IndexMapperPipe")
        self.output_indices = as_indices(output_indices, owner="IndexMapperPipe")
        if len(self.input_indices) != len(self.output_indices):
            raise ValueError(
                f"expected one output index per input index, got {len(self.output_indices)} "
                f"for {len(self.input_indices)}"
            )
        self._checksum = zlib.crc32(self.output_indices.tobytes(), zlib.crc32(self.input_indices.tobytes()))
        self._sorter = np.argsort(self.input_indices, kind="stable")
        self._sorted = self.input_indices[self._sorter]
        twice = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        if len(twice):
            raise ValueError(f"input index {twice[0]} is there twice; each stands for one row")
        count = len(self._sorted)
        self._is_range = bool((self.input_indices == np.arange(count)).all())

    def check_input(self) -> None:
        """Checks that the input implements `__getitem__`.

        Raises:
            TypeError: It does not.
        """
        require(self, "__getitem__")

    def __getitem__(self, index: RowIndex) -> Message:
        return self._read(self._rows_of_input(index))

    def announce(self, indices: RowIndex) -> None:
        """Tells the input which of its rows are going to be asked for."""
        announce(self.input, self._rows_of_input(indices))

    def _rows_of_input(self, index: RowIndex) -> np.ndarray:
        if self._is_range:
            return self.output_indices[as_positions(index, len(self.output_indices), "pipe")]
        wanted = as_indices(index, owner="pipe")
        places = np.searchsorted(self._sorted, wanted)
        found = places < len(self._sorted)
        found[found] = self._sorted[places[found]] == wanted[found]
        if not found.all():
            raise IndexError(f"row {wanted[~found][0]} is not among the {len(self._sorted)} input indices of the pipe")
        return self.output_indices[self._sorter[places]]

    def _count(self) -> int:
        return len(self.output_indices)

    def _row(self, position: int) -> Message:
        row = self.output_indices.item(position)
        return self._read(slice(row, row + 1))

    def reset(self) -> IndexMapperPipe:
        """Starts over with the first of the input indices."""
        self.position = 0
        return self

    def get_state(self) -> State:
        """The position, and a checksum of the row numbers."""
        state = super().get_state()
        state["internal"]["rows"] = self._checksum
        return state

    def set_state(self, state: State) -> None:
        """Goes on at the same position.

        Raises:
            StateError: The state is of another kind of pipe, or of one with other row numbers.
        """
        internal = dict(state["internal"])
        if internal.pop("rows", None) != self._checksum:
            raise StateError(
                "the state is of a pipe with other row numbers; give the same ones, and train_test_split a seed: "
                "another split would mix rows of the test into the training"
            )
        super().set_state({"internal": internal, "external": {}})
