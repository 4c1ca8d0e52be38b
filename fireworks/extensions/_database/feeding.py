"""Batches for a writer out of whatever yields rows or batches: a pipe, a list of dicts, a generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from fireworks.core.cursor import length_of
from fireworks.core.message import Message, TensorMessage, cat
from fireworks.utils._watching import somebody_watches

__all__ = ["batches_of", "is_batch", "message_of"]


def is_batch(source: Any) -> bool:
    """Whether this is one batch, rather than something that yields batches."""
    return isinstance(source, (Message, TensorMessage, Mapping, pd.DataFrame)) or hasattr(source, "__arrow_c_stream__")


def batches_of(source: Iterable[Any], rows: int, progress: bool | None = None) -> Iterator[tuple[int, Message]]:
    """Joins what a source yields to batches of about so many rows, with the number of the first row of each.

    Only items of the same columns and dtypes are joined: joining integers and floats would make floats of both.

    Args:
        source: Yields rows or batches: messages, dicts, DataFrames.
        rows: Of a batch, at least; the last one of a kind may be shorter.
        progress: Show a progress bar; by default where somebody can see it, in a terminal or a notebook.

    Raises:
        TypeError: An item is none of these.
    """
    from tqdm.auto import tqdm  # looks for a notebook and its widgets when it is imported

    shown = somebody_watches() if progress is None else progress
    bar = tqdm(total=length_of(source), unit=" rows", delay=0 if progress else 1, disable=not shown)
    with bar:
        first = count = 0
        waiting: list[Message] = []
        kind: Any = None
        for number, item in enumerate(source):
            message = _message_of(item, number)
            if not len(message):
                continue
            kind_of_this = _kind(message)
            if waiting and (count >= rows or kind_of_this != kind):
                yield first, cat(waiting)
                bar.update(count)
                first, count, waiting = first + count, 0, []
            kind = kind_of_this
            waiting.append(message)
            count += len(message)
        if waiting:
            yield first, cat(waiting)
            bar.update(count)


def _message_of(item: Any, number: int) -> Message:
    if isinstance(item, Message):
        return item
    if item is None:
        return Message()
    if not is_batch(item):
        raise TypeError(
            f"item {number}: expected a message, a dict or a DataFrame to insert, got {type(item).__name__}; make a "
            "dict of its columns"
        )
    return message_of(item)


def message_of(batch: Any) -> Message:
    """A batch as a message; in a dict, integers beside None do not become floats, and None does not become NaN."""
    if not isinstance(batch, Mapping):
        return Message(batch)
    return Message({name: _exact(values) for name, values in batch.items()})


def _exact(values: Any) -> Any:
    if isinstance(values, (list, tuple)) and {type(None)} < set(map(type, values)) <= {int, float, type(None)}:
        return pd.Series(values, dtype=object)
    return values


def _kind(message: Message) -> Any:
    """What two messages have in common when joining them changes no value."""
    tensors = [(name, tensor.dtype, tensor.shape[1:]) for name, tensor in message._tensors.items()]
    return tensors, [(name, str(message._array(name)[1])) for name in message._frame_names()]
