"""JSON, tensors, and values of types that only SQLAlchemy knows."""

from __future__ import annotations

import decimal
import enum
import json
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch
from sqlalchemy.dialects import postgresql

from fireworks.extensions._database.cells import Cells
from fireworks.extensions._database.families import Target
from fireworks.extensions._database.tensor_bytes import rows_to_bytes, tensor_to_bytes


def encode_json(cells: Cells, target: Target) -> list[Any]:
    """What comes back from JSON as it went in; tuples and arrays as lists, which a Message takes for equal."""
    return [value if value is None else _as_json(value, row, target) for row, value in enumerate(cells.listed())]


def _as_json(value: Any, row: int, target: Target) -> Any:
    plain = _plain(value)
    is_binary = isinstance(target.stored, postgresql.JSONB)
    try:
        text = json.dumps(plain, allow_nan=False)
        back = json.loads(text, parse_float=_as_jsonb_number if is_binary else None)
    except (TypeError, ValueError, RecursionError) as error:
        raise target.error(row, value, f"is no JSON ({error})", "convert the column with map() first") from error
    if back != plain:
        raise target.error(row, value, "would change as JSON", "give every dict keys that are text")
    if target.dialect.name == "sqlite" and isinstance(plain, int) and not -(2**63) <= plain < 2**63:
        raise target.error(row, value, "is a number that SQLite takes for a float", "put it into a list")
    if "\\ud" in text:
        _refuse_letters(plain, _is_lone_surrogate, "has a lone surrogate", row, value, target)
    if is_binary and "\\u0000" in text:
        _refuse_letters(plain, lambda letter: letter == "\0", "has a NUL character", row, value, target)
    return plain


def _as_jsonb_number(text: str) -> Any:
    """JSONB writes numbers out: 1e+23 comes back as an integer."""
    number = decimal.Decimal(text)
    return int(number) if "e" in text and number == number.to_integral_value() else float(text)


def _is_lone_surrogate(letter: str) -> bool:
    return "\ud800" <= letter <= "\udfff"


def _refuse_letters(
    plain: Any, is_bad: Callable[[str], bool], reason: str, row: int, value: Any, target: Target
) -> None:
    if isinstance(plain, dict):
        plain = [*plain.keys(), *plain.values()]
    if isinstance(plain, list):
        for item in plain:
            _refuse_letters(item, is_bad, reason, row, value, target)
    elif isinstance(plain, str) and any(map(is_bad, plain)):
        raise target.error(row, value, reason, "remove it first")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def encode_tensor(cells: Cells, target: Target) -> list[Any]:
    """Tensors as bytes, one for each row."""
    try:
        if cells.tensor is not None:
            return rows_to_bytes(cells.tensor)
    except TypeError as error:
        raise target.error(0, cells.tensor, str(error), "convert the column first") from error
    return [value if value is None else _tensor_cell(value, row, target) for row, value in enumerate(cells.listed())]


def _tensor_cell(value: Any, row: int, target: Target) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, torch.Tensor):
        raise target.error(row, value, "is no tensor", "convert the column with map() first")
    try:
        return tensor_to_bytes(value)
    except TypeError as error:
        raise target.error(row, value, f"cannot be stored: {error}", "convert it first") from error


def encode_other(cells: Cells, target: Target) -> list[Any]:
    """Values of types that SQLAlchemy, or somebody's own TypeDecorator, converts and checks."""
    values = [value.item() if isinstance(value, np.generic) else value for value in cells.listed()]
    kind = target.resolved
    if isinstance(kind, sa.Enum):
        for row, value in enumerate(values):
            if value is not None and not isinstance(value, enum.Enum) and value not in kind.enums:
                raise target.error(row, value, "is none of the values of the column", f"choose from {kind.enums}")
    if isinstance(kind, sa.Uuid):
        wanted = uuid.UUID if kind.as_uuid else str
        for row, value in enumerate(values):
            if value is not None and not isinstance(value, wanted):
                raise target.error(row, value, "is no UUID", "convert the column with map(), as to uuid.UUID")
    return values
