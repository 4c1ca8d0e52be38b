"""Cursors: a position in whatever a pipe reads from, so that any source can be stepped, restarted and resumed.

A stage (a pipe, a hub, a model) keeps its own position and is stepped with `next`. Every other source (a Message, a
list, a Dataset, an iterable) has no position of its own, or none that it could give away; then the reader keeps it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fireworks.core.message import Message, TensorMessage
from fireworks.utils.exceptions import StateError

__all__ = [
    "Cursor",
    "is_once_only",
    "is_stage",
    "items_per_epoch",
    "length_of",
    "open_cursor",
    "own_attribute",
    "provides",
    "stage_behind",
]


class Cursor(Protocol):
    """A position in one source."""

    source: Any

    @property
    def step(self) -> Callable[[], Any]:
        """Read the next item; raises StopIteration after the last."""

    @property
    def position(self) -> Any:
        """What `seek` takes: the number of items read since the start, or a value that holds more; false at the start.

        None when the source keeps its own position.
        """

    def restart(self) -> None:
        """Go back to the first item."""

    def seek(self, position: Any) -> None:
        """Go to where `position` was asked for."""


def is_stage(source: object) -> bool:
    """Whether the source has a state of its own, like a pipe, a junction or a model."""
    if isinstance(source, torch.Generator):  # its methods of the same names speak of something else
        return False
    return hasattr(type(source), "get_state") and hasattr(type(source), "set_state")


def provides(source: object, name: str) -> bool:
    """Whether the source has an attribute (a special method: its class), other than None."""
    if name.startswith("__"):
        # Not `getattr` on the class, which would find `__call__` and `__iter__` of the metaclass.
        found = (class_.__dict__[name] for class_ in type(source).__mro__ if name in class_.__dict__)
        return next(found, None) is not None
    return getattr(source, name, None) is not None


def own_attribute(source: Any, name: str, default: Any = None) -> Any:
    """An attribute of the object itself, never one found upstream, or the default."""
    try:
        return object.__getattribute__(source, name)
    except AttributeError:
        return default


def stage_behind(source: Any) -> Any:
    """What a DataLoader or a data set reads from, if that is a stage; any other source is given back as it is.

    Example:
        >>> from fireworks.core.pipe import Pipe
        >>> pipe = Pipe(input=["a"])
        >>> stage_behind(DataLoader(pipe.as_dataset(), batch_size=None)) is pipe
        True
    """
    inner = source
    while isinstance(inner, (DataLoader, Dataset)) and not is_stage(inner):
        inner = own_attribute(inner, "pipe", own_attribute(inner, "dataset"))
    return inner if is_stage(inner) else source


def length_of(source: Any) -> int | None:
    """The number of rows of a source, or None when it is not known.

    Example:
        >>> length_of([1, 2]), length_of(iter([1, 2]))
        (2, None)
    """
    if not provides(source, "__len__"):
        return None
    try:
        return len(source)
    except (TypeError, NotImplementedError):  # a `__len__` that gives None is a TypeError
        return None


def items_per_epoch(source: Any) -> int | None:
    """How many items one pass over a source yields, or None when it is not known: batches of a stage, else rows."""
    count: int | None = getattr(source, "batches_per_epoch", None) if is_stage(source) else length_of(source)
    return count


def open_cursor(source: Any) -> Cursor:
    """The cursor that suits a source, standing before its first item.

    Messages are read by index, so that two readers do not disturb each other. A DataLoader is iterated over, and its
    cursor remembers what the order was drawn from. Anything else with a `__next__` is stepped with it; then comes
    reading by index (`__getitem__` and `__len__`), by iterator, and by index until an IndexError.

    Raises:
        AttributeError: The source has none of these.

    Example:
        >>> cursor = open_cursor(["a", "b"])
        >>> cursor.step(), cursor.position
        ('a', 1)
    """
    if isinstance(source, (Message, TensorMessage)):
        return IndexCursor(source)
    if isinstance(source, DataLoader) or (isinstance(source, IterableDataset) and stage_behind(source) is not source):
        from fireworks.core._loading import LoaderCursor

        return LoaderCursor(source)
    if provides(source, "__next__") and not _iterates_by_generator(source):
        return StageCursor(source) if is_stage(source) else IteratorCursor(source)
    # IterableDataset inherits a `__getitem__` that only raises, and the keys of a mapping are no row numbers.
    by_iterator = isinstance(source, (IterableDataset, Mapping)) or _iterates_by_generator(source)
    if provides(source, "__getitem__") and not by_iterator and (length_of(source) is not None):
        return IndexCursor(source)
    if provides(source, "__iter__"):
        return IteratorCursor(source)
    if provides(source, "__getitem__"):
        return IndexCursor(source)
    raise AttributeError(
        f"{type(source).__name__} has neither __next__, __iter__ nor __getitem__, so it cannot be iterated over"
    )


def _iterates_by_generator(source: object) -> bool:
    """Whether a stage's own `__iter__` is a generator, of which its inherited `__next__` knows nothing."""
    if not is_stage(source):
        return False
    for class_ in type(source).__mro__:
        if "__next__" in class_.__dict__:
            return False
        if "__iter__" in class_.__dict__:
            return inspect.isgeneratorfunction(inspect.unwrap(class_.__dict__["__iter__"]))
    return False


class StageCursor:
    """Steps a source that keeps its position in a state of its own."""

    __slots__ = ("source", "step")

    position = None

    def __init__(self, source: Any) -> None:
        self.source = source
        self.step = source.__next__

    def restart(self) -> None:
        class_ = type(self.source)
        # A pipe may have its own way to start over in `__iter__` alone, and then a `reset` that knows nothing of it.
        if _is_own(class_, "__iter__") and not _is_own(class_, "reset"):
            iter(self.source)
        else:
            self.source.reset()

    def seek(self, position: int) -> None:
        raise StateError(f"{type(self.source).__name__} keeps its own position; it cannot be sent to item {position}")


def _is_own(class_: type, name: str) -> bool:
    """Whether a class defines the method, other than to pass the call on to its input."""
    method = getattr(class_, name, None)
    return method is not None and not getattr(method, "passes_on", False)


class IndexCursor:
    """Reads a source row by row through `__getitem__`."""

    __slots__ = ("_sized", "position", "source")

    def __init__(self, source: Any, position: int = 0) -> None:
        self.source = source
        self.position = position
        self._sized = length_of(source) is not None

    def step(self) -> Any:
        position = self.position
        if self._sized:
            if position >= len(self.source):
                raise StopIteration
            item = self.source[position]
        else:
            try:
                item = self.source[position]
            except IndexError:
                raise StopIteration from None
        self.position = position + 1
        return item

    def restart(self) -> None:
        # A Message's own `reset` moves the position of its own `next`, which is somebody else's.
        if not isinstance(self.source, (Message, TensorMessage)):
            _reset(self.source)
        self.position = 0

    def seek(self, position: int) -> None:
        self.position = position


class IteratorCursor:
    """Reads a source through its iterator; finds a position again by starting over and counting."""

    __slots__ = ("_iterator", "_skip", "position", "source")

    def __init__(self, source: Any, skip: int = 0) -> None:
        self.source = source
        self.position = skip
        self._skip = skip
        self._iterator: Any = None

    def step(self) -> Any:
        if self._iterator is None or self._skip:
            self._open()
        item = next(self._iterator)
        self.position += 1
        return item

    def restart(self) -> None:
        if self.position and is_once_only(self.source):
            raise TypeError(
                f"a {type(self.source).__name__} cannot start over, and {self.position} items of it are read already; "
                "give the pipe something that can be read again, such as a list or a Message"
            )
        _reset(self.source)
        self._iterator = None
        self.position = self._skip = 0

    def seek(self, position: int) -> None:
        if position or self.position:
            self.restart()
        self._skip = self.position = position

    def _open(self) -> None:
        if self._iterator is None:
            self._iterator = iter(self.source) if provides(self.source, "__iter__") else self.source
        wanted, self._skip = self._skip, 0
        for done in range(wanted):
            try:
                next(self._iterator)
            except StopIteration:
                raise StateError(
                    f"cannot return to item {wanted} of a {type(self.source).__name__}: it ended after {done}"
                ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return IteratorCursor, (self.source, self.position)


def _reset(source: Any) -> None:
    if callable(getattr(source, "reset", None)):
        source.reset()


def is_once_only(source: Any) -> bool:
    """Whether a source is an iterator of Python's own (a generator, map, zip, file), which cannot go back."""
    return (
        provides(source, "__next__")
        and not callable(getattr(source, "reset", None))
        and (inspect.isgenerator(source) or not inspect.isfunction(getattr(type(source), "__iter__", None)))
    )
