"""Message: columns of tensors and of anything a DataFrame can hold, row for row.

A Message resembles a pandas DataFrame and a dict of tensors at once: `message['label']` is a column, `message[3:10]`
and `message[[4, 1]]` are rows, `message.df` is the DataFrame half and `message.tensor_message` the tensor half.

How it is kept: tensors in one dict, every other column as a plain array in another (see `_columns`), so a slice, a
gather or a batch costs a call per column and no pandas object. Rows of frame columns are taken when somebody asks for
one: until then a message knows from which arrays, and which rows. That is safe because neither those arrays nor the
dicts that hold them are ever changed in place. The DataFrame is made when somebody asks for it; from then on it is the
truth for its half, because it may be changed in place.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import length_hint
from os import PathLike
from typing import IO, Any, TypeAlias, cast, overload

import numpy as np
import pandas as pd
import torch
from torch.utils.data._utils.collate import default_collate_fn_map

from fireworks.core import _arrow, _columns, _display, _formats, _polars
from fireworks.core._arrow import ArrowTable
from fireworks.core._columns import Array, Column, Positions
from fireworks.core._joined import JoinedRows
from fireworks.core._names import check_names, check_replacement, check_same_columns, names_columns, one_length, quoted
from fireworks.core._tensor_message import Rows, TensorMessage, copy_tensors, fit_rows, write_rows
from fireworks.utils.exceptions import ColumnError, LengthError
from fireworks.utils.utils import RowIndex, as_positions, complement, slice_length, slice_to_list

__all__ = [
    "Message",
    "TensorMessage",
    "cat",
    "complement",
    "compute_length",
    "extract_tensors",
    "merge",
    "slice_to_list",
]

_WAITING = frozenset({"_arrays", "_dtypes", "_tensors"})  # may be taken out of other rows when they are asked for

MessageLike: TypeAlias = "Message | TensorMessage | Mapping[str, Any] | pd.DataFrame | ArrowTable"


class Message(Rows):
    """A DataFrame that can hold tensors: ordered, named columns of equal length.

    A column is a `torch.Tensor` (first dimension = rows) or anything pandas can hold. Give the columns as a dict, a
    DataFrame (of pandas or polars), an Arrow table, another message, or as two halves `Message(tensors, frame)`;
    tensors go left, all else into the frame. A scalar in a dict is repeated to the length of the other columns. Rows
    are numbered 0..n-1; there is no other index. `from_arrow` tells what becomes of columns of Arrow and polars.

    Constructing from a message shares its tensors, not its set of columns. No method changes its argument;
    `to_tensors`, `cpu`, `cuda` and `to(device)` change the message itself and return it, all others return a new one.

    Args:
        *args: One mapping, DataFrame, Arrow table, TensorMessage or Message; or two: the tensors, then the frame (or
            None).
        metadata: More columns for the frame half, as a mapping or a DataFrame.
        length: Number of rows that is expected.
        tensors: The tensor half, by keyword.
        df: The frame half, by keyword.

    Raises:
        LengthError: The columns differ in rows, or have not the expected length.
        TypeError: A column's name is not text, or its values are no column.

    Example:
        >>> message = Message({"x": torch.tensor([[1., 2.], [3., 4.], [5., 6.]]), "label": ["a", "b", "c"]})
        >>> len(message), message.columns
        (3, ['label', 'x'])
        >>> message[-1]["x"]
        tensor([[5., 6.]])
        >>> message[message.label == "b"].to_dict()
        {'label': ['b'], 'x': [[3.0, 4.0]]}
    """

    __slots__ = (
        *("__weakref__", "_arrays", "_dtypes", "_frame", "_joined", "_position", "_series", "_shared", "_taken"),
        "_tensors",
    )

    _tensors: dict[str, torch.Tensor]
    # The frame columns, while no DataFrame was asked for, and what each is in a DataFrame. Messages share them,
    # so they are never changed in place; a mapping may make its columns when they are read.
    _arrays: Mapping[str, Array]
    _dtypes: dict[str, Any]
    _series: dict[str, pd.Series] | None  # Series made of the arrays, of which copies are handed out
    _frame: pd.DataFrame | None  # the truth for the frame half, once there is one
    _shared: bool  # a half was handed out: it may have been changed since
    # Until somebody asks for a column, where its rows are: all of them, and how many, or those of the frame columns.
    _joined: tuple[JoinedRows, int] | None
    _taken: tuple[Mapping[str, Array], Positions] | None

    def __init__(
        self,
        *args: Any,
        metadata: Mapping[str, Any] | pd.DataFrame | None = None,
        length: int | None = None,
        tensors: Any = None,
        df: Any = None,
    ) -> None:
        if len(args) > 2:
            raise TypeError(f"expected at most two positional arguments, tensors and frame, got {len(args)}")
        is_one = len(args) == 1 and args[0] is not None and tensors is df is metadata is None
        halves = args if is_one else [half for half in (*args, tensors, df, metadata) if half is not None]
        if len(halves) == 1 and isinstance(halves[0], Message) and length is None:
            source = halves[0]._checked()
            self._set(dict(source._tensors), source._arrays, source._dtypes)
            self._frame = None if source._frame is None else _renumbered(source._frame.copy(deep=False))
            return
        columns = _columns_of(halves[0]) if halves else {}
        for half in halves[1:]:
            given = _columns_of(half)
            _warn_replaced([name for name in given if name in columns], "Message", stacklevel=2)
            columns = {**columns, **given}
        self._build(columns, length)

    def _build(self, columns: Mapping[str, Any], length: int | None = None, rows: int = 1) -> Message:
        """Takes columns of any kind; scalars alone are repeated `rows` times, or `length` times."""
        tensors: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        dtypes: dict[str, Any] = {}
        scalars: dict[str, Any] = {}
        counts = set()
        for name, values in columns.items():
            if type(name) is not str:
                check_names(columns)
            kind = type(values)
            if kind is np.ndarray and values.ndim:
                arrays[name], dtypes[name] = _columns.from_ndarray(values, name)
                counts.add(len(values))
                continue
            if kind is not torch.Tensor and _arrow.is_column(values):
                values = _arrow.column_of(values, name)
            if isinstance(values, torch.Tensor) and (shape := values.shape):
                tensors[name] = values
                counts.add(shape[0])
            elif type(values) is Column:
                arrays[name], dtypes[name] = values.array, values.dtype
                counts.add(len(values.array))
            elif not _columns.is_scalar(values):
                array, dtypes[name] = _columns.from_values(values, name)
                arrays[name] = array
                counts.add(len(array))
            else:
                scalars[name] = values
                half = tensors if isinstance(values, torch.Tensor) else arrays
                half[name] = None  # keeps its place in the order until the number of rows is known
        self._set(tensors, arrays, dtypes)
        if len(counts) > 1:
            given = {**tensors, **arrays}
            one_length({name: len(values) for name, values in given.items() if values is not None})
        if counts:
            rows = counts.pop()
        elif length is not None:
            rows = length
        for name, value in scalars.items():
            self._put(name, _columns.repeat_scalar(value, rows))
        if length is not None and columns and rows != length:
            raise LengthError(f"expected {length} rows, got {rows}")
        return self

    def _set(self, tensors: dict[str, torch.Tensor], arrays: Mapping[str, Array], dtypes: dict[str, Any]) -> Message:
        """Takes columns that are known to be sound, as they are."""
        self._tensors = tensors
        self._arrays = arrays
        self._dtypes = dtypes
        self._frame = None
        self._series = None
        self._shared = False
        self._joined = None
        self._taken = None
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in _WAITING:
            return super().__getattr__(name)
        joined, taken = self._joined, self._taken
        if joined is not None:  # else another thread was quicker
            joined[0].settle(self)
        elif taken is not None:
            self._arrays = _columns.take_arrays(*taken)
            self._taken = None
        return object.__getattribute__(self, name)

    # The two halves

    @property
    def tensor_message(self) -> TensorMessage:
        """The tensor half; changing it changes the message."""
        self._shared = True
        return TensorMessage._of(self._tensors, self)

    @tensor_message.setter
    def tensor_message(self, tensors: Any) -> None:
        new = dict(TensorMessage(tensors)._tensors)
        self._check_half(new, self._frame_names())
        _replace(self._tensors, new)

    @property
    def df(self) -> pd.DataFrame:
        """The frame half as a DataFrame; changing it changes the message."""
        self._shared = True
        return self._own_frame()

    @df.setter
    def df(self, frame: Any) -> None:
        is_given = isinstance(frame, (Mapping, pd.DataFrame, Message)) or _arrow.is_table(frame)
        given = frame if is_given else pd.DataFrame(frame)
        new = Message(given).to_dataframe()
        self._check_half(dict.fromkeys(new.columns, new), self._tensors)
        self._arrays, self._dtypes, self._frame, self._series = new._arrays, new._dtypes, new._frame, None
        self._taken = None

    def _check_half(self, new: Mapping[str, Any], rest: Iterable[str]) -> None:
        """Can these columns stand beside those of the other half?"""
        rest = list(rest)
        both = [name for name in new if name in rest]
        if both:
            raise ValueError(f"{quoted(both)} would be in both halves; delete them from the other half first")
        rows = {len(column) for column in new.values()}
        expected = len(self._tensors[rest[0]] if rest and rest[0] in self._tensors else self)
        if rest and rows - {expected}:
            raise LengthError(f"expected {expected} rows, as in the other half, got {rows.pop()}")

    def _own_frame(self) -> pd.DataFrame:
        """The DataFrame of the frame half, made of the arrays if there is none yet."""
        if self._frame is None:
            self._frame = _columns.to_frame(self._arrays, self._dtypes)
            self._arrays, self._dtypes, self._series = {}, {}, None
        return self._frame

    def _frame_names(self) -> list[str]:
        return list(self._arrays if self._frame is None else self._frame.columns)

    def _frame_columns(self) -> tuple[Mapping[str, Array], dict[str, Any]]:
        """The frame columns as arrays that nobody will write to, and their dtypes in a DataFrame."""
        return (self._arrays, self._dtypes) if self._frame is None else _columns.from_frame(self._frame)

    def _array(self, name: str) -> tuple[Array, Any]:
        """A frame column: its array and its dtype in a DataFrame."""
        if self._frame is None:
            return self._arrays[name], self._dtypes[name]
        return _columns.from_extension(self._frame[name].array)

    def _checked(self) -> Message:
        """Itself, after a look at the halves if anyone may have changed them."""
        if self._shared:
            self.check_length()
        return self

    # Columns and rows

    @property
    def columns(self) -> list[str]:
        """The names of all columns: those of the frame, then those of the tensors."""
        return [*self._frame_names(), *self._tensors]

    @property
    def len(self) -> int:
        """Number of rows."""
        return len(self)

    def __len__(self) -> int:
        joined = self._joined
        if joined is not None:
            return joined[1]
        for tensor in self._tensors.values():
            return tensor.shape[0]
        if self._frame is not None:
            return len(self._frame) if len(self._frame.columns) else 0
        taken = self._taken
        if taken is not None:
            rows = taken[1]
            return slice_length(rows) if type(rows) is slice else len(rows)
        for array in self._arrays.values():
            return len(array)
        return 0

    def check_length(self) -> int:
        """Checks that all columns have equally many rows, and that no name is in both halves; returns that number.

        Raises:
            LengthError: Columns differ in rows; the text says which.

        Example:
            >>> Message({"a": [1, 2], "b": torch.zeros(2)}).check_length()
            2
        """
        lengths = {name: tensor.shape[0] for name, tensor in self._tensors.items()}
        if self._frame is None:
            for name, array in self._arrays.items():
                lengths[name] = len(array)
        else:
            check_names(self._frame.columns)
            both = [name for name in self._frame.columns if name in lengths]
            if both:
                raise ValueError(f"{quoted(both)} is in both halves of the message; delete it from one")
            lengths.update(dict.fromkeys(self._frame.columns, len(self._frame)))
        return one_length(lengths)

    @overload
    def __getitem__(self, index: str) -> Any: ...
    @overload
    def __getitem__(self, index: list[str]) -> Message: ...
    @overload
    def __getitem__(self, index: RowIndex) -> Message: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self._column(index)
        if names_columns(index):
            return self._select(index)
        if self._shared:
            self.check_length()
        rows = as_positions(index, len(self))
        message = self._take(rows)
        if type(rows) is not slice and message._taken is not None and len(rows) < length_hint(index):
            message._frame_columns()  # a mask chooses few of many rows: those few must not keep all in memory
        return message

    def _take(self, rows: Positions) -> Message:
        message = Message.__new__(Message)
        tensors = self._tensors
        message._tensors = _columns.take_tensors(tensors, rows) if tensors else {}
        message._frame = message._series = message._joined = message._taken = None
        message._shared = False
        if self._frame is not None:
            message._arrays, message._dtypes = {}, {}
            message._frame = _renumbered(self._frame.iloc[rows]) if len(self._frame.columns) else None
            return message
        message._dtypes = self._dtypes
        arrays = self._arrays
        if arrays:
            # An index belongs to whoever gave it, who may change it.
            message._taken = arrays, (rows if type(rows) is slice else rows.copy())
        else:
            message._arrays = arrays
        return message

    def _column(self, name: str) -> Any:
        tensor = self._tensors.get(name)
        if tensor is not None:
            return tensor
        if self._frame is not None:
            if name in self._frame.columns:
                column = self._frame[name]
                return column if _is_numbered(self._frame.index) else column.reset_index(drop=True)
        elif name in self._arrays:
            if self._series is None:
                self._series = {}
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = _columns.to_series(self._arrays[name], self._dtypes[name], name)
            return series.copy(deep=False)  # pandas copies it when somebody writes into it, since ours lives on
        raise ColumnError.unknown([name], self.columns)

    def array(self, name: str) -> np.ndarray:
        """The values of a column as a numpy array: what a training loop reads text by, at a tenth of a Series' price.

        Text is an array of Python strings, and so is whatever else numpy has no type for an array of objects. A tensor
        shares its memory where it is in system memory; an array of a frame column is read-only, as messages share it.

        Args:
            name: Of the column.

        Raises:
            ColumnError: There is no such column.
            ConversionError: numpy has no type for a tensor (bfloat16, …).

        Example:
            >>> message = Message({"s": ["a", "b", "c"], "t": torch.ones(3, 2)})
            >>> message[[2, 0]].array("s"), message.array("t").shape
            (array(['c', 'a'], dtype=object), (3, 2))
        """
        tensor = self._tensors.get(name)
        if tensor is not None:
            return _columns.tensor_values(tensor, name)
        taken = self._taken
        try:
            if taken is not None and type(taken[1]) is slice:  # one view, and the other columns go on waiting
                values = taken[0][name][taken[1]]
            elif self._frame is None:
                values = self._arrays[name][:]
            else:
                values = self._array(name)[0][:]
        except KeyError:
            raise ColumnError.unknown([name], self.columns) from None
        if type(values) is not np.ndarray:
            values = np.asarray(values).view()
        values.setflags(write=False)
        return values

    def _select(self, names: Iterable[str]) -> Message:
        chosen = self._known(names)
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"each column can be chosen once, got {chosen}")
        message = Message.__new__(Message)._set(
            {name: self._tensors[name] for name in chosen if name in self._tensors},
            {name: self._arrays[name] for name in chosen if name in self._arrays},
            self._dtypes,
        )
        if self._frame is not None:
            frame = self._frame[[name for name in chosen if name not in self._tensors]]
            message._frame = _renumbered(frame.copy(deep=False)) if len(frame.columns) else None
        return message

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, str):
            self._assign_columns({index: value})
        elif names_columns(index):
            given = _message_of(value, len(self) if self.columns else 1)
            names = list(index)
            if set(given.columns) != set(names):
                raise ColumnError(f"expected the columns {quoted(names)}, got {quoted(given.columns)}")
            self._assign_columns({name: given._as_given(name) for name in names})
        else:
            self._assign_rows(index, value)

    def _as_given(self, name: str) -> Any:
        """A column for another message: a tensor as it is, a frame column that nobody else will write to."""
        if name in self._tensors:
            return self._tensors[name]
        if self._frame is None:
            return Column(self._arrays[name], self._dtypes[name])
        return Column(*_columns.from_extension(self._frame[name].array, copy=True))

    def _assign_columns(self, columns: Mapping[str, Any]) -> None:
        self._checked()
        rows = len(self) if self.columns else None
        scalar_rows = 1 if rows is None else rows
        new = Message(
            {
                name: _columns.repeat_scalar(values, scalar_rows) if _columns.is_scalar(values) else values
                for name, values in columns.items()
            }
        )
        if rows is not None and len(new) != rows:
            raise LengthError(f"{quoted(columns)} has {len(new)} rows, the message has {rows}")
        for name in columns:
            self._put(name, new._as_given(name))

    def _put(self, name: str, values: Any) -> None:
        """Sets a column of the right length, moving it between the halves if its kind changes."""
        if isinstance(values, torch.Tensor):
            if name not in self._tensors:
                self._remove_frame_column(name)
            self._tensors[name] = values
            return
        self._tensors.pop(name, None)
        array, dtype = (values.array, values.dtype) if type(values) is Column else _columns.from_values(values, name)
        if self._frame is not None:
            if not len(self._frame.columns):
                self._frame.index = pd.RangeIndex(len(array))
            self._frame[name] = _columns.to_series(array, dtype).set_axis(self._frame.index)
        else:
            self._arrays = {**self._arrays, name: array}
            self._dtypes = {**self._dtypes, name: dtype}
            self._series = None

    def _remove_frame_column(self, name: str) -> None:
        if self._frame is not None:
            if name in self._frame.columns:
                del self._frame[name]
        elif name in self._arrays:
            self._arrays = {other: array for other, array in self._arrays.items() if other != name}
            self._series = None

    def _assign_rows(self, index: RowIndex, value: Any) -> None:
        """Everything is checked before the first value is written: an error leaves the message as it was."""
        self._checked()
        positions = np.arange(len(self))[as_positions(index, len(self))]
        new = _message_of(value, len(positions))
        check_replacement(self.columns, len(positions), new.columns, len(new))
        tensors = fit_rows(self._tensors, {name: new._to_tensor(name) for name in self._tensors})
        names = self._frame_names()
        frame = self._own_frame() if names else pd.DataFrame()
        values = {name: _columns.to_series(*new.to_dataframe([name])._array(name)) for name in names}
        trial = frame.iloc[positions] if names else frame
        for name in names:
            _write(trial, np.arange(len(positions)), name, values[name])
        write_rows(self._tensors, positions, tensors)
        for name in names:
            _write(frame, positions, name, values[name])

    def __delitem__(self, index: Any) -> None:
        self._checked()
        if names_columns(index):
            for name in self._known(index):
                if self._tensors.pop(name, None) is None:
                    self._remove_frame_column(name)
            return
        keep = _others(index, len(self))
        _replace(self._tensors, _columns.take_tensors(self._tensors, keep))
        if self._frame is None:
            self._arrays, self._series = _columns.take_arrays(self._arrays, keep), None
        elif len(self._frame.columns):
            _keep_rows(self._frame, keep)

    # New messages from this one

    def append(self, other: MessageLike) -> Message:
        """The rows of this message, then those of `other`, which must have the same columns.

        An empty message plus anything is that thing. Dtypes are promoted as torch and pandas do.

        The result is independent of both. Appending to results again and again costs what the new rows cost, as long
        as nobody asks the messages between for more than their length; they are joined when somebody asks the result.

        Args:
            other: A Message, TensorMessage, dict of columns or DataFrame.

        Raises:
            ColumnError: Columns are missing or extra; the text names them.
            LengthError: Tensors of one name have rows of different shapes.

        Example:
            >>> Message({"a": [1, 2]}).append({"a": [3.5]}).to_dict()
            {'a': [1.0, 2.0, 3.5]}
        """
        return cat([self, other])

    def merge(self, other: MessageLike) -> Message:
        """The columns of both messages side by side; a later column replaces an earlier one of the same name.

        Args:
            other: A message of the same length with other columns. One of the two may be empty.

        Raises:
            LengthError: The messages differ in rows.

        Example:
            >>> Message({"a": [1, 2]}).merge(Message({"b": torch.tensor([3, 4])})).columns
            ['a', 'b']
        """
        return merge([self, other])

    def map(self, mapping: Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]]) -> Message:
        """Applies functions to whole columns: tensors as tensors, frame columns as Series.

        Args:
            mapping: A dict of column names to functions, which leaves all other columns as they are, or one function
                for every column. A function returns a column: a tensor, Series, array, list, or a scalar to repeat.

        Raises:
            ColumnError: A name is no column.
            LengthError: The results differ in rows.

        Example:
            >>> Message({"a": [1, 2], "b": torch.ones(2)}).map({"a": lambda a: a * 10}).to_dict()
            {'a': [10, 20], 'b': [1.0, 1.0]}
        """
        names = self._checked().columns
        functions = mapping if isinstance(mapping, Mapping) else dict.fromkeys(names, mapping)
        for name in functions:
            if name not in names:
                self._known(functions)
        columns = {
            name: functions[name](self._column(name)) if name in functions else self._as_given(name) for name in names
        }
        return Message.__new__(Message)._build(columns, rows=len(self))

    def permute(self, index: RowIndex) -> Message:
        """The rows in the order of the index, which may repeat and leave out rows.

        Example:
            >>> Message({"a": [1, 2, 3]}).permute([2, 1, 0]).to_dict()
            {'a': [3, 2, 1]}
        """
        return self._checked()._take(as_positions(index, len(self)))

    def tensors(self, keys: str | Iterable[str] | None = None) -> TensorMessage:
        """The tensor half, or the columns `keys`, converted to tensors where they are none.

        Raises:
            ConversionError: Text or ragged columns, by name.

        Example:
            >>> Message({"a": [1, 2], "s": ["x", "y"]}).tensors(["a"])["a"]
            tensor([1, 2])
        """
        if keys is None:
            return self.tensor_message
        return TensorMessage._of({name: self._to_tensor(name) for name in self._known(keys)})

    def dataframe(self, keys: str | Iterable[str] | None = None) -> pd.DataFrame:
        """The frame half, or the columns `keys` as a DataFrame: tensors as numbers, those of more dimensions as lists.

        Example:
            >>> Message({"s": ["x"], "t": torch.ones(1, 2)}).dataframe(["s", "t"]).to_dict("list")
            {'s': ['x'], 't': [[1.0, 1.0]]}
        """
        if keys is None:
            return self.df
        return self._select(self._known(keys)).to_dataframe()._own_frame()

    def to_dataframe(self, keys: str | Iterable[str] | None = None) -> Message:
        """A new message in which the columns `keys` (default: all) are in the frame half."""
        self._checked()
        message = Message(self)
        for name in self._known(keys):
            if name in self._tensors:
                message._put(name, Column(*_columns.from_tensor(self._tensors[name])))
        return message

    def to_tensors(self, keys: str | Iterable[str] | None = None) -> Message:
        """Makes the columns `keys` (default: all) tensors, in place, and returns the message.

        Floating point becomes `torch.get_default_dtype()`, integers int64, booleans bool; tensors stay as they are.

        Raises:
            ConversionError: Text or ragged columns, by name; the message is then as it was.

        Example:
            >>> Message({"a": [1, 2]}).to_tensors()["a"].dtype
            torch.int64
        """
        self._checked()
        converted = {name: self._to_tensor(name) for name in self._known(keys)}
        for name, tensor in converted.items():
            self._put(name, tensor)
        return self

    def _to_tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name] if name in self._tensors else _columns.to_tensor(self._array(name)[0], name)

    # Devices

    def cpu(self, keys: str | Iterable[str] | None = None) -> Message:
        """Moves tensors (all, or the columns `keys`) to system memory, in place, and returns the message."""
        return self._move(torch.device("cpu"), keys)

    def cuda(
        self,
        device: int | torch.device = 0,
        keys: str | Iterable[str] | None = None,
        *,
        device_num: int | None = None,
    ) -> Message:
        """Moves tensors (all, or the columns `keys`) to a GPU, in place, and returns the message.

        Args:
            device: Number of the CUDA device.
            keys: Columns to move; every tensor by default.
            device_num: Another name of `device`.
        """
        number = device if device_num is None else device_num
        return self._move(torch.device("cuda", number) if isinstance(number, int) else number, keys)

    def _move(self, device: torch.device, keys: str | Iterable[str] | None, **kwargs: Any) -> Message:
        names = list(self._tensors) if keys is None else self._known(keys)
        no_tensors = [name for name in names if name not in self._tensors]
        if no_tensors:
            raise ColumnError(f"{quoted(no_tensors)} is no tensor column; call to_tensors({no_tensors}) first")
        self._tensors.update({name: self._tensors[name].to(device, **kwargs) for name in names})
        return self

    def pin_memory(self, device: Any = None) -> Message:
        """A new message whose tensors are in page-locked memory; DataLoader(pin_memory=True) calls it."""
        message = Message(self)
        message._tensors = {name: tensor.pin_memory() for name, tensor in self._tensors.items()}
        return message

    # In and out

    def to(self, target: Any, path: Any = None, **kwargs: Any) -> Any:
        """Moves to a device (in place), or writes the message in a format that pandas knows.

        Args:
            target: A device ('cpu', 'cuda:1', a `torch.device`), or the name of a format: 'csv', 'json', 'dict',
                'html', 'excel', 'parquet', 'feather', 'numpy', 'arrow', 'polars', 'markdown', …; 'pickle' only ever by
                this name.
            path: Where to write; without it the text or object is returned. Files are written to a temporary name
                and renamed, so a failure leaves what was there.
            **kwargs: For a device `keys=` and what `Tensor.to` takes; for a format what pandas takes.

        Returns:
            The message itself for a device; else the text or object, or None when it was written to a path.

        Raises:
            ValueError: Neither a device nor a format; the text lists the formats.

        Example:
            >>> print(Message({"a": [1, 2], "t": torch.ones(2, 2)}).to("csv"), end="")
            a,t
            1,"[1.0, 1.0]"
            2,"[1.0, 1.0]"
        """
        device = _formats.as_device(target)
        if device is not None:
            return self._move(device, kwargs.pop("keys", path), **kwargs)
        return _formats.write(self._checked(), target, path, **kwargs)

    def to_dict(self) -> dict[str, list[Any]]:
        """Column names to lists."""
        return cast("dict[str, list[Any]]", self.to("dict"))

    def to_json(self, path: Any = None) -> str | None:
        """JSON text of column names to lists."""
        return cast("str | None", self.to("json", path))

    @classmethod
    def read(cls, method: str, path: Any, **kwargs: Any) -> Message:
        """Reads a file in a format that pandas knows; every column is a frame column.

        Args:
            method: 'csv', 'json', 'parquet', 'feather', 'excel', 'html', …
            path: A path or buffer (for 'json' and 'csv' also the text itself is possible through `io.StringIO`).
            **kwargs: What the reader of pandas takes.

        Raises:
            ValueError: No such format; the text lists the formats.

        Example:
            >>> import io
            >>> Message.read("csv", io.StringIO("a,b\\n1,x\\n2,y\\n")).to_dict()
            {'a': [1, 2], 'b': ['x', 'y']}
        """
        return cls(_formats.read(method, path, **kwargs))

    def save(self, path: str | PathLike[str] | IO[bytes]) -> None:
        """Writes the message to one file, exactly: a tar of a manifest, an Arrow IPC frame and safetensors.

        Args:
            path: A path, written to a temporary name and renamed, or a binary buffer.

        Raises:
            TypeError: A column holds objects that Arrow cannot; the text names it.
        """
        _formats.save(self._checked(), path)

    @classmethod
    def load(cls, path: str | PathLike[str] | IO[bytes], mmap: bool | None = None) -> Message:
        """Reads what `save` wrote. Nothing is unpickled: a hostile or broken file can fail, not run.

        A file is mapped: its pages are read when they are touched, and writes to the message stay in memory. Saving to
        the path again, renaming and deleting leave the message as it was, since they leave the mapped file alone.

        Args:
            path: A path, or a binary buffer, which is read from its start.
            mmap: False reads the whole file at once. That is right for a file that something may cut off or write into
                while the message is used: missing pages end the process (SIGBUS), other bytes are other values. It is
                what happens by default on Windows, where a mapped file could not be replaced, and with buffers.

        Raises:
            FormatError: No file of ours, or broken; the text says what is wrong.

        Example:
            >>> import io
            >>> buffer = io.BytesIO()
            >>> Message({"a": torch.ones(2), "s": ["x", "y"]}).save(buffer)
            >>> Message.load(buffer).to_dict()
            {'s': ['x', 'y'], 'a': [1.0, 1.0]}
        """
        return cls._from_columns(*_formats.load(path, mmap))

    @classmethod
    def _from_columns(
        cls, tensors: dict[str, torch.Tensor], arrays: dict[str, Array], dtypes: dict[str, Any]
    ) -> Message:
        message = Message.__new__(Message)._set(tensors, arrays, dtypes)
        message.check_length()
        return message

    @classmethod
    def from_objects(cls, *args: Mapping[str, Any], **kwargs: Any) -> Message:
        """A message of one row, in which every value is one cell, whatever it is: arrays of any shape, dicts, None.

        Args:
            *args: One or two mappings of names to values (as the tensors and the others).
            **kwargs: More names and values.

        Example:
            >>> row = Message.from_objects({"r": torch.zeros(2, 3), "d": {"k": 1}})
            >>> row["r"].shape, row["d"][0]
            (torch.Size([1, 2, 3]), {'k': 1})
        """
        values = {name: value for mapping in (*args, kwargs) if mapping is not None for name, value in mapping.items()}
        return cls({name: _cell(value) for name, value in values.items()})

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` with all columns; `from_arrow` gives the same message back, also from a parquet file of it.

        Tensors of more than one dimension are Arrow's `fixed_shape_tensor` (those of bool: lists of fixed size), lists
        and dicts are lists and structs. Objects that no Arrow type holds exactly are written as JSON text, which only
        `from_arrow` knows how to read. Missing values of any kind, NaN among the floats of a frame column, are null;
        NaN in a tensor stays NaN.

        Nothing is copied that need not be: contiguous tensors in system memory are shared, so writing to them changes
        the table; tensors on a GPU are moved, gradients are left behind.

        Raises:
            ConversionError: A column has no Arrow type (bfloat16, complex, …); the text names it.

        Example:
            >>> Message({"s": ["a", "b"], "t": torch.zeros(2, 3)}).to_arrow().schema.field("t").type
            FixedShapeTensorType(extension<arrow.fixed_shape_tensor[value_type=float, shape=[3]]>)
        """
        return _arrow.to_arrow(self._checked())

    @classmethod
    def from_arrow(cls, table: ArrowTable, copy: bool = True) -> Message:
        """A message from a `pyarrow.Table`, or whatever exports Arrow data (polars, DuckDB, ADBC, …).

        Lists of one length, all numbers or all bools, and Arrow's tensors become tensors, and so does what was a tensor
        before `to_arrow`. With a value missing, they become lists. All else is a frame column: numbers keep their type,
        integers and bools with missing values become pandas' nullable types, dictionaries become categories; bytes,
        decimals, dates, lists and structs become Python objects. Names are kept as they are; an index of pandas' is a
        column if Arrow has it as one.

        Args:
            table: The table, or a reader of one, which is read to its end.
            copy: Whether tensors get memory of their own. False leaves them in Arrow's memory where they are in one
                piece: nothing is read before it is used, but writing to such a tensor would change the table, or crash
                if it is a mapped file. Numbers in frame columns are shared in any case, as they are never written in
                place.

        Raises:
            ConversionError: No table, or values that Python cannot hold exactly; the text names the column.
            ValueError: Two columns have one name.

        Example:
            >>> import pyarrow as pa
            >>> table = pa.table({"i": [1, None], "x": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))})
            >>> message = Message.from_arrow(table)
            >>> message["i"].dtype, message["x"].shape
            (Int64Dtype(), torch.Size([2, 2]))
        """
        return cls._from_columns(*_arrow.from_arrow(table, copy))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        _arrow.check_exported(self.columns)
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_polars(self) -> Any:
        """A `polars.DataFrame` with all columns; polars must be installed.

        Tensors of more than one dimension are polars' Arrays, ordered categories its Enums. Memory is shared as by
        `to_arrow`. polars has no mark for tensors: one of a single dimension comes back as a frame column.

        Raises:
            ConversionError: polars cannot hold a column exactly (bfloat16, periods, arbitrary objects, …), by name.
            MissingExtraError: polars is not installed.

        Example:
            >>> Message({"s": ["a", "b"], "t": torch.zeros(2, 3)}).to_polars().schema
            Schema([('s', String), ('t', Array(Float32, shape=(3,)))])
        """
        return _polars.to_polars(self._checked())

    @classmethod
    def from_polars(cls, frame: Any, copy: bool = True) -> Message:
        """A message from a `polars.DataFrame`; the rules and arguments are those of `from_arrow`."""
        return cls._from_columns(*_polars.from_polars(frame, copy))

    def to_tensordict(self) -> Any:
        """A `tensordict.TensorDict`, which must be installed; frame columns become its non-tensor entries."""
        return _formats.to_tensordict(self._checked())

    @classmethod
    def from_tensordict(cls, tensordict: Any) -> Message:
        """A message from a TensorDict with one batch dimension; nested names are joined with dots."""
        return cls(_formats.from_tensordict(tensordict))

    @property
    def nbytes(self) -> int:
        """Bytes of all columns: tensors by what they hold, Python objects in the frame included."""
        return sum(tensor.nbytes for tensor in self._tensors.values()) + sum(
            _columns.bytes_of(self._array(name)[0]) for name in self._frame_names()
        )

    # Python's own protocols

    def __eq__(self, other: object) -> bool:
        """Same columns (in any order) with equal values; dtypes are promoted, missing values equal each other.

        What is neither a Message nor a TensorMessage is unequal.
        """
        if isinstance(other, TensorMessage):
            other = Message(other)
        if not isinstance(other, Message):
            return False
        if other is self:
            return True
        if TensorMessage(self) != TensorMessage(other) or set(self._frame_names()) != set(other._frame_names()):
            return False
        return all(_columns.same_array(self._array(name), other._array(name)) for name in self._frame_names())

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Message:
        return Message(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Message:
        self._checked()
        arrays = {name: self._array(name) for name in self._frame_names()}
        return Message.__new__(Message)._set(
            copy_tensors(self._tensors, memo),
            {name: copy.deepcopy(array, memo) for name, (array, _) in arrays.items()},
            {name: dtype for name, (_, dtype) in arrays.items()},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        self._checked()
        arrays = {name: self._array(name) for name in self._frame_names()}
        return _unpickle, (
            _formats.pack_tensors(self._tensors),
            {name: array for name, (array, _) in arrays.items()},
            {name: dtype for name, (_, dtype) in arrays.items()},
        )

    def __repr__(self) -> str:
        return _display.text(self, "Message")

    def _repr_html_(self) -> str:
        return _display.html(self, "Message")


def _unpickle(packed: dict[str, Any], arrays: dict[str, Array], dtypes: dict[str, Any]) -> Message:
    return Message.__new__(Message)._set(_formats.unpack_tensors(packed), arrays, dtypes)


def _columns_of(half: Any) -> Mapping[str, Any]:
    """Names and values of anything that a message can be made of."""
    if type(half) is dict:
        return half
    if isinstance(half, Message):
        half._checked()
        return {name: half._as_given(name) for name in half.columns}
    if isinstance(half, TensorMessage):
        return half._tensors
    if isinstance(half, pd.DataFrame):
        check_names(half.columns)
        arrays, dtypes = _columns.from_frame(half)
        return {name: Column(array, dtypes[name]) for name, array in arrays.items()}
    if isinstance(half, Mapping):
        return half
    if _arrow.is_table(half):
        tensors, arrays, dtypes = _arrow.from_arrow(half)
        return {**{name: Column(array, dtypes[name]) for name, array in arrays.items()}, **tensors}
    raise TypeError(
        f"a Message is made of a dict of columns, a DataFrame or a message, got {type(half).__name__}; "
        "for one row of arbitrary objects use Message.from_objects"
    )


def _message_of(value: Any, rows: int = 1) -> Message:
    """The value as a message; a mapping of scalars is as many equal rows as asked for."""
    if isinstance(value, Message):
        return value._checked()
    if isinstance(value, Mapping) and all(_columns.is_scalar(item) for item in value.values()):
        return Message(value, length=rows)
    return Message(value)


def _cell(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.unsqueeze(0)
    if isinstance(value, (str, bool, int, float, np.generic, pd.Timestamp)):
        return [value]
    return Column(_columns.object_array([value]), _columns.OBJECT)


def _others(index: RowIndex, length: int) -> np.ndarray:
    """The positions that an index leaves out."""
    return np.array(complement(index, length), dtype=np.int64)


def _replace(tensors: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> None:
    """Changes a dict in place: others may hold it."""
    tensors.clear()
    tensors.update(new)


def _is_numbered(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _renumbered(frame: pd.DataFrame) -> pd.DataFrame:
    frame.index = pd.RangeIndex(len(frame))
    return frame


def _keep_rows(frame: pd.DataFrame, positions: np.ndarray) -> None:
    """Drops all other rows of a DataFrame that others may hold: column by column, as pandas drops no rows in place."""
    kept = _renumbered(frame.iloc[positions])
    for name in kept.columns:
        del frame[name]
    frame.index = kept.index
    for name in kept.columns:
        frame[name] = kept[name]  # with its dtype: of the array alone pandas would guess one


def _write(frame: pd.DataFrame, positions: np.ndarray, name: str, values: pd.Series) -> None:
    """Writes into a frame by position; what the dtype cannot hold is an error that names column, dtype and values."""
    try:
        column = cast(int, frame.columns.get_loc(name))
        frame.iloc[positions, column] = values.to_numpy() if values.dtype == object else values.array
    except (TypeError, ValueError) as error:
        dtype, given = frame[name].dtype, values.tolist()
        raise TypeError(f"column {name!r} of {dtype} cannot hold {given!r:.80}; convert the column first") from error


def compute_length(of_this: Mapping[str, Any]) -> int:
    """The number of rows of a dict of columns, all of which must have it.

    Raises:
        LengthError: The columns differ in rows; the text says which.

    Example:
        >>> compute_length({"a": [1, 2], "b": torch.zeros(2, 5)})
        2
    """
    return one_length({name: len(values) for name, values in of_this.items()})


def extract_tensors(from_this: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Splits a dict in two: the tensors, and all else.

    Example:
        >>> extract_tensors({"a": torch.ones(1), "b": ["x"]})
        ({'a': tensor([1.])}, {'b': ['x']})
    """
    tensors = {name: values for name, values in from_this.items() if isinstance(values, torch.Tensor)}
    return tensors, {name: values for name, values in from_this.items() if name not in tensors}


def cat(list_of_args: Iterable[MessageLike]) -> Message:
    """Concatenates messages into one, row after row; they must have the same columns. Empty messages count for nothing.

    Raises:
        ColumnError: Columns are missing or extra; the text names them.

    Example:
        >>> cat([Message({"a": [1]}), {"a": [2]}, Message()]).to_dict()
        {'a': [1, 2]}
    """
    messages = [item._checked() if isinstance(item, Message) else Message(item) for item in list_of_args]
    messages = [message for message in messages if message._joined or message._tensors or message._frame_names()]
    if not messages:
        return Message()
    first, *others = messages
    if not others:
        return Message(first)
    for message in others:
        if message._joined is not None:
            message._joined[0].settle(message)
    new, joined = Message.__new__(Message), first._joined
    if joined is not None and joined[0].extend(first, others, new):
        return new
    tensors, frame = first._tensors.keys(), first._frame_names()
    return JoinedRows(
        [
            message
            if message._tensors.keys() == tensors and message._frame_names() == frame
            else _arranged(message, first)
            for message in messages
        ]
    ).newest(new)


def _arranged(message: Message, first: Message) -> Message:
    """A message of the same columns as the first one, each in the half in which that has it."""
    check_same_columns(first.columns, message.columns)
    moved = message.to_dataframe([name for name in first._frame_names() if name in message._tensors])
    return moved.to_tensors(list(first._tensors))


def merge(list_of_args: Iterable[MessageLike]) -> Message:
    """Puts the columns of several messages side by side; a later column replaces an earlier one of the same name.

    A scalar in a dict is repeated for every row.

    Raises:
        LengthError: The messages differ in rows.

    Example:
        >>> merge([Message({"a": [1, 2]}), {"b": [3, 4]}, {"c": torch.zeros(2), "d": "x"}]).columns
        ['a', 'b', 'd', 'c']
    """
    columns: dict[str, Any] = {}
    for item in list_of_args:
        given = dict(_columns_of(item))
        _warn_replaced([name for name in given if columns.pop(name, None) is not None], "merge", stacklevel=3)
        columns.update(given)
    return Message(columns)


def _warn_replaced(names: Sequence[str], where: str, stacklevel: int) -> None:
    if names:
        text = f"{where}: {quoted(names)} is given more than once; the last one counts"
        warnings.warn(text, UserWarning, stacklevel=stacklevel + 1)


def _collate(batch: Any, *, collate_fn_map: Any = None) -> Message:
    """Lets torch's default collate join messages, so that a Message is a dataset for a plain DataLoader."""
    return batch if isinstance(batch, Message) else cat(batch)


default_collate_fn_map[Message] = _collate
