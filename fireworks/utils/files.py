"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it when the block ends well, removed when it does not.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(f"{folder}/greeting.txt") as temporary:
        ...         _ = temporary.write_text("hello")
        ...     Path(folder, "greeting.txt").read_text()
        'hello'
    """
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}-{target.name}")  # keeps the suffix, which pandas reads
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
