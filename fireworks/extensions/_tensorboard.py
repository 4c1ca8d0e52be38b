"""EventFiles: lines for TensorBoard, in event files that are made again when they could not be written."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from fireworks.utils._visdom import Lines

__all__ = ["EventFiles"]

_SECONDS_BETWEEN_ATTEMPTS = 10.0


class EventFiles:
    """Mirrors lines in the event files of a folder.

    What cannot be written is one warning, and tried again later. A process that goes on with a run, or begins one anew
    in the same folder, writes all points again, and tells TensorBoard to forget the ones before.

    Args:
        lines: What to mirror.
        folder: Of the event files.
    """

    def __init__(self, lines: Lines, folder: Path) -> None:
        self._lines, self._folder = lines, folder
        self._writer: Any = None
        self._sent: dict[str, int] = {}
        self._next_attempt = 0.0
        self._has_warned = False
        self._is_missing = False

    def send(self, patient: bool = True) -> None:
        """Write what was not written yet; a patient writer does not try again at once what has just failed."""
        if self._is_missing or (patient and time.monotonic() < self._next_attempt):
            return
        try:
            self._write()
        except ImportError:
            self._is_missing = True
            self._warn("tensorboard is not installed; install fireworks-ml[tensorboard]")
        except OSError as error:
            # What of it arrived is unknown, so the next file has everything.
            self._writer, self._sent = None, {}
            self._next_attempt = time.monotonic() + _SECONDS_BETWEEN_ATTEMPTS
            self._warn(f"{self._folder} cannot be written ({error}); training goes on")

    def _write(self) -> None:
        if self._writer is None:
            self._writer = self._open()
        for name in self._lines.names():
            start = self._sent.get(name, 0)
            steps, values = self._lines.points(name, start)
            for step, value in zip(steps, values, strict=True):
                self._writer.add_scalar(name, value, step)
            self._sent[name] = start + len(steps)
        self._writer.flush()

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # an optional library, and a slow import

        has_files = self._folder.is_dir() and any(self._folder.glob("events.out.tfevents.*"))
        return SummaryWriter(str(self._folder), purge_step=0 if has_files else None)

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"no event files for TensorBoard: {reason}", stacklevel=4)
