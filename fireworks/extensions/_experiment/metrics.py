"""Metrics: one line of JSON per call, added to a file that is never rewritten.

A line is handed to the system at once, in one piece: a run killed at any moment has lost none, and several processes
may write to one file. It costs some microseconds.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fireworks.core.message import Message
from fireworks.extensions._experiment.files import FLAGS, explained
from fireworks.extensions._experiment.names import METRICS
from fireworks.utils.exceptions import ColumnError

__all__ = ["MetricsFile", "read_metrics"]

_STEP, _TIME = "step", "timestamp"
# A line that holds only this takes back the steps after it: the run went on from there once more.
_GOES_ON_AFTER = "goes_on_after_step"
_SPECIAL = {"NaN", "Infinity", "-Infinity"}


class MetricsFile:
    """Adds lines to the metrics of an experiment.

    Args:
        folder: Of the experiment.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        self.latest: dict[str, Any] = {}
        self._file: int | None = None
        self._next_step: int | None = None  # not known before the file was looked at
        self._is_torn = False
        self._lock = threading.Lock()

    def add(self, step: int | None, values: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            TypeError: A value is no number, or the step no integer.
            ValueError: A metric has a name that is taken.
            OSError: It cannot be written.
        """
        plain = {name: value if type(value) is float or type(value) is int else _number(name, value)
                 for name, value in values.items()}  # fmt: skip
        if _STEP in plain or _TIME in plain or _GOES_ON_AFTER in plain:
            raise ValueError(f"'{_STEP}' and '{_TIME}' are columns of every metric; choose another name")
        with self._lock:
            step = self._following() if step is None else _whole(step)
            self._append({_STEP: step, _TIME: time.time(), **plain})
            self._next_step = step + 1
            self.latest.update(plain)

    def go_on_after(self, step: int) -> None:
        """Take back all that was written for later steps."""
        with self._lock:
            self._append({_GOES_ON_AFTER: _whole(step)})
            self._next_step = step + 1

    def _following(self) -> int:
        if self._next_step is None:
            self._next_step = max((line[_STEP] for line in _read_lines(self.path)), default=-1) + 1
        return self._next_step

    def _append(self, line: dict[str, Any]) -> None:
        try:
            text = json.dumps(line, allow_nan=False, separators=(",", ":"))
        except ValueError:  # JSON has no name for NaN and infinity
            text = json.dumps({name: _named(value) for name, value in line.items()}, separators=(",", ":"))
        data = (text + "\n").encode()
        with explained(self.path):
            if self._file is None:
                self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | FLAGS, 0o666)
                self._is_torn = _ends_torn(self._file)
            if self._is_torn:
                data = b"\n" + data
            self._is_torn = True
            while data:  # a full disk takes a part of it, and refuses the rest
                data = data[os.write(self._file, data) :]
            self._is_torn = False

    def close(self) -> None:
        """Give the file back to the system; adding opens it again."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)


def _ends_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _number(name: str, value: Any) -> bool | int | float:
    """A metric as a plain number: Python's, numpy's, or a tensor of one element."""
    if (isinstance(value, (torch.Tensor, np.ndarray)) and math.prod(value.shape) == 1) or isinstance(value, np.generic):
        value = value.item()
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(
        f"expected a number as metric {name!r}, got {type(value).__name__} {value!r:.80}; settings go to "
        "log_parameters, everything else to save"
    )


def _whole(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
        raise TypeError(f"expected an integer as step, got {type(step).__name__} {step!r:.80}")
    return int(step)


def _named(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_metrics(folder: Path, names: Sequence[str] = ()) -> Message:
    """The lines as columns: step, timestamp, then one per metric; only those lines that have one of `names`, if given.

    Raises:
        ColumnError: No line has a metric of such a name.
    """
    lines = _read_lines(folder / METRICS)
    known = list(dict.fromkeys(name for line in lines for name in line))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ColumnError.unknown(unknown, known)
    if names:
        lines = [line for line in lines if any(name in line for name in names)]
    metrics = names or [name for name in known if name not in (_STEP, _TIME)]
    columns: dict[str, Any] = {
        _STEP: np.array([line[_STEP] for line in lines], dtype=np.int64),
        _TIME: pd.to_datetime([line[_TIME] for line in lines], unit="s", utc=True).as_unit("us"),
    }
    for name in metrics:
        if name not in (_STEP, _TIME):
            columns[name] = _column([line.get(name) for line in lines])
    return Message(columns)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(data.split(b"\n"), start=1):
        if not text:
            continue
        try:
            line = json.loads(text)
        except ValueError:
            warnings.warn(f"line {number} of {path} was not written to its end, and is left out", stacklevel=4)
            continue
        if _GOES_ON_AFTER in line:
            lines = [one for one in lines if one[_STEP] <= line[_GOES_ON_AFTER]]
        else:
            lines.append(line)
    return lines


def _column(values: Iterable[Any]) -> Any:
    """Integers and booleans as they are, with missing ones too; numbers of both kinds as floats, NaN where missing."""
    plain = [float(value) if isinstance(value, str) and value in _SPECIAL else value for value in values]
    kinds = {type(value) for value in plain if value is not None}
    is_missing = any(value is None for value in plain)
    if kinds == {bool}:
        return pd.array(plain, dtype="boolean") if is_missing else np.array(plain)
    if kinds == {int}:
        return _integers(plain, is_missing)
    return np.array([math.nan if value is None else float(value) for value in plain], dtype=np.float64)


def _integers(values: list[Any], is_missing: bool) -> Any:
    fits = all(value is None or -(2**63) <= value < 2**63 for value in values)
    if not fits:
        return pd.Series(values, dtype=object)
    return pd.array(values, dtype="Int64") if is_missing else np.array(values, dtype=np.int64)
