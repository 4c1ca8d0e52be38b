"""SQLite databases in an experiment's folder, which may be one that nobody can write to."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fireworks.extensions._experiment.files import explained

__all__ = ["open_database"]

_BESIDE = ("-wal", "-journal")


def open_database(path: Path) -> sa.Engine:
    """An engine for a file, which is made where there is none; in a read-only folder one that only reads.

    No connection is kept open between two uses, so the folder can be moved and zipped, and processes forked.

    Raises:
        OSError: The folder is read-only and has no such file.
    """
    is_writable = os.access(path if path.exists() else path.parent, os.W_OK) and os.access(path.parent, os.W_OK)
    if is_writable or not path.exists():
        with explained(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
        return _engine(path)
    if any(_size(path, ending) for ending in _BESIDE):
        return _engine_of_copy(path)
    # A file in WAL mode cannot even be read without writing beside it, unless nobody else can write it either.
    return _engine(
        f"file:{quote(str(path))}", {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if _is_wal(path) else {})
    )


def _engine(database: str | Path, query: dict[str, str] | None = None) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(database), query=query or {})
    return sa.create_engine(url, poolclass=NullPool)


def _engine_of_copy(path: Path) -> sa.Engine:
    """Of a database whose writer was killed: SQLite must finish or undo first what was begun, here in a copy."""
    folder = tempfile.mkdtemp(prefix="fireworks-")
    for ending in ("", *_BESIDE):
        if ending == "" or _size(path, ending):
            shutil.copyfile(f"{path}{ending}", Path(folder, path.name + ending))
    engine = _engine(Path(folder, path.name))
    sa.event.listen(engine, "connect", _only_read)
    weakref.finalize(engine, shutil.rmtree, folder, ignore_errors=True)
    return engine


def _only_read(connection: Any, record: Any) -> None:
    connection.execute("SELECT count(*) FROM sqlite_master")  # lets SQLite put the file in order first
    connection.execute("PRAGMA query_only=ON")


def _size(path: Path, ending: str) -> int:
    try:
        return os.stat(f"{path}{ending}").st_size
    except FileNotFoundError:
        return 0


def _is_wal(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(20)[18:20] == b"\x02\x02"
