"""Rows of several messages as one: what `append` and `cat` give, before anybody looks at a column.

Joining rows once costs what the rows cost. Appending to the result again and again would be quadratic, so the rows of a
message that nobody has looked at stay here: tensors in memory with room for more, the arrays of a frame column in a
list. The next append to the newest message puts its rows behind these. A message that is looked at takes its rows out
and has them for itself: the memory if no other message of these rows is left, else a copy.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
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
        self._tensors = {
            name: _columns.join_tensors([message._tensors[name] for message in messages], name)
            for name in first._tensors
        }
        self._parts: dict[str, list[Array]] = {}
        self._dtypes: dict[str, Any] = {}
        frames = [message._frame_columns() for message in messages]
        for name in first._frame_names():
            arrays, dtypes = [arrays[name] for arrays, _ in frames], [dtypes[name] for _, dtypes in frames]
            self._dtypes[name] = dtypes[0]
            if not all(map(_continues, arrays, dtypes, [arrays[0]] * len(arrays), [dtypes[0]] * len(arrays))):
                joined, self._dtypes[name] = _columns.join_arrays(list(zip(arrays, dtypes, strict=True)))
                arrays = [joined]
            self._parts[name] = arrays

    def newest(self, message: Message) -> Message:
        """Makes the message one of all rows that are here now."""
        self._messages = [other for other in self._messages if other() is not None]
        self._messages.append(weakref.ref(message))
        message._joined, message._frame, message._shared = (self, self._rows), None, False
        return message

    def extend(self, message: Message, others: Sequence[Message], extended: Message) -> bool:
        """Puts the rows of the others behind those of the message, if they fit there; `extended` is one of them all.

        Fitting means that the message is the newest one here, and that no column has to change for the others.
        """
        with self._lock:
            frames = [other._frame_columns() for other in others]
            if message._joined != (self, self._rows) or not all(map(self._takes, others, frames)):
                return False
            end = self._rows + sum(map(len, others))
            for name, tensor in self._tensors.items():
                if end > len(tensor):
                    grown = tensor.new_empty((end + end // 2, *tensor.shape[1:]))
                    grown[: self._rows] = tensor[: self._rows]
                    self._tensors[name] = tensor = grown
                torch.cat([other._tensors[name] for other in others], out=tensor[self._rows : end])
            for arrays, _ in frames:
                for name, array in arrays.items():
                    self._parts[name].append(array)
            self._rows = end
            self.newest(extended)
            return True

    def _takes(self, message: Message, frame: tuple[dict[str, Array], dict[str, Any]]) -> bool:
        """Can these rows stand behind those that are here, with nothing lost: no dtype, device or gradient?"""
        if message._tensors.keys() != self._tensors.keys() or torch.is_inference_mode_enabled():
            return False
        for name, tensor in self._tensors.items():
            given = message._tensors[name]
            if not (
                type(given) is torch.Tensor is type(tensor)
                and given.dtype == tensor.dtype
                and given.device == tensor.device
                and given.layout is torch.strided is tensor.layout
                and given.shape[1:] == tensor.shape[1:]
                and not (given.requires_grad or tensor.requires_grad or tensor.is_inference() or tensor.is_quantized)
            ):
                return False
        arrays, dtypes = frame
        return arrays.keys() == self._parts.keys() and all(
            _continues(array, dtypes[name], self._parts[name][0], self._dtypes[name]) for name, array in arrays.items()
        )

    def settle(self, message: Message) -> None:
        """Gives the message its rows, as its own."""
        with self._lock:
            if message._joined is None:  # another thread was quicker
                return
            _, rows = message._joined
            arrays = {name: self._whole(name)[:rows] for name in self._parts}
            self._messages = [other for other in self._messages if other() is not None and other() is not message]
            tensors = dict(self._tensors)
            if self._messages:
                tensors = {name: tensor[:rows].clone() for name, tensor in tensors.items()}
            for tensor in tensors.values():
                if len(tensor) > rows:  # no slice: that would keep its base, of which gradients would be asked
                    tensor.resize_((rows, *tensor.shape[1:]))
            message._set(tensors, arrays, self._dtypes)

    def _whole(self, name: str) -> Array:
        parts = self._parts[name]
        if len(parts) > 1:
            parts[:] = [_columns.join_arrays([(part, self._dtypes[name]) for part in parts])[0]]
        return parts[0]


def _continues(array: Array, dtype: Any, first: Array, first_dtype: Any) -> bool:
    """Does numpy join these two as they are?"""
    return (
        isinstance(array, np.ndarray)
        and isinstance(first, np.ndarray)
        and (array.dtype is first.dtype or array.dtype == first.dtype)
        and (dtype is first_dtype or dtype == first_dtype)
    )
