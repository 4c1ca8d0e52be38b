"""Messages in and out: files of ours, pandas' formats, tensordict, and what a pickle holds.

The file format, version 1: a plain tar archive of

    manifest.json        {"format": "fireworks.Message", "version": 1, "rows": n, "tensors": [names], "frame": [names],
                         "bytes": {position of a tensor whose type safetensors lacks: type}}
    frame.arrow          the frame columns as an Arrow IPC file, named "0", "1", ... in the order of the manifest
    tensors.safetensors  the tensor columns, named likewise

Members are stored as they are and aligned, so a file can be mapped into memory. Column names are data in the manifest,
never names of members. Members that a manifest without such columns does not need are absent.
"""

from __future__ import annotations

import datetime
import functools
import io
import json
import mmap as memory_map
import os
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fireworks.core import _columns
from fireworks.core._arrow import KINDS, columns_of_table, frame_table
from fireworks.core._columns import Array
from fireworks.utils.exceptions import FormatError, MissingExtraError, did_you_mean
from fireworks.utils.files import replacing

if TYPE_CHECKING:
    from fireworks.core.message import Message

Columns = tuple[dict[str, torch.Tensor], dict[str, Array], dict[str, Any]]

_FORMAT, _VERSION = "fireworks.Message", 1
_MANIFEST, _FRAME, _TENSORS = "manifest.json", "frame.arrow", "tensors.safetensors"
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
    "F8_E8M0": torch.float8_e8m0fnu,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# What safetensors has no name for is stored as bytes, one more dimension; the manifest says what it is.
_AS_BYTES = {
    str(dtype): dtype for dtype in (torch.complex128, torch.complex32, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
}
_EXTRAS = {"excel": "openpyxl", "html": "lxml"}  # our extras, and the libraries that pandas needs for these formats
_NO_FORMATS = {"period", "timestamp"}  # methods of a DataFrame that only look like formats
_OBJECTS = {"arrow", "polars", "records", "xarray"}
_FILES_ONLY = {"excel", "feather", "hdf", "iceberg", "sql", "stata"}
_NO_FILES = {"clipboard", "hdf", "iceberg", "sql"}  # formats whose path is none, or a file that is added to
# Whatever a file holds that is not as it should be, the libraries that read it say by one of these.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, OSError, struct.error)


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
        return {name: _numpy(message, name) for name in message.columns}
    if path is not None and method in _OBJECTS:
        raise ValueError(f"the format {method!r} is an object and no file; leave path out")
    if method in ("arrow", "polars"):
        return getattr(message, f"to_{method}")(**kwargs)
    writer = f"to_{method}"
    if method in _NO_FORMATS or not callable(getattr(pd.DataFrame, writer, None)):
        raise _no_format(method, "to_", ["arrow", "dict", "numpy", "polars"])
    if path is None and method in _FILES_ONLY:
        raise ValueError(f"the format {method!r} is that of a file; say where with path=")
    frame = message.to_dataframe().df
    if method == "json" and not kwargs:
        return _write_text(_json_text(frame), path)
    if method in ("csv", "excel", "html"):
        kwargs = {"index": False, **kwargs}
    if method == "json":
        kwargs = {"double_precision": 15, **kwargs}
    call = _naming_extra(method, getattr(frame, writer))
    if path is None:
        return call(**kwargs)
    is_file = isinstance(path, (str, os.PathLike)) and "://" not in str(path) and method not in _NO_FILES
    if not is_file or "a" in str(kwargs.get("mode", "")):
        return call(path, **kwargs)
    with replacing(path) as temporary:
        return call(temporary, **kwargs)


def _naming_extra(method: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """pandas' reader or writer, except that the absence of a library that is an extra of ours names the extra."""

    @functools.wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except ImportError as error:
            if method not in _EXTRAS:
                raise
            raise MissingExtraError.of(f"the format {method!r}", _EXTRAS[method], method) from error

    return called


def _numpy(message: Message, name: str) -> np.ndarray:
    tensor = message._tensors.get(name)
    if tensor is None or tensor.ndim == 1:
        return message.dataframe([name])[name].to_numpy(copy=True)
    return np.asarray(_columns.from_tensor(tensor.flatten())[0]).reshape(tensor.shape)


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
    if method == "json" and not kwargs:
        return _read_json(path)
    frame = _naming_extra(method, reader)(path, **kwargs)
    if isinstance(frame, list):  # read_html finds tables
        if len(frame) != 1:
            raise ValueError(f"{path!r:.80} holds {len(frame)} tables; choose one with match= or attrs=")
        frame = frame[0]
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"expected one table, pandas.read_{method} gave a {type(frame).__name__}; change its arguments")
    return frame.rename(columns=str)


def _read_json(path: Any) -> pd.DataFrame:
    """Columns as lists, exactly as `to_json` wrote them; whatever else is JSON as pandas reads it.

    pandas' own reader rounds numbers, refuses large ones, and takes text for numbers or dates.
    """
    text = None
    if hasattr(path, "read"):
        text = path.read()
        path = io.BytesIO(text) if isinstance(text, bytes) else io.StringIO(text)
    elif os.path.isfile(path):
        text = Path(path).read_bytes()
    try:
        columns = json.loads(text or "")
    except ValueError:  # compressed, or on another machine
        columns = None
    if isinstance(columns, dict) and all(isinstance(cells, list) for cells in columns.values()):
        return pd.DataFrame({name: _json_column(cells) for name, cells in columns.items()})
    return pd.read_json(path).rename(columns=str)


def _json_column(cells: list[Any]) -> pd.Series:
    kinds = {type(cell) for cell in cells}
    if kinds == {int, type(None)} and all(cell is None or abs(cell) < 2**63 for cell in cells):
        return pd.Series(cells, dtype="Int64")  # not float, which would round
    return pd.Series(cells, dtype=object if kinds & {list, dict} or not cells else None)


def _no_format(method: Any, prefix: str, more: Sequence[str]) -> ValueError:
    owner: Any = pd.DataFrame if prefix == "to_" else pd
    names = {name.removeprefix(prefix) for name in dir(owner) if name.startswith(prefix)} | set(more)
    known = sorted(names - _NO_FORMATS)
    what = "device or format" if prefix == "to_" else "format"
    return ValueError(f"no {what} {method!r}{did_you_mean(str(method), known) or '.'} Formats: {', '.join(known)}")


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
        "bytes": {str(i): str(t.dtype) for i, t in enumerate(tensors.values()) if str(t.dtype) in _AS_BYTES},
    }
    members: list[tuple[str, Sequence[Any]]] = [(_MANIFEST, [json.dumps(manifest).encode()])]
    if frame:
        members.append((_FRAME, [_arrow_file(message, frame)]))
    if tensors:
        members.append((_TENSORS, _safetensors(tensors)))
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


def _safetensors(tensors: Mapping[str, torch.Tensor]) -> list[Any]:
    """The bytes of a safetensors file in chunks, without a copy of the tensors; the widest types first, so aligned."""
    header: dict[str, Any] = {}
    chunks, end = [], 0
    numbered = enumerate(tensors.items())
    for position, (name, tensor) in sorted(numbered, key=lambda item: -item[1][1].element_size()):
        known = _NAMES.get(tensor.dtype) or ("U8" if str(tensor.dtype) in _AS_BYTES else None)
        if known is None or tensor.layout is not torch.strided:
            kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
            raise TypeError(f"column {name!r} of {kind} cannot be saved; convert it with map() first")
        chunk = _bytes_of(tensor)
        start, end = end, end + chunk.nbytes
        shape = [*tensor.shape, tensor.element_size()] if tensor.dtype not in _NAMES else list(tensor.shape)
        header[str(position)] = {"dtype": known, "shape": shape, "data_offsets": [start, end]}
        chunks.append(chunk)
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return [struct.pack("<Q", len(text)) + text, *chunks]


def load(path: Any, mmap: bool | None = None) -> Columns:
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
    in_bytes = manifest.get("bytes") or {}
    tensors = _read_safetensors(members[_TENSORS], len(names), in_bytes, source) if names else []
    arrays, dtypes = _read_arrow_file(members[_FRAME], frame, source) if frame else ({}, {})
    for column in (*tensors, *arrays.values()):
        if len(column) != manifest["rows"]:
            raise FormatError(f"{source} is broken: a column has {len(column)} rows, not {manifest['rows']}")
    return dict(zip(names, tensors, strict=True)), arrays, dtypes


def _contents(path: Any, mmap: bool | None) -> Any:
    """The bytes of a file in a writable buffer: read, or mapped copy-on-write."""
    if not isinstance(path, (str, os.PathLike)):
        if mmap:
            raise ValueError("mmap=True needs a path; a buffer is in memory already")
        path.seek(0)
        return bytearray(path.read())
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size and (os.name != "nt" if mmap is None else mmap):
            return memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_COPY)
        buffer = bytearray(size)
        file.readinto(buffer)
        return buffer


def _members(buffer: Any, source: str) -> dict[str, memoryview]:
    """The files of a tar archive, as views. tarfile's own reader would follow extensions that no file of ours has."""
    view = memoryview(buffer)
    members = {}
    start = 0
    while any(header := bytes(view[start : start + _ALIGNMENT])):
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise FormatError(f"{source} is no saved Message, or broken at byte {start}: {error}") from error
        start += _ALIGNMENT
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or not 0 <= info.size <= len(view) - start:
            raise FormatError(f"{source} is cut off or broken at {info.name!r:.60}")
        members[info.name] = view[start : start + info.size]
        start += info.size + -info.size % _ALIGNMENT
    return members


def _manifest(text: bytes, source: str) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{source}: {_MANIFEST} is no JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise FormatError(f"{source} is no saved Message: its format is not {_FORMAT!r}")
    if manifest.get("version") != _VERSION:
        raise FormatError(
            f"{source} has version {manifest.get('version')!r} of the format, this release reads {_VERSION}; upgrade it"
        )
    lists: list[Any] = [manifest.get("tensors"), manifest.get("frame")]
    sound = isinstance(manifest.get("rows"), int) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists
    )
    if not sound or len({*lists[0], *lists[1]}) < len(lists[0]) + len(lists[1]):
        raise FormatError(f"{source}: {_MANIFEST} does not list the columns")
    return manifest


def _read_safetensors(view: memoryview, count: int, as_bytes: Any, source: str) -> list[torch.Tensor]:
    """The tensors as views of the buffer; offsets and shapes are checked, as the file may be anybody's."""
    try:
        (size,) = struct.unpack_from("<Q", view)
        header = json.loads(bytes(view[8 : 8 + size]))
        data = view[8 + size :]
        return [_tensor(header[str(position)], data, as_bytes.get(str(position))) for position in range(count)]
    except _BROKEN as error:
        raise FormatError(f"{source}: {_TENSORS} is broken: {error}") from error


def _tensor(entry: Any, data: memoryview, in_bytes: str | None) -> torch.Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if in_bytes is not None:
        dtype, shape = _AS_BYTES[in_bytes], shape[:-1]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, end)):
        raise ValueError("shapes and offsets are no numbers")
    count = 1
    for number in shape:
        count *= number
    if end > len(data) or end - start != count * dtype.itemsize or not shape:
        raise ValueError(f"shape {shape} does not fit bytes {start} to {end} of {len(data)}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    if start % dtype.itemsize:  # not a file of ours, but a valid one
        return torch.frombuffer(bytearray(data[start:end]), dtype=dtype).reshape(shape)
    return torch.frombuffer(data[start:end], dtype=dtype).reshape(shape)


def _arrow_file(message: Message, names: Sequence[str]) -> Any:
    import pyarrow as pa

    table, kinds = frame_table(message, names, [str(position) for position in range(len(names))])
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), KINDS: json.dumps(kinds).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.to_batches() or [_empty_batch(table)]:
            writer.write_batch(batch)
    return sink.getvalue()


def _empty_batch(table: Any) -> Any:
    """No rows, but the categories of the columns, which a file without any batch would lack."""
    import pyarrow as pa

    columns = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _read_arrow_file(view: memoryview, names: Sequence[str], source: str) -> tuple[dict[str, Array], dict[str, Any]]:
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.py_buffer(view)).read_all()
        table.validate(full=True)  # offsets that point outside would crash the process
        kinds = json.loads(table.schema.metadata[KINDS])
        if table.num_columns != len(names) or len(kinds) != len(names):
            raise ValueError(f"it has {table.num_columns} columns, not {len(names)}")
        return columns_of_table(table, names, kinds)
    except _BROKEN as error:
        raise FormatError(f"{source}: {_FRAME} is broken: {error}") from error


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
    return {name: _pack(tensor) for name, tensor in tensors.items()}


def _pack(tensor: torch.Tensor) -> Any:
    if type(tensor) is not torch.Tensor or tensor.requires_grad or not tensor.is_cpu:
        return tensor
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return tensor
    if tensor.dtype in _columns.NUMPY_DTYPES:
        return tensor.numpy()
    return _bytes_of(tensor), tensor.dtype, tensor.shape  # numpy has no such type


def unpack_tensors(packed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What `pack_tensors` packed."""
    return {name: _unpack(value) for name, value in packed.items()}


def _unpack(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, tuple):
        data, dtype, shape = value
        return _unpack(data).view(dtype).reshape(shape)
    return torch.from_numpy(value if value.flags.writeable else value.copy())


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """The bytes of a tensor in one dimension, without a copy where it is contiguous."""
    data = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return data.reshape(-1).view(torch.uint8).numpy() if data.numel() else np.empty(0, np.uint8)
