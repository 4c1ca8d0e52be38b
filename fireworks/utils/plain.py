"""Plain values as JSON text, and back exactly: what a state or a cell of a message may hold.

Plain are None, bool, int (of any size), float (NaN and infinities too), str, bytes, lists, tuples and dicts of plain values with
text as keys, numpy arrays and scalars, and torch tensors. Nothing is ever unpickled, so a hostile text can fail, not run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["dumps", "loads"]

_TAG = "__kind__"


def dumps(value: Any, indent: int | None = None) -> str:
    """The value as JSON text.

    Raises:
        TypeError: The value holds something that is not plain; the text says where.

    Example:
        >>> loads(dumps({"a": np.array([1.5, np.nan], dtype=np.float32), "b": (1, None)}))
        {'a': array([1.5, nan], dtype=float32), 'b': (1, None)}
    """
    return json.dumps(_encode(value, "value"), indent=indent)


def loads(text: str | bytes) -> Any:
    """The value that `dumps` made the text of.

    Raises:
        ValueError: The text is no JSON, or not of ours.
    """
    return _decode(json.loads(text))


def _encode(value: Any, where: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_encode(item, f"{where}[{position}]") for position, item in enumerate(value)]
    if type(value) is dict:
        return _encode_dict(value, where)
    if isinstance(value, tuple):
        return _tagged("tuple", items=[_encode(item, f"{where}[{position}]") for position, item in enumerate(value)])
    if isinstance(value, bytes):
        return _tagged("bytes", data=_text_of(value))
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        dtype = str(tensor.dtype).removeprefix("torch.")
        return _tagged("tensor", dtype=dtype, shape=list(tensor.shape), data=_text_of(data))
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcmMUS":
        return _tagged("array", dtype=value.dtype.str, shape=list(value.shape), data=_text_of(value.tobytes()))
    if isinstance(value, np.generic) and value.dtype.kind in "biufcmMUS":
        return _tagged("scalar", dtype=value.dtype.str, data=_text_of(value.tobytes()))
    if isinstance(value, Mapping):
        return _encode_dict(value, where)
    if isinstance(value, (str, int, float)):  # enumerations and other subclasses, by their plain value
        return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
    raise TypeError(
        f"{where} is a {type(value).__name__}, which is no plain value; expected None, bool, int, float, str, bytes, "
        "lists and dicts of them, arrays or tensors"
    )


def _encode_dict(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r} ({type(key).__name__}); keys of plain values are text")
    encoded = {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    return _tagged("dict", items=encoded) if _TAG in value else encoded


def _tagged(kind: str, **fields: Any) -> dict[str, Any]:
    return {_TAG: kind, **fields}


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: _decode(item) for key, item in value.items()}
    decode = _DECODERS.get(value[_TAG])
    if decode is None:
        raise ValueError(f"no plain value of kind {value[_TAG]!r}; known: {', '.join(_DECODERS)}")
    try:
        return decode(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"broken plain value of kind {value[_TAG]!r}: {error}") from error


def _array(value: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(value["dtype"])
    if dtype.hasobject:
        raise ValueError(f"no plain array has dtype {dtype}")
    return np.frombuffer(base64.b64decode(value["data"]), dtype).reshape(value["shape"]).copy()


def _tensor(value: Mapping[str, Any]) -> torch.Tensor:
    dtype = getattr(torch, value["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{value['dtype']!r} is no dtype of torch")
    data = bytearray(base64.b64decode(value["data"]))
    return (
        torch.frombuffer(data, dtype=dtype).reshape(value["shape"])
        if data
        else torch.empty(value["shape"], dtype=dtype)
    )


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "tuple": lambda value: tuple(_decode(item) for item in value["items"]),
    "dict": lambda value: {key: _decode(item) for key, item in value["items"].items()},
    "bytes": lambda value: base64.b64decode(value["data"]),
    "array": _array,
    "scalar": lambda value: _array({**value, "shape": []})[()],
    "tensor": _tensor,
}
