"""How a state is written down: as JSON for reading, as safetensors for size; both give back exactly what went in.

Plain values are themselves. What JSON lacks is a dict with one telling key: `__tensor__`, `__array__`, `__float__` (NaN
and infinity), `__tuple__`, `__items__` (a dict whose keys are not all text). Reading either form runs no code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from fireworks.utils.exceptions import FormatError, StateError

__all__ = ["state_from_bytes", "state_from_json", "state_to_bytes", "state_to_json"]

_FORMAT = "fireworks-state-1"
Store: TypeAlias = Callable[[torch.Tensor], str]
Fetch: TypeAlias = Callable[[str], torch.Tensor]


def state_to_json(state: Any, indent: int | None = None) -> str:
    """A state as JSON text: arrays and tensors as nested lists beside their type, NaN and infinity as text.

    Raises:
        StateError: The state holds something that is no plain value; the text says where and what.

    Example:
        >>> state_to_json({"count": 2, "mean": torch.tensor([0.5, float("nan")])})
        '{"count": 2, "mean": {"__tensor__": "float32", "shape": [2], "data": [0.5, "NaN"]}}'
    """
    return json.dumps(_encode(state, "state", None), allow_nan=False, indent=indent)


def state_from_json(text: str) -> Any:
    """The state that `state_to_json` wrote.

    Raises:
        FormatError: The text is not such a state.

    Example:
        >>> state_from_json('{"order": {"__array__": "<i8", "shape": [3], "data": [2, 0, 1]}}')
        {'order': array([2, 0, 1])}
    """
    return _read(lambda: _decode(json.loads(text), _no_store))


def state_to_bytes(state: Any) -> bytes:
    """A state as a safetensors file: tensors and arrays as they are in memory, all else as JSON in its header.

    Raises:
        StateError: The state holds something that is no plain value.
    """
    from safetensors.torch import save  # here, because core loads it for nothing else

    tensors: dict[str, torch.Tensor] = {}

    def store(tensor: torch.Tensor) -> str:
        key = str(len(tensors))
        tensors[key] = tensor.detach().cpu().contiguous().clone()
        return key

    encoded = json.dumps(_encode(state, "state", store), allow_nan=False)
    return save(tensors, metadata={"format": _FORMAT, "state": encoded})


def state_from_bytes(data: bytes) -> Any:
    """The state that `state_to_bytes` wrote.

    Raises:
        FormatError: The bytes are not such a state.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    def read() -> Any:
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if header["format"] != _FORMAT:
            raise ValueError(f"expected the format {_FORMAT}, got {header['format']!r:.60}")
        return _decode(json.loads(header["state"]), tensors.__getitem__)

    return _read(read)


_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except _DAMAGE as error:
        raise FormatError(f"this is no saved state of fireworks, or it is damaged: {error}") from error


def _no_store(key: str) -> torch.Tensor:
    raise ValueError(f"tensor {key!r} is stored outside of the text")


def _encode(value: Any, path: str, store: Store | None) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"__float__": _special(value)}
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value, path, store)
    if isinstance(value, np.ndarray):
        return _encode_array(value, path, store)
    if isinstance(value, np.generic):
        return _encode(value.item(), path, store)
    if isinstance(value, list):
        return [_encode(item, f"{path}[{number}]", store) for number, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"__tuple__": [_encode(item, f"{path}[{number}]", store) for number, item in enumerate(value)]}
    if isinstance(value, Mapping):
        items = [(key, _encode(item, f"{path}[{key!r}]", store)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return dict(items)
        return {"__items__": [[_encode(key, path, store), item] for key, item in items]}
    for plain in (int, float, str):  # subclasses, such as an IntEnum, come back as plain values
        if isinstance(value, plain):
            return _encode(plain(value), path, store)
    raise StateError(
        f"{path} is a {type(value).__name__}, which cannot be written down; a state holds None, bool, int, float, str, "
        "lists, tuples and dicts of these, numpy arrays and torch tensors"
    )


def _encode_tensor(tensor: torch.Tensor, path: str, store: Store | None) -> Any:
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise StateError(f"{path} is a sparse or quantized tensor; keep a dense one in the state, tensor.to_dense()")
    described = {"__tensor__": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    elif store is not None:
        return described | {"stored": store(tensor)}
    # A float64 holds every value of the smaller floating types exactly.
    if tensor.is_floating_point():
        return described | {"data": _numbers(tensor.double().cpu().numpy())}
    return described | {"data": tensor.tolist()}


def _encode_array(array: np.ndarray, path: str, store: Store | None) -> Any:
    described = {"__array__": array.dtype.str, "shape": list(array.shape)}
    kind = array.dtype.kind
    if kind in "biuf" and array.dtype.isnative and array.dtype.itemsize <= 8 and store is not None:
        return described | {"stored": store(torch.from_numpy(array.copy()))}
    if kind in "mM":
        return described | {"data": array.astype(np.int64).tolist()}
    if kind == "c" and array.dtype.itemsize <= 16:
        parts = np.stack([array.real, array.imag], axis=-1)
        return described | {"data": _numbers(parts)}
    if kind == "O":
        items = [_encode(item, f"{path}[{number}]", store) for number, item in enumerate(array.ravel())]
        return described | {"items": items}
    if kind == "f" and array.dtype.itemsize <= 8:
        return described | {"data": _numbers(array)}
    if kind in "biuU":
        return described | {"data": array.tolist()}
    raise StateError(f"{path} is an array of {array.dtype}, which cannot be written down exactly; convert it first")


def _decode(value: Any, fetch: Fetch) -> Any:
    if isinstance(value, list):
        return [_decode(item, fetch) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return _decode_tensor(value, fetch)
    if "__array__" in value:
        return _decode_array(value, fetch)
    if "__float__" in value:
        return float(value["__float__"])
    if "__tuple__" in value:
        return tuple(_decode(item, fetch) for item in value["__tuple__"])
    if "__items__" in value:
        return {_decode(key, fetch): _decode(item, fetch) for key, item in value["__items__"]}
    return {key: _decode(item, fetch) for key, item in value.items()}


def _decode_tensor(value: Mapping[str, Any], fetch: Fetch) -> torch.Tensor:
    dtype = getattr(torch, value["__tensor__"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{value['__tensor__']!r} is no type of tensors")
    shape = value["shape"]
    if "stored" in value:
        stored = fetch(value["stored"])
        if stored.dtype != dtype or list(stored.shape) != shape:
            raise ValueError(f"expected a tensor {dtype} of shape {shape}, found {stored.dtype} {list(stored.shape)}")
        return stored
    if dtype.is_complex:
        return torch.view_as_complex(torch.from_numpy(_floats(value["data"], (*shape, 2)))).to(dtype)
    if dtype.is_floating_point:
        return torch.from_numpy(_floats(value["data"], shape)).to(dtype)
    return torch.tensor(value["data"], dtype=dtype).reshape(shape)


def _decode_array(value: Mapping[str, Any], fetch: Fetch) -> np.ndarray:
    dtype, shape = np.dtype(value["__array__"]), value["shape"]
    if "stored" in value:
        return fetch(value["stored"]).numpy().astype(dtype, copy=False).reshape(shape)
    if "items" in value:
        array = np.empty(len(value["items"]), dtype=object)
        array[:] = [_decode(item, fetch) for item in value["items"]] if len(array) else []
        return array.reshape(shape)
    if dtype.kind == "c":
        return _floats(value["data"], (*shape, 2)).view(np.complex128)[..., 0].astype(dtype)
    if dtype.kind == "f":
        return _floats(value["data"], shape).astype(dtype)
    exact = np.int64 if dtype.kind in "mM" else dtype
    return np.array(value["data"], dtype=exact).astype(dtype).reshape(shape)


def _numbers(array: np.ndarray) -> Any:
    """Nested lists of floats, with the names of those that JSON lacks."""
    return array.tolist() if np.isfinite(array).all() else _named(array.tolist())


def _named(data: Any) -> Any:
    if isinstance(data, list):
        return [_named(item) for item in data]
    return data if math.isfinite(data) else _special(data)


def _floats(data: Any, shape: Sequence[int]) -> np.ndarray:
    """What `_numbers` made lists of; numpy understands the names."""
    return np.array(data, dtype=np.float64).reshape(shape)


def _special(number: float) -> str:
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")
