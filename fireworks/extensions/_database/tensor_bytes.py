"""Tensors as safetensors files of one tensor: each cell by itself, or a whole column whose cells are of one shape.

safetensors lacks a few types of torch: tensors of these are kept as a view in one that it has, and the header says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fireworks.core._columns import object_array
from fireworks.utils.exceptions import FormatError

_NAME = "tensor"
_STAND_INS = {torch.complex128: torch.float64, torch.complex32: torch.float16, torch.float8_e8m0fnu: torch.uint8}


def tensor_to_bytes(tensor: torch.Tensor) -> bytes:
    """A safetensors file with the values of this tensor, whatever its device, strides and gradients."""
    tensor = _plain(tensor)
    stand_in = _STAND_INS.get(tensor.dtype)
    if stand_in is None:
        return save({_NAME: tensor})
    stored = torch.view_as_real(tensor) if tensor.is_complex() else tensor.view(stand_in)
    return save({_NAME: stored}, metadata={"dtype": str(tensor.dtype).removeprefix("torch.")})


def tensor_from_bytes(data: bytes) -> torch.Tensor:
    """The tensor that `tensor_to_bytes` wrote.

    Raises:
        FormatError: The bytes are no such file.
    """
    try:
        stored = load(bytes(data))[_NAME]
        written = _header(data).get("__metadata__", {}).get("dtype")
        return stored if written is None else _as_written(stored, written)
    except (SafetensorError, KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"expected the bytes of a safetensors file with one tensor: {error}") from error


def rows_to_bytes(tensor: torch.Tensor) -> list[bytes]:
    """One file for each row of a tensor: the header, which is the same in all of them, is made once."""
    if not len(tensor):
        return []
    tensor = _plain(tensor)
    first = tensor_to_bytes(tensor[0])
    header = first[: _payload_start(first)]
    size = len(first) - len(header)
    payload = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if size else b""
    return (
        [header + payload[start : start + size] for start in range(0, size * len(tensor), size)]
        if size
        else [header] * len(tensor)
    )


def rows_from_bytes(cells: Sequence[bytes | None]) -> torch.Tensor | np.ndarray:
    """One tensor of all rows when these are of one type and shape, else an object array of a tensor or None per row."""
    stacked = _stacked(cells)
    if stacked is not None:
        return stacked
    return object_array([None if cell is None else tensor_from_bytes(cell) for cell in cells])


def _stacked(cells: Sequence[bytes | None]) -> torch.Tensor | None:
    first = cells[0] if cells else None
    if first is None or len(first) < 8:
        return None
    example = tensor_from_bytes(first)
    start, length = _payload_start(first), len(first)
    header = bytes(first[:start])
    if not all(cell is not None and len(cell) == length and cell[:start] == header for cell in cells):
        return None
    shape = (len(cells), *example.shape)
    if length == start:
        return torch.empty(shape, dtype=example.dtype)
    payload = bytearray().join(cell[start:] for cell in cells if cell is not None)
    return torch.frombuffer(payload, dtype=torch.uint8).view(example.dtype).reshape(shape)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError("a sparse or quantized tensor cannot be stored; store tensor.to_dense()")
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _payload_start(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _header(data: bytes) -> dict[str, Any]:
    return dict(json.loads(bytes(data[8 : _payload_start(data)])))


def _as_written(stored: torch.Tensor, name: str) -> torch.Tensor:
    dtype = getattr(torch, name)
    if dtype not in _STAND_INS or stored.dtype != _STAND_INS[dtype]:
        raise ValueError(f"{stored.dtype} cannot stand for {name!r}")
    return torch.view_as_complex(stored) if dtype.is_complex else stored.view(dtype)
