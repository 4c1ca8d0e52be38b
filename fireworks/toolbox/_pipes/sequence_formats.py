"""FASTA and FASTQ: where records begin and what they hold, exactly as `Bio.SeqIO.parse` reads them, but by blocks.

What SeqIO does, and so do we: a line ends with LF, CR or CRLF; blanks and tabs within a FASTA sequence are left out;
nothing may stand before the first record; a line of a FASTQ record is read as what it must be by then, whatever it
starts with. Sequences must be ASCII, titles UTF-8. What SeqIO does, and we do not: read zero bytes in FASTA, which a
crash of the machine leaves in place of text.
"""

from __future__ import annotations

import array
from typing import Any, NamedTuple, Protocol

from fireworks.toolbox._pipes.sequence_columns import DTYPES, DTYPES_WITH_QUALITIES, Cells

_LINE_END = 10  # LF

# How files of other formats begin, for errors that say which filetype might be meant.
_BEGINNINGS = {
    b">": "fasta",
    b"@": "fastq",
    b";": "fasta-pearson",
    b"LOCUS ": "genbank",
    b"ID   ": "embl",
    b"CLUSTAL": "clustal",
    b"#NEXUS": "nexus",
    b"# STOCKHOLM": "stockholm",
    b".sff": "sff",
    b"ABIF": "abi",
}


class Block(NamedTuple):
    """Consecutive records: their cells, where the next one begins, and what is wrong with that one, if anything."""

    cells: Cells
    rows: int
    end: int
    problem: str | None


class Format(Protocol):
    """A format of records that can be found by scanning bytes."""

    dtypes: dict[str, Any]

    def wrong_start(self, data: bytes) -> str | None:
        """What is wrong when a record starts like this, or None."""

    def parse(self, data: bytes, final: bool) -> Block:
        """The whole records at the start of some bytes, up to the first that is malformed or unfinished.

        Args:
            data: Bytes from the start of a record on.
            final: Nothing comes after them.
        """

    # Bytes that files may well lack; where they do, `one` can be asked.
    rare: tuple[bytes, ...] = ()

    def one(self, data: bytes) -> Cells | None:
        """The cells of one whole record without rare bytes by a shorter way, or None where there is none."""
        return None

    def starts(self, data: bytes, final: bool, before: int) -> tuple[list[int], int, str | None]:
        """Where records start in some bytes, how many of the bytes are done with, and what is wrong behind them.

        Args:
            data: The bytes after those that were done with before.
            final: Nothing comes after them.
            before: The byte before them.
        """


def looks_like(beginning: bytes, filetype: str) -> str:
    """What a file with this beginning might be instead, as the end of an error text."""
    for mark, other in _BEGINNINGS.items():
        if beginning.startswith(mark) and other != filetype:
            return f"; it looks like filetype={other!r}"
    return ""


def _shown(data: bytes) -> str:
    line = data[:200].splitlines()[0] if data else b""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 40 else text[:40] + "...")


class Fasta(Format):
    """Records of a title line that starts with '>' and any number of lines of sequence."""

    dtypes = DTYPES
    rare = (b"\r", b"\t", b"\0")

    def wrong_start(self, data: bytes) -> str | None:
        """What is wrong when a record starts like this, or None."""
        if data[:1] == b">":
            return None
        return f"expected a FASTA record, which starts with '>', got {_shown(data)}{looks_like(data, 'fasta')}"

    def parse(self, data: bytes, final: bool) -> Block:
        """The whole records at the start of some bytes."""
        if data[:1] != b">":
            return Block({}, 0, 0, self.wrong_start(data))
        end = size = len(data) if final else _last_start(data)
        if not end:
            return Block({}, 0, 0, None)
        body = data
        if b"\r" in data:
            body = data[:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            size = len(body)
        titles, sequences, problem = _read_plain(body, size) or _read_each(body[:size])
        if problem is not None:
            end = _record_starts(data, _LINE_END)[len(sequences)]
        return Block({"sequences": sequences, "descriptions": titles}, len(sequences), end, problem)

    def one(self, data: bytes) -> Cells | None:
        """The cells of one whole record of ASCII without blanks in the sequence, in half the time of `parse`."""
        end = data.find(b"\n")
        try:
            text = data.replace(b"\n", b"").decode("ascii")
        except UnicodeDecodeError:
            return None
        letters = text[end:]
        if end < 0 or data[0] != 62 or " " in letters:
            return None
        return {"sequences": [letters], "descriptions": [text[1:end].rstrip()]}

    def starts(self, data: bytes, final: bool, before: int) -> tuple[list[int], int, str | None]:
        """Where records start; one look at each '>' is enough, so all bytes are done with."""
        return _record_starts(data, before), len(data), None


def _positions(data: bytes, byte: bytes) -> list[int]:
    """Where a byte is, everywhere."""
    positions = []
    find = data.find
    at = find(byte)
    while at >= 0:
        positions.append(at)
        at = find(byte, at + 1)
    return positions


def _record_starts(data: bytes, before: int) -> list[int]:
    """Where each '>' is that begins a line; `before` is the byte before the data."""
    positions = _positions(data, b">")
    first = positions[:1] if positions[:1] == [0] and before in b"\r\n" else []
    return first + [at for at in positions if at and data[at - 1] in b"\r\n"]


def _last_start(data: bytes) -> int:
    at = data.rfind(b">")
    while at > 0 and data[at - 1] not in b"\r\n":
        at = data.rfind(b">", 0, at)
    return at


def _read_plain(data: bytes, size: int) -> tuple[list[str], list[str], None] | None:
    """Titles and sequences of the records in the first bytes of some data whose lines end with LF.

    They are cut out of all lines joined: joining the lines of each record takes twice as long. None where something is
    in the way: other letters than ASCII, '>' within a line of a sequence, blanks, zero bytes.
    """
    joined = data.replace(b"\n", b"")
    if b"\t" in joined or b"\0" in joined:
        return None
    try:
        text = str(joined, "ascii")
    except UnicodeDecodeError:
        return None
    titles: list[str] = []
    sequences: list[str] = []
    find, find_joined = data.find, joined.find
    start = mark = 0  # of the '>' in the data, and in what is joined
    while start < size:
        end = find(b"\n", start)
        if end < 0:
            end = size
        letters = mark + end - start
        titles.append(text[mark + 1 : letters].rstrip())
        start, mark = find(b">", end), find_joined(b">", letters)
        if start < 0:
            start, mark = size, len(text)
        sequence = text[letters:mark]
        if " " in sequence or (start < size and data[start - 1] != _LINE_END):
            return None
        sequences.append(sequence)
    return titles, sequences, None


def _read_each(body: bytes) -> tuple[list[str], list[str], str | None]:
    """Titles and sequences of records whose lines end with LF, up to a malformed one, and what is wrong with that."""
    titles: list[str] = []
    sequences: list[str] = []
    has_nulls, has_tabs = b"\0" in body, b"\t" in body
    start = 0
    for stop in [*_record_starts(body, _LINE_END)[1:], len(body)]:
        end = body.find(b"\n", start, stop)
        if end < 0:
            end = stop
        letters = body[end + 1 : stop].replace(b"\n", b"")
        if has_tabs or b" " in letters:
            letters = letters.translate(None, b" \t")
        if has_nulls and b"\0" in body[start:stop]:
            return titles, sequences, "expected text, got a zero byte; the file is damaged, or no FASTA"
        try:
            sequence, title = str(letters, "ascii"), str(body[start + 1 : end], "utf-8").rstrip()
        except UnicodeDecodeError as error:
            what = "a sequence of ASCII letters" if error.encoding == "ascii" else "a title in UTF-8"
            return titles, sequences, f"expected {what}, got byte {error.object[error.start]:#04x}"
        sequences.append(sequence)
        titles.append(title)
        start = stop
    return titles, sequences, None


class Fastq(Format):
    """Records of a title line that starts with '@', lines of sequence, a line that starts with '+', lines of qualities.

    Sequence and qualities may be wrapped, and lines of qualities may start with '@' or '+': they go on until there is
    a quality for each letter.

    Args:
        offset: The character of quality 0.
        lowest: The lowest quality.
        highest: The highest quality.
    """

    dtypes = DTYPES_WITH_QUALITIES

    def __init__(self, offset: int, lowest: int, highest: int) -> None:
        self._valid = bytes(range(offset + lowest, offset + highest + 1))
        self._scores = bytes((code - offset) % 256 for code in range(256))

    def wrong_start(self, data: bytes) -> str | None:
        """What is wrong when a record starts like this, or None."""
        if data[:1] == b"@":
            return None
        return f"expected a FASTQ record, which starts with '@', got {_shown(data)}{looks_like(data, 'fastq')}"

    def parse(self, data: bytes, final: bool) -> Block:
        """The whole records at the start of some bytes."""
        titles: list[str] = []
        sequences: list[str] = []
        qualities: list[list[int]] = []
        end = 0
        problem = None
        lines = _Lines(data, final)
        while lines.more:
            end = lines.offset
            try:
                record = self._read(lines)
                if record is None:
                    break
                title, sequence, quality = record
                qualities.append(self._decode(quality))
            except _MalformedError as error:
                problem = str(error)
                break
            sequences.append(sequence)
            titles.append(title)
            end = lines.offset
        cells: Cells = {"sequences": sequences, "descriptions": titles, "qualities": qualities}
        return Block(cells, len(titles), end, problem)

    def _read(self, lines: _Lines) -> tuple[str, str, str] | None:
        """The next record's title, sequence and qualities as text, or None when its end is not among the lines."""
        wrong = self.wrong_start(lines.peek())
        if wrong is not None:
            raise _MalformedError(wrong)
        title = lines.take()[1:]
        sequence = ""
        while (first := lines.peek()[:1]) != b"+":
            if not first:
                _check_unfinished(lines, "a line that starts with '+' after the sequence", title)
                return None
            sequence += lines.take()
        second_title = lines.take()[1:]
        if second_title and second_title != title:
            raise _MalformedError(f"expected '+' with the title {title!r:.60} or alone, got {second_title!r:.60}")
        if not lines.more:
            _check_unfinished(lines, "a line of qualities after '+'", title)
            return None
        quality = ""
        while first := lines.peek()[:1]:
            if first == b"@" and len(quality) >= len(sequence):
                break
            quality += lines.take()
        else:
            if not lines.final:
                return None
        _check_fastq(title, sequence, quality)
        return title, sequence, quality

    def _decode(self, quality: str) -> list[int]:
        """Qualities as numbers."""
        codes = quality.encode("utf-8", "surrogateescape")
        if codes.translate(None, self._valid):
            wrong = next(letter for letter in quality if letter.encode("utf-8", "surrogateescape") not in self._valid)
            raise _MalformedError(
                f"expected qualities from {chr(self._valid[0])!r} to {chr(self._valid[-1])!r}, got {wrong!r}; "
                "is it another FASTQ, such as filetype='fastq-sanger', 'fastq-solexa' or 'fastq-illumina'?"
            )
        return array.array("b", codes.translate(self._scores)).tolist()

    def starts(self, data: bytes, final: bool, before: int) -> tuple[list[int], int, str | None]:
        """Where records start, and end as they should; done with is what lies before the first unfinished one."""
        starts: list[int] = []
        lines = _Lines(data, final)
        while lines.more:
            start = lines.offset
            try:
                if self._read(lines) is None:
                    return starts, start, None
            except _MalformedError as error:
                return starts, start, str(error)
            starts.append(start)
        return starts, lines.offset, None


class _MalformedError(Exception):
    """A record that is none; the text says what was expected."""


class _Lines:
    """The lines of some bytes, one after the other, and where the next one starts."""

    def __init__(self, data: bytes, final: bool) -> None:
        self._lines = data.splitlines(keepends=True)  # of bytes: at CR, LF and CRLF only
        if not final and self._lines and not self._lines[-1].endswith(b"\n"):
            self._lines.pop()  # its end is not here, or (after a CR) possibly not
        self._next = 0
        self.final = final
        self.offset = 0

    @property
    def more(self) -> bool:
        """Whether there is a line left."""
        return self._next < len(self._lines)

    def peek(self) -> bytes:
        """The next line, or nothing after the last."""
        return self._lines[self._next] if self._next < len(self._lines) else b""

    def take(self) -> str:
        """The next line, without white space at its end; bytes that are no UTF-8 as surrogates."""
        line = self._lines[self._next]
        self._next += 1
        self.offset += len(line)
        return line.decode("utf-8", "surrogateescape").rstrip()


def _check_fastq(title: str, sequence: str, quality: str) -> None:
    """Checks that the parts of a record are in order, except for the range of the qualities."""
    if not title:
        raise _MalformedError("expected a title after '@', got none")
    if not title.isascii() and any("\udc80" <= letter <= "\udcff" for letter in title):
        raise _MalformedError("expected a title in UTF-8, got other bytes")
    if not sequence.isascii() or not sequence.isprintable() or " " in sequence:
        raise _MalformedError(f"expected a sequence of ASCII letters without blanks, got {sequence!r:.60}")
    if len(quality) != len(sequence):
        raise _MalformedError(
            f"expected as many qualities as letters in {title!r:.60}, "
            f"got {len(quality)} qualities for {len(sequence)} letters"
        )


def _check_unfinished(lines: _Lines, expected: str, title: str) -> None:
    """Checks that there may be more lines, when a record is not at its end."""
    if lines.final:
        raise _MalformedError(f"expected {expected} of {title!r:.60}, got the end of the file; is it cut off?")


FORMATS: dict[str, Format] = {
    "fasta": Fasta(),
    "fastq": Fastq(33, 0, 93),
    "fastq-sanger": Fastq(33, 0, 93),
    "fastq-solexa": Fastq(64, -5, 62),
    "fastq-illumina": Fastq(64, 0, 62),
}
