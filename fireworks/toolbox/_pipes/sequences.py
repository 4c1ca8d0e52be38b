"""BioSeqPipe: the records of a file of biological sequences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.core.state import State, check_names
from fireworks.toolbox._pipes.batching import BatchingPipe
from fireworks.toolbox._pipes.sequence_columns import Cells, extend, message_of
from fireworks.toolbox._pipes.sequence_formats import Block
from fireworks.toolbox._pipes.sequence_records import open_records
from fireworks.utils.exceptions import StateError
from fireworks.utils.utils import RowIndex, as_positions

__all__ = ["BioSeqPipe"]

_OWN_STATE = ("position", "block", "row", "size")


class BioSeqPipe(Pipe):
    """Reads the records of a sequence file, as rows with text columns: in order, and FASTA and FASTQ by index too.

    Columns are `sequences`, `ids`, `names`, `descriptions` and `dbxrefs` (a list per row), and in formats with a
    quality for each letter, such as FASTQ, `qualities` (a list of numbers per row). A sequence that the file does not
    tell, as in a GenBank file without one, is missing.

    Records are exactly those of `Bio.SeqIO.parse`. FASTA and FASTQ are read by blocks, without Biopython, and `[]` and
    `len` find their records through an index of where each begins, an int64 per record, built when it is first needed
    by one pass over the file. Other formats go through Biopython and have no `[]` and `len`; put a LoopingPipe, and a
    CachingPipe to remember rows, behind them.

    Files may be compressed by gzip. For `[]` of FASTA and FASTQ, a gzip file is decompressed once, into a temporary
    file without a name, which takes disk space (set TMPDIR to choose where); bgzip files are read in place, block by
    block. A file must not change while it is read.

    A file that was cut off is an error wherever its format can tell, also where Biopython reads on: without a closing
    `//` (GenBank, EMBL, IMGT, Swiss-Prot, Stockholm), `END_SEQUENCE`, `end;` or `>>><<<`; with fewer reads, residues or
    letters than it says; an entry of the PDB without `END`. A zero byte in FASTA, left by a crash, is an error too.

    What cannot be told from a whole file, and is read: FASTA (any kind), `qual`, `tab`, `gfa1`, `gfa2` and `ig` cut
    within a sequence or title, or at the end of a line; alignments in `clustal`, `maf` and `mauve` cut between rows or
    blocks; `xdna` and `snapgene` between their parts; PDB and mmCIF files whose writers set no mark at the end. A gzip
    file that was cut off is always found.

    Args:
        path: The file. It is opened by each process anew, so pipes can be sent to worker processes.
        input: Where to look for attributes that this pipe lacks; nothing is read from it.
        filetype: The name of a format in Biopython: 'fasta', 'fastq' (also 'fastq-solexa', 'fastq-illumina'),
            'genbank', 'embl', 'swiss', ...

    Attributes:
        position: How many rows were read since the start.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: The file is empty, cut off, malformed, or of another format, found at once or when that record is
            read; tells file, record, what was expected and what came.
        ValueError: There is no such filetype; the text lists them.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> size = (folder / "genes.fasta").write_text(">a first gene\\nACGT\\nAC\\n>b\\nTTT\\n")
        >>> genes = BioSeqPipe(folder / "genes.fasta")
        >>> [row["sequences"][0] for row in genes], len(genes)
        (['ACGTAC', 'TTT'], 2)
        >>> genes[-1]["ids"][0], genes[[1, 0]]["descriptions"].tolist()
        ('b', ['b', 'a first gene'])
    """

    name = "BioSeqPipe"

    def __init__(self, path: str | os.PathLike[str], input: Any = None, filetype: str = "fasta", **kwargs: Any) -> None:
        super().__init__(input, **kwargs)
        self.path = path
        self.filetype = filetype
        self._records = open_records(path, filetype)
        # Pipes behind this one read rows by index where that gives the same as iterating.
        self.iterates_differently = not self._records.can_index
        self.position = 0
        self._start_at(0, 0)

    def _start_at(self, offset: int, row: int) -> None:
        """Goes on at this place of the file, where this row begins."""
        self._block: Block | None = None
        self._block_start = offset
        self._next_start = offset
        self._first_row = row  # of the block
        self._next_row = row  # of the block after it
        self._rows: Iterator[Message] = iter(())  # what is left of the block, while it is read row by row

    def __next__(self) -> Message:
        row = next(self._rows, None)
        if row is None:
            block = self._current()
            if block is None:
                raise StopIteration
            rows = range(self.position - self._first_row, block.rows)
            message = message_of(block.cells, self._records.dtypes)
            self._rows = map(message._take, map(slice, rows, range(rows.start + 1, block.rows + 1)))
            row = next(self._rows)
        self.position += 1
        return row

    def _current(self) -> Block | None:
        """The block that holds the next row, or None at the end."""
        while self._block is None or self.position >= self._next_row:
            block = self._records.after(self._next_start, self._next_row)
            if block is None:
                if self.position > self._next_row:
                    raise StateError(
                        f"cannot go on at row {self.position} of {self.path}: it has {self._next_row} rows now"
                    )
                return None
            self._block = block
            self._block_start, self._next_start = self._next_start, block.end
            self._first_row, self._next_row = self._next_row, self._next_row + block.rows
        return self._block

    def _next_rows(self, count: int) -> Message:
        """The next rows as one message, fewer at the end; all of them are still to come when one is malformed."""
        begin = self.position, self._block_start, self._first_row
        self._rows = iter(())
        cells: Cells = {}
        try:
            while count and (block := self._current()) is not None:
                start = self.position - self._first_row
                stop = min(start + count, block.rows)
                extend(cells, block.cells, start, stop)
                self.position += stop - start
                count -= stop - start
        except Exception:
            self.position = begin[0]
            self._start_at(*begin[1:])
            raise
        return message_of(cells, self._records.dtypes) if cells else Message()

    def batches(self, n: int) -> BatchingPipe:
        """A pipe of messages of n rows, the last one with what is left; reading on within the file, without an index.

        It moves this pipe, so what is resumed in the middle of an epoch goes on with the next row.

        Args:
            n: Rows per batch.

        Raises:
            ValueError: `n` is no positive number.

        Example:
            >>> path = getfixture("tmp_path") / "reads.fastq"
            >>> size = path.write_text("@a\\nAC\\n+\\nII\\n@b\\nG\\n+\\n!\\n@c\\nT\\n+\\nI\\n")
            >>> [batch["qualities"].tolist() for batch in BioSeqPipe(path, filetype="fastq").batches(2)]
            [[[40, 40], [0]], [[40]]]
        """
        return _SequenceBatches(self, batch_size=n)

    def __getitem__(self, index: RowIndex) -> Message:
        records = self._records
        return records.rows(as_positions(index, len(records), "pipe"))

    def __len__(self) -> int:
        return len(self._records)

    @property
    def batches_per_epoch(self) -> int | None:
        """How many rows an epoch yields, by an index of the file; None where there can be none."""
        return len(self) if self._records.can_index else None

    def reset(self) -> BioSeqPipe:
        """Starts over with the first record."""
        self.position = 0
        self._start_at(0, 0)
        return self

    def get_state(self) -> State:
        """The position, where in the file the block with the next row begins, and the size of the file."""
        state = super().get_state()
        state["internal"] |= {
            "position": self.position,
            "block": self._block_start,
            "row": self._first_row,
            "size": os.path.getsize(self._records.path),
        }
        return state

    def set_state(self, state: State) -> None:
        """Goes on with the same row, without reading the file up to there where FASTA or FASTQ is not in plain gzip.

        Raises:
            StateError: The state is of another kind of pipe, or of another file.
        """
        internal = dict(state["internal"])
        own = {name: internal.pop(name) for name in _OWN_STATE if name in internal}
        check_names(own, dict.fromkeys(_OWN_STATE), what=type(self).__name__)
        size = os.path.getsize(self._records.path)
        if own["size"] != size:
            raise StateError(f"the state is of a file of {own['size']} bytes, but {self.path} has {size}")
        super().set_state({"internal": internal, "external": {}})
        self.position = own["position"]
        self._start_at(own["block"], own["row"])

    def __getstate__(self) -> dict[str, Any]:
        # An iterator cannot be pickled with its rows; the block is read again.
        attributes = self.__dict__ | {"_rows": iter(()), "_block": None}
        return attributes | {"_next_start": self._block_start, "_next_row": self._first_row}


class _SequenceBatches(BatchingPipe):
    """Batches of a BioSeqPipe, which keeps the position."""

    name = "SequenceBatches"

    def __next__(self) -> Message:
        batch = self.input._next_rows(self.batch_size)
        if not len(batch):
            raise StopIteration
        return batch
