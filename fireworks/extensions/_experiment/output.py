"""What a program prints, written to files too while an experiment runs.

Streams stay the objects that they are, only their `write` is listened to: so handlers of `logging` that hold a stream
are heard, and programs that ask whether it is a terminal get the same answer. Where somebody else does so already, as
IPython does for every cell and undoes it afterwards, an object stands in for the stream instead.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fireworks.extensions._experiment.files import FLAGS, explained

__all__ = ["Capture"]


class _Ear:
    """Stands between a stream and what is written to it, and tells it to all who listen."""

    def __init__(self, name: str) -> None:
        self.listeners: list[Log] = []
        self._name = name
        self._stream = getattr(sys, name)
        self._stand_in: _StandIn | None = None
        own = getattr(self._stream, "__dict__", {"write": None})
        if "write" in own:
            self._stand_in = _StandIn(self._stream, self)
            setattr(sys, name, self._stand_in)
        else:
            self._write = self._stream.write
            self._stream.write = self

    @classmethod
    def at(cls, name: str) -> _Ear:
        """The one at `sys.stdout` or `sys.stderr`, made if there is none."""
        stream = getattr(sys, name)
        ear = stream._ear if isinstance(stream, _StandIn) else getattr(stream, "write", None)
        return ear if isinstance(ear, cls) else cls(name)

    def __call__(self, text: Any) -> Any:
        # What stands behind a stand-in may be exchanged meanwhile: that is why there is one.
        written = self._write(text) if self._stand_in is None else self._stream.write(text)
        for log in tuple(self.listeners):
            log.write(text)
        return written

    def leave(self, log: Log) -> None:
        """Stop telling this log; when the last one is out, all is as it was."""
        self.listeners.remove(log)
        if self.listeners:
            return
        if self._stand_in is not None:
            if getattr(sys, self._name) is self._stand_in:
                setattr(sys, self._name, self._stream)
        elif vars(self._stream).get("write") is self:
            del self._stream.write


class _StandIn:
    """A stream that is another one, but for its `write`."""

    def __init__(self, stream: Any, ear: _Ear) -> None:
        self._fireworks_stream, self._ear = stream, ear

    def write(self, text: Any) -> Any:
        return self._ear(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fireworks_stream, name)


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
        logs = [("stdout", Log(stdout)), ("stderr", Log(stderr))]
        for name, log in logs:
            if getattr(sys, name) is None:  # as in programs without a console
                log.close()
                continue
            ear = _Ear.at(name)
            ear.listeners.append(log)
            self._heard.append((ear, log))

    def stop(self) -> None:
        """Listen no more."""
        for ear, log in self._heard:
            ear.leave(log)
            log.close()
        self._heard = []
