"""BioSeqPipe: the records of SeqIO.parse, in order and by index, compressed or not, and files that hold none."""

from __future__ import annotations

import functools
import gzip
import io
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from Bio import SeqIO, bgzf
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fireworks.core.message import Message
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox._pipes.sequence_bytes import PlainBytes, open_bytes, seek_and_read
from fireworks.toolbox.pipes import BatchingPipe, BioSeqPipe, CachingPipe, LoopingPipe, RepeaterPipe, ShufflerPipe
from fireworks.utils.exceptions import ColumnError, FormatError, StateError

FASTQ_TYPES = ["fastq", "fastq-sanger", "fastq-solexa", "fastq-illumina"]
TEXTS = ["sequences", "ids", "names", "descriptions"]
COLUMNS = [*TEXTS, "dbxrefs"]

FASTA = b">one first gene\nACGT\nAC\n>two\nTTT\n>three third  gene\n\nggg\n>four\n"
FASTQ = b"@one first\nACGT\n+\n@+!I\n@two\nAC\nGT\n+two\nII\n@I\n@three\n\n+\n\n@four\nA\n+\n5"


def write(folder, data, name="genes.fasta"):
    """A file with these bytes."""
    path = Path(folder) / name
    path.write_bytes(data)
    return path


def write_bgzip(folder, data, block=None):
    """A bgzip file with these bytes, in blocks of a size."""
    path = Path(folder) / "genes.bgz"
    with bgzf.BgzfWriter(str(path)) as file:
        for start in range(0, len(data), block or max(1, len(data))):
            file.write(data[start : start + (block or len(data))])
            if block:
                file.flush()
    return path


def many_genes(rows=50):
    """Records that differ in every column, wrapped, as bytes."""
    lines = []
    for row in range(rows):
        sequence = ("ACGTTGCA" * (row + 1))[row % 5 :]
        lines += [f">gene{row} number {row}"] + [sequence[at : at + 60] for at in range(0, len(sequence), 60)]
    return ("\n".join(lines) + "\n").encode()


def many_reads(rows=30):
    """Reads that differ in every column, as bytes."""
    return "".join(f"@read{row}\n{'ACGT' * row}A\n+\n{'!5I~' * row}5\n" for row in range(rows)).encode()


def row_of(record):
    """What a row says, from a record of Biopython."""
    row = (str(record.seq), record.id, record.name, record.description, list(record.dbxrefs))
    return (*row, *(list(scores) for scores in record.letter_annotations.values()))


def rows_of(message):
    """What the rows of a message say."""
    return list(zip(*(message[name].tolist() for name in message.columns), strict=True))


def rows_in(messages):
    """What the rows of several messages say."""
    return [row for message in messages for row in rows_of(message)]


def parsed(data, filetype):
    """The rows that Biopython gives for these bytes, and whether it fails then."""
    rows = []
    try:
        with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") as file:
            for record in SeqIO.parse(file, filetype):
                rows.append(row_of(record))
    except Exception:
        return rows, True
    return rows, False


def read(make_pipe):
    """The rows that a pipe gives, and whether it fails then."""
    rows = []
    try:
        for message in make_pipe():
            rows += rows_of(message)
    except FormatError:
        return rows, True
    return rows, False


def small_blocks(path, filetype="fasta", size=16):
    """A pipe that reads so few bytes at a time that every record lies across blocks."""
    pipe = BioSeqPipe(path, filetype=filetype)
    pipe._records.block_bytes = size
    return pipe


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_record_is_a_row_of_text_with_a_list_of_references(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, FASTA))

    row = next(pipe)

    assert isinstance(row, Message) and len(row) == 1
    assert row.columns == COLUMNS
    assert rows_of(row) == [("ACGTAC", "one", "one", "one first gene", [])]
    assert {str(row[name].dtype) for name in TEXTS} == {"str"}


def test_a_read_has_a_quality_for_each_letter(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, FASTQ), filetype="fastq")

    assert pipe[:].columns == [*COLUMNS, "qualities"]
    assert pipe[:]["qualities"].tolist() == [[31, 10, 0, 40], [40, 40, 31, 40], [], [20]]


def test_each_row_has_a_list_of_references_of_its_own(tmp_path):
    rows = list(BioSeqPipe(write(tmp_path, FASTA)))

    rows[0]["dbxrefs"][0].append("changed")

    assert rows[0]["dbxrefs"][0] == ["changed"]
    assert rows[1]["dbxrefs"][0] == []


@pytest.mark.parametrize("first", ["sequences", "ids", "names", "descriptions", "dbxrefs", "qualities"])
@pytest.mark.parametrize("read", [next, lambda pipe: pipe[0], lambda pipe: next(pipe.batches(3)), lambda pipe: pipe[:]])
def test_columns_can_be_read_in_any_order(tmp_path, read, first):
    rows = read(BioSeqPipe(write(tmp_path, FASTQ), filetype="fastq"))
    expected = read(BioSeqPipe(write(tmp_path, FASTQ), filetype="fastq")).to_dict()

    rows.array(first)

    assert rows.columns == list(expected) and rows.to_dict() == expected
    assert pickle.loads(pickle.dumps(rows)) == rows
    with pytest.raises(ColumnError, match="no column 'quality'"):
        rows.array("quality")


@pytest.mark.parametrize("filetype, codes", [("fastq-solexa", ";@h~"), ("fastq-illumina", "@Bh~")])
def test_qualities_are_counted_from_the_character_of_their_format(tmp_path, filetype, codes):
    data = f"@a\nACGT\n+\n{codes}\n".encode()

    assert rows_in(BioSeqPipe(write(tmp_path, data), filetype=filetype)) == parsed(data, filetype)[0]


INDICES = [
    0,
    -1,
    3,
    slice(None),
    slice(1, 3),
    slice(None, None, -1),
    slice(0, 4, 2),
    slice(2, 2),
    [3, 0, 3],
    [],
    (1, 2),
]
INDICES += [range(3), np.array([2, 1]), np.int64(1), torch.tensor([0, 3]), [True, False, False, True]]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("data, filetype", [(FASTA, "fasta"), (FASTQ, "fastq")], ids=["fasta", "fastq"])
def test_rows_can_be_chosen_by_every_kind_of_index(tmp_path, data, filetype, index):
    pipe = BioSeqPipe(write(tmp_path, data), filetype=filetype)
    expected = Message(dict(zip(pipe[:].columns, zip(*parsed(data, filetype)[0], strict=True), strict=True)))

    assert pipe[index] == expected[index]
    assert pipe[index].columns == expected.columns
    assert len(pipe) == 4


@pytest.mark.parametrize("index", [4, -5, slice(0, 5), [0, 4]], ids=str)
def test_a_row_that_is_not_there_is_an_index_error(tmp_path, index):
    pipe = BioSeqPipe(write(tmp_path, FASTA))

    with pytest.raises(IndexError, match=r"row -?\d is out of range for a pipe of 4 rows"):
        pipe[index]


def test_iteration_and_index_do_not_disturb_each_other(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, gzip.compress(many_genes())))
    expected = parsed(many_genes(), "fasta")[0]

    rows = []
    for number, row in enumerate(pipe):
        rows += rows_of(row)
        assert rows_of(pipe[49 - number]) == [expected[49 - number]]

    assert rows == expected


def test_each_loop_starts_over_and_reset_gives_the_pipe(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, FASTA))
    first = next(pipe)

    assert pipe.position == 1
    assert len(list(pipe)) == len(list(pipe)) == 4
    assert pipe.reset() is pipe
    assert next(pipe) == first


def test_a_record_longer_than_a_block_comes_whole(tmp_path):
    data = b">a\n" + b"ACGT\n" * 10_000 + b">b\nT\n"
    pipe = small_blocks(write(tmp_path, data), size=64)

    assert [len(row["sequences"][0]) for row in pipe] == [40_000, 1]
    assert len(pipe) == 2


def test_a_large_range_is_read_in_parts(tmp_path):
    data = b"".join(b">%d\n%s\n" % (row, b"ACGTACGT" * 2**19) for row in range(6))
    pipe = BioSeqPipe(write(tmp_path, data))

    assert pipe[1:6]["ids"].tolist() == ["1", "2", "3", "4", "5"]
    assert pipe[:]["sequences"].str.len().tolist() == [2**22] * 6


# --- the same as Biopython -------------------------------------------------------------------------------------------

FASTA_PIECES = [">", ">a", ">a b", "\n", "\n", "\n", "\r\n", "\r", " ", "\t", "ACGT", "acgtn", ";note", "@", "+", "é"]
FASTA_PIECES += ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\xa0", "*-", ">>"]
FASTQ_PIECES = [
    "@",
    "@a",
    "@a b",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "ACGT",
    "A",
    "+",
    "+a",
    "II",
    "I!~",
    "é",
    "\x1c",
    ">",
]


def blocks_agree(data, filetype, size, compress):
    """Whether rows and the end, by iteration and by index, are those of Biopython."""
    expected, fails = parsed(data, filetype)
    with tempfile.TemporaryDirectory() as folder:
        path = write_bgzip(folder, data, 7) if compress == "bgzip" else write(folder, data)
        if compress == "gzip":
            path.write_bytes(gzip.compress(data[:5]) + gzip.compress(data[5:]))
        if not expected:
            assert fails or not data
            with pytest.raises(FormatError):
                list(BioSeqPipe(path, filetype=filetype))
            return
        assert read(lambda: small_blocks(path, filetype, size)) == (expected, fails)
        batches = small_blocks(path, filetype, size).batches(3)
        rows, batches_fail = read(lambda: batches)
        assert batches_fail == fails
        assert rows + read(batches.input.remaining)[0] == expected
        if not fails:
            pipe = small_blocks(path, filetype, size)
            assert len(pipe) == len(expected)
            assert [rows_of(pipe[row]) for row in range(len(expected))] == [[row] for row in expected]
            assert rows_of(pipe[list(range(len(expected)))]) == rows_of(pipe[:]) == expected


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(FASTA_PIECES), max_size=25).map(lambda pieces: ">" + "".join(pieces)),
    st.sampled_from([5, 16, 1 << 17]),
    st.sampled_from(["plain", "gzip", "bgzip"]),
)
def test_any_fasta_is_read_as_biopython_does(text, size, compress):
    blocks_agree(text.encode(), "fasta", size, compress)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(FASTQ_PIECES), max_size=25).map(lambda pieces: "@a\nAC\n+\nII\n@" + "".join(pieces)),
    st.sampled_from(FASTQ_TYPES),
    st.sampled_from([5, 16, 1 << 17]),
    st.sampled_from(["plain", "gzip", "bgzip"]),
)
def test_any_fastq_is_read_as_biopython_does(text, filetype, size, compress):
    blocks_agree(text.encode(), filetype, size, compress)


@st.composite
def fastq_files(draw):
    """Well-formed FASTQ, wrapped or not, with qualities that look like other lines."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = []
    for number in range(draw(st.integers(1, 6))):
        sequence = draw(st.text("ACGTacgtN", max_size=9))
        quality = draw(st.text("@+!I>~", min_size=len(sequence), max_size=len(sequence)))
        wrap = draw(st.integers(1, 10))
        lines += [f"@read{number} of many", *(sequence[at : at + wrap] for at in range(0, len(sequence) or 1, wrap))]
        lines += [draw(st.sampled_from(["+", f"+read{number} of many"]))]
        lines += [quality[at : at + wrap] for at in range(0, len(quality) or 1, wrap)] + [""] * draw(st.integers(0, 2))
    return (end.join(lines) + draw(st.sampled_from(["", end]))).encode()


@settings(max_examples=300, deadline=None)
@given(fastq_files(), st.sampled_from([5, 16, 1 << 17]), st.sampled_from(["plain", "gzip", "bgzip"]))
def test_wrapped_fastq_with_any_qualities_is_read_as_biopython_does(data, size, compress):
    blocks_agree(data, "fastq", size, compress)


# --- compressed files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data, filetype", [(many_genes(), "fasta"), (many_reads(), "fastq")], ids=["fasta", "fastq"])
@pytest.mark.parametrize("compress", ["gzip", "bgzip"])
def test_compressed_files_are_recognised_by_their_content(tmp_path, data, filetype, compress):
    path = write(tmp_path, gzip.compress(data)) if compress == "gzip" else write_bgzip(tmp_path, data, 100)
    plain = BioSeqPipe(write(tmp_path, data, "plain"), filetype=filetype)
    pipe = BioSeqPipe(path, filetype=filetype)

    assert_same_messages(pipe, plain)
    assert pipe[::-3] == plain[::-3]
    assert_same_messages(BioSeqPipe(path, filetype=filetype)[-1], plain[-1])


@pytest.mark.parametrize("filetype", ["tab", "fasta-2line"])
def test_other_formats_may_be_compressed_too(tmp_path, filetype):
    path = tmp_path / "genes.gz"
    with gzip.open(path, "wt") as file:
        SeqIO.write([SeqRecord(Seq("ACGT"), id="a", description="")], file, filetype)

    assert rows_in(BioSeqPipe(path, filetype=filetype))[0][:2] == ("ACGT", "a")


def test_a_bgzip_file_with_other_fields_in_its_blocks_is_read_in_place(tmp_path):
    block = write_bgzip(tmp_path, FASTA).read_bytes()
    size = int.from_bytes(block[16:18], "little") + 1
    other = b"XY\x01\x00!"
    header = block[:10] + (6 + len(other)).to_bytes(2, "little") + other + b"BC\x02\x00"
    padded = header + (size - 1 + len(other)).to_bytes(2, "little") + block[18:]
    path = write(tmp_path, padded)

    assert BioSeqPipe(path)[2]["sequences"][0] == "ggg"
    assert type(open_bytes(path)).__name__ == "BgzipBytes"


def test_no_file_is_left_behind_by_reading_a_gzip_file_by_index(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    pipe = BioSeqPipe(write(tmp_path, gzip.compress(FASTA)))

    assert pipe[1]["ids"][0] == "two"
    assert list((tmp_path / "temporary").iterdir()) == []


def test_files_are_closed_with_the_pipe(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("this system does not list open files")
    before = len(list(descriptors.iterdir()))

    for path in [write(tmp_path, FASTA), write(tmp_path, gzip.compress(FASTA), "b"), write_bgzip(tmp_path, FASTA)]:
        pipe = BioSeqPipe(path)
        assert len(pipe[:]) == 4
    pipe = BioSeqPipe(write(tmp_path, FASTA), filetype="fasta-pearson")
    next(pipe)
    del pipe

    assert len(list(descriptors.iterdir())) == before


def test_reading_by_offset_needs_no_pread(tmp_path):
    path = write(tmp_path, FASTA)
    descriptor = os.open(path, os.O_RDONLY)
    plain = PlainBytes(descriptor)

    assert seek_and_read(descriptor, 7, 5) == plain.read(5, 7) == FASTA[5:12]


# --- other formats ---------------------------------------------------------------------------------------------------


def records():
    """Records that GenBank and others can hold."""
    return [
        SeqRecord(
            Seq("ACGT" * length),
            id=f"gene{length}.1",
            name=f"gene{length}",
            description="a gene",
            dbxrefs=["Project:1"],
            annotations={"molecule_type": "DNA"},
            letter_annotations={"phred_quality": [20] * 4 * length},
        )
        for length in (3, 1, 2)
    ]


@pytest.mark.parametrize(
    "filetype", ["genbank", "embl", "tab", "seqxml", "phd", "qual", "pir", "fasta-2line", "fasta-pearson", "imgt"]
)
def test_every_format_that_biopython_reads_can_be_iterated_over(tmp_path, filetype):
    path = tmp_path / "records"
    SeqIO.write(records(), path, "fasta" if filetype == "fasta-pearson" else filetype)
    pipe = BioSeqPipe(path, filetype=filetype)

    with SeqIO.parse(path, filetype) as parser:
        expected = list(parser)

    assert [row["ids"][0] for row in pipe] == [record.id for record in expected]
    assert [row["dbxrefs"][0] for row in pipe] == [record.dbxrefs for record in expected]
    assert [row["descriptions"][0] for row in pipe] == [record.description for record in expected]
    if filetype in ("phd", "qual"):
        assert [row["qualities"][0] for row in pipe] == [r.letter_annotations["phred_quality"] for r in expected]
    if filetype == "qual":
        assert all(row["sequences"].isna().all() for row in pipe)
    else:
        assert [row["sequences"][0] for row in pipe] == [str(record.seq) for record in expected]


def test_binary_formats_and_alignments_are_read_too(tmp_path):
    SeqIO.write(records()[:1], tmp_path / "record.xdna", "xdna")
    SeqIO.write([SeqRecord(Seq("AC-T"), id="a"), SeqRecord(Seq("ACGT"), id="b")], tmp_path / "a.sto", "stockholm")

    assert next(BioSeqPipe(tmp_path / "record.xdna", filetype="xdna"))["sequences"][0] == "ACGT" * 3
    assert rows_in(BioSeqPipe(tmp_path / "a.sto", filetype="stockholm"))[0][0] == "AC-T"


def test_other_formats_have_rows_by_index_behind_a_looping_pipe(tmp_path):
    SeqIO.write(records(), tmp_path / "records", "genbank")
    pipe = BioSeqPipe(tmp_path / "records", filetype="genbank")

    with pytest.raises(TypeError, match=r"genbank files can be read in order only.*put a LoopingPipe behind"):
        pipe[0]
    with pytest.raises(TypeError, match="no length"):
        len(pipe)
    assert pipe.batches_per_epoch is None
    clock = CachingPipe(LoopingPipe(pipe))
    assert clock[[2, 0]]["ids"].tolist() == ["gene2.1", "gene3.1"]
    assert len(clock) == 3


def test_batches_of_other_formats_are_collected(tmp_path):
    SeqIO.write(records(), tmp_path / "records", "embl")
    pipe = BioSeqPipe(tmp_path / "records", filetype="embl")

    assert [len(batch) for batch in pipe.batches(2)] == [2, 1]
    assert [len(batch) for batch in BatchingPipe(pipe, batch_size=2)] == [2, 1]


# --- batches and other pipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 50, 60])
def test_batches_have_n_rows_and_the_last_what_is_left(tmp_path, n):
    pipe = small_blocks(write(tmp_path, many_genes()), size=500)
    rows = pipe[:]

    batches = pipe.batches(n)

    assert_same_messages(list(batches), [rows[start : min(start + n, 50)] for start in range(0, 50, n)])
    assert_same_messages(list(batches), list(batches))
    assert batches.batches_per_epoch == -(-50 // n)
    assert len(batches) == 50 and batches[3] == rows[3]


def test_batches_of_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size is a number of rows from 1 up, got 0"):
        BioSeqPipe(write(tmp_path, FASTA)).batches(0)


def test_rows_and_batches_go_on_where_the_other_ended(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, many_genes()))
    batches = pipe.batches(4)

    taken = [next(pipe), next(batches), next(pipe), *batches.remaining()]

    assert rows_in(taken) == rows_of(pipe[:])


def test_other_pipes_read_it_by_index(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, many_genes()))

    shuffled = BatchingPipe(CachingPipe(ShufflerPipe(pipe, seed=0)), batch_size=8)

    assert sorted(rows_in(shuffled)) == sorted(rows_of(pipe[:]))
    assert len(list(RepeaterPipe(pipe, repetitions=2))) == 100
    assert_same_messages(BatchingPipe(pipe, batch_size=8), pipe.batches(8))


def test_attributes_that_it_lacks_come_from_its_input(tmp_path):
    assert BioSeqPipe(write(tmp_path, FASTA), Message({"x": [1]})).columns == ["x"]


def test_worker_processes_read_the_file_by_themselves(tmp_path):
    for path in [write(tmp_path, many_genes()), write(tmp_path, gzip.compress(many_genes()), "b")]:
        pipe = BioSeqPipe(path)
        expected = pipe[:]["ids"].tolist()

        loader = DataLoader(pipe.batches(7).as_dataset(), batch_size=None, num_workers=2)

        assert len(loader) == 8
        assert [name for batch in loader for name in batch["ids"]] == expected
        rows = DataLoader(pipe, batch_size=5, num_workers=2, collate_fn=lambda rows: [row["ids"][0] for row in rows])
        assert sorted(name for names in rows for name in names) == sorted(expected)


@pytest.mark.parametrize("compress", ["plain", "gzip", "bgzip", "tab"])
def test_a_pickled_pipe_goes_on_where_it_was_and_keeps_its_index(tmp_path, compress):
    path = write(tmp_path, many_genes())
    filetype = "fasta"
    if compress == "gzip":
        path = write(tmp_path, gzip.compress(many_genes()))
    elif compress == "bgzip":
        path = write_bgzip(tmp_path, many_genes(), 1000)
    elif compress == "tab":
        with open(path) as genes:
            SeqIO.convert(genes, "fasta", tmp_path / "tab", "tab")
        path, filetype = tmp_path / "tab", "tab"
    pipe = BioSeqPipe(path, filetype=filetype)
    if filetype == "fasta":
        assert len(pipe[2:9]) == 7
    start = [next(pipe) for _ in range(20)]

    copy = pickle.loads(pickle.dumps(pipe))

    rest = list(copy.remaining())
    assert_same_messages(rest, list(pipe.remaining()))
    assert len(start) + len(rest) == 50
    if filetype == "fasta":
        assert copy[5] == pipe[5]


# --- state -----------------------------------------------------------------------------------------------------------


def make_pipe(path, filetype, size, batch=None):
    """A pipe for a fresh process."""
    pipe = BioSeqPipe(path, filetype=filetype)
    if filetype in ("fasta", "fastq"):
        pipe._records.block_bytes = size
    return pipe if batch is None else pipe.batches(batch)


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("compress", ["plain", "gzip", "bgzip"])
def test_reading_fasta_resumes_exactly(tmp_path, compress, batch):
    data = many_genes(12)
    path = write(tmp_path, data if compress == "plain" else gzip.compress(data))
    if compress == "bgzip":
        path = write_bgzip(tmp_path, data, 100)

    check_resume(functools.partial(make_pipe, path, "fasta", 256, batch))


def test_reading_fastq_resumes_exactly(tmp_path):
    check_resume(functools.partial(make_pipe, write(tmp_path, FASTQ), "fastq", 16), fresh_process=False)


def test_reading_other_formats_resumes_exactly(tmp_path):
    SeqIO.write(records(), tmp_path / "records", "genbank")

    check_resume(functools.partial(make_pipe, tmp_path / "records", "genbank", 0), fresh_process=False)


def test_a_state_knows_the_place_in_the_file(tmp_path):
    data = many_genes()
    pipe = small_blocks(write(tmp_path, data), size=500)
    for _ in range(40):
        next(pipe)

    state = pipe.get_state()["internal"]

    assert state["position"] == 40
    assert data[state["block"] :].startswith(b">gene%d " % state["row"])
    assert 0 < 40 - state["row"] < 5


def test_a_state_of_another_file_is_refused(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, FASTA))
    next(pipe)
    other = BioSeqPipe(write(tmp_path, FASTA + b"A", "other.fasta"))

    with pytest.raises(StateError, match=rf"the state is of a file of {len(FASTA)} bytes, but .*has {len(FASTA) + 1}"):
        other.set_state(pipe.get_state())
    with pytest.raises(StateError, match="size"):
        other.set_state({"internal": {"position": 1, "block": 0, "row": 0}, "external": {}})
    assert other.position == 0


# --- files that are not what they should be --------------------------------------------------------------------------


@pytest.mark.parametrize("filetype", ["fasta", "fastq", "genbank"])
def test_a_missing_file_is_reported_at_once(tmp_path, filetype):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        BioSeqPipe(tmp_path / "nowhere", filetype=filetype)


@pytest.mark.parametrize("filetype", ["fasta", "fastq", "genbank"])
def test_an_empty_file_is_reported_at_once(tmp_path, filetype):
    with pytest.raises(FormatError, match=f"genes.fasta: expected {filetype} records, but it is empty"):
        BioSeqPipe(write(tmp_path, b""), filetype=filetype)


def test_an_unknown_filetype_proposes_the_nearest(tmp_path):
    path = write(tmp_path, FASTA)

    with pytest.raises(ValueError, match=r"no filetype 'fatsa'; did you mean 'fasta'\? Filetypes: abi, .*genbank"):
        BioSeqPipe(path, filetype="fatsa")
    with pytest.raises(ValueError, match=r"no filetype \['fasta'\]; did you mean 'fasta'\?"):
        BioSeqPipe(path, filetype=["fasta"])
    with pytest.raises(ValueError, match=r"no filetype None\. Filetypes: abi, "):
        BioSeqPipe(path, filetype=None)
    with pytest.raises(ValueError, match="no filetype 'FASTQ'; did you mean 'fastq'"):
        BioSeqPipe(path, filetype="FASTQ")


WRONG = [
    ("fasta", FASTQ, "starts with '>', got '@one first'; it looks like filetype='fastq'"),
    ("fasta", b"; note\n" + FASTA, "starts with '>', got '; note'; it looks like filetype='fasta-pearson'"),
    ("fasta", b"LOCUS       SCU49845\n", "got 'LOCUS       SCU49845'; it looks like filetype='genbank'"),
    ("fasta", b"\n" + FASTA, "expected a FASTA record, which starts with '>', got ''"),
    ("fasta", bytes(range(256)), "expected a FASTA record, which starts with '>', got"),
    ("fastq", FASTA, "starts with '@', got '>one first gene'; it looks like filetype='fasta'"),
    ("fastq", b"\x89PNG\r\n", "expected a FASTQ record, which starts with '@', got"),
]


@pytest.mark.parametrize("filetype, data, text", WRONG)
def test_another_format_is_reported_at_once(tmp_path, filetype, data, text):
    with pytest.raises(FormatError) as caught:
        BioSeqPipe(write(tmp_path, data), filetype=filetype)

    assert text in str(caught.value)
    assert str(tmp_path / "genes.fasta") + ", record 0 (counted from 0): " in str(caught.value)


GOOD = "@a\nAC\n+\nII\n"
MALFORMED = [
    ("fasta", ">a\nAC\n>b\nA\u00e9\n>c\nA\n", 1, "expected a sequence of ASCII letters, got byte 0xc3"),
    ("fasta", ">a\nAC\n>b\nA\0C\n>c\nA\n", 1, "expected text, got a zero byte"),
    ("fastq", GOOD + "@b\nACG", 1, "expected a line that starts with '+' after the sequence of 'b', got the end of"),
    ("fastq", GOOD + "@b\nACG\n+\n", 1, "expected a line of qualities after '+' of 'b', got the end of the file"),
    (
        "fastq",
        GOOD + "@b\nACG\n+\nII",
        1,
        "expected as many qualities as letters in 'b', got 2 qualities for 3 letters",
    ),
    ("fastq", GOOD + "@b\nACG\n+\nIIII\n" + GOOD, 1, "got 4 qualities for 3 letters"),
    ("fastq", GOOD + "@b\nAC\n+c\nII\n", 1, "expected '+' with the title 'b' or alone, got 'c'"),
    ("fastq", GOOD + "@b\nA C\n+\nIII\n", 1, "expected a sequence of ASCII letters without blanks, got 'A C'"),
    ("fastq", GOOD + GOOD + "@\nA\n+\nI\n", 2, "expected a title after '@', got none"),
    ("fastq", GOOD + "@b\nAC\n+\nI\x7f\n", 1, "expected qualities from '!' to '~', got '\\x7f'"),
    ("fastq-illumina", "@a\nAC\n+\nhh\n@b\nA\n+\n!\n", 1, "expected qualities from '@' to '~', got '!'; is it another"),
]


@pytest.mark.parametrize("filetype, data, number, text", MALFORMED)
def test_a_malformed_record_is_reported_after_the_good_ones(tmp_path, filetype, data, number, text):
    pipe = BioSeqPipe(write(tmp_path, data.encode()), filetype=filetype)
    rows = [next(pipe) for _ in range(number)]

    with pytest.raises(FormatError) as caught:
        next(pipe)

    assert len(rows) == number
    assert f"{tmp_path / 'genes.fasta'}, record {number} (counted from 0): " in str(caught.value)
    assert text in str(caught.value)
    with pytest.raises(FormatError, match=r"record \d"):
        pipe[:]


def test_a_malformed_record_does_not_keep_others_from_being_read_by_index(tmp_path):
    pipe = BioSeqPipe(write(tmp_path, b">a\nAC\n>b\nA\xff\n>\xff\nA\n>d\nT\n"))

    assert pipe[[0, 3]]["sequences"].tolist() == ["AC", "T"]
    with pytest.raises(FormatError, match=r"record 1 .*got byte 0xff"):
        pipe[1]
    with pytest.raises(FormatError, match=r"record 2 .*expected a title in UTF-8, got byte 0xff"):
        pipe[[0, 2]]


@pytest.mark.parametrize("cut", [30, 200, -9, -1])
@pytest.mark.parametrize("filetype", ["fasta", "fastq", "tab"])
def test_a_gzip_file_that_is_cut_off_is_reported(tmp_path, filetype, cut):
    lines = b"".join(b"gene%d\t%s\n" % (row * row, b"ACGT" * row) for row in range(200))
    data = {"fasta": many_genes(), "fastq": many_reads(), "tab": lines}[filetype]
    path = write(tmp_path, gzip.compress(data)[:cut])

    with pytest.raises(FormatError, match=r"genes.fasta, record \d+ \(counted from 0\): expected a whole gzip file"):
        list(BioSeqPipe(path, filetype=filetype))
    if filetype != "tab":
        with pytest.raises(FormatError, match="expected a whole gzip file, but compressed file ended"):
            BioSeqPipe(path, filetype=filetype)[0]


def test_the_rows_before_the_end_of_a_cut_gzip_file_come_first(tmp_path):
    path = write(tmp_path, gzip.compress(many_genes())[:-9])
    pipe = BioSeqPipe(path)

    rows, fails = read(lambda: pipe)

    assert fails
    assert rows == parsed(many_genes(), "fasta")[0][: len(rows)]
    assert len(rows) > 20


def test_a_damaged_gzip_file_is_reported(tmp_path):
    data = bytearray(gzip.compress(many_genes()))
    data[-6] ^= 255
    path = write(tmp_path, data)

    with pytest.raises(FormatError, match="expected a whole gzip file, but CRC check failed"):
        list(BioSeqPipe(path))


@pytest.mark.parametrize("cut", [-28, -10, -60])
def test_a_bgzip_file_that_is_cut_off_is_reported_after_its_rows(tmp_path, cut):
    data = write_bgzip(tmp_path, many_genes(), 1000).read_bytes()
    path = write(tmp_path, data[:cut])
    pipe = BioSeqPipe(path)

    rows, fails = read(lambda: pipe)

    assert fails
    assert 40 <= len(rows) < 50 and rows == parsed(many_genes(), "fasta")[0][: len(rows)]
    with pytest.raises(FormatError, match=r"record \d+ .*expected a(n empty)? bgzip block"):
        len(pipe)


def test_a_damaged_bgzip_block_is_reported_and_others_can_be_read(tmp_path):
    data = bytearray(write_bgzip(tmp_path, many_genes(), 4000).read_bytes())
    pipe = BioSeqPipe(write(tmp_path, bytes(data)))
    assert len(pipe) == 50
    data[100] ^= 255
    write(tmp_path, bytes(data))

    assert pipe[40]["ids"][0] == "gene40"
    with pytest.raises(FormatError, match=r"record 0 \(counted from 0\): expected a whole bgzip block at byte 0, but"):
        pipe[0]


def test_a_file_that_changed_since_it_was_indexed_is_reported(tmp_path):
    path = write(tmp_path, many_genes())
    pipe = BioSeqPipe(path)
    assert len(pipe) == 50

    with open(path, "r+b") as file:
        file.truncate(100)

    with pytest.raises(FormatError, match=r"record 30 .*the file has changed since; make a new BioSeqPipe"):
        pipe[30]
    with open(path, "r+b") as file:
        file.write(b">a\n" * 2000)
    with pytest.raises(FormatError, match=r"record \d+ .*(the file has changed since|expected a FASTA record)"):
        pipe[30:33]


BROKEN = [
    ("genbank", FASTA, "expected genbank records, got none; it looks like filetype='fasta'"),
    (
        "genbank",
        b"LOCUS       bad\n//\n",
        "record 0 (counted from 0): expected a genbank record, but its parser says",
    ),
    (
        "tab",
        b"a\tACGT\n" + b"b" * 9999 + b"\n",
        "record 1 (counted from 0): expected a tab record, but its parser says",
    ),
    ("sff", FASTA, "record 0 (counted from 0): expected a sff record, but its parser says"),
    (
        "swiss",
        b"\xff\xfe\n",
        "record 0 (counted from 0): expected a swiss record, but its parser says UnicodeDecodeError",
    ),
]


@pytest.mark.parametrize("filetype, data, text", BROKEN)
def test_what_the_parsers_of_other_formats_say_comes_with_file_and_record(tmp_path, filetype, data, text):
    with pytest.raises(FormatError) as caught:
        list(BioSeqPipe(write(tmp_path, data), filetype=filetype))

    assert text in str(caught.value)
    assert str(tmp_path / "genes.fasta") in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("filetype", ["genbank", "embl", "imgt", "phd", "seqxml"])
@pytest.mark.parametrize("left_out", [5, 30])
def test_a_file_of_another_format_that_is_cut_off_is_reported(tmp_path, filetype, left_out):
    SeqIO.write(records(), tmp_path / "records", filetype)
    pipe = BioSeqPipe(write(tmp_path, (tmp_path / "records").read_bytes()[:-left_out]), filetype=filetype)

    assert rows_in([next(pipe), next(pipe)])[1][1] in ("gene1.1", "gene1")
    with pytest.raises(FormatError, match=r"genes.fasta, record 2 \(counted from 0\): expected a "):
        next(pipe)


def test_an_error_names_the_pipeline(tmp_path):
    pipe = BatchingPipe(BioSeqPipe(write(tmp_path, b">a\nAC\n>b\n\xff\n")), batch_size=2)

    with pytest.raises(FormatError) as caught:
        next(pipe)

    assert any("BatchingPipe" in note and "BioSeqPipe" in note for note in caught.value.__notes__)


def test_biopython_is_loaded_only_for_other_formats(tmp_path):
    path = write(tmp_path, FASTA)
    script = (
        "import sys\n"
        "from fireworks.toolbox import BioSeqPipe\n"
        f"pipe = BioSeqPipe({str(path)!r})\n"
        "print(len(pipe), 'Bio' in sys.modules)\n"
        "sys.modules['Bio'] = None\n"
        "try:\n"
        f"    BioSeqPipe({str(path)!r}, filetype='fasta-pearson')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert printed.splitlines()[0] == "4 False"
    assert "filetype='fasta-pearson' needs biopython; install" in printed
