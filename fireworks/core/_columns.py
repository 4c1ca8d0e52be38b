"""What one column is, and what can be done with it: gather, convert, join, compare.

A tensor column is a `torch.Tensor` whose first dimension counts rows. A frame column is kept as an array, because
making a pandas object costs more than most batches: a 1-D numpy array where numpy can hold the values (text as Python
strings in an object array, which gathers ten times faster than Arrow strings), else a pandas ExtensionArray
(categories, time zones, nullable integers). Frame columns are never written in place: slices share them freely.

Beside the array stands the dtype that the column has in a DataFrame where the array alone does not say it: text, plain
objects, or `UNKNOWN` for an object array that nobody has looked into yet.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from pandas.api.extensions import ExtensionArray

from fireworks.utils.exceptions import ConversionError, LengthError

Array: TypeAlias = "np.ndarray | ExtensionArray"
Positions: TypeAlias = "slice | np.ndarray"  # what as_positions gives

UNKNOWN: Any = None
TEXT = pd.Series(["a"]).dtype
OBJECT = np.dtype(object)

# At most this many elements are gathered by numpy.take; beyond, torch.index_select wins by its threads. Measured.
SMALL_GATHER = 32_768
NUMPY_DTYPES = frozenset(
    {torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.bool}
    | {torch.uint8, torch.uint16, torch.uint32, torch.uint64}
)
# torch cannot gather, write rows of or promote these; rows are moved as those of a type of the same size.
_STAND_INS = {
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
    torch.complex32: torch.int32,
    torch.float8_e8m0fnu: torch.uint8,
}


class Column:
    """A frame column on its way from one message to another: nothing is left to check, infer or copy."""

    __slots__ = ("array", "dtype")

    def __init__(self, array: Array, dtype: Any) -> None:
        self.array = array
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.array)


def take_tensors(tensors: Mapping[str, torch.Tensor], rows: Positions) -> dict[str, torch.Tensor]:
    """These rows of every tensor: views for a slice, copies for positions."""
    if type(rows) is slice:
        if rows.step == 1:
            rows = slice(rows.start, rows.stop)  # which torch reads in four fifths of the time
        return {name: tensor[rows] for name, tensor in tensors.items()}
    return {name: _gather(tensor, rows) for name, tensor in tensors.items()}


def _gather(tensor: torch.Tensor, positions: Any) -> torch.Tensor:
    if (
        type(tensor) is torch.Tensor
        and tensor.is_cpu
        and not tensor.requires_grad
        and tensor.dtype in NUMPY_DTYPES
        and tensor.layout is torch.strided
        and not tensor.is_neg()
    ):
        array = tensor.numpy()
        if positions.size * array.strides[0] <= SMALL_GATHER * array.itemsize:
            return torch.from_numpy(array.take(positions, 0))
    rows = torch.from_numpy(positions).to(tensor.device)
    if tensor.dtype in _STAND_INS:
        return torch.index_select(movable(tensor), 0, rows).view(tensor.dtype)
    return torch.index_select(tensor, 0, rows)


def movable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a type whose rows torch can gather and write: itself, or a view of its memory."""
    return tensor.view(_STAND_INS[tensor.dtype]) if tensor.dtype in _STAND_INS else tensor


def take_arrays(arrays: Mapping[str, Array], rows: Positions) -> dict[str, Array]:
    """These rows of every frame column: views for a slice, copies for positions."""
    if type(rows) is slice:
        return {name: array[rows] for name, array in arrays.items()}
    return {name: array.take(rows) for name, array in arrays.items()}


def is_scalar(value: Any) -> bool:
    """Is this one value to be repeated for every row, rather than a column of them?"""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim == 0
    if type(value) is Column:
        return False
    return not pd.api.types.is_list_like(value)


def repeat_scalar(value: Any, length: int) -> Any:
    """A column that holds one value in every row."""
    if isinstance(value, torch.Tensor):
        return value.expand(length).clone()
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, str):
        return pd.Series([value], dtype=TEXT).array.take(np.zeros(length, dtype=np.int64))
    return pd.Series([value]).array.take(np.zeros(length, dtype=np.int64))


def from_values(values: Any, name: str) -> tuple[Array, Any]:
    """A frame column from anything pandas can hold: its array and its dtype in a DataFrame.

    Arrays are copied, so that writing to them later does not change the message. An array of more than one dimension
    becomes a column of rows, each cell an array.
    """
    if isinstance(values, np.ndarray):
        return from_ndarray(values, name)
    if isinstance(values, (pd.Series, pd.Index)):
        return from_extension(values.array, copy=True)
    if isinstance(values, ExtensionArray):
        return from_extension(values, copy=True)
    is_table = isinstance(values, (Mapping, Set)) or hasattr(values, "columns")  # iterates over names, or in no order
    if is_table or not isinstance(values, Iterable):
        raise TypeError(f"column {name!r}: expected a tensor, an array or a list, got {type(values).__name__}")
    values = list(values)
    if values and isinstance(values[0], (list, tuple, np.ndarray, torch.Tensor, dict)):
        return object_array(values), OBJECT
    return from_extension(pd.Series(values, dtype=None if values else OBJECT).array)


def from_ndarray(values: np.ndarray, name: str) -> tuple[Array, Any]:
    """The same of a numpy array."""
    dtype = values.dtype
    kind = dtype.kind
    if type(values) is np.ndarray and values.ndim == 1 and kind in "biufcO" and dtype.isnative:
        return values.copy(), UNKNOWN if kind == "O" else dtype
    if isinstance(values, np.ma.MaskedArray):
        return from_extension(pd.Series(values).array)
    if values.ndim > 1:
        return object_array(list(np.array(values))), OBJECT
    if values.ndim == 0:
        raise TypeError(f"column {name!r}: expected an array with one entry per row, got a 0-dimensional one")
    if type(values) is not np.ndarray:
        return from_ndarray(np.array(values), name)
    if kind == "V":
        raise TypeError(f"column {name!r}: a structured array is several columns; give each field by its name")
    return from_extension(pd.Series(values.astype(object) if kind in "US" else values).array)


def object_array(cells: Sequence[Any]) -> np.ndarray:
    """A 1-D array with these objects as they are; numpy alone would unpack nested lists."""
    array = np.empty(len(cells), dtype=object)
    for position, cell in enumerate(cells):
        array[position] = cell
    return array


def from_extension(array: Any, copy: bool = False) -> tuple[Array, Any]:
    """A frame column from the array behind a Series; copied when anybody else may write to it later.

    pandas copies on write only for Series and DataFrames that it knows of, and an array of ours is none.
    """
    dtype = array.dtype
    if isinstance(dtype, pd.StringDtype):
        return array.to_numpy(dtype=object, copy=copy), dtype
    if isinstance(dtype, np.dtype) or isinstance(array, pd.arrays.NumpyExtensionArray):  # whose dtype is one of pandas
        values = array.to_numpy(copy=copy)
        return values, values.dtype
    return (array.copy() if copy else array), dtype


def from_frame(frame: pd.DataFrame) -> tuple[dict[str, Array], dict[str, Any]]:
    """Copies of all columns of a DataFrame: arrays and dtypes by name."""
    arrays, dtypes = {}, {}
    for position, name in enumerate(frame.columns):
        arrays[name], dtypes[name] = from_extension(frame.iloc[:, position].array, copy=True)
    return arrays, dtypes


def to_series(array: Array, dtype: Any, name: str | None = None) -> pd.Series:
    """The column as a Series that shares the array where it can; only copies of it may be handed out."""
    return pd.Series(_pandas_values(array, dtype), copy=False, name=name)


def to_frame(arrays: Mapping[str, Array], dtypes: Mapping[str, Any]) -> pd.DataFrame:
    """All columns as a DataFrame with memory of its own."""
    if not arrays:
        return pd.DataFrame()
    columns = [_pandas_values(array.copy(), dtypes[name]) for name, array in arrays.items()]
    frame = pd.DataFrame(dict(enumerate(columns)), pd.RangeIndex(len(columns[0])), copy=False)
    frame.columns = _names_index(tuple(arrays)).view()  # somebody may give it a name
    return frame


@functools.lru_cache
def _names_index(names: tuple[str, ...]) -> pd.Index:
    """Names as pandas keeps them: to make that anew takes half the time of a DataFrame."""
    return pd.Index(list(names))


def _pandas_values(array: Array, dtype: Any) -> Array | pd.Series:
    """What pandas makes a column of: objects with the dtype that is known, since guessing takes it longer."""
    if not isinstance(array, np.ndarray) or array.dtype != OBJECT:
        return array
    if dtype is UNKNOWN:
        if pd.api.types.infer_dtype(array, skipna=False) != "string":
            return pd.Series(array)
        dtype = TEXT
    if dtype == OBJECT:
        return pd.Series(array, dtype=OBJECT, copy=False)
    values: ExtensionArray = dtype.construct_array_type()._from_sequence(array, dtype=dtype)
    return values


def to_tensor(values: Any, name: str) -> torch.Tensor:
    """A column as a tensor: floating point in the default dtype, integers int64, booleans bool, tensors as they are.

    Raises:
        ConversionError: Text, ragged cells, missing values or dates, by the name of the column.
    """
    if isinstance(values, torch.Tensor):
        return values
    array = values if isinstance(values, np.ndarray) else _dense(values, name)
    if array.dtype == OBJECT:
        return _stack_cells(array, name)
    kind = array.dtype.kind
    if kind == "f":
        return torch.from_numpy(array.astype(_default_numpy_dtype())).to(torch.get_default_dtype())
    if kind == "b":
        return torch.from_numpy(array.copy())
    if kind in "iu":
        if kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise _no_tensor(name, f"holds {array.max()}, which int64 cannot")
        return torch.from_numpy(array.astype(np.int64))
    if kind == "c":
        complex_dtype = torch.complex128 if torch.get_default_dtype() == torch.float64 else torch.complex64
        return torch.from_numpy(array.copy()).to(complex_dtype)
    raise _no_tensor(name, f"has dtype {array.dtype}")


def _default_numpy_dtype() -> type:
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32


def _dense(values: Any, name: str) -> np.ndarray:
    """A pandas array, or whatever else, as a numpy array of its own kind of numbers."""
    if isinstance(values, (pd.Series, pd.Index)):
        values = values.array
    if isinstance(values, ExtensionArray):
        dtype = values.dtype
        if values.isna().any() and not (isinstance(dtype, np.dtype) and dtype.kind in "fcO"):
            raise _no_tensor(name, f"has dtype {dtype} and missing values in {int(values.isna().sum())} rows")
        if isinstance(dtype, (pd.StringDtype, pd.CategoricalDtype)):
            raise _no_tensor(name, f"has dtype {dtype}")
        return np.asarray(values.to_numpy())
    array = from_values(values, name)[0]
    return array if isinstance(array, np.ndarray) else _dense(array, name)


def _stack_cells(array: np.ndarray, name: str) -> torch.Tensor:
    """An object column whose cells are numbers, or tensors, arrays or lists of one shape."""
    cells = array.tolist()
    if not cells:
        return torch.empty(0)
    if all(isinstance(cell, torch.Tensor) for cell in cells):
        shapes = {tuple(cell.shape) for cell in cells}
        if len(shapes) > 1:
            raise _no_tensor(name, f"is ragged: its cells have shapes {_some(shapes)}")
        return torch.stack(cells)
    if any(cell is None for cell in cells):
        raise _no_tensor(name, f"has dtype object and no value in row {cells.index(None)}")
    if any(isinstance(cell, (str, bytes)) for cell in cells):
        raise _no_tensor(name, f"has dtype {TEXT}" if all(isinstance(c, str) for c in cells) else "has dtype object")
    try:
        stacked = np.array([np.asarray(cell) for cell in cells])
    except ValueError:
        shapes = {np.shape(cell) for cell in cells}
        raise _no_tensor(name, f"is ragged: its cells have shapes {_some(shapes)}") from None
    if stacked.dtype.kind not in "biufc":
        raise _no_tensor(name, f"has dtype object (cells of {_some({type(cell).__name__ for cell in cells})})")
    return to_tensor(stacked, name)


def _some(values: Iterable[Any]) -> str:
    listed = sorted(map(str, values))
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _no_tensor(name: str, reason: str) -> ConversionError:
    return ConversionError(f"column {name!r} {reason}, so it cannot become a tensor; convert it with map() first")


def tensor_values(tensor: torch.Tensor, name: str) -> np.ndarray:
    """A tensor column as a numpy array, which shares its memory where it can."""
    try:
        return tensor.numpy(force=True)
    except TypeError:
        raise ConversionError(
            f"column {name!r} is of {tensor.dtype}, for which numpy has no type; convert it with map() first"
        ) from None


def from_tensor(tensor: torch.Tensor) -> tuple[Array, Any]:
    """A tensor column as a frame column: one dimension as numbers, more as one list per row."""
    tensor = tensor.detach().cpu()
    if tensor.ndim > 1:
        return object_array(tensor.tolist()), OBJECT
    if tensor.dtype not in NUMPY_DTYPES:
        complex_dtype = torch.complex128 if tensor.dtype is torch.complex128 else torch.complex64
        tensor = tensor.to(complex_dtype if tensor.is_complex() else torch.float32)
    array = tensor.resolve_conj().resolve_neg().numpy().copy()
    return array, array.dtype


def join_tensors(tensors: Sequence[torch.Tensor], name: str) -> torch.Tensor:
    """The rows of several tensors, one after the other; torch's promotion of dtypes."""
    try:
        if len({tensor.ndim for tensor in tensors}) == 1:  # torch passes over what is empty and of one dimension
            return torch.cat(list(tensors))
    except RuntimeError as error:
        if len({tensor.shape[1:] for tensor in tensors}) == 1:
            found = _some({f"{tensor.dtype} on {tensor.device}" for tensor in tensors})
            raise TypeError(f"column {name!r}: torch cannot join {found}; convert or move one of them first") from error
    shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
    raise LengthError(f"column {name!r} has rows of different shapes: {_some(shapes)}")


def join_arrays(columns: Sequence[tuple[Array, Any]]) -> tuple[Array, Any]:
    """The rows of several frame columns, one after the other; pandas' promotion of dtypes."""
    first, dtype = columns[0]
    if isinstance(first, np.ndarray) and all(
        isinstance(array, np.ndarray) and array.dtype == first.dtype and other == dtype for array, other in columns
    ):
        return np.concatenate([array for array, _ in columns]), dtype
    return from_extension(pd.concat([to_series(*column) for column in columns], ignore_index=True).array)


def same_tensor(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal shape and values, whatever the dtypes and devices; NaN equals NaN."""
    if a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach().to(a.device)
    if a.dtype in _STAND_INS or b.dtype in _STAND_INS or (a.dtype != b.dtype and _is_small(a, b)):
        # numpy compares what torch does not, unsigned with signed integers exactly
        left, right = from_tensor(a.flatten())[0], from_tensor(b.flatten())[0]
        return same_array((left, left.dtype), (right, right.dtype))
    if a.dtype != b.dtype:
        dtype = torch.promote_types(a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    if _is_small(a):
        a, b = a.float(), b.float()
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _is_small(*tensors: torch.Tensor) -> bool:
    """Is any of them an 8-bit float? torch promotes these with no other type."""
    return any(tensor.is_floating_point() and tensor.element_size() == 1 for tensor in tensors)


def same_array(a: tuple[Array, Any], b: tuple[Array, Any]) -> bool:
    """Equal values, whatever the dtypes; missing values equal each other."""
    left, right = a[0], b[0]
    if len(left) != len(right):
        return False
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        if left.dtype.kind in "biufc" and right.dtype.kind in "biufc":
            return np.array_equal(left, right, equal_nan=left.dtype.kind in "fc" and right.dtype.kind in "fc")
        if left.dtype == right.dtype and left.dtype != OBJECT:
            return np.array_equal(left, right, equal_nan=True)
    elif isinstance(left, ExtensionArray) and isinstance(right, ExtensionArray) and left.dtype == right.dtype:
        return bool(pd.Series(left).equals(pd.Series(right)))
    return all(same_cell(x, y) for x, y in zip(_cells(left), _cells(right), strict=True))


def _cells(array: Array) -> list[Any]:
    if isinstance(array, np.ndarray) and array.dtype == OBJECT:
        return list(array.tolist())
    return list(pd.Series(array).astype(object))


def same_cell(a: Any, b: Any) -> bool:
    """Are two cells equal? Tensors, arrays, lists and dicts by what they hold; missing values equal each other."""
    if a is b:
        return True
    if type(a) is str and type(b) is str:
        return a == b
    if isinstance(a, (pd.DataFrame, pd.Series)) or isinstance(b, (pd.DataFrame, pd.Series)):
        return type(a) is type(b) and bool(a.equals(b))
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and same_tensor(a, b)
    if isinstance(a, (list, tuple, np.ndarray)) and isinstance(b, (list, tuple, np.ndarray)):
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and (a.ndim != b.ndim or not a.ndim):
            return a.shape == b.shape and same_cell(a.item(), b.item())
        return len(a) == len(b) and all(same_cell(x, y) for x, y in zip(a, b, strict=True))
    if any(isinstance(cell, np.ndarray) and cell.ndim for cell in (a, b)):
        return False  # an array and no sequence: numpy would compare element by element
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_cell(value, b[key]) for key, value in a.items())
    missing = [pd.api.types.is_scalar(value) and pd.isna(value) for value in (a, b)]
    return all(missing) or (not any(missing) and bool(a == b))


def bytes_of(array: Array) -> int:
    """Bytes that a frame column holds, its Python objects and the tensors in its cells included."""
    if isinstance(array, np.ndarray) and array.dtype == OBJECT:
        return int(array.nbytes) + sum(_cell_bytes(cell) for cell in array)
    return int(array.nbytes)


def _cell_bytes(cell: Any) -> int:
    if isinstance(cell, (torch.Tensor, np.ndarray)):
        return int(cell.nbytes)
    if isinstance(cell, (list, tuple)):
        return sys.getsizeof(cell) + sum(_cell_bytes(item) for item in cell)
    if isinstance(cell, Mapping):
        return sys.getsizeof(cell) + sum(_cell_bytes(key) + _cell_bytes(item) for key, item in cell.items())
    return sys.getsizeof(cell)
