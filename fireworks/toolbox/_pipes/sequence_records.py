"""Records of sequence files, by blocks: FASTA and FASTQ by our own reading and an index."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from fireworks.core.message import Message
from fireworks.toolbox._pipes.sequence_bytes import DamagedError, FileBytes, Path, open_bytes
from fireworks.toolbox._pipes.sequence_columns import Cells, extend, message_of
from fireworks.toolbox._pipes.sequence_formats import FORMATS, Block
from fireworks.toolbox._pipes.sequence_parsed import ParsedRecords
from fireworks.utils.exceptions import FormatError

__all__ = ["IndexedRecords", "Records", "open_records"]

_RANGE_BYTES = 1 << 24  # so much of a file is held at a time while a large range of it is read


class Records(Protocol):
    """The records of one file. Pickled, they are opened anew by whoever gets them."""

    path: str
    dtypes: dict[str, Any]
    can_index: bool

    def after(self, offset: int, row: int) -> Block | None:
        """The records that follow, or None at the end.

        Args:
            offset: Where to begin: 0, or the end of another block.
            row: The number of the first record there.

        Raises:
            FormatError: The first of them is malformed; tells file, record and what was expected.
        """

    def rows(self, positions: slice | np.ndarray) -> Message:
        """The records with these numbers, which `as_positions` has checked."""

    def __len__(self) -> int: ...


def open_records(path: Path, filetype: str) -> Records:
    """The records of a file.

    Raises:
        OSError: There is no such file, or it cannot be read.
        FormatError: It is empty, or starts like no FASTA or FASTQ.
        ValueError: There is no such filetype.
    """
    is_indexed = isinstance(filetype, str) and filetype in FORMATS
    return IndexedRecords(path, filetype) if is_indexed else ParsedRecords(path, filetype)


class IndexedRecords:
    """Records of a FASTA or FASTQ file.

    In order they are read by blocks, each of which needs to know nothing but where it begins. By number they are found
    through an index of where each begins, an int64 per record, built when it is first needed by one pass over the file.
    """

    can_index = True
    block_bytes = 1 << 18

    def __init__(self, path: Path, filetype: str) -> None:
        self.path = os.path.abspath(path)
        self.filetype = filetype
        self.format = FORMATS[filetype]
        self.dtypes = self.format.dtypes
        self._file: FileBytes | None = None
        self._fetch: Callable[[int, int], bytes] | None = None  # reads the file, once it is prepared for any order
        self._offsets: array[int] | None = None  # where each record begins, and where the last one ends
        self._is_common = False  # whether the file has no rare bytes
        beginning = self._read(0, 200, 0)
        if not beginning:
            raise FormatError(f"{self.path}: expected {filetype} records, but it is empty")
        problem = self.format.wrong_start(beginning)
        if problem is not None:
            raise self._malformed(0, problem)

    @property
    def _bytes(self) -> FileBytes:
        if self._file is None:
            self._file = open_bytes(self.path)
        return self._file

    def _malformed(self, row: int, problem: str) -> FormatError:
        return FormatError(f"{self.path}, record {row} (counted from 0): {problem}")

    def _read(self, offset: int, size: int, row: int) -> bytes:
        try:
            return self._bytes.read(offset, size)
        except DamagedError as error:
            raise self._malformed(row, str(error)) from error

    def _read_chunk(self, offset: int, size: int, row: int) -> tuple[bytes, bool, FormatError | None]:
        """Up to so many bytes, whether nothing comes after them, and what comes if that cannot be read."""
        data = self._read(offset, size, row)
        if not data or len(data) == size:
            return data, not data, None
        try:
            return data, not self._read(offset + len(data), 1, row), None
        except FormatError as error:
            return data, False, error

    def after(self, offset: int, row: int) -> Block | None:
        """The records that follow, or None at the end."""
        size = self.block_bytes
        while True:
            data, final, damage = self._read_chunk(offset, size, row)
            if not data:
                return None
            block = self.format.parse(data, final)
            if block.rows:
                return block._replace(end=offset + block.end)
            if block.problem is not None:
                raise self._malformed(row, block.problem)
            if damage is not None:
                raise damage
            size *= 2

    def _index(self) -> array[int]:
        starts = array("q")
        is_common = bool(self.format.rare)
        offset, before, size = 0, ord("\n"), self.block_bytes
        while True:
            data, final, damage = self._read_chunk(offset, size, len(starts))
            found, end, problem = self.format.starts(data, final, before)
            starts.extend([offset + start for start in found])
            is_common = is_common and not any(byte in data for byte in self.format.rare)
            if problem is not None:
                raise self._malformed(len(starts), problem)
            if final:
                starts.append(offset + end)
                self._is_common = is_common
                return starts
            if end:
                offset, before, size = offset + end, data[end - 1], self.block_bytes
            elif damage is not None:
                raise damage
            else:
                size *= 2

    def __len__(self) -> int:
        if self._offsets is None:
            self._offsets = self._index()
        return len(self._offsets) - 1

    def rows(self, positions: slice | np.ndarray) -> Message:
        """The records with these numbers."""
        if self._is_common and type(positions) is slice and positions.stop - positions.start == 1:
            cells = self._row(positions.start)
            if cells is not None:
                return message_of(cells, self.dtypes)
        if self._fetch is None:
            self._prepare()
        if type(positions) is not slice or positions.step != 1:
            scattered = np.arange(len(self))[positions] if isinstance(positions, slice) else positions
            pieces = [self._bytes_of(row, row + 1) for row in scattered.tolist()]
            return message_of(self._cells(pieces, scattered), self.dtypes)
        return self._range(positions.start, positions.stop)

    def _prepare(self) -> None:
        try:
            self._bytes.prepare()
        except DamagedError as error:
            raise FormatError(f"{self.path}: {error}") from error
        self._fetch = self._bytes.read

    def _row(self, row: int) -> Cells | None:
        """The cells of one record, or None where the shortest way does not lead there."""
        offsets, fetch = self._offsets, self._fetch
        if fetch is None or offsets is None:
            return None
        offset = offsets[row]
        size = offsets[row + 1] - offset
        try:
            data = fetch(offset, size)
        except DamagedError:
            return None
        return self.format.one(data) if len(data) == size else None

    def _range(self, start: int, stop: int) -> Message:
        offsets = self._offsets
        assert offsets is not None
        cells: Cells = {}
        while True:
            until = stop
            if stop - start > 1 and offsets[stop] - offsets[start] > _RANGE_BYTES:
                until = max(start + 1, bisect_left(offsets, offsets[start] + _RANGE_BYTES) - 1)
            extend(cells, self._cells([self._bytes_of(start, until)], slice(start, until)), 0, until - start)
            if until == stop:
                return message_of(cells, self.dtypes)
            start = until

    def _bytes_of(self, start: int, stop: int) -> bytes:
        """The bytes of consecutive records."""
        offsets = self._offsets
        assert offsets is not None
        if start == stop:
            return b""
        offset = offsets[start]
        size = offsets[stop] - offset
        data = self._read(offset, size, start)
        if len(data) < size:
            raise self._changed(start)
        return data

    def _cells(self, pieces: list[bytes], rows: slice | np.ndarray) -> Cells:
        """The cells of these records; the line end between them counts for nothing, or as empty qualities."""
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        if not count:
            return {name: [] for name in self.dtypes}
        pieces.append(b"")
        block = self.format.parse(b"\n".join(pieces), final=True)
        if block.problem is not None:
            row = rows.start + block.rows if isinstance(rows, slice) else int(rows[block.rows])
            raise self._malformed(row, block.problem)
        if block.rows != count:
            raise self._changed(rows.start if isinstance(rows, slice) else int(rows[0]))
        return block.cells

    def _changed(self, row: int) -> FormatError:
        return self._malformed(
            row, "expected the record that was found there, but the file has changed since; make a new BioSeqPipe"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_fetch": None}
