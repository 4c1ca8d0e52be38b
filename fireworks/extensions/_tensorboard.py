"""EventFiles: lines for TensorBoard, in event files that are made again when they could not be written."""

from __future__ import annotations

import os
import socket
import time
import warnings
from pathlib import Path

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
        # Of this process, once something was written.
        self._file: Path | None = None
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
            self._file, self._sent = None, {}
            self._next_attempt = time.monotonic() + _SECONDS_BETWEEN_ATTEMPTS
            self._warn(f"{self._folder} cannot be written ({error}); training goes on")

    def _write(self) -> None:
        # The writer of torch has a thread, which prints a traceback when somebody removes the folder.
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped, unused-ignore]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped, unused-ignore]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped, unused-ignore]

        if self._file is None:
            self._file = self._begin()
        lengths = {}
        with self._file.open("r+b") as file:  # fails where somebody removed it
            file.seek(0, os.SEEK_END)
            writer = RecordWriter(file)
            for name in self._lines.names():
                start = self._sent.get(name, 0)
                steps, values = self._lines.points(name, start)
                lengths[name] = start + len(steps)
                for step, value in zip(steps, values, strict=True):
                    summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
                    writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
        if not self._file.is_file():
            raise FileNotFoundError(f"somebody removed {self._file.name}")
        self._sent = lengths

    def _begin(self) -> Path:
        """A new file, which tells TensorBoard to forget the points of the files before."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped, unused-ignore]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped, unused-ignore]

        self._folder.mkdir(parents=True, exist_ok=True)
        is_first = not any(self._folder.glob("events.out.tfevents.*"))
        # Files are read in the order of their names.
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        path, now = self._folder / name, time.time()
        with path.open("xb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            if not is_first:
                forget = SessionLog(status=SessionLog.START)
                writer.write(Event(wall_time=now, step=0, session_log=forget).SerializeToString())
        return path

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"no event files for TensorBoard: {reason}", stacklevel=4)
