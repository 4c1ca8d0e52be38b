"""All experiments of a folder as one table."""

from __future__ import annotations

import os
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fireworks.extensions._experiment.files import from_text, read_json
from fireworks.extensions._experiment.names import IDENTITY, PARAMETERS
from fireworks.extensions._experiment.run import read_status
from fireworks.extensions.hyperspace.utils import drop_constant_columns, flatten
from fireworks.utils.exceptions import FormatError

__all__ = ["list_experiments"]

_FIRST = ("folder", "name", "iteration", "description", "status", "start", "end", "duration")


def list_experiments(path: Path, hide_constant: bool) -> pd.DataFrame:
    """A row per experiment, in the order of their beginning."""
    now = datetime.now(UTC)
    folders = sorted(entry.path for entry in os.scandir(path) if os.path.isfile(os.path.join(entry.path, IDENTITY)))
    rows = [row for folder in folders if (row := _row(Path(folder), now)) is not None]
    rows.sort(key=lambda row: (row["start"], row["name"], row["iteration"]))
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])))
    for name in ("start", "end"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    frame["duration"] = pd.to_timedelta(frame["duration"])
    return drop_constant_columns(frame, keep=["folder"]) if hide_constant else frame


def _row(folder: Path, now: datetime) -> dict[str, Any] | None:
    try:
        identity, status = read_json(folder / IDENTITY), read_status(folder, now)
        run = read_json(folder / f"run_{status['run']}.json")
        parameters = read_json(folder / PARAMETERS) if (folder / PARAMETERS).is_file() else {}
    except (FormatError, OSError, KeyError) as error:
        warnings.warn(f"{folder} is left out, because it is damaged or not complete: {error}", stacklevel=5)
        return None
    start, end = from_text(status["start"]), from_text(status["end"])
    last_sign = from_text(status["heartbeat"]) if end is None else end
    git = run["git"] or {}
    return {
        "folder": folder.name,
        **{name: identity[name] for name in ("name", "iteration", "description")},
        "status": status["status"],
        "start": start,
        "end": end,
        "duration": None if start is None or last_sign is None else last_sign - start,
        **{f"parameters.{name}": value for name, value in flatten(parameters).items()},
        **{f"metrics.{name}": value for name, value in status["metrics"].items()},
        "commit": git.get("commit"),
        "is_dirty": git.get("is_dirty"),
        "command": " ".join(run["command"]),
        "host": run["host"],
        "python": run["python"],
        "seed": status["last_seeds"]["torch"],
    }
