"""Small files of an experiment, written whole, and what to do when they cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from fireworks.core.state import read_state, write_state
from fireworks.utils.files import replacing

__all__ = ["FLAGS", "Replacement", "explained", "from_text", "read_json", "to_text", "write_json"]

_FULL = "no space is left; what was written before is as it was. Make room, then try again"
_READ_ONLY = "it is read-only; copy the experiment's folder to where you may write, and load that copy"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
}

# For files that are opened by number: processes that are started do not inherit them, and a link that came with a
# copied folder does not lead writing elsewhere.
FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of a full disk or a read-only folder say so, and what to do.

    Raises:
        OSError: Of the same class and number as the one that came up.
    """
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        if hint is None or hint in str(error):
            raise
        raise type(error)(error.errno, f"{os.fspath(path)} cannot be written: {hint}") from error


def write_json(path: Path, value: Any) -> None:
    """Write plain values to a file, wholly or not at all."""
    with explained(path):
        write_state(value, path)


def read_json(path: Path) -> dict[str, Any]:
    """The values of a file that `write_json` wrote.

    Raises:
        FormatError: It is damaged.
    """
    value: dict[str, Any] = read_state(path, "json")
    return value


def to_text(time: datetime) -> str:
    """A point in time as text that everyone can read."""
    return time.astimezone(UTC).isoformat()


def from_text(text: str | None) -> datetime | None:
    """The point in time that `to_text` wrote down."""
    return None if text is None else datetime.fromisoformat(text)


class Replacement:
    """A file that takes the place of another one when it is closed; until then, and after an error, that one stays.

    Args:
        path: The file to replace.
        opened: What opens a path, as `open` does.
    """

    def __init__(self, path: Path, opened: Callable[[Path], IO[Any]]) -> None:
        self._path = path
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(path))
            self._file = stack.enter_context(opened(temporary))
            self._ending = stack.pop_all()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        with explained(self._path):
            self._ending.__exit__(kind, error, traceback)

    def close(self) -> None:
        """Write out the rest, and take the other file's place."""
        self.__exit__(None, None, None)
