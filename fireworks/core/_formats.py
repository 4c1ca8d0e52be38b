"""Messages in and out: files of ours, pandas' formats, Arrow, tensordict, and what a pickle holds.

The file format, version 1: a plain tar archive of

    manifest.json        {"format": "fireworks.Message", "version": 1, "rows": n, "tensors": [names], "frame": [names]}
    frame.arrow          the frame columns as an Arrow IPC file, named "0", "1", ... in the order of the manifest
    tensors.safetensors  the tensor columns, named likewise

Members are stored as they are and aligned, so a file can be mapped into memory. Column names are data in the manifest,
never names of members. Members that a manifest without such columns does not need are absent.
"""

from __future__ import annotations

import datetime
import io
import json
import mmap as memory_map
import os
import struct
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch

from fireworks.core import _columns
from fireworks.core._columns import Array
from fireworks.core._encoding import state_from_json, state_to_json
from fireworks.utils.exceptions import FormatError, MissingExtraError, StateError, did_you_mean

if TYPE_CHECKING:
    from fireworks.core.message import Message

Columns = tuple[dict[str, torch.Tensor], dict[str, Array], dict[str, Any]]

_FORMAT, _VERSION = "fireworks.Message", 1
_MANIFEST, _FRAME, _TENSORS = "manifest.json", "frame.arrow", "tensors.safetensors"
_KINDS = b"fireworks"  # the key of our own metadata in Arrow schemas
_ALIGNMENT = 512  # of a tar archive; both Arrow (64) and safetensors (8) divide it
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


# Files written whole or not at all


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it when the block ends well, removed when it does not."""
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}-{target.name}")  # keeps the suffix, which pandas reads
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


# pandas' formats


def as_device(target: Any) -> torch.device | None:
    """The device that a target names, or None when it names none."""
    if isinstance(target, torch.device):
        return target
    if isinstance(target, int) and not isinstance(target, bool):
        return torch.device("cuda", target)
    try:
        return torch.device(target)
    except (RuntimeError, TypeError):
        return None


def write(message: Message, method: str, path: Any, **kwargs: Any) -> Any:
    """The message in one of pandas' formats: to a path, a buffer, or as the text or object itself."""
    if method == "dict":
        return {name: message.dataframe([name])[name].tolist() for name in message.columns}
    if method == "numpy":
        return {name: message.dataframe([name])[name].to_numpy(copy=True) for name in message.columns}
    writer = f"to_{method}"
    if not isinstance(method, str) or not callable(getattr(pd.DataFrame, writer, None)):
        raise _no_format(method, "to_", ["dict", "numpy"])
    frame = message.to_dataframe().df
    if method == "json" and not kwargs:
        return _write_text(_json_text(frame), path)
    if method in ("csv", "excel", "html"):
        kwargs = {"index": False, **kwargs}
    call = cast(Callable[..., Any], getattr(frame, writer))
    if path is None:
        return call(**kwargs)
    if not isinstance(path, (str, os.PathLike)) or "://" in str(path):
        return call(path, **kwargs)
    with replacing(path) as temporary:
        return call(temporary, **kwargs)


def _write_text(text: str, path: Any) -> str | None:
    if path is None:
        return text
    if not isinstance(path, (str, os.PathLike)):
        path.write(text)
        return None
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return None


def _json_text(frame: pd.DataFrame) -> str:
    """Columns as lists, with every digit of a number; missing values as null."""
    columns = {}
    for name in frame.columns:
        try:
            columns[name] = json.dumps([_json_value(cell) for cell in frame[name].tolist()], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"column {name!r} holds what JSON cannot: {error}; convert it with map()") from error
    return "{" + ", ".join(f"{json.dumps(name)}: {cells}" for name, cells in columns.items()) + "}"


def _json_value(cell: Any) -> Any:
    if isinstance(cell, (list, tuple)):
        return [_json_value(item) for item in cell]
    if isinstance(cell, Mapping):
        return {key: _json_value(item) for key, item in cell.items()}
    if isinstance(cell, (np.ndarray, torch.Tensor)):
        return _json_value(cell.tolist())
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return None
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    return cell.item() if isinstance(cell, np.generic) else cell


def read(method: str, path: Any, **kwargs: Any) -> pd.DataFrame:
    """A DataFrame from one of pandas' formats."""
    reader = getattr(pd, f"read_{method}", None) if isinstance(method, str) else None
    if reader is None:
        raise _no_format(method, "read_", [])
    frame = reader(path, **kwargs)
    if isinstance(frame, list):  # read_html finds tables
        if len(frame) != 1:
            raise ValueError(f"{path!r:.80} holds {len(frame)} tables; choose one with match= or attrs=")
        frame = frame[0]
    return cast(pd.DataFrame, frame).rename(columns=str)


def _no_format(method: Any, prefix: str, more: Sequence[str]) -> ValueError:
    owner: Any = pd.DataFrame if prefix == "to_" else pd
    known = sorted({name.removeprefix(prefix) for name in dir(owner) if name.startswith(prefix)} | set(more))
    return ValueError(f"no format {method!r}{did_you_mean(str(method), known)} Formats: {', '.join(known)}")


# Our own file


def save(message: Message, path: Any) -> None:
    """See `Message.save`."""
    tensors = message._tensors
    frame = message._frame_names()
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "rows": len(message),
        "tensors": list(tensors),
        "frame": frame,
    }
    members: list[tuple[str, Sequence[Any]]] = [(_MANIFEST, [json.dumps(manifest).encode()])]
    if frame:
        members.append((_FRAME, [_arrow_file(message, frame)]))
    if tensors:
        members.append((_TENSORS, _safetensors(list(tensors.values()))))
    if not isinstance(path, (str, os.PathLike)):
        _write_tar(path, members)
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        _write_tar(file, members)


def _write_tar(file: IO[bytes], members: Sequence[tuple[str, Sequence[Any]]]) -> None:
    for name, chunks in members:
        info = tarfile.TarInfo(name)
        info.size = sum(memoryview(chunk).nbytes for chunk in chunks)
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for chunk in chunks:
            file.write(chunk)
        file.write(bytes(-info.size % _ALIGNMENT))
    file.write(bytes(2 * _ALIGNMENT))


def _safetensors(tensors: Sequence[torch.Tensor]) -> list[Any]:
    """The bytes of a safetensors file in chunks, without a copy of the tensors."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header, chunks, offset = {}, [], 0
    for position, tensor in enumerate(tensors):
        if tensor.dtype not in names:
            raise TypeError(f"tensors of {tensor.dtype} cannot be saved; convert the column first")
        data = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        chunk = data.reshape(-1).view(torch.uint8).numpy() if data.numel() else np.empty(0, np.uint8)
        end = offset + chunk.nbytes
        header[str(position)] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        chunks.append(chunk)
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return [struct.pack("<Q", len(text)) + text, *chunks]


def load(path: Any, mmap: bool = False) -> Columns:
    """See `Message.load`."""
    source = str(path) if isinstance(path, (str, os.PathLike)) else "the buffer"
    buffer = _contents(path, mmap)
    members = _members(buffer, source)
    if _MANIFEST not in members:
        raise FormatError(f"{source} is no saved Message: it holds no {_MANIFEST}")
    manifest = _manifest(bytes(members[_MANIFEST]), source)
    frame, names = manifest["frame"], manifest["tensors"]
    for wanted, member in ((frame, _FRAME), (names, _TENSORS)):
        if wanted and member not in members:
            raise FormatError(f"{source} is incomplete: it holds no {member}")
    tensors = _read_safetensors(members[_TENSORS], len(names), source) if names else []
    arrays, dtypes = _read_arrow_file(members[_FRAME], frame, source) if frame else ({}, {})
    for column in (*tensors, *arrays.values()):
        if len(column) != manifest["rows"]:
            raise FormatError(f"{source} is broken: a column has {len(column)} rows, not {manifest['rows']}")
    return dict(zip(names, tensors, strict=True)), arrays, dtypes


def _contents(path: Any, mmap: bool) -> Any:
    """The bytes of a file in a writable buffer: read, or mapped copy-on-write."""
    if not isinstance(path, (str, os.PathLike)):
        if mmap:
            raise ValueError("mmap=True needs a path; a buffer is in memory already")
        path.seek(0)
        return bytearray(path.read())
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if mmap and size:
            return memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_COPY)
        buffer = bytearray(size)
        file.readinto(buffer)
        return buffer


def _members(buffer: Any, source: str) -> dict[str, memoryview]:
    view = memoryview(buffer)
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(b"") if not len(view) else _Reader(view), mode="r:") as archive:
            for info in archive:
                if info.isreg() and info.offset_data + info.size <= len(view):
                    members[info.name] = view[info.offset_data : info.offset_data + info.size]
                else:
                    raise FormatError(f"{source} is cut off or broken at {info.name!r:.60}")
    except tarfile.TarError as error:
        raise FormatError(f"{source} is no saved Message: {error}") from error
    return members


class _Reader(io.RawIOBase):
    """A memoryview as a file, without a copy."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else self._at + size
        chunk = bytes(self._view[self._at : end])
        self._at += len(chunk)
        return chunk


def _manifest(text: bytes, source: str) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{source}: {_MANIFEST} is no JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise FormatError(f"{source} is no saved Message: its format is not {_FORMAT!r}")
    if manifest.get("version") != _VERSION:
        raise FormatError(
            f"{source} has version {manifest.get('version')!r} of the format, this release reads {_VERSION}; upgrade it"
        )
    names = [manifest.get("tensors"), manifest.get("frame")]
    sound = isinstance(manifest.get("rows"), int) and all(
        isinstance(column, list) and all(isinstance(name, str) for name in column) for column in names
    )
    if not sound or len({*names[0], *names[1]}) < len(names[0]) + len(names[1]):
        raise FormatError(f"{source}: {_MANIFEST} does not list the columns")
    return manifest


def _read_safetensors(view: memoryview, count: int, source: str) -> list[torch.Tensor]:
    """The tensors as views of the buffer; offsets and shapes are checked, as the file may be anybody's."""
    try:
        (size,) = struct.unpack_from("<Q", view)
        header = json.loads(bytes(view[8 : 8 + size]))
        data = view[8 + size :]
        return [_tensor(header[str(position)], data) for position in range(count)]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{source}: {_TENSORS} is broken: {error}") from error


def _tensor(entry: Any, data: memoryview) -> torch.Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, end)):
        raise ValueError("shapes and offsets are no numbers")
    count = 1
    for number in shape:
        count *= number
    if end > len(data) or end - start != count * dtype.itemsize or not shape:
        raise ValueError(f"shape {shape} does not fit bytes {start} to {end} of {len(data)}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data[start:end], dtype=dtype).reshape(shape)


# Arrow


def _frame_table(message: Message, names: Sequence[str], labels: Sequence[str]) -> tuple[Any, list[str]]:
    """The frame columns as an Arrow table under these labels, and how each column is kept.

    Arrow and pandas keep their own dtypes. Columns of objects are 'cells' that Arrow knows exactly (bytes, decimals,
    dates), or 'json': each cell as the text of a plain value.
    """
    import pyarrow as pa

    series = {name: _columns.to_series(*message._array(name)) for name in names}
    kinds, columns = [], {}
    for name, label in zip(names, labels, strict=True):
        if series[name].dtype == object:
            columns[label], kind = _object_column(series[name].tolist(), name)
        else:
            kind = "pandas"
        kinds.append(kind)
    typed = {label: series[name] for name, label in zip(names, labels, strict=True) if label not in columns}
    try:
        table = pa.Table.from_pandas(pd.DataFrame(typed, copy=False), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise TypeError(
            f"columns {', '.join(typed)} hold what Arrow cannot: {error}; convert them with map()"
        ) from error
    for position, label in enumerate(labels):
        if label in columns:
            table = table.add_column(position, label, columns[label])
    return table, kinds


def _object_column(cells: list[Any], name: str) -> tuple[Any, str]:
    import pyarrow as pa

    kinds = {type(cell) for cell in cells if cell is not None}
    if len(kinds) == 1 and kinds <= {bytes, Decimal, datetime.date}:
        return pa.array(cells), "cells"
    try:
        return pa.array([state_to_json(cell) for cell in cells], pa.large_string()), "json"
    except StateError as error:
        advice = "Convert it with map(), or use to('pickle', path)"
        raise TypeError(f"column {name!r} of dtype object cannot be saved: {error}. {advice}") from error


def _columns_of_table(
    table: Any, names: Sequence[str], kinds: Sequence[str]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The frame columns of an Arrow table whose columns are named by these names, in order."""
    typed = [position for position, kind in enumerate(kinds) if kind == "pandas"]
    frame = table.select(typed).to_pandas(split_blocks=True)
    arrays: dict[str, Array] = {}
    dtypes: dict[str, Any] = {}
    for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind == "pandas":
            array = frame.iloc[:, typed.index(position)].array
            keep = isinstance(
                array.dtype, pd.StringDtype
            )  # text stays in Arrow: nothing is read before it is asked for
            arrays[name], dtypes[name] = (array, array.dtype) if keep else _columns.from_extension(array)
        else:
            cells = table.column(position).to_pylist()
            restored = [state_from_json(cell) for cell in cells] if kind == "json" else cells
            arrays[name], dtypes[name] = _columns.object_array(restored), _columns.OBJECT
    return arrays, dtypes


def _arrow_file(message: Message, names: Sequence[str]) -> Any:
    import pyarrow as pa

    table, kinds = _frame_table(message, names, [str(position) for position in range(len(names))])
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KINDS: json.dumps(kinds).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _read_arrow_file(view: memoryview, names: Sequence[str], source: str) -> tuple[dict[str, Array], dict[str, Any]]:
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.py_buffer(view)).read_all()
        table.validate(full=True)
        kinds = json.loads(table.schema.metadata[_KINDS])
        if table.num_columns != len(names) or len(kinds) != len(names):
            raise ValueError(f"it has {table.num_columns} columns, not {len(names)}")
        return _columns_of_table(table, names, kinds)
    except (pa.ArrowException, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise FormatError(f"{source}: {_FRAME} is broken: {error}") from error


def to_arrow(message: Message) -> Any:
    """See `Message.to_arrow`."""
    import pyarrow as pa

    names = message._frame_names()
    table, kinds = _frame_table(message, names, names)
    for position, kind in enumerate(kinds):
        field = table.schema.field(position).with_metadata({_KINDS: kind})
        table = table.set_column(position, field, table.column(position))
    for name, tensor in message._tensors.items():
        column = _arrow_tensor(tensor, name)
        table = table.append_column(pa.field(name, column.type, metadata={_KINDS: "tensor"}), column)
    return table


def _arrow_tensor(tensor: torch.Tensor, name: str) -> Any:
    import pyarrow as pa

    tensor = tensor.detach().cpu()
    if tensor.dtype not in _columns.NUMPY_DTYPES:
        raise TypeError(
            f"column {name!r} of {tensor.dtype} has no Arrow type; convert it, as in map({{{name!r}: Tensor.float}})"
        )
    array = tensor.contiguous().numpy()
    if tensor.ndim == 1:
        return pa.array(array)
    if tensor.dtype == torch.bool:
        raise TypeError(
            f"column {name!r}: Arrow has no tensors of bool; convert it, as in map({{{name!r}: Tensor.byte}})"
        )
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(array.dtype), tensor.shape[1:])
    width = int(np.prod(array.shape[1:]))
    storage = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), width)
    return pa.ExtensionArray.from_storage(kind, storage)


def from_arrow(source: Any) -> Columns:
    """See `Message.from_arrow`."""
    import pyarrow as pa

    table = source if isinstance(source, pa.Table) else pa.table(source)
    tensors, names, kinds, positions = {}, [], [], []
    for position, field in enumerate(table.schema):
        kind = (field.metadata or {}).get(_KINDS, b"pandas").decode()
        if kind == "tensor" or isinstance(field.type, pa.FixedShapeTensorType):
            tensors[field.name] = _tensor_of(table.column(position).combine_chunks())
            continue
        names.append(field.name)
        kinds.append(_kind_of(field.type) if kind == "pandas" else kind)
        positions.append(position)
    arrays, dtypes = _columns_of_table(table.select(positions), names, kinds)
    return tensors, arrays, dtypes


def _kind_of(arrow_type: Any) -> str:
    """Columns that pandas would change on the way (lists to arrays, decimals) come as Python cells."""
    import pyarrow as pa

    nested = pa.types.is_nested(arrow_type) or pa.types.is_decimal(arrow_type) or pa.types.is_date(arrow_type)
    return "cells" if nested or pa.types.is_binary(arrow_type) else "pandas"


def _tensor_of(column: Any) -> torch.Tensor:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):  # no chunk at all
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if isinstance(column.type, pa.FixedShapeTensorType):
        return torch.from_numpy(column.to_numpy_ndarray().copy())
    return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy())


# tensordict


def to_tensordict(message: Message) -> Any:
    """See `Message.to_tensordict`."""
    library = _tensordict()
    frame = {name: library.NonTensorStack(*message[name].tolist()) for name in message._frame_names()}
    return library.TensorDict({**message._tensors, **frame}, batch_size=[len(message)])


def from_tensordict(tensordict: Any) -> dict[str, Any]:
    """See `Message.from_tensordict`."""
    _tensordict()
    if tensordict.batch_dims != 1:
        raise ValueError(
            f"expected a TensorDict with one batch dimension, got batch size {tuple(tensordict.batch_size)}"
        )
    flat = tensordict.flatten_keys(".")
    columns = {name: flat.get(name) for name in flat.keys()}  # noqa: SIM118, iteration goes over rows
    return {name: value if isinstance(value, torch.Tensor) else value.tolist() for name, value in columns.items()}


def _tensordict() -> Any:
    try:
        import tensordict
    except ImportError as error:
        raise MissingExtraError.of("Message.to_tensordict", "tensordict", "tensordict") from error
    return tensordict


# Pickle: plain tensors travel as arrays, which cost a fifth of torch's own way


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Tensors as numpy arrays where nothing is lost by it."""
    return {
        name: tensor.numpy()
        if type(tensor) is torch.Tensor
        and tensor.is_cpu
        and not tensor.requires_grad
        and tensor.dtype in _columns.NUMPY_DTYPES
        and tensor.layout is torch.strided
        else tensor
        for name, tensor in tensors.items()
    }


def unpack_tensors(packed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What `pack_tensors` packed."""
    return {
        name: value
        if isinstance(value, torch.Tensor)
        else torch.from_numpy(value if value.flags.writeable else value.copy())
        for name, value in packed.items()
    }
