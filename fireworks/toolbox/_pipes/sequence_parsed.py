"""Records of sequence files of any format that Biopython reads, one after the other."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
import warnings
import zlib
from typing import IO, Any

import numpy as np

from fireworks.core.message import Message
from fireworks.toolbox._pipes.sequence_bytes import Path
from fireworks.toolbox._pipes.sequence_columns import DTYPES, DTYPES_WITH_QUALITIES, TEXT_COLUMNS, Cells
from fireworks.toolbox._pipes.sequence_endings import CutOffError, WatchedText, check_size
from fireworks.toolbox._pipes.sequence_formats import Block, looks_like
from fireworks.utils.exceptions import FormatError, did_you_mean

__all__ = ["ParsedRecords"]

# Formats whose parsers of Biopython give a quality for each letter.
_WITH_QUALITIES = frozenset({"abi", "abi-trim", "ace", "phd", "qual", "sff", "sff-trim"})
_CUT_OFF_WARNINGS = ("Premature end", "Expected sequence length", "Segment line has incorrect")


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
            nearest = did_you_mean(str(filetype).lower(), known) or "."
            raise ValueError(f"no filetype {filetype!r:.80}{nearest} Filetypes: {', '.join(known)}")
        self.path = os.path.abspath(path)
        self.filetype = filetype
        self.dtypes = DTYPES_WITH_QUALITIES if filetype in _WITH_QUALITIES else DTYPES
        self._file: Any = None
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
            cells = self._next()
            if cells is None:
                self.close()
                return None
            if self._row > row:
                return Block(cells, 1, 0, None)

    def _open(self) -> None:
        from Bio import SeqIO

        self.close()
        self._row = 0
        iterator = SeqIO._FormatToIterator[self.filetype.removesuffix("-trim")]  # a function says no mode
        is_text = getattr(iterator, "modes", "t")[0] == "t"
        with open(self.path, "rb") as file:
            opener: Any = gzip.open if file.read(2) == b"\x1f\x8b" else open
        self._file = opener(self.path, "rb")
        try:
            if opener is gzip.open and self.filetype == "twobit":
                self._file = _decompressed(self._file)  # its parser reads by the file's descriptor
            if is_text:
                self._file = WatchedText(self._file, self.filetype)
            else:
                check_size(self._file, self.filetype)
            self._records = SeqIO.parse(self._file, self.filetype)
        except Exception as error:
            raise self._malformed(error) from error

    def _next(self) -> Cells | None:
        """The cells of the next record, or None at the end."""
        from Bio import BiopythonWarning

        try:
            with warnings.catch_warnings():
                # Where a file is cut off, or a sequence has another length than it says, some parsers only warn.
                for message in _CUT_OFF_WARNINGS:
                    warnings.filterwarnings("error", message=message, category=BiopythonWarning)
                record = next(self._records, None)
            if record is not None and isinstance(self._file, WatchedText):
                self._file.ending.check(record.seq)
            cells = None if record is None else self._cells(record)
        except Exception as error:  # parsers of malformed files fail in any way
            raise self._malformed(error) from error
        if cells is not None:
            self._row += 1
        elif not self._row:
            self.close()
            raise FormatError(f"{self.path}: expected {self.filetype} records, got none{self._guess()}")
        return cells

    def _malformed(self, error: Exception) -> FormatError:
        self.close()
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise error
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            problem = f"expected a whole gzip file, but {error}"
        elif isinstance(error, CutOffError):
            problem = str(error)
        else:
            text = " ".join(str(error)[:300].split()) or "no reason given"  # some quote a whole line
            problem = f"expected a {self.filetype} record, but its parser says {type(error).__name__}: {text}"
        row = self._row
        return FormatError(f"{self.path}, record {row} (counted from 0): {problem}{'' if row else self._guess()}")

    def _guess(self) -> str:
        with open(self.path, "rb") as file:
            return looks_like(file.read(200), self.filetype)

    def _cells(self, record: Any) -> Cells:
        texts = [_text_of(record.seq), record.id, record.name, record.description]
        cells: Cells = {name: [text] for name, text in zip(TEXT_COLUMNS, texts, strict=True)}
        cells["dbxrefs"] = [list(record.dbxrefs)]
        if "qualities" in self.dtypes:
            scores = record.letter_annotations
            qualities = scores.get("phred_quality", scores.get("solexa_quality"))
            cells["qualities"] = [None if qualities is None else list(qualities)]
        return cells

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


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """The bytes of a compressed file in a temporary one without a name."""
    with file, contextlib.ExitStack() as stack:
        result = stack.enter_context(tempfile.TemporaryFile(prefix="fireworks-"))
        shutil.copyfileobj(file, result)
        result.seek(0)
        stack.pop_all()  # whoever gets the file closes it
    return result


def _text_of(sequence: Any) -> str | None:
    """A sequence as text, or None where the file does not tell it (only its length, say)."""
    from Bio.Seq import UndefinedSequenceError

    if sequence is None:
        return None
    try:
        return str(sequence)
    except UndefinedSequenceError:
        return None
