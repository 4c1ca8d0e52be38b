"""Messages from and to Arrow tables, and whatever else speaks Arrow: polars, DuckDB, ADBC, …

Arrow memory is immutable and may be anybody's, a tensor may be written to at any time. So the numbers of frame columns,
which a message never writes in place, stay where Arrow has them, and tensors are copied unless the caller asks for
their memory. What either side cannot hold exactly is an error that names the column.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch
from pandas.api.extensions import ExtensionArray

from fireworks.core import _columns
from fireworks.core._arrow_cells import object_column, to_cells
from fireworks.core._columns import Array, Column
from fireworks.core._names import check_names
from fireworks.utils.exceptions import ConversionError

if TYPE_CHECKING:
    from fireworks.core.message import Message

KINDS = b"fireworks"  # the key of our own metadata in Arrow schemas
# What Arrow's libraries raise for values that the other side has no place for.
UNFIT = (ValueError, TypeError, ArithmeticError, NotImplementedError)
# The usual values of a column, which are looked at no further.
_PLAIN = frozenset({torch.Tensor, np.ndarray, list, Column, pd.Series, str, int, float})


class ArrowTable(Protocol):
    """Any table that exports its columns by Arrow's PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The rows as a stream of record batches."""


# From Arrow


def is_table(value: Any) -> bool:
    """Does this export Arrow data? Asked of the type, as a pipe would pass the question on to its input."""
    kind = type(value)
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")


def is_column(value: Any) -> bool:
    """Is this a polars Series, a pyarrow array, or the like? pandas' own columns are not."""
    return (
        type(value) not in _PLAIN and is_table(value) and not isinstance(value, (pd.Series, pd.Index, ExtensionArray))
    )


def from_arrow(source: Any, copy: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, Array], dict[str, Any]]:
    """See `Message.from_arrow`."""
    import pyarrow as pa

    table = _table_of(source)
    check_names(table.schema.names)
    tensors, frame, kinds = {}, {}, []
    for field, column in zip(table.schema, table.columns, strict=True):
        noted = (field.metadata or {}).get(KINDS, b"").decode()
        with _naming(field.name, column.type):
            tensor = _tensor_of(column, copy, noted == "tensor")
            if tensor is not None:
                tensors[field.name] = tensor
                continue
            frame[field.name] = _decoded(column)
        kinds.append(_kind_of(frame[field.name].type, noted))
    rest = pa.table(frame).replace_schema_metadata(table.schema.metadata)
    return tensors, *columns_of_table(rest, list(frame), kinds)


def column_of(values: Any, name: str) -> torch.Tensor | Column:
    """A column of a message made of one of Arrow's."""
    import pyarrow as pa

    if hasattr(values, "columns") or hasattr(values, "column_names"):
        raise TypeError(f"column {name!r}: expected a tensor, an array or a list, got {type(values).__name__}")
    _check_polars(values, name)
    if hasattr(type(values), "__arrow_c_stream__") and not isinstance(values, pa.ChunkedArray):
        values = pa.chunked_array(values)
    elif not isinstance(values, pa.ChunkedArray):
        values = pa.chunked_array([pa.array(values)])
    tensors, arrays, dtypes = from_arrow(pa.table({name: values}))
    return tensors[name] if name in tensors else Column(arrays[name], dtypes[name])


def _table_of(source: Any) -> Any:
    import pyarrow as pa

    if isinstance(source, pa.Table):
        return source
    expected = "expected a table that exports Arrow data (pyarrow, polars, DuckDB, …)"
    if not is_table(source):
        raise TypeError(f"{expected}, got {type(source).__name__}{'; collect() it' * hasattr(source, 'collect')}")
    _check_polars(source)
    if hasattr(source, "columns") and isinstance(source.columns, list):
        check_exported(source.columns)
    try:
        return pa.table(source)
    except (pa.ArrowInvalid, TypeError) as error:
        raise ConversionError(f"{expected}, got {type(source).__name__}: {error}") from error


def check_exported(names: Sequence[Any]) -> None:
    """Between libraries, Arrow's names are strings of C, which end at a zero byte."""
    for name in names:
        if isinstance(name, str) and "\0" in name:
            raise ConversionError(f"the name of column {name!r} holds a zero byte, where Arrow cuts it off; rename it")


def _check_polars(source: Any, name: str = "") -> None:
    """polars exports Python objects as their addresses, and 128-bit integers as types of its own."""
    polars: Any = sys.modules.get("polars")
    if polars is None or not isinstance(source, (polars.DataFrame, polars.Series)):
        return
    columns = source.get_columns() if isinstance(source, polars.DataFrame) else [source]
    for series in columns:
        if series.dtype in (polars.Object, polars.Int128, polars.UInt128):
            named = name or series.name
            raise ConversionError(
                f"column {named!r} of polars' {series.dtype} has no Arrow type; cast it in polars first"
            )


@contextlib.contextmanager
def _naming(name: str, arrow_type: Any) -> Iterator[None]:
    """Adds the column to errors about its values."""
    try:
        yield
    except UNFIT as error:
        raise ConversionError(
            f"column {name!r} of {arrow_type} cannot be read from Arrow: {error}; cast it first"
        ) from error


def _tensor_of(column: Any, copy: bool, noted: bool) -> torch.Tensor | None:
    """A column as a tensor: numbers that were one, tensors, lists of one length. None if it is not, or has nulls."""
    import pyarrow as pa

    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind)
    is_tensor = isinstance(kind, pa.FixedShapeTensorType)
    if not (noted or is_list or is_tensor) or column.null_count:
        return None
    one_chunk = column.num_chunks == 1
    array = column.chunk(0) if one_chunk else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # pyarrow leaves it at that when there is no chunk at all
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], kind)
    shape = [len(array)]
    if is_tensor:
        shape += kind.shape
        array = array.storage.flatten()
    while pa.types.is_fixed_size_list(array.type) and not array.null_count:
        shape.append(array.type.list_size)
        array = array.flatten()
    if array.null_count or not (pa.types.is_boolean(array.type) or _is_number(array.type)):
        return None
    tensor = _numbers(array, copy and one_chunk).reshape(shape)
    order = kind.permutation if is_tensor else None
    return tensor if order is None else tensor.permute(0, *[axis + 1 for axis in order])


def _is_number(arrow_type: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type))


def _numbers(array: Any, copy: bool) -> torch.Tensor:
    """Values without nulls in one dimension; in Arrow's own memory unless a copy is asked for or needed."""
    import pyarrow as pa

    values = array.to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(array.type):  # Arrow packs bits, so this is a copy already
        return torch.from_numpy(values if values.flags.writeable else values.copy())
    if copy or not values.size or values.ctypes.data % values.itemsize:
        return torch.from_numpy(values.copy())
    return torch.from_dlpack(array)  # torch.from_numpy would warn that it must not be written to


def _decoded(column: Any) -> Any:
    """The column without encodings that pandas has no equal of."""
    import pyarrow as pa
    import pyarrow.compute

    if pa.types.is_run_end_encoded(column.type):
        return pa.compute.run_end_decode(column)
    if pa.types.is_dictionary(column.type):
        for chunk in column.chunks:
            values = chunk.dictionary
            if values.null_count or len(values.unique()) < len(values):  # no categories of pandas'
                return column.cast(column.type.value_type)
    return column


def _kind_of(arrow_type: Any, noted: str) -> str:
    """How a column is kept: what pandas would change on the way (lists to arrays, decimals) comes as Python cells."""
    import pyarrow as pa

    types = pa.types
    is_text = types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_string_view(arrow_type)
    if noted == "cells" or (noted == "json" and is_text):
        return noted
    if isinstance(arrow_type, pa.BaseExtensionType):
        return "pandas" if arrow_type.extension_name.startswith("pandas.") else "cells"
    is_bytes = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    as_cells = (types.is_nested, types.is_decimal, types.is_date, types.is_null, *is_bytes)
    return "cells" if any(is_kind(arrow_type) for is_kind in as_cells) else "pandas"


def columns_of_table(table: Any, names: Sequence[str], kinds: Sequence[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The frame columns of an Arrow table whose columns are named by these names, in order."""
    typed = [position for position, kind in enumerate(kinds) if kind == "pandas"]
    series = _pandas_columns(_without_index(table.select(typed)), [names[position] for position in typed])
    arrays: dict[str, Array] = {}
    dtypes: dict[str, Any] = {}
    for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        column = table.column(position)
        if kind != "pandas":
            with _naming(name, column.type):
                arrays[name], dtypes[name] = _columns.object_array(to_cells(column, kind)), _columns.OBJECT
            continue
        array = next(series).array
        if isinstance(array, pd.arrays.NumpyExtensionArray) and column.null_count and _is_whole(column.type):
            array = column.to_pandas(types_mapper=_nullable_dtype).array
        # text stays in Arrow: nothing is read before it is asked for
        keep = isinstance(array.dtype, pd.StringDtype)
        arrays[name], dtypes[name] = (array, array.dtype) if keep else _columns.from_extension(array)
    return arrays, dtypes


def _is_whole(arrow_type: Any) -> bool:
    """Would pandas make floats or objects of these values when some are missing?"""
    import pyarrow as pa

    return bool(pa.types.is_integer(arrow_type) or pa.types.is_boolean(arrow_type))


def _nullable_dtype(arrow_type: Any) -> Any:
    name = str(arrow_type)  # int8, uint64, bool, ...
    return pd.api.types.pandas_dtype("boolean" if name == "bool" else name.replace("i", "I").replace("u", "U"))


def _pandas_columns(table: Any, names: Sequence[str]) -> Iterator[pd.Series]:
    """The columns as Series, which share Arrow's memory where they can."""
    try:
        frame = table.to_pandas(split_blocks=True)
    except UNFIT:
        for position, name in enumerate(names):
            with _naming(name, table.column(position).type):
                table.select([position]).to_pandas()
        raise
    return (frame.iloc[:, position] for position in range(len(names)))


def _without_index(table: Any) -> Any:
    """The table, with what pandas wrote down about its columns, but none of them as an index, and all names as text."""
    metadata = table.schema.pandas_metadata
    if not metadata:
        return table
    metadata |= {"index_columns": [], "column_indexes": []}
    return table.replace_schema_metadata({**table.schema.metadata, b"pandas": json.dumps(metadata).encode()})


# To Arrow


def to_arrow(message: Message, plain: bool = False) -> Any:
    """See `Message.to_arrow`.

    Args:
        plain: Only what other libraries understand: tensors as lists, no text in the place of Python objects.
    """
    import pyarrow as pa

    names = message._frame_names()
    frame, kinds = frame_table(message, names, names, nested=True)
    if plain and "json" in kinds:
        name = names[kinds.index("json")]
        raise ConversionError(f"column {name!r} holds Python objects that no type fits; convert it with map() first")
    fields = [field.with_metadata({KINDS: kind}) for field, kind in zip(frame.schema, kinds, strict=True)]
    tensors = {name: _arrow_tensor(tensor, name, plain) for name, tensor in message._tensors.items()}
    fields += [pa.field(name, column.type, metadata={KINDS: "tensor"}) for name, column in tensors.items()]
    schema = pa.schema(fields, metadata=frame.schema.metadata)
    return pa.Table.from_arrays([*frame.columns, *tensors.values()], schema=schema)


def _arrow_tensor(tensor: torch.Tensor, name: str, plain: bool) -> Any:
    import pyarrow as pa

    if tensor.dtype not in _columns.NUMPY_DTYPES or tensor.layout is not torch.strided:
        kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
        raise ConversionError(
            f"column {name!r} of {kind} has no Arrow type; convert it, as in map({{{name!r}: Tensor.float}})"
        )
    shape = tensor.shape[1:]
    if 0 in shape:
        raise ConversionError(f"column {name!r}: Arrow has no tensors of shape {tuple(shape)}; leave it out")
    values = tensor.detach().cpu().resolve_neg().contiguous().reshape(-1).numpy()
    array = pa.array(values)
    if not shape:
        return array
    if not plain and tensor.dtype != torch.bool:  # of which Arrow has no tensors
        storage = pa.FixedSizeListArray.from_arrays(array, shape.numel())
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(array.type, shape), storage)
    for width in reversed(shape):
        array = pa.FixedSizeListArray.from_arrays(array, width)
    return array


def frame_table(
    message: Message, names: Sequence[str], labels: Sequence[str], nested: bool = False
) -> tuple[Any, list[str]]:
    """The frame columns as an Arrow table under these labels, and how each column is kept.

    Arrow and pandas keep their own dtypes. Columns of objects are 'cells' that Arrow knows exactly (bytes, decimals,
    dates; lists and dicts if `nested`), or 'json': each cell as the text of a plain value.
    """
    import pyarrow as pa

    given = {name: message._as_given(name) for name in names}
    typed: dict[str, pd.Series] = {}
    kinds: list[str] = []
    columns: dict[str, Any] = {}
    for (name, column), label in zip(given.items(), labels, strict=True):
        series = _columns.to_series(column.array, column.dtype)
        if series.dtype == object:
            columns[label], kind = object_column(series.tolist(), name, nested)
        else:
            typed[label], kind = series, "pandas"
        kinds.append(kind)
    table = _typed_table(typed, dict(zip(labels, names, strict=True)))
    columns.update({label: table.column(label) for label in typed})
    fields = [table.schema.field(label) if label in typed else pa.field(label, columns[label].type) for label in labels]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    return pa.Table.from_arrays([columns[label] for label in labels], schema=schema), kinds


def _typed_table(series: Mapping[str, pd.Series], names: Mapping[str, str]) -> Any:
    """Columns with a dtype as an Arrow table, with what pandas writes down to restore them."""
    import pyarrow as pa

    try:
        return pa.Table.from_pandas(pd.DataFrame(series, copy=False), preserve_index=False)
    except (pa.ArrowException, TypeError) as error:
        if len(series) == 1:
            ((label, column),) = series.items()
            name, dtype = names[label], column.dtype
            raise ConversionError(
                f"column {name!r} of {dtype} cannot be saved: {error}; convert it with map() first"
            ) from error
        for label, column in series.items():
            _typed_table({label: column}, names)  # raises for the one that cannot be saved
        raise
