"""Bytes of a file by offset, as if it were not compressed: plain, gzip, or bgzip.

Each class reads by an offset of its own choice and never by a file position, which forked processes would share.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tempfile
import threading
import weakref
import zlib
from array import array
from bisect import bisect_right
from typing import Protocol, TypeAlias

__all__ = ["BgzipBytes", "DamagedError", "FileBytes", "GzipBytes", "PlainBytes", "open_bytes"]

Path: TypeAlias = "str | os.PathLike[str]"

_GZIP = b"\x1f\x8b"
_COPY_BYTES = 1 << 20
_seeking = threading.Lock()


class DamagedError(Exception):
    """The compressed data is damaged or cut off; the text says what was expected and what came."""


class FileBytes(Protocol):
    """The bytes of one file."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer only before the end or a damaged place, none only at the end.

        Raises:
            DamagedError: There should be bytes at this offset, but they cannot be decompressed.
        """

    def prepare(self) -> None:
        """Makes reading in any order fast, at whatever it costs."""


def open_bytes(path: Path) -> FileBytes:
    """The bytes of a file, decompressed if its first bytes say that it is gzip or bgzip, whatever its name.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    plain = PlainBytes(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
    try:
        beginning = plain.read(0, 2)
    except OSError as error:
        error.filename = os.fspath(path)  # of a folder, say
        raise
    if beginning != _GZIP:
        return plain
    return GzipBytes(plain) if _block_size(plain, 0) is None else BgzipBytes(plain)


def seek_and_read(descriptor: int, size: int, offset: int) -> bytes:
    """What `os.pread` does, for systems that have none."""
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


_read_at = getattr(os, "pread", seek_and_read)


class PlainBytes:
    """A file that is not compressed.

    Args:
        descriptor: Of the open file; closed together with this object.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        data: bytes = _read_at(self._descriptor, size, offset)
        return data

    def prepare(self) -> None:
        """Does nothing: any order is fast."""


class _File(io.RawIOBase):
    """Bytes as a file object with a position of its own."""

    def __init__(self, source: PlainBytes) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset if whence == os.SEEK_SET else self._position + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class GzipBytes:
    """A gzip file, of one or several members.

    Reading on is decompressing on; reading what lies behind means decompressing from the start. `prepare` ends that:
    it decompresses the whole file once, into a temporary file without a name, which goes when this object goes.
    """

    def __init__(self, plain: PlainBytes) -> None:
        self._plain = plain
        self._store: PlainBytes | None = None
        self._restart()

    def _restart(self) -> None:
        self._stream = gzip.GzipFile(fileobj=_File(self._plain), mode="rb")
        self._held = b""  # what was read last, because the next read usually begins within it
        self._held_at = 0
        self._damage: str | None = None  # what was wrong behind the held bytes

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        if self._store is not None:
            return self._store.read(offset, size)
        if offset < self._held_at:
            self._restart()
        while (behind := offset - self._held_at - len(self._held)) > 0:
            if not self._hold(self._held_at + len(self._held), min(_COPY_BYTES, behind)):
                return b""
        return self._hold(offset, size)[:size]

    def _hold(self, offset: int, size: int) -> bytes:
        """At least so many bytes from an offset on, which is not before and not behind the end of the bytes held now.

        They are held from then on, unless there are none: then who asked will go on within those held now.
        """
        parts = [self._held[offset - self._held_at :]]
        missing = size - len(parts[0])
        while missing > 0 and self._damage is None:
            try:
                part = self._stream.read1(missing)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                self._damage = f"expected a whole gzip file, but {_lower(error)}"
                break
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        data = b"".join(parts)
        if data:
            self._held, self._held_at = data, offset
        elif self._damage is not None:
            raise DamagedError(self._damage)
        return data

    def prepare(self) -> None:
        """Decompresses the file into a temporary one, if that was not done yet.

        Raises:
            DamagedError: The file is damaged or cut off.
            OSError: There is no room for the temporary file.
        """
        if self._store is not None:
            return
        with tempfile.TemporaryFile(prefix="fireworks-") as file:
            offset = 0
            while data := self.read(offset, _COPY_BYTES):
                file.write(data)
                offset += len(data)
            file.flush()
            self._store = PlainBytes(os.dup(file.fileno()))
        self._restart()


class BgzipBytes:
    """A bgzip file: gzip members of at most 64 KiB, each of which says how long it is.

    A table of these blocks is read first, without decompressing them. The file ends with an empty block; where that is
    missing, the file was cut off.

    Source:
        SAM/BAM format specification, section 4.1, "The BGZF compression format" (https://samtools.github.io/hts-specs).
    """

    def __init__(self, plain: PlainBytes) -> None:
        self._plain = plain
        self._places = array("q")  # where each block starts in the file
        self._starts = array("q")  # and in the decompressed bytes; one more for the end
        self._damage: str | None = None
        self._held = (-1, b"")  # the block that was read last
        self._read_table()

    def _read_table(self) -> None:
        place = start = length = 0
        while self._plain.read(place, 1):
            size = _block_size(self._plain, place)
            tail = b"" if size is None else self._plain.read(place + size - 4, 4)
            if size is None or len(tail) < 4:
                self._damage = (
                    f"expected a bgzip block at byte {place} of the file, but there is none, or a part of one"
                )
                break
            length = int.from_bytes(tail, "little")
            self._places.append(place)
            self._starts.append(start)
            place += size
            start += length
        self._places.append(place)
        self._starts.append(start)
        if self._damage is None and length:
            self._damage = "expected an empty bgzip block at the end; the file is cut off, or was not written by bgzip"

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        parts: list[bytes] = []
        block = bisect_right(self._starts, offset) - 1
        last = len(self._places) - 1
        while size > 0 and block < last:
            try:
                part = self._block(block)[offset - self._starts[block] :][:size]
            except DamagedError:
                if parts:
                    break
                raise
            if part:
                parts.append(part)
            offset += len(part)
            size -= len(part)
            block += 1
        if not parts and self._damage is not None and size:
            raise DamagedError(self._damage)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, number: int) -> bytes:
        if self._held[0] != number:
            place = self._places[number]
            packed = self._plain.read(place, self._places[number + 1] - place)
            try:
                data = zlib.decompress(packed, wbits=31)
            except zlib.error as error:
                raise DamagedError(f"expected a whole bgzip block at byte {place}, but {_lower(error)}") from error
            self._held = (number, data)
        return self._held[1]

    def prepare(self) -> None:
        """Does nothing: the blocks can be read in any order."""


def _block_size(plain: PlainBytes, place: int) -> int | None:
    """The size of the bgzip block at this place of the file, or None where there is none."""
    head = plain.read(place, 12)
    if len(head) < 12 or head[:4] != _GZIP + b"\x08\x04":
        return None
    extra = plain.read(place + 12, int.from_bytes(head[10:12], "little"))
    while len(extra) >= 6:
        length = int.from_bytes(extra[2:4], "little")
        if extra[:2] == b"BC" and length == 2:
            size: int = struct.unpack_from("<H", extra, 4)[0] + 1
            return size
        extra = extra[4 + length :]
    return None


def _lower(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
