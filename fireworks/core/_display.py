"""How a message looks: a few lines, whatever its size."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from fireworks.core._tensor_message import TensorMessage
    from fireworks.core.message import Message

_MAX_COLUMNS = 20
_MAX_ROWS = 5
_MAX_VALUE = 24


def text(message: Message | TensorMessage, name: str) -> str:
    """One line per column: name, type, first values."""
    columns = message.columns
    rows = len(message)
    lines = [f"{name}: {_count(rows, 'row')}, {_count(len(columns), 'column')}"]
    first = message[:_MAX_ROWS] if rows > _MAX_ROWS else message
    shown = columns[:_MAX_COLUMNS]
    types = [type_of(first, column) for column in shown]
    width = max((len(_short(column)) for column in shown), default=0)
    type_width = max((len(kind) for kind in types), default=0)
    for column, kind in zip(shown, types, strict=True):
        values = ", ".join(_short(value) for value in _cells(first, column))
        more = ", ..." if rows > _MAX_ROWS else ""
        lines.append(f"  {_short(column):<{width}}  {kind:<{type_width}}  {values}{more}".rstrip())
    if len(columns) > _MAX_COLUMNS:
        lines.append(f"  ... and {len(columns) - _MAX_COLUMNS} more columns")
    return "\n".join(lines)


def html(message: Message | TensorMessage, name: str) -> str:
    """A table for notebooks: names, types, first rows."""
    columns = message.columns
    rows = len(message)
    first = message[:_MAX_ROWS] if rows > _MAX_ROWS else message
    shown = columns[:_MAX_COLUMNS]
    cells = {column: _cells(first, column) for column in shown}
    dots = "<th>…</th>" if len(columns) > _MAX_COLUMNS else ""
    names = "".join(f"<th>{escape(_short(column))}</th>" for column in shown) + dots
    types = "".join(f"<th style='font-weight:normal'>{escape(type_of(first, column))}</th>" for column in shown)
    body = "".join(
        f"<tr><th>{row}</th>" + "".join(f"<td>{escape(_short(cells[column][row]))}</td>" for column in shown) + "</tr>"
        for row in range(min(rows, _MAX_ROWS))
    )
    return (
        f"<table><thead><tr><th></th>{names}</tr><tr><th></th>{types}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{name}: {_count(rows, 'row')}, {_count(len(columns), 'column')}</p>"
    )


def type_of(message: Message | TensorMessage, column: str) -> str:
    """`tensor float32 (64,)` with the shape of a row, and the device if that is no CPU; a frame column by its dtype."""
    tensor = message._tensors.get(column)
    if tensor is None:
        return str(message[column].dtype)
    shape = f" {tuple(tensor.shape[1:])}" if tensor.ndim > 1 else ""
    device = "" if tensor.is_cpu else f" on {tensor.device}"
    return f"tensor {str(tensor.dtype).removeprefix('torch.')}{shape}{device}"


def _cells(first: Message | TensorMessage, column: str) -> list[Any]:
    tensor = first._tensors.get(column)
    if tensor is None:
        try:
            return list(first[column])
        except (NotImplementedError, ValueError):  # dates that no object of Python can hold
            return list(first[column].astype(str))
    try:
        return [cell.tolist() if cell.numel() <= 8 else _Elided(cell) for cell in tensor.detach()]
    except (NotImplementedError, RuntimeError):  # tensors without values to read: sparse ones, those on no device
        return ["..."] * tensor.shape[0]


class _Elided:
    """A large cell of a tensor: its first numbers."""

    def __init__(self, cell: torch.Tensor) -> None:
        self.first = cell.flatten()[:3].tolist()

    def __repr__(self) -> str:
        return "[" + ", ".join(_short(number) for number in self.first) + ", ...]"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and value and all(isinstance(item, float) for item in value):
        return _clip("[" + ", ".join(f"{item:.4g}" for item in value) + "]")
    if isinstance(value, (list, tuple, dict)) and len(value) > _MAX_VALUE:
        return f"{type(value).__name__} of {len(value)}"
    try:
        return _clip(repr(value) if isinstance(value, (list, dict)) else str(value))
    # anybody's objects, whose looks may fail (dates beyond Python's do); the rest is still worth seeing
    except Exception:
        return f"<{type(value).__name__}>"


def _clip(shown: str) -> str:
    shown = shown.replace("\n", " ")
    return shown if len(shown) <= _MAX_VALUE else shown[: _MAX_VALUE - 3] + "..."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
