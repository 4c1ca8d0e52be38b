"""One run of an experiment: that it lives, how it ended, and what became of those that could not say it.

`status.json` is rewritten with every heartbeat, so it travels with the folder. A run that was killed cannot
write that down: whoever reads a status of "running" whose last heartbeat is old reports "dead".
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fireworks.extensions._experiment.files import from_text, read_json, to_text, write_json
from fireworks.extensions._experiment.names import STATUS

__all__ = ["ENDINGS", "Run", "ending_of", "read_status"]

ENDINGS = ("completed", "failed", "interrupted")
_MISSED_BEATS = 6


def read_status(folder: Path, now: datetime | None = None) -> dict[str, Any]:
    """What `status.json` says, with the status "dead" for a run that stopped to say that it lives."""
    status = read_json(folder / STATUS)
    beat = from_text(status["heartbeat"])
    silence = (now or datetime.now(UTC)) - (beat or datetime.min.replace(tzinfo=UTC))
    if status["status"] == "running" and silence > _MISSED_BEATS * timedelta(seconds=status["seconds_between_beats"]):
        status["status"] = "dead"
    return status


def ending_of(error: BaseException | None) -> tuple[str, str | None]:
    """The status after a block that ended with this exception or none, and the traceback."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "completed", None
    text = "".join(traceback.format_exception(error))
    return ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed"), text


class Run:
    """Keeps `status.json` up to date from the start of a run to its end.

    Args:
        folder: Of the experiment.
        number: How many runs of it there were before.
        between_beats: Time between heartbeats.
        at_end: Called once when it ends, with nothing.
        values: Gives what the status shall hold besides, such as the latest metrics.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        between_beats: timedelta,
        at_end: Callable[[], None],
        values: Callable[[], dict[str, Any]],
    ) -> None:
        self._folder, self._at_end, self._values = folder, at_end, values
        self._process = os.getpid()
        self._lock = threading.RLock()  # a signal handler may come in while this thread holds it
        self._seconds = between_beats.total_seconds()
        self._has_ended = threading.Event()
        self._status: dict[str, Any] = {
            "status": "running",
            "run": number,
            "start": to_text(datetime.now(UTC)),
            "end": None,
            "heartbeat": None,
            "seconds_between_beats": self._seconds,
            "traceback": None,
        }
        self._write()
        threading.Thread(target=self._beat, name=f"heartbeat of {folder.name}", daemon=True).start()
        _Watch.add(self)

    @property
    def is_ours(self) -> bool:
        """Whether this process runs it, rather than one that it was forked from, and it has not ended."""
        return self._process == os.getpid() and not self._has_ended.is_set()

    def _write(self) -> None:
        self._status["heartbeat"] = to_text(datetime.now(UTC))
        write_json(self._folder / STATUS, {**self._status, **self._values()})

    def _beat(self) -> None:
        while not self._has_ended.wait(self._seconds):
            with self._lock:
                try:
                    self._write_and_see()
                except OSError:  # a full disk may have room at the next beat, for how it ended too
                    if not self._folder.is_dir():
                        return

    def finish(self, status: str, text: str | None = None) -> None:
        """Write down how it ended; of several calls the first counts.

        Raises:
            OSError: It could not be written; the next heartbeat tries again.
        """
        if not self.is_ours:  # in a forked process the lock may be held by a thread that is not there
            return
        with self._lock:
            if self._status["status"] == "running":
                self._status |= {"status": status, "end": to_text(datetime.now(UTC)), "traceback": text}
                self._at_end()
            self._write_and_see()

    def abandon(self) -> None:
        """End without a word: the folder goes away."""
        with self._lock:
            self._has_ended.set()
            _Watch.remove(self)
            self._at_end()

    def _write_and_see(self) -> None:
        if self.is_ours:
            self._write()
            if self._status["status"] != "running":
                self._has_ended.set()
                _Watch.remove(self)


class _Watch:
    """Ends every run of this process with it: at its end, by an exception that nobody catches, or by SIGTERM."""

    runs: list[Run] = []  # noqa: RUF012 - of the process, not of an object
    _hook: Any = None
    _waits = False

    @classmethod
    def add(cls, run: Run) -> None:
        if not cls.runs:
            cls._start()
        cls.runs.append(run)

    @classmethod
    def remove(cls, run: Run) -> None:
        if run in cls.runs:
            cls.runs.remove(run)
        if not cls.runs:
            cls._stop()

    @classmethod
    def _start(cls) -> None:
        cls._hook = sys.excepthook
        sys.excepthook = cls._on_exception
        cls._exchange(signal.SIG_DFL, cls._on_terminate)

    @staticmethod
    def _exchange(handler: Any, other: Any) -> bool:
        """Handle SIGTERM in another way, if it is handled in this one; only the main thread may."""
        may = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == handler
        if may:
            signal.signal(signal.SIGTERM, other)
        return may

    @classmethod
    def _stop(cls) -> None:
        if sys.excepthook == cls._on_exception:
            sys.excepthook = cls._hook
        cls._exchange(cls._on_terminate, signal.SIG_DFL)

    @classmethod
    def before_fork(cls) -> None:
        """Forked processes shall end by SIGTERM: one that comes right after the fork never reaches a handler."""
        cls._waits = cls._exchange(cls._on_terminate, signal.SIG_DFL)

    @classmethod
    def after_fork(cls) -> None:
        """In the process that forked."""
        if cls._waits:
            cls._exchange(signal.SIG_DFL, cls._on_terminate)

    @classmethod
    def _on_exception(cls, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        hook = cls._hook
        hook(kind, error, trace)  # first, so that what it prints is captured
        cls.finish_all(*ending_of(error))

    @classmethod
    def _on_terminate(cls, number: int, frame: Any) -> None:
        cls.finish_all("interrupted", "the process was told to end (SIGTERM)")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    @classmethod
    def finish_all(cls, status: str, text: str | None = None) -> None:
        for run in reversed(cls.runs[:]):
            try:
                run.finish(status, text)
            except OSError as error:
                if run._folder.is_dir():  # one that somebody removed needs no ending
                    sys.stderr.write(f"how the experiment ended could not be written down: {error}\n")


atexit.register(_Watch.finish_all, "completed")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_Watch.before_fork, after_in_parent=_Watch.after_fork)
