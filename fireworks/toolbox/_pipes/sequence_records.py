"""Records of sequence files, by blocks: FASTA and FASTQ by our own reading and an index, the others by Biopython."""

from __future__ import annotations

import gzip
import os
import warnings
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

import numpy as np

from fireworks.core._columns import OBJECT
from fireworks.core.message import Message
from fireworks.toolbox._pipes.sequence_bytes import DamagedError, FileBytes, Path, open_bytes
from fireworks.toolbox._pipes.sequence_formats import (
    FORMATS,
    QUALITIES,
    TEXT_COLUMNS,
    Block,
    Columns,
    Fasta,
    list_column,
    looks_like,
    text_column,
)
from fireworks.utils.exceptions import FormatError, did_you_mean

__all__ = ["IndexedRecords", "ParsedRecords", "Records", "message_of", "messages_of", "open_records"]

# Formats whose parsers of Biopython give a quality for each letter.
_WITH_QUALITIES = frozenset({"abi", "abi-trim", "ace", "phd", "qual", "sff", "sff-trim"})
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
    return IndexedRecords(path, filetype) if filetype in FORMATS else ParsedRecords(path, filetype)


def message_of(columns: Columns, dtypes: dict[str, Any]) -> Message:
    """These columns as a message; nothing about them is left to check."""
    return Message.__new__(Message)._set({}, columns, dtypes)


def messages_of(columns: Columns, dtypes: dict[str, Any], start: int) -> Iterator[Message]:
    """The rows from `start` on, a message each."""
    # Rows of a matrix of one column are the cheapest slices that numpy has; ids and names are often one array.
    slices = {id(column): list(np.asarray(column[start:]).reshape(-1, 1)) for column in columns.values()}
    sequences, ids, names, descriptions, dbxrefs = (slices[id(columns[name])] for name in Fasta.dtypes)
    qualities = slices[id(columns[QUALITIES])] if QUALITIES in columns else None
    for number, cells in enumerate(zip(sequences, ids, names, descriptions, dbxrefs, strict=True)):
        row: Columns = {
            "sequences": cells[0],
            "ids": cells[1],
            "names": cells[2],
            "descriptions": cells[3],
            "dbxrefs": cells[4],
        }
        if qualities is not None:
            row[QUALITIES] = qualities[number]
        yield Message.__new__(Message)._set({}, row, dtypes)


def join_columns(parts: list[Columns]) -> Columns:
    """The rows of several sets of columns, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


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
        self._offsets: np.ndarray | None = None  # where each record begins, and where the last one ends
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

    def _index(self) -> np.ndarray:
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
                return np.array(starts)
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
            columns = self._row(positions.start)
            if columns is not None:
                return message_of(columns, self.dtypes)
        if self._fetch is None:
            self._prepare()
        if type(positions) is not slice or positions.step != 1:
            scattered = np.arange(len(self))[positions] if isinstance(positions, slice) else positions
            pieces = [self._bytes_of(row, row + 1) for row in scattered.tolist()]
            return message_of(self._columns(pieces, scattered), self.dtypes)
        return message_of(self._range(positions.start, positions.stop), self.dtypes)

    def _prepare(self) -> None:
        try:
            self._bytes.prepare()
        except DamagedError as error:
            raise FormatError(f"{self.path}: {error}") from error
        self._fetch = self._bytes.read

    def _row(self, row: int) -> Columns | None:
        """The columns of one record, or None where the shortest way does not lead there."""
        offsets, fetch = self._offsets, self._fetch
        if fetch is None or offsets is None:
            return None
        offset = offsets.item(row)
        size = offsets.item(row + 1) - offset
        try:
            data = fetch(offset, size)
        except DamagedError:
            return None
        return self.format.one(data) if len(data) == size else None

    def _range(self, start: int, stop: int) -> Columns:
        offsets = self._offsets
        assert offsets is not None
        parts = []
        while True:
            until = stop
            if stop - start > 1 and offsets[stop] - offsets[start] > _RANGE_BYTES:
                until = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _RANGE_BYTES)) - 1)
            parts.append(self._columns([self._bytes_of(start, until)], slice(start, until)))
            if until == stop:
                return join_columns(parts)
            start = until

    def _bytes_of(self, start: int, stop: int) -> bytes:
        """The bytes of consecutive records."""
        offsets = self._offsets
        assert offsets is not None
        if start == stop:
            return b""
        offset = offsets.item(start)
        size = offsets.item(stop) - offset
        data = self._read(offset, size, start)
        if len(data) < size:
            raise self._changed(start)
        return data

    def _columns(self, pieces: list[bytes], rows: slice | np.ndarray) -> Columns:
        """The columns of these records; the line end between them counts for nothing, or as empty qualities."""
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        if not count:
            return {name: list_column([]) for name in self.dtypes}
        pieces.append(b"")
        block = self.format.parse(b"\n".join(pieces), final=True)
        if block.problem is not None:
            row = rows.start + block.rows if isinstance(rows, slice) else int(rows[block.rows])
            raise self._malformed(row, block.problem)
        if block.rows != count:
            raise self._changed(rows.start if isinstance(rows, slice) else int(rows[0]))
        return block.columns

    def _changed(self, row: int) -> FormatError:
        return self._malformed(
            row, "expected the record that was found there, but the file has changed since; make a new BioSeqPipe"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_fetch": None}


class ParsedRecords:
    """Records of a file in any other format, in order, one at a time."""

    can_index = False

    def __init__(self, path: Path, filetype: str) -> None:
        try:
            from Bio import SeqIO
        except ImportError as error:
            raise ImportError(
                f"filetype={filetype!r} needs biopython; install fireworks-ml anew, or biopython"
            ) from error
        known = sorted(SeqIO._FormatToIterator)  # there is no public list
        if filetype not in known:
            nearest = did_you_mean(str(filetype).lower(), known)
            raise ValueError(f"no filetype {filetype!r}{nearest} Filetypes: {', '.join(known)}")
        self.path = os.path.abspath(path)
        self.filetype = filetype
        self.dtypes = dict(Fasta.dtypes)
        if filetype in _WITH_QUALITIES:
            self.dtypes[QUALITIES] = OBJECT
        self._file: IO[Any] | None = None
        self._records: Any = None
        self._row = 0  # of the next record
        with open(self.path, "rb") as file:
            if not file.read(1):
                raise FormatError(f"{self.path}: expected {filetype} records, but it is empty")

    def after(self, offset: int, row: int) -> Block | None:
        """The next record, or None at the end. The offset is always 0."""
        if self._records is None or self._row > row:
            self._open()
        while True:
            record = self._next()
            if record is None:
                self.close()
                return None
            if self._row > row:
                return Block(self._columns(record), 1, 0, None)

    def _open(self) -> None:
        from Bio import SeqIO

        self.close()
        self._row = 0
        mode = getattr(SeqIO._FormatToIterator[self.filetype], "modes", "t")[0]
        with open(self.path, "rb") as file:
            opener: Any = gzip.open if file.read(2) == b"\x1f\x8b" else open
        self._file = opener(self.path, f"r{mode}", encoding="utf-8" if mode == "t" else None)
        try:
            self._records = SeqIO.parse(self._file, self.filetype)
        except Exception as error:
            raise self._malformed(error) from error

    def _next(self) -> Any:
        from Bio import BiopythonParserWarning

        try:
            with warnings.catch_warnings():
                # Where GenBank files are cut off, the parser only warns, and gives what there is.
                warnings.filterwarnings("error", message="Premature end", category=BiopythonParserWarning)
                record = next(self._records, None)
        except Exception as error:  # parsers of malformed files fail in any way
            raise self._malformed(error) from error
        if record is not None:
            self._row += 1
        elif not self._row:
            raise FormatError(f"{self.path}: expected {self.filetype} records, got none{self._guess()}")
        return record

    def _malformed(self, error: Exception) -> FormatError:
        self.close()
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise error
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            problem = f"expected a whole gzip file, but {error}"
        else:
            text = " ".join(str(error)[:300].split()) or "no reason given"  # some quote a whole line
            problem = f"expected a {self.filetype} record, but its parser says {type(error).__name__}: {text}"
        row = self._row
        return FormatError(f"{self.path}, record {row} (counted from 0): {problem}{'' if row else self._guess()}")

    def _guess(self) -> str:
        with open(self.path, "rb") as file:
            return looks_like(file.read(200), self.filetype)

    def _columns(self, record: Any) -> Columns:
        cells = [_text_of(record.seq), record.id, record.name, record.description]
        columns: Columns = {name: text_column([cell]) for name, cell in zip(TEXT_COLUMNS, cells, strict=True)}
        columns["dbxrefs"] = list_column([list(record.dbxrefs)])
        if QUALITIES in self.dtypes:
            scores = record.letter_annotations
            qualities = scores.get("phred_quality", scores.get("solexa_quality"))
            columns[QUALITIES] = list_column([None if qualities is None else list(qualities)])
        return columns

    def rows(self, positions: slice | np.ndarray) -> Message:
        """Not possible."""
        raise self._in_order_only()

    def __len__(self) -> int:
        raise self._in_order_only()

    def _in_order_only(self) -> TypeError:
        return TypeError(
            f"{self.filetype} files can be read in order only, so there are no rows by index and no length; "
            "put a LoopingPipe behind the BioSeqPipe"
        )

    def close(self) -> None:
        """Closes the file; reading goes on with a new one."""
        file, self._file, self._records = self._file, None, None
        if file is not None:
            file.close()

    def __del__(self) -> None:
        if self.__dict__.get("_file") is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_records": None, "_row": 0}


def _text_of(sequence: Any) -> str | None:
    """A sequence as text, or None where the file does not tell it (only its length, say)."""
    from Bio.Seq import UndefinedSequenceError

    if sequence is None:
        return None
    try:
        return str(sequence)
    except UndefinedSequenceError:
        return None
