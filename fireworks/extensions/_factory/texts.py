"""Parameters and metrics of a trial as text for the table of trials: exactly what went in comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fireworks.core.state import state_to_json

__all__ = ["metrics_to_json", "row_to_json"]

_encode = json.JSONEncoder(allow_nan=False).encode  # made once: json.dumps makes one for each call, in 6 µs
_PLAIN = (int, str, bool, type(None))


def row_to_json(row: Mapping[str, Any]) -> str:
    """A row as `state_to_json` writes it; faster for the numbers and texts that most rows consist of.

    Raises:
        StateError: A value cannot be written down; the text says which.

    Example:
        >>> row_to_json({"rate": 0.5, "loss": float("nan")})
        '{"rate": 0.5, "loss": {"__float__": "NaN"}}'
    """
    return _encode(row) if _is_plain(row) else state_to_json(row)


def metrics_to_json(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by the names of their metrics, likewise."""
    plain = all(name[:2] != "__" and _is_plain(row) for name, row in metrics.items())
    return _encode(metrics) if plain else state_to_json(metrics)


def _is_plain(row: Mapping[str, Any]) -> bool:
    for name, value in row.items():
        if name[:2] == "__" or not (type(value) in _PLAIN or (type(value) is float and math.isfinite(value))):
            return False
    return True
