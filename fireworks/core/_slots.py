"""Where a cache keeps its rows: numbered slots of preallocated columns, and the table that finds them.

A slot is one row of every column. Rows are written into slots and gathered from them; nothing ever moves when another
row comes or goes, so an operation costs what the rows it touches cost. Columns grow by doubling, up to the size of
the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.core import _columns
from fireworks.core.message import Message
from fireworks.utils.exceptions import ColumnError, LengthError

# Keys up to here are found through an array (at most 32 MB), keys beyond through a dict, which takes 100 bytes per
# stored row.
DENSE_KEYS = 4_194_304
_FIRST_KEYS = 1024
_ABSENT = -1
# numpy takes half the time for an array of no dimension that it takes for a Python number.
_ZERO, _GONE = np.array(0), np.array(_ABSENT)


class IndexTable:
    """Finds the slot of an index: one array look-up for a whole batch."""

    def __init__(self) -> None:
        self._dense = np.full(_FIRST_KEYS, _ABSENT)
        self._sparse: dict[int, int] | None = None

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The slot of each key, and which keys are absent (negative ones always), or None when all are there.

        `keys` may be anything of int64. The slot of an absent key is any number.
        """
        if self._sparse is not None:
            slots = self._look_up(keys)
        else:
            try:
                slots = self._dense[keys]
            except IndexError:
                slots = self.find(keys)
        # A negative key would count from the end of the array, so the keys are checked with the slots.
        signs = keys | slots
        return slots, signs < _ZERO if len(signs) and signs.item(signs.argmin()) < 0 else None

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The slot of each key, -1 where it is absent."""
        if self._sparse is not None:
            return self._look_up(keys)
        slots: np.ndarray
        try:
            slots = self._dense[keys]
        except IndexError:
            slots = np.full(len(keys), _ABSENT)
            inside = (keys >= 0) & (keys < len(self._dense))
            slots[inside] = self._dense[keys[inside]]
        if len(keys) and keys[keys.argmin()] < 0:
            slots[keys < 0] = _ABSENT
        return slots

    def known(self, keys: np.ndarray) -> np.ndarray:
        """The slots of keys that are known to be there."""
        if self._sparse is not None:
            return self._look_up(keys)
        slots: np.ndarray = self._dense[keys]
        return slots

    def put(self, keys: np.ndarray, slots: np.ndarray) -> None:
        """Notes where these keys are."""
        if self._sparse is None:
            try:
                self._dense[keys] = slots
                return
            except IndexError:  # nothing was written
                self._make_room(keys.item(keys.argmax()))
        if self._sparse is None:
            self._dense[keys] = slots
        else:
            self._sparse.update(zip(keys.tolist(), slots.tolist(), strict=True))

    def drop(self, keys: np.ndarray) -> None:
        """Forgets keys that are there."""
        if self._sparse is None:
            self._dense[keys] = _GONE
        else:
            for key in keys.tolist():
                del self._sparse[key]

    def _look_up(self, keys: np.ndarray) -> np.ndarray:
        get = self._sparse.get  # type: ignore[union-attr]
        return np.array([get(key, _ABSENT) for key in keys.tolist()], dtype=np.int64)

    def _make_room(self, largest: int) -> None:
        if largest >= DENSE_KEYS:
            self._to_sparse()
            return
        grown = np.full(min(max(largest + 1, 2 * len(self._dense)), DENSE_KEYS), _ABSENT)
        grown[: len(self._dense)] = self._dense
        self._dense = grown

    def _to_sparse(self) -> None:
        keys = np.flatnonzero(self._dense >= 0)
        self._sparse = dict(zip(keys.tolist(), self._dense[keys].tolist(), strict=True))
        self._dense = np.empty(0, dtype=np.int64)


class Source:
    """A message that rows are gathered from again and again: its tensors as arrays, each made once."""

    __slots__ = ("_arrays", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._arrays: dict[str, tuple[torch.Tensor, int, np.ndarray]] = {}

    def __reduce__(self) -> tuple[type[Source], tuple[Message]]:
        return Source, (self.message,)  # a copy makes its own views of its own memory

    def array(self, name: str) -> np.ndarray | None:
        """The memory of a tensor as an array, or None if there is no such tensor or it needs care."""
        tensor = self.message._tensors.get(name)
        if tensor is None:
            return None
        made = self._arrays.get(name)
        if made is not None and made[0] is tensor and made[1] == tensor.data_ptr() and made[2].shape == tensor.shape:
            return made[2]
        try:
            array = tensor.numpy()
        except (TypeError, RuntimeError):  # on another device, sparse, negated or part of a graph
            return None
        self._arrays[name] = tensor, tensor.data_ptr(), array
        return array


class TensorSlots:
    """A tensor column: its values, without the graph that made them, on the device of the first rows."""

    __slots__ = ("_cells", "array", "dtype", "name", "shape", "tensor", "width")

    def __init__(self, name: str, like: torch.Tensor, rows: int) -> None:
        self.name = name
        self._set(torch.empty((rows, *like.shape[1:]), dtype=like.dtype, device=like.device))

    def _set(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.width = max(1, tensor.stride(0))
        self.shape, self.dtype = tensor.shape[1:], tensor.dtype
        # The same memory as an array, where numpy has the dtype: small gathers are three times faster there. And with
        # every row as one cell of bytes, which numpy writes three times faster than a row of numbers.
        self.array = self._cells = None
        if tensor.is_cpu and tensor.dtype in _columns.NUMPY_DTYPES:
            self.array = tensor.numpy()
            cell = np.dtype((np.void, self.array.itemsize * self.shape.numel()))
            self._cells = np.ndarray(len(tensor), cell, self.array) if cell.itemsize else self.array  # nothing in it

    def __getstate__(self) -> tuple[str, torch.Tensor]:
        return self.name, self.tensor  # a copy makes its own views of its own memory

    def __setstate__(self, state: tuple[str, torch.Tensor]) -> None:
        self.name = state[0]
        self._set(state[1])

    def grow(self, rows: int) -> None:
        grown = self.tensor.new_empty((rows, *self.tensor.shape[1:]))
        grown[: len(self.tensor)] = self.tensor
        self._set(grown)

    def suits(self, values: torch.Tensor | None) -> bool:
        """Do these values fit as they are?"""
        return (
            values is not None
            and values.shape[1:] == self.shape
            and values.dtype == self.dtype
            and values.device == self.tensor.device
        )

    def fit(self, values: torch.Tensor, held: Callable[[], np.ndarray]) -> torch.Tensor:
        """The values as they can be written, the column promoted before when it has to be."""
        if values.shape[1:] != self.shape:
            raise LengthError(
                f"column {self.name!r}: the cache holds rows of shape {tuple(self.shape)}, "
                f"got {tuple(values.shape[1:])}; bring the rows to one shape first"
            )
        if values.requires_grad:
            values = values.detach()
        if values.dtype != self.dtype:
            dtype = _common_dtype(self.read(held()), values, self.name)
            if dtype != self.dtype:
                self._set(self.tensor.to(dtype))
            values = values.to(dtype)
        return values.resolve_neg() if self.array is not None and values.is_cpu else values.to(self.tensor.device)

    def gather(self, source: Source, positions: np.ndarray) -> np.ndarray | None:
        """Rows of a message as they can be written, if they need no change and no care; else None."""
        own, array = self.array, source.array(self.name)
        if own is None or array is None or array.dtype is not own.dtype or array.shape[1:] != self.shape:
            return None
        return array.take(positions, 0)

    def write(self, slots: np.ndarray, values: Any) -> None:
        cells = self._cells
        if cells is None:
            self.tensor.index_copy_(0, torch.from_numpy(slots).to(self.tensor.device), values)
        elif cells.ndim == 1:
            array = values if type(values) is np.ndarray else np.ascontiguousarray(values.numpy())
            cells[slots] = np.ndarray(len(slots), cells.dtype, array)

    def read(self, slots: np.ndarray) -> torch.Tensor:
        if self.array is not None and slots.size * self.width <= _columns.SMALL_GATHER:
            return torch.from_numpy(self.array.take(slots, 0))
        return torch.index_select(self.tensor, 0, torch.from_numpy(slots).to(self.tensor.device))

    def release(self, slots: np.ndarray) -> None:
        """Numbers hold nothing that would have to be let go."""


class ArraySlots:
    """A frame column that numpy can hold: numbers, dates, and text or objects as Python objects."""

    __slots__ = ("array", "dtype", "name")

    def __init__(self, name: str, like: np.ndarray, dtype: Any, rows: int) -> None:
        self.name = name
        self.array = np.empty(rows, dtype=like.dtype)
        self.dtype = dtype

    def grow(self, rows: int) -> None:
        grown = np.empty(rows, dtype=self.array.dtype)
        grown[: len(self.array)] = self.array
        self.array = grown

    def gather(self, source: Source, positions: np.ndarray) -> Any:
        """Rows of a message as they can be written, if they need no change; else None."""
        array, dtype = source.message._arrays.get(self.name), source.message._dtypes.get(self.name)
        return array.take(positions) if array is not None and (dtype is self.dtype or dtype == self.dtype) else None

    def write(self, slots: np.ndarray, values: np.ndarray) -> None:
        self.array[slots] = values

    def read(self, slots: np.ndarray) -> np.ndarray:
        return self.array.take(slots)

    def release(self, slots: np.ndarray) -> None:
        """Lets go of the objects in these slots."""
        if self.array.dtype == _columns.OBJECT:
            self.array[slots] = None


class ExtensionSlots(ArraySlots):
    """A frame column that only pandas can hold (categories, time zones, nullable integers), cell by cell as objects.

    Not every pandas array can be written in place: those of Arrow copy themselves whole.
    """

    __slots__ = ()

    def write(self, slots: np.ndarray, values: Any) -> None:
        self.array[slots] = values.astype(object)

    def read(self, slots: np.ndarray) -> Any:
        return pd.array(self.array.take(slots), dtype=self.dtype)


FrameSlots = ArraySlots  # either of the two


class SlotColumns:
    """All columns of a cache. Which ones, and of what kind, the first rows decide."""

    def __init__(self) -> None:
        self.capacity = 0
        self._tensors: list[TensorSlots] = []
        self._frame: list[FrameSlots] = []
        self._all: list[TensorSlots | FrameSlots] = []
        self._dtypes: dict[str, Any] = {}
        self._names: list[str] = []

    @property
    def names(self) -> list[str]:
        """Names of the columns, those of the frame first."""
        return self._names

    def suits(self, message: Message) -> bool:
        """Do the columns, as they are, take these rows without any change?"""
        return message.columns == self._names and all(
            [
                *(column.suits(message._tensors.get(column.name)) for column in self._tensors),
                *(
                    column.name not in message._tensors and message._array(column.name)[1] == column.dtype
                    for column in self._frame
                ),
            ]
        )

    def begin(self, message: Message) -> None:
        """Takes the columns of a message as those of the cache, with no rows; only for a cache that holds none."""
        self._tensors = [TensorSlots(name, tensor, self.capacity) for name, tensor in message._tensors.items()]
        self._frame = [_frame_slots(name, *message._array(name), self.capacity) for name in message._frame_names()]
        self._set_dtypes()

    def _set_dtypes(self) -> None:
        self._all = [*self._tensors, *self._frame]
        self._dtypes = {column.name: column.dtype for column in self._frame}
        self._names = [*self._dtypes, *(column.name for column in self._tensors)]

    def fit(self, message: Message, held: Callable[[], np.ndarray]) -> list[Any]:
        """The columns of a message as they can be written; promotes stored columns that need it, values unchanged.

        Args:
            message: The rows that come.
            held: Gives the slots that hold rows; asked only when a dtype has to change.

        Raises:
            ColumnError: Columns are missing or extra.
            LengthError: Rows of another shape.
        """
        if message.columns != self._names:
            self._check_names(message.columns)
        given = message._tensors
        columns: list[Any] = []
        for column in self._tensors:
            values = given.get(column.name)
            columns.append(column.fit(message._to_tensor(column.name) if values is None else values, held))
        for place in range(len(self._frame)):
            columns.append(self._fit_frame(place, message, held))
        return columns

    def gather(self, source: Source, positions: np.ndarray, held: Callable[[], np.ndarray]) -> list[Any]:
        """What `fit` makes of these rows of a message, with no message made of them where that can be."""
        message = source.message
        if message._shared or [*message._arrays, *message._tensors] != self._names:
            return self.fit(message[positions], held)
        columns: list[Any] = []
        try:
            for column in self._all:
                values = column.gather(source, positions)
                if values is None:
                    break
                columns.append(values)
            else:
                return columns
        except IndexError:  # the message has a better one
            pass
        return self.fit(message[positions], held)

    def message(self, columns: list[Any]) -> Message:
        """The message of columns that were made to `fit`."""
        values: dict[str, Any] = dict(zip((column.name for column in self._all), columns, strict=True))
        tensors = {column.name: torch.as_tensor(values.pop(column.name)) for column in self._tensors}
        return Message.__new__(Message)._set(tensors, values, self._dtypes)

    def _check_names(self, names: list[str]) -> None:
        missing = [repr(name) for name in self._names if name not in names]
        extra = [repr(name) for name in names if name not in self._names]
        if missing or extra:
            problems = ["missing " + ", ".join(missing)] * bool(missing) + ["extra " + ", ".join(extra)] * bool(extra)
            raise ColumnError(
                f"the rows have other columns than the cache: {'; '.join(problems)}. "
                f"The cache holds: {', '.join(self._names)}"
            )

    def _fit_frame(self, place: int, message: Message, held: Callable[[], np.ndarray]) -> Any:
        column = self._frame[place]
        tensor = message._tensors.get(column.name)
        array, dtype = message._array(column.name) if tensor is None else _columns.from_tensor(tensor)
        if dtype is column.dtype or dtype == column.dtype:
            return array
        slots = held()
        stored = column.read(slots)
        common = _common_frame(stored, column.dtype, array, dtype)
        if common is not column.dtype and common != column.dtype:
            converted, common = _converted(stored, column.dtype, common)
            promoted = _frame_slots(column.name, converted, common, self.capacity)
            promoted.write(slots, converted)
            self._frame[place] = promoted
            self._set_dtypes()
        return _converted(array, dtype, common)[0]

    def grow(self, rows: int) -> None:
        """Makes room for that many rows in all."""
        for column in self._all:
            column.grow(rows)
        self.capacity = rows

    def write(self, slots: np.ndarray, columns: list[Any]) -> None:
        """Writes columns that were made to `fit`."""
        for column, values in zip(self._all, columns):  # noqa: B905 - as many as `fit` gave
            column.write(slots, values)

    def read(self, slots: np.ndarray) -> Message:
        """A copy of these rows, in this order."""
        tensors: dict[str, torch.Tensor] = {}
        arrays: dict[str, Any] = {}
        for column in self._tensors:
            tensors[column.name] = column.read(slots)
        for frame_column in self._frame:
            arrays[frame_column.name] = frame_column.read(slots)
        return Message.__new__(Message)._set(tensors, arrays, self._dtypes)

    def release(self, slots: np.ndarray) -> None:
        """Lets go of what these slots hold."""
        for column in self._frame:
            column.release(slots)


def _frame_slots(name: str, like: Any, dtype: Any, rows: int) -> FrameSlots:
    if isinstance(like, np.ndarray):
        return ArraySlots(name, like, dtype, rows)
    return ExtensionSlots(name, np.empty(0, dtype=object), dtype, rows)


def _common_dtype(stored: torch.Tensor, values: torch.Tensor, name: str) -> torch.dtype:
    """The dtype that holds both without a change: torch's promotion, or a wider one where that would round."""
    for dtype in (torch.promote_types(stored.dtype, values.dtype), torch.float64, torch.complex128):
        if _survives(stored, dtype) and _survives(values, dtype):
            return dtype
    raise LengthError(
        f"column {name!r}: no dtype holds the stored {stored.dtype} and the new {values.dtype} without rounding; "
        "convert the column first"
    )


def _survives(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    if tensor.dtype == dtype or torch.promote_types(tensor.dtype, dtype) != dtype:
        return tensor.dtype == dtype
    if tensor.is_floating_point() or tensor.is_complex():
        return True
    back = tensor.to(dtype)
    if dtype.is_floating_point or dtype.is_complex:
        limit = 2.0**63
        if bool((back.real if dtype.is_complex else back).abs().ge(limit).any()):
            return False
    return torch.equal((back.real if dtype.is_complex else back).to(tensor.dtype), tensor)


def _common_frame(stored: Any, dtype: Any, values: Any, other: Any) -> Any:
    """The dtype of a DataFrame column that holds both without a change: pandas' promotion, or objects."""
    if dtype is _columns.UNKNOWN or other is _columns.UNKNOWN:
        return _columns.UNKNOWN if _both_objects(stored, values) else _columns.OBJECT
    common = pd.concat([pd.Series([], dtype=dtype), pd.Series([], dtype=other)]).dtype
    if isinstance(common, np.dtype) and common.kind == "f":
        exact = all(_exact(array, common) for array in (stored, values))
        return common if exact else _columns.OBJECT
    return common


def _both_objects(*arrays: Any) -> bool:
    return all(isinstance(array, np.ndarray) and array.dtype == _columns.OBJECT for array in arrays)


def _exact(array: Any, dtype: np.dtype[Any]) -> bool:
    """Do these numbers survive as this floating-point dtype?"""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or not len(array):
        return True
    mantissa = np.finfo(dtype).nmant + 1
    return bool(max(abs(int(array.max())), abs(int(array.min()))) <= 2**mantissa)


def _converted(array: Any, dtype: Any, common: Any) -> tuple[Any, Any]:
    """A frame column in another dtype: its array, and that dtype."""
    if common is _columns.UNKNOWN or common == _columns.OBJECT:
        cells = list(array) if not isinstance(array, np.ndarray) else array.tolist()
        return _columns.object_array(cells), common
    return _columns.from_extension(_columns.to_series(array, dtype).astype(common).array)
