"""Rows of several messages as one: what `append` and `cat` give, before anybody looks at a column.

Joining rows once costs what the rows cost. Appending to the result again and again would be quadratic, so the rows of a
message that nobody has looked at stay here, the parts of each column in a list. The next append to the newest message
puts its rows behind these. A message that is looked at takes its rows out and has them for itself: the memory if no
other message of these rows is left, else a copy.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fireworks.core import _columns
from fireworks.core._columns import Array

if TYPE_CHECKING:
    from fireworks.core.message import Message


class JoinedRows:
    """Rows of messages with the same columns in the same halves, one after the other.

    Raises:
        LengthError: Tensors of one name have rows of different shapes.
        TypeError: Tensors that torch cannot join.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        first = messages[0]
        self._lock = threading.RLock()  # entered again when Python tidies up meanwhile
        self._messages: list[weakref.ref[Message]] = []  # those that have not taken their rows out
        self._rows = sum(map(len, messages))
        halves = [message._tensors for message in messages]
        self._tensors = {
            name: [_columns.join_tensors([tensors[name] for tensors in halves], name)] for name in first._tensors
        }
        self._arrays: dict[str, list[Array]] = {}
        self._dtypes: dict[str, Any] = {}
        self._kinds: dict[str, tuple[Any, ...] | None] | None = None  # of the columns, once somebody appends to them
        frames = [message._frame_columns() for message in messages]
        for name in first._frame_names():
            arrays, dtypes = [arrays[name] for arrays, _ in frames], [dtypes[name] for _, dtypes in frames]
            self._dtypes[name] = dtypes[0]
            kind = _kind_of_array(arrays[0], dtypes[0])
            if kind is None or any(other != kind for other in map(_kind_of_array, arrays, dtypes)):
                joined, self._dtypes[name] = _columns.join_arrays(list(zip(arrays, dtypes, strict=True)))
                arrays = [joined]
            self._arrays[name] = arrays

    def newest(self, message: Message) -> Message:
        """Makes the message one of all rows that are here now."""
        self._messages = [other for other in self._messages if other() is not None]
        self._messages.append(weakref.ref(message))
        message._joined, message._shared = (self, self._rows), False
        message._frame = message._series = message._taken = None
        return message

    def extend(self, message: Message, others: Sequence[Message], extended: Message) -> bool:
        """Puts the rows of the others behind those of the message, if they fit there; `extended` is one of them all.

        Fitting means that the message is the newest one here, and that no column has to change for the others.
        """
        with self._lock:
            if message._joined != (self, self._rows) or torch.is_inference_mode_enabled():
                return False
            frames = [other._frame_columns() for other in others]
            if not all(map(self._takes, others, frames)):
                return False
            for other, (arrays, _) in zip(others, frames, strict=True):
                for name, tensors in self._tensors.items():
                    tensors.append(other._tensors[name].clone())  # whoever has it may write to it
                for name, array in arrays.items():
                    self._arrays[name].append(array)
                self._rows += len(other)
            self.newest(extended)
            return True

    def _takes(self, message: Message, frame: tuple[Mapping[str, Array], dict[str, Any]]) -> bool:
        """Can these rows stand behind those that are here, with nothing lost: no dtype, device or gradient?"""
        arrays, dtypes = frame
        if message._tensors.keys() != self._tensors.keys() or arrays.keys() != self._arrays.keys():
            return False
        if self._kinds is None:
            tensors = {name: _kind_of_tensor(parts[0]) for name, parts in self._tensors.items()}
            self._kinds = tensors | {
                name: _kind_of_array(parts[0], self._dtypes[name]) for name, parts in self._arrays.items()
            }
        for name, kind in self._kinds.items():
            tensor = message._tensors.get(name)
            given = _kind_of_array(arrays[name], dtypes[name]) if tensor is None else _kind_of_tensor(tensor)
            if kind is None or given != kind:
                return False
        return True

    def settle(self, message: Message) -> None:
        """Gives the message its rows, as its own; normal tensors, wherever somebody looks at them first."""
        with self._lock, torch.inference_mode(False):
            if message._joined is None:  # another thread was quicker
                return
            _, rows = message._joined
            for name, parts in self._arrays.items():
                if len(parts) > 1:
                    parts[:] = [_columns.join_arrays([(part, self._dtypes[name]) for part in parts])[0]]
            for name, pieces in self._tensors.items():
                if len(pieces) > 1:
                    pieces[:] = [_columns.join_tensors(pieces, name)]
            self._messages = [other for other in self._messages if other() is not None and other() is not message]
            tensors = {name: parts[0] for name, parts in self._tensors.items()}
            if self._messages or rows < self._rows:
                tensors = {name: tensor[:rows].clone() for name, tensor in tensors.items()}
            message._set(tensors, {name: parts[0][:rows] for name, parts in self._arrays.items()}, self._dtypes)


def _kind_of_tensor(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """What tensors must have in common so that their rows can be joined as they are; None where something is lost."""
    if type(tensor) is not torch.Tensor or tensor.requires_grad or tensor.is_inference():
        return None
    return (tensor.dtype, tensor.device, tensor.shape[1:]) if tensor.layout is torch.strided else None


def _kind_of_array(array: Array, dtype: Any) -> tuple[Any, ...] | None:
    """The same of frame columns, which numpy joins as they are."""
    return (array.dtype, dtype) if isinstance(array, np.ndarray) else None
