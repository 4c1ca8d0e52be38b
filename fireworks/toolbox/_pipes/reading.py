"""How pipes of the toolbox read rows: any source, many rows in one call where it can, as a Message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from fireworks.core.cursor import is_stage, length_of
from fireworks.core.message import Message, TensorMessage, cat
from fireworks.core.pipe import Pipe, implements

Positions: TypeAlias = "slice | np.ndarray"
Reader: TypeAlias = Callable[[Positions], Message]


def require(pipe: Pipe, *names: str) -> None:
    """Checks that the input of a pipe implements these methods.

    Raises:
        TypeError: It lacks some; the text names them.
    """
    missing = [name for name in names if not implements(pipe.input, name)]
    if missing:
        given = "no input" if pipe.input is None else f"{pipe.input!r:.80}"
        raise TypeError(
            f"{type(pipe).__name__} needs an input with {' and '.join(names)}; {given} lacks {', '.join(missing)}"
        )


def is_count(value: Any, least: int) -> bool:
    """Whether an argument is a whole number from `least` up, of whatever type of numbers."""
    try:
        return not isinstance(value, bool) and int(value) == value and value >= least
    except (TypeError, ValueError, OverflowError):  # no number, NaN, infinity
        return False


def row_reader(source: Any) -> Reader:
    """A function that reads rows of a source, given as a slice or as an int64 array, in the way the source understands.

    Messages and pipes of ours take both as they are. Sources of users are asked with slices and lists. Sequences and
    torch Datasets, which know single items only, are asked row by row. The function can be copied and pickled with
    the pipe that keeps it.
    """
    origin = _answering(source)
    if isinstance(origin, (Message, TensorMessage)) or (isinstance(origin, Pipe) and _is_ours(origin)):
        return partial(_read_any, source)
    if hasattr(type(origin), "__getitems__") and origin is source:
        return partial(_read_many, source)
    if isinstance(origin, (Sequence, Dataset)):
        return partial(_read_each, source)
    return partial(_read_lists, source)


def permuted_reader(source: Any) -> Reader:
    """Like `row_reader`, for positions that are known to be rows of the source: a Message need not check them again."""
    return partial(_read_unchecked, source) if type(source) is Message else row_reader(source)


def _read_any(source: Any, positions: Positions) -> Message:
    return as_message(source[positions])


def _read_unchecked(source: Message, positions: Positions) -> Message:
    return source._checked()._take(positions)


def _read_many(source: Any, positions: Positions) -> Message:
    return join_rows(source.__getitems__(_as_list(positions)))


def _read_each(source: Any, positions: Positions) -> Message:
    return join_rows([source[position] for position in _as_list(positions)])


def _read_lists(source: Any, positions: Positions) -> Message:
    return as_message(source[positions if isinstance(positions, slice) else positions.tolist()])


class ReadsByIndex(Pipe):
    """A pipe that reads rows of its input by index."""

    _make_reader = staticmethod(row_reader)

    @property
    def _read(self) -> Reader:
        """Reads rows of the input, whichever that is by now."""
        known = self.__dict__.get("_reader")
        if known is None or known[0] is not self.input:
            known = self.__dict__["_reader"] = (self.input, self._make_reader(self.input))
        reader: Reader = known[1]
        return reader


def _answering(source: Any) -> Any:
    """What answers when rows of a source are asked for: the first of the chain that does not pass the question on."""
    while isinstance(source, Pipe) and source.input is not None and passes_on(source, "__getitem__"):
        source = source.input
    return source


def passes_on(pipe: Pipe, name: str) -> bool:
    """Whether a pipe leaves this method to its input (and at most changes what comes)."""
    return bool(getattr(getattr(type(pipe), name), "passes_on", False))


def _is_ours(pipe: Pipe) -> bool:
    return str(getattr(type(pipe).__getitem__, "__module__", "")).startswith("fireworks.")


def _as_list(positions: Positions) -> list[int]:
    if isinstance(positions, slice):
        return list(range(positions.start, positions.stop, positions.step or 1))
    rows: list[int] = positions.tolist()
    return rows


def as_message(item: Any) -> Message:
    """What a source gave as a Message: dicts of columns become one, None an empty one."""
    if type(item) is Message:
        return item
    return Message() if item is None else Message(item)


def as_row(item: Any) -> Message:
    """One item of a sequence or Dataset as a message; in a dict, a value that is no column of one row is a cell."""
    if not isinstance(item, Mapping) or all(
        np.ndim(value) and len(value) == 1 for value in item.values() if _sized(value)
    ):
        return as_message(item)
    return Message.from_objects(item)


def _sized(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray, torch.Tensor))


def join_rows(items: Iterable[Any]) -> Message:
    """Single items as one message."""
    return cat([as_row(item) for item in items])


def reads_by_index(source: Any) -> bool:
    """Whether iterating over a source gives the same rows as reading it by index from the start, only more slowly.

    Not so for a source that iterates in a way of its own, such as a RepeaterPipe, a hub, or a Model that learns from
    what is iterated.
    """
    while isinstance(source, Pipe):
        if is_learner(source) or getattr(source, "iterates_differently", False):
            return False
        if not passes_on(source, "__getitem__"):
            return True
        if not (passes_on(source, "__next__") and passes_on(source, "__iter__")):
            return False
        source = source.input
    if is_stage(source) or isinstance(source, (IterableDataset, Mapping)):
        return False
    return implements(source, "__getitem__")


def is_learner(source: Any) -> bool:
    """Whether a stage has parameters or statistics, which may change with what passes."""
    return isinstance(source, torch.nn.Module)


def known_length(source: Any) -> int | None:
    """The number of rows of a source if that can be told without reading through it, else None."""
    while isinstance(source, Pipe):
        tell = getattr(type(source), "known_length", None)
        if tell is not None:
            length: int | None = tell(source)
            return length
        if not passes_on(source, "__len__") or source.input is None:
            break
        source = source.input
    return length_of(source)
