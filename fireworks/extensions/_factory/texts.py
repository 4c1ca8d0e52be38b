"""Parameters and metrics of a trial as text for the table of trials: exactly what went in comes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from fireworks.core.state import state_to_json

__all__ = ["metrics_to_json", "row_to_json"]

_WRITERS: dict[type, Callable[[Any], str]] = {
    int: repr,
    float: repr,
    str: quoted,
    bool: {False: "false", True: "true"}.__getitem__,
    type(None): lambda value: "null",
}


def row_to_json(row: Mapping[str, Any]) -> str:
    """A row as `state_to_json` writes it; faster for the numbers and texts that most rows consist of.

    Raises:
        StateError: A value cannot be written down; the text says which.

    Example:
        >>> row_to_json({"rate": 0.5, "loss": float("nan")})
        '{"rate": 0.5, "loss": {"__float__": "NaN"}}'
    """
    return _plain(row) or state_to_json(row)


def metrics_to_json(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by the names of their metrics, likewise."""
    texts = {}
    for name, row in metrics.items():
        text = _plain(row)
        if text is None or name[:2] == "__":
            return state_to_json(metrics)
        texts[name] = text
    return _object(texts)


def _plain(row: Mapping[str, Any]) -> str | None:
    """The text of a row of plain values; `json.dumps` takes five times as long for so few of them."""
    texts = {}
    for name, value in row.items():
        kind = type(value)
        write = _WRITERS.get(kind)
        if write is None or name[:2] == "__" or (kind is float and not math.isfinite(value)):
            return None
        texts[name] = write(value)
    return _object(texts)


def _object(texts: Mapping[str, str]) -> str:
    return f"{{{', '.join([f'{quoted(name)}: {text}' for name, text in texts.items()])}}}"
