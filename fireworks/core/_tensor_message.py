"""TensorMessage, the tensor half of a Message, and what both do alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import pandas as pd
import torch

from fireworks.core import _arrow, _columns, _display, _formats
from fireworks.core._names import check_names, check_replacement, names_columns, one_length, quoted
from fireworks.utils.exceptions import ColumnError, LengthError
from fireworks.utils.utils import RowIndex, as_positions, complement

if TYPE_CHECKING:
    from fireworks.core.message import Message

Device: TypeAlias = "torch.device | str | int"


class Rows:
    """What Message and TensorMessage do alike: iteration by rows, columns as attributes, columns by name."""

    __slots__ = ()

    _tensors: dict[str, torch.Tensor]
    _position: int  # of next()

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not say how many rows it has")

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say what its columns and rows are")

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its columns are")

    @property
    def index(self) -> range:
        """The numbers of the rows: always 0 to n-1."""
        return range(len(self))

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while position < len(self):
            yield self[position]
            position += 1

    # As a source: next() and reset(), beside independent for loops

    def __next__(self) -> Any:
        position = getattr(self, "_position", 0)
        if position >= len(self):
            raise StopIteration
        self._position = position + 1  # type: ignore[misc]
        return self[position]

    def reset(self) -> Self:
        """Lets `next` begin again at the first row; returns the message."""
        self._position = 0  # type: ignore[misc]
        return self

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """A whole batch in one call: what a DataLoader asks of a map-style dataset."""
        return self[indices]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.columns:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or column {name!r}")

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def keys(self) -> KeysView[str]:
        """The names of the columns, like a dict's keys."""
        return dict.fromkeys(self.columns).keys()

    def values(self) -> list[Any]:
        """The columns, in the order of their names."""
        return [self[name] for name in self.columns]

    def items(self) -> list[tuple[str, Any]]:
        """Names and columns, like a dict's items."""
        return [(name, self[name]) for name in self.columns]

    def _known(self, keys: str | Iterable[str] | None = None) -> list[str]:
        """These column names, or all for None.

        Raises:
            ColumnError: Names that are no columns, all in one error.
        """
        columns = self.columns
        if keys is None:
            return columns
        names = [keys] if isinstance(keys, str) else keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
        unknown = [name for name in names if name not in columns]
        if unknown:
            raise ColumnError.unknown(unknown, columns)
        return names


class TensorMessage(Rows):
    """The tensor half of a Message as a mapping of its own: names to tensors with equally many rows.

    Args:
        message_dict: Names to tensors, or to anything that becomes one (lists, arrays, numbers: a number is one row).
            A TensorMessage shares its tensors, not its set of columns; of a Message the tensor half is taken.
        map_dict: More columns, as a mapping.

    Raises:
        LengthError: The columns differ in rows.
        ConversionError: A column cannot become a tensor.

    Example:
        >>> tensors = TensorMessage({"a": [1, 2, 3], "b": torch.zeros(3, 2)})
        >>> len(tensors), tensors["a"].dtype, tensors[1:]["b"].shape
        (3, torch.int64, torch.Size([2, 2]))
    """

    __slots__ = ("__weakref__", "_owner", "_position", "_tensors")

    _tensors: dict[str, torch.Tensor]
    _owner: Message | None  # the message whose half this is

    def __init__(self, message_dict: Any = None, map_dict: Mapping[str, Any] | None = None) -> None:
        columns = {**_given_columns(message_dict), **_given_columns(map_dict)}
        check_names(columns)
        tensors = {name: _as_tensor(values, name) for name, values in columns.items()}
        scalars = {name for name, values in columns.items() if _columns.is_scalar(values)}
        rows = one_length({name: len(tensors[name]) for name in columns if name not in scalars}) if columns else 0
        if len(scalars) == len(columns):
            rows = 1
        self._tensors = {
            name: tensor.expand(rows).clone() if name in scalars else tensor for name, tensor in tensors.items()
        }
        self._owner = None

    @classmethod
    def _of(cls, tensors: dict[str, torch.Tensor], owner: Message | None = None) -> TensorMessage:
        """A view of a dict of tensors that are known to be sound; nothing is copied."""
        view = cls.__new__(cls)
        view._tensors = tensors
        view._owner = owner
        return view

    @property
    def columns(self) -> list[str]:
        """The names of the tensors."""
        return list(self._tensors)

    @property
    def tensor_message(self) -> TensorMessage:
        """Itself: a TensorMessage is its own tensor half."""
        return self

    @property
    def df(self) -> pd.DataFrame:
        """An empty DataFrame: a TensorMessage has no frame half."""
        return pd.DataFrame()

    def __len__(self) -> int:
        for tensor in self._tensors.values():
            return tensor.shape[0]
        return 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self._tensors[self._known(index)[0]]
        if names_columns(index):
            return TensorMessage._of({name: self._tensors[name] for name in self._known(index)})
        if self._owner is not None:
            self._owner.check_length()
        rows = as_positions(index, len(self), "tensor message")
        return TensorMessage._of(_columns.take_tensors(self._tensors, rows))

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, str):
            positions = np.arange(len(self))[as_positions(index, len(self), "tensor message")]
            new = TensorMessage(value)
            check_replacement(self.columns, len(positions), new.columns, len(new))
            write_rows(self._tensors, positions, fit_rows(self._tensors, new._tensors))
            return
        tensor = _as_tensor(value, index)
        if self._owner is not None:
            self._owner[index] = tensor[0] if _columns.is_scalar(value) else tensor
            return
        if _columns.is_scalar(value):
            tensor = tensor.expand(len(self) if self._tensors else 1).clone()
        if self._tensors and len(tensor) != len(self):
            raise LengthError(f"{index!r} has {len(tensor)} rows, the tensor message has {len(self)}")
        self._tensors[index] = tensor

    def __delitem__(self, index: Any) -> None:
        if names_columns(index):
            for name in dict.fromkeys(self._known(index)):
                del self._tensors[name]
        else:
            others = np.array(complement(index, len(self)), dtype=np.int64)
            self._tensors.update(_columns.take_tensors(self._tensors, others))

    def __eq__(self, other: object) -> bool:
        """Same columns (in any order) with equal values; a dict of tensors will do, and a Message of tensors only."""
        tensors = other._tensors if isinstance(other, TensorMessage) else other
        if not isinstance(tensors, Mapping):
            return NotImplemented  # a Message knows how
        return self._tensors.keys() == tensors.keys() and all(
            isinstance(tensors[name], torch.Tensor) and _columns.same_tensor(tensor, tensors[name])
            for name, tensor in self._tensors.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def append(self, other: Any) -> TensorMessage:
        """The rows of this message, then those of `other`; columns that this one lacks are dropped.

        Raises:
            ColumnError: `other` lacks a column of this one.
        """
        new = TensorMessage(other)
        if not self._tensors:
            return new
        new._known(self.columns)
        return TensorMessage._of(
            {name: _columns.join_tensors([tensor, new._tensors[name]], name) for name, tensor in self._tensors.items()}
        )

    def merge(self, other: Any) -> TensorMessage:
        """The columns of both, side by side; they must have distinct names and equally many rows."""
        other = TensorMessage(other)
        both = [name for name in self._tensors if name in other._tensors]
        if both:
            raise ColumnError(f"{quoted(both)} is in both messages; their columns must have distinct names")
        return TensorMessage(self, other._tensors)

    def permute(self, index: RowIndex) -> TensorMessage:
        """The rows in the order of the index, which may repeat and leave out rows."""
        return self._of(_columns.take_tensors(self._tensors, as_positions(index, len(self), "tensor message")))

    def map(self, mapping: Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]]) -> TensorMessage:
        """Applies functions to whole columns, as `Message.map` does; the results become tensors."""
        mapped: TensorMessage = self._message().map(mapping).tensors(self.columns)
        return mapped

    def tensors(self, keys: str | Iterable[str] | None = None) -> TensorMessage:
        """Itself, or the columns `keys` alone."""
        return self if keys is None else TensorMessage._of({name: self._tensors[name] for name in self._known(keys)})

    def to_tensors(self, keys: str | Iterable[str] | None = None) -> TensorMessage:
        """Itself: all of its columns are tensors."""
        self._known(keys)
        return self

    def dataframe(self, keys: str | Iterable[str] | None = None) -> pd.DataFrame:
        """The columns `keys` (default: all) as a DataFrame, as `Message.dataframe` gives them."""
        return self._message().dataframe(self._known(keys))

    def to_dataframe(self, keys: str | Iterable[str] | None = None) -> Message:
        """A Message in which the columns `keys` (default: all) are in the frame half."""
        return self._message().to_dataframe(keys)

    def check_length(self) -> int:
        """Checks that all columns have equally many rows, and returns that number."""
        return one_length({name: len(tensor) for name, tensor in self._tensors.items()})

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors hold."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def _message(self) -> Message:
        from fireworks.core.message import Message  # which needs this module first

        return Message(self)

    def cuda(self, device: int | torch.device = 0, keys: str | Iterable[str] | None = None) -> TensorMessage:
        """Moves tensors to a GPU, in place, and returns the message; `keys` limits it to these."""
        return self.to(torch.device("cuda", device) if isinstance(device, int) else device, keys)

    def cpu(self, keys: str | Iterable[str] | None = None) -> TensorMessage:
        """Moves tensors to system memory, in place, and returns the message; `keys` limits it to these."""
        return self.to("cpu", keys)

    def to(self, device: Device, keys: str | Iterable[str] | None = None) -> TensorMessage:
        """Moves tensors to a device, in place, and returns the message; `keys` limits it to these."""
        self._tensors.update({name: self._tensors[name].to(device) for name in self._known(keys)})
        return self

    def __copy__(self) -> TensorMessage:
        return TensorMessage._of(dict(self._tensors))

    def __deepcopy__(self, memo: dict[int, Any]) -> TensorMessage:
        return TensorMessage._of(copy_tensors(self._tensors, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_tensors, (_formats.pack_tensors(self._tensors),)

    def __repr__(self) -> str:
        return _display.text(self, "TensorMessage")

    def _repr_html_(self) -> str:
        return _display.html(self, "TensorMessage")


def _unpickle_tensors(packed: dict[str, Any]) -> TensorMessage:
    return TensorMessage._of(_formats.unpack_tensors(packed))


def _given_columns(given: Any) -> Mapping[str, Any]:
    """What a TensorMessage can be made of, as names to values."""
    if given is None:
        return {}
    if isinstance(given, Rows):
        return given._tensors
    if isinstance(given, pd.DataFrame):
        check_names(given.columns)
        return {str(name): column for name, column in given.items()}
    if isinstance(given, Mapping):
        return given
    if _arrow.is_table(given):
        tensors, arrays, _ = _arrow.from_arrow(given)
        return {**arrays, **tensors}
    raise TypeError(f"a TensorMessage is made of a dict of columns or a message, got {type(given).__name__}")


def _as_tensor(values: Any, name: str) -> torch.Tensor:
    """A column as a tensor of one dimension or more; a scalar as one row."""
    if isinstance(values, torch.Tensor):
        return values if values.ndim else values.reshape(1)
    if _arrow.is_column(values):
        column = _arrow.column_of(values, name)
        values = column.array if isinstance(column, _columns.Column) else column
    return _columns.to_tensor([values] if _columns.is_scalar(values) else values, name)


def copy_tensors(tensors: Mapping[str, torch.Tensor], memo: dict[int, Any]) -> dict[str, torch.Tensor]:
    """Tensors with memory of their own; Parameters stay Parameters."""
    return {
        # copy.deepcopy of a slice would copy all of the memory that it is a slice of
        name: copy.deepcopy(tensor, memo) if tensor.requires_grad and tensor.is_leaf else tensor.clone()
        for name, tensor in tensors.items()
    }


def fit_rows(tensors: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """New rows in the shapes, dtypes and devices of the columns, checked before anything is written.

    Raises:
        LengthError: Rows of another shape.
        TypeError: A value that the dtype of its column cannot hold.
    """
    return {name: _fit(rows, tensors[name], name) for name, rows in new.items()}


def write_rows(tensors: dict[str, torch.Tensor], positions: np.ndarray, rows: Mapping[str, torch.Tensor]) -> None:
    """Writes what `fit_rows` checked, in place."""
    for name, values in rows.items():
        if any(step == 0 and size > 1 for step, size in zip(tensors[name].stride(), tensors[name].shape, strict=True)):
            tensors[name] = tensors[name].clone()  # an expanded tensor: its rows are one and the same memory
        _columns.movable(tensors[name])[torch.from_numpy(positions).to(values.device)] = _columns.movable(values)


def _fit(given: torch.Tensor, target: torch.Tensor, name: str) -> torch.Tensor:
    if given.shape[1:] != target.shape[1:]:
        expected, got = tuple(target.shape[1:]), tuple(given.shape[1:])
        raise LengthError(f"column {name!r} has rows of shape {expected}, got rows of shape {got}")
    # torch writes into no leaf of a graph, nor into a slice of one
    origin = target._base if target._is_view() and target._base is not None else target
    if torch.is_grad_enabled() and origin.is_leaf and origin.requires_grad:
        raise ValueError(
            f"column {name!r} requires a gradient; assign the whole column instead of its rows, or use torch.no_grad()"
        )
    if given.dtype != target.dtype and (not target.is_floating_point() or given.is_complex()):
        _check_fit(given.detach(), target.dtype, name)
    if given.is_complex() and not target.is_complex():
        given = given.real
    fitted = given.to(target.device, target.dtype)
    same_memory = fitted.untyped_storage().data_ptr() == target.untyped_storage().data_ptr()
    return fitted.clone() if same_memory else fitted


def _check_fit(given: torch.Tensor, dtype: torch.dtype, name: str) -> None:
    """Does every value survive the conversion?"""
    real = given.real if given.is_complex() and not dtype.is_complex else given
    changed = (real.to(dtype).to(given.dtype) != given).flatten()
    if changed.any():
        value = given.flatten()[changed][0].item()
        raise TypeError(f"{value} does not fit into column {name!r} of {dtype}; convert the column first")
