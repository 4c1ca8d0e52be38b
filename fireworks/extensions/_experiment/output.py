"""What a program prints, written to files too while an experiment runs.

The streams stay the objects that they are: only their `write` is listened to. So handlers of `logging` that hold a
stream are heard, programs that ask whether it is a terminal get the same answer, and notebooks show what they show.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

from fireworks.extensions._experiment.files import FLAGS, explained

__all__ = ["Capture"]


class _Ear:
    """Stands in for the `write` of a stream, and passes on to it what is written, and to all who listen."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._write = stream.write
        self.listeners: list[Log] = []

    def __call__(self, text: Any) -> Any:
        written = self._write(text)
        for log in tuple(self.listeners):
            log.write(text)
        return written

    @classmethod
    def at(cls, stream: Any) -> _Ear:
        """The one of this stream, made if it has none."""
        ear = vars(stream).get("write")
        if not isinstance(ear, cls):
            ear = cls(stream)
            stream.write = ear
        return ear

    def leave(self, log: Log) -> None:
        """Stop telling this log; the last one out gives the stream its own `write` back."""
        if log in self.listeners:
            self.listeners.remove(log)
        if not self.listeners and vars(self._stream).get("write") is self:
            del self._stream.write


class Log:
    """A file that grows by what is printed; nothing of it waits in memory, so that a killed run keeps all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path):
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | FLAGS, 0o666)

    def write(self, text: Any) -> None:
        """Add text. A disk that is full ends the log with a warning: the program's own printing goes on."""
        file = self._file
        if file is None or not isinstance(text, str):
            return
        data = text.encode("utf-8", errors="backslashreplace")
        try:
            while data:
                data = data[os.write(file, data) :]
        except OSError as error:
            self.close()
            warnings.warn(f"what is printed is not written to {self._path} any more: {error}", stacklevel=4)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class Capture:
    """Writes what goes to `sys.stdout` and `sys.stderr` to two files as well, until it is stopped.

    Several may be at work at once, and be stopped in any order.

    Args:
        stdout: The file for the one; it is added to.
        stderr: The file for the other.
    """

    def __init__(self, stdout: Path, stderr: Path) -> None:
        self._heard: list[tuple[_Ear, Log]] = []
        logs = [(sys.stdout, Log(stdout)), (sys.stderr, Log(stderr))]
        for stream, log in logs:
            try:
                ear = _Ear.at(stream)
            except (AttributeError, TypeError):  # no stream at all, or one that does not let itself be listened to
                log.close()
                warnings.warn(f"what is printed to {stream!r:.80} cannot be captured", stacklevel=4)
                continue
            ear.listeners.append(log)
            self._heard.append((ear, log))

    def stop(self) -> None:
        """Listen no more."""
        for ear, log in self._heard:
            ear.leave(log)
            log.close()
        self._heard = []
