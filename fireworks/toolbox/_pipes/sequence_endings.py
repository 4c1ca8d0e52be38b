"""Whether sequence files end as they should: what parsers of Biopython read over, and give less than there was.

A text is watched line by line while a parser reads it, so that a file that was cut off is an error before the parser
makes a record of what is left. Binary files are looked at once, where they say how long they are.
"""

from __future__ import annotations

import io
import re
import struct
from collections import Counter
from collections.abc import Callable
from typing import IO, Any

__all__ = ["CutOffError", "WatchedText", "check_size"]

_WAITING = 10_000  # so often a parser may ask for a line behind the end; that of Clustal does so for ever


class CutOffError(Exception):
    """The file ends where it should not; the text says what was expected."""


class _Ending:
    """What the lines of a file say about its end."""

    def __init__(self) -> None:
        self.last = ""  # the last line, and the last one that is not blank
        self.last_text = ""

    def see(self, line: str) -> None:
        """Looks at the next line."""
        self.last = line
        if text := line.strip():
            self.last_text = text

    def missing(self) -> str | None:
        """What is missing when no line comes any more, or None."""
        return None

    def check(self, sequence: Any) -> None:
        """Looks at the sequence of the next record."""


class _Marked(_Ending):
    """Records, or alignments, that begin with a mark and end with another."""

    def __init__(self, begin: str, end: str, repeats: bool = True) -> None:
        super().__init__()
        self._begin, self._end, self._repeats = begin, end, repeats
        self._is_open = False

    def see(self, line: str) -> None:
        super().see(line)
        if line.startswith(self._begin):
            if self._is_open and not self._repeats:
                raise CutOffError(f"expected a line {self._end!r} before {line.strip()!r:.60}, got none")
            self._is_open = True
        elif line.strip() == self._end:
            self._is_open = False

    def missing(self) -> str | None:
        if self._is_open:
            return f"a line {self._end!r}"
        if self.last_text and self._begin.startswith(self.last_text):
            return f"a line that starts with {self._begin.strip()!r}"
        return None


class _Ace(_Ending):
    """Contigs and reads, as many as the first line says."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: list[str] = []
        self._found: Counter[str] = Counter()

    def see(self, line: str) -> None:
        super().see(line)
        self._found[line[:3]] += 1
        if line.startswith("AS "):
            self._declared = line.split()[1:3]

    def missing(self) -> str | None:
        found = [str(self._found["CO "]), str(self._found["RD "])]
        if self._declared in ([], found):
            return None
        return f"{' contigs and '.join(self._declared)} reads, as it says, after {' and '.join(found)} of them"


class _Pir(_Ending):
    """A title, a description, and a sequence."""

    def missing(self) -> str | None:
        return "a description and a sequence" if self.last.startswith(">") else None


class _Ig(_Ending):
    """Comments, a title, and a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self._before_title = False

    def see(self, line: str) -> None:
        if line.strip():
            self._before_title = self.last_text.startswith(";")
        super().see(line)

    def missing(self) -> str | None:
        if self.last_text.startswith(";"):
            return "a title and a sequence"
        return "a sequence" if self._before_title else None


class _Phylip(_Ending):
    """Alignments that begin with the number of their sequences, and how long these are; their rows come in groups."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: list[tuple[int, int]] = []
        self._count = 0  # of sequences, and lines of them, in the alignment that is read now
        self._rows = 0
        self._records = 0  # of the alignment that is given now

    def see(self, line: str) -> None:
        super().see(line)
        if not line.strip():
            return
        # Rows may look like the first line too, where names are numbers.
        may_begin = self._rows % self._count == 0 and self._rows > 0 if self._count else True
        if may_begin and re.fullmatch(r"\s*\d+\s+\d+\s*", line, re.ASCII):
            count, length = map(int, line.split())
            self._declared.append((count, length))
            self._count, self._rows = count, 0
        else:
            self._rows += 1

    def check(self, sequence: Any) -> None:
        count, expected = self._declared[0]
        if len(sequence) != expected:
            raise CutOffError(f"expected a sequence of {expected} letters, as the file says, got {len(sequence)}")
        self._records += 1
        if self._records == count:
            del self._declared[0]
            self._records = 0


class _SequentialPhylip(_Ending):
    """Sequences of a length that the parser knows, but does not look for behind the end."""

    def check(self, sequence: Any) -> None:
        if not len(sequence):
            raise CutOffError("expected a sequence, got the end of the file; is it cut off?")


class _Maf(_Ending):
    """Rows that say how many letters they have; some that hide letters by dots have more."""

    def see(self, line: str) -> None:
        super().see(line)
        fields = line.split()
        if len(fields) == 7 and fields[0] == "s" and fields[3].isdigit():
            letters = len(fields[6]) - fields[6].count("-")
            if letters < int(fields[3]):
                raise CutOffError(f"expected {fields[3]} letters in {fields[1]!r:.60}, as it says, got {letters}")

    def missing(self) -> str | None:
        return "rows of an alignment" if self.last_text.split()[:1] == ["a"] else None


class _FastaOutput(_Ending):
    """Queries, and a mark behind the last one."""

    def __init__(self) -> None:
        super().__init__()
        self._is_open = False

    def see(self, line: str) -> None:
        super().see(line)
        if re.match(r"\s*\d*>>>", line):
            self._is_open = not line.startswith((">>><<<", ">>>///"))

    def missing(self) -> str | None:
        return "a line '>>><<<'" if self._is_open else None


class _Nexus(_Ending):
    """Blocks that begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self._is_open = False

    def see(self, line: str) -> None:
        super().see(line)
        for command in re.findall(r"^\s*begin\b|\bend(?:block)?\s*;", line, re.IGNORECASE):
            self._is_open = command.strip().lower() == "begin"

    def missing(self) -> str | None:
        return "a line 'end;'" if self._is_open else None


class _Pdb(_Ending):
    """Chains of as many residues as the file says; entries of the database end with a line of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: dict[str, int] = {}
        self._found: Counter[str] = Counter()
        self._is_entry = False

    def see(self, line: str) -> None:
        super().see(line)
        self._is_entry = self._is_entry or line.startswith("HEADER")
        if line.startswith("SEQRES") and line[13:17].strip().isdigit():
            self._declared[line[11]] = int(line[13:17])
            self._found[line[11]] += len(line[19:70].split())

    def missing(self) -> str | None:
        for chain, count in self._declared.items():
            if self._found[chain] < count:
                return f"{count} residues of chain {chain!r}, as it says, after {self._found[chain]} of them"
        return "a line 'END'" if self._is_entry and self.last_text != "END" else None


class _Cif(_Ending):
    """Categories with '#' before and after each; where they are written otherwise, the end cannot be told."""

    def __init__(self) -> None:
        super().__init__()
        self._has_marks = False

    def see(self, line: str) -> None:
        self._has_marks = self._has_marks or (self.last_text.startswith("data_") and line.strip() == "#")
        super().see(line)

    def missing(self) -> str | None:
        return "a line '#' after the last category" if self._has_marks and self.last_text != "#" else None


_ENDINGS: dict[str, Callable[[], _Ending]] = {
    **dict.fromkeys(("genbank", "gb", "genbank-cds"), lambda: _Marked("LOCUS       ", "//")),
    **dict.fromkeys(("embl", "embl-cds", "imgt", "swiss"), lambda: _Marked("ID   ", "//")),
    "stockholm": lambda: _Marked("# STOCKHOLM 1.0", "//", repeats=False),
    "phd": lambda: _Marked("BEGIN_SEQUENCE", "END_SEQUENCE"),
    "fasta-m10": _FastaOutput,
    "maf": _Maf,
    "ace": _Ace,
    "pir": _Pir,
    "ig": _Ig,
    **dict.fromkeys(("phylip", "phylip-relaxed"), _Phylip),
    "phylip-sequential": _SequentialPhylip,
    "nexus": _Nexus,
    **dict.fromkeys(("pdb-atom", "pdb-seqres"), _Pdb),
    **dict.fromkeys(("cif-atom", "cif-seqres"), _Cif),
}


class WatchedText(io.TextIOWrapper):
    """A text file that looks at the lines that are read of it, and knows when it ends too early."""

    def __init__(self, file: IO[bytes], filetype: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.ending = _ENDINGS.get(filetype, _Ending)()
        self._left = _WAITING

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """The next line; iterating reads by this method too.

        Raises:
            CutOffError: There is none, and there should be.
        """
        line = super().readline(size)
        if line:
            self.ending.see(line)
        else:
            self._end()
        return line

    def read(self, size: int | None = -1, /) -> str:
        """The rest, or so many characters, which are looked at only as the rest.

        Raises:
            CutOffError: There should be more.
        """
        text = super().read(size)
        if size is None or size < 0:
            for line in text.splitlines(keepends=True):
                self.ending.see(line)
            self._end()
        return text

    def _end(self) -> None:
        self._left -= 1
        missing = self.ending.missing() if self._left else "more lines"
        if missing is not None:
            raise CutOffError(f"expected {missing}, got the end of the file; is it cut off?")


def check_size(file: IO[bytes], filetype: str) -> None:
    """Checks that a binary file is as long as it says.

    Raises:
        CutOffError: It is shorter.
    """
    expected = _SIZES[filetype](file) if filetype in _SIZES else 0
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size < expected:
        raise CutOffError(f"expected {expected} bytes, as the file says, got {size}; is it cut off?")


def _numbers(file: IO[bytes], layout: str) -> tuple[Any, ...]:
    size = struct.calcsize(layout)
    data = file.read(size)
    if len(data) < size:
        raise CutOffError(f"expected {size} bytes at byte {file.tell() - len(data)}, got {len(data)}; is it cut off?")
    return struct.unpack(layout, data)


def _order(file: IO[bytes], signature: int) -> str | None:
    """The order of bytes by which a file begins with this number, or None where it does not."""
    (first,) = _numbers(file, "<I")
    return {signature: "<", int.from_bytes(signature.to_bytes(4, "little"), "big"): ">"}.get(first)


def _size_of_nib(file: IO[bytes]) -> int:
    order = _order(file, 0x6BE93D3A)
    return 8 + (_numbers(file, f"{order}I")[0] + 1) // 2 if order else 0


def _size_of_two_bit(file: IO[bytes]) -> int:
    order = _order(file, 0x1A412743)
    if order is None:
        return 0
    version, count, _ = _numbers(file, f"{order}3I")
    if version:
        return 0
    offsets: list[int] = []
    for _ in range(count):
        (length,) = _numbers(file, "B")
        _numbers(file, f"{length}s")
        offsets += _numbers(file, f"{order}I")
    expected = file.tell()
    for offset in offsets:
        file.seek(offset)
        (letters,) = _numbers(file, f"{order}I")
        for _ in ("unknown", "masked"):
            (blocks,) = _numbers(file, f"{order}I")
            file.seek(8 * blocks, io.SEEK_CUR)
        _numbers(file, "4s")
        expected = max(expected, file.tell() + (letters + 3) // 4)
    return expected


def _size_of_sff(file: IO[bytes]) -> int:
    signature, _, offset, length = _numbers(file, ">4s4sQI")
    return offset + length if signature == b".sff" else 0


_SIZES: dict[str, Callable[[IO[bytes]], int]] = {
    "nib": _size_of_nib,
    "twobit": _size_of_two_bit,
    **dict.fromkeys(("sff", "sff-trim"), _size_of_sff),
}
