"""Sequence files that were cut off: an error wherever a format can tell, and whole files read as SeqIO reads them."""

from __future__ import annotations

import gzip
import io
import struct

import pytest
from Bio import SeqIO
from Bio.Seq import Seq, UndefinedSequenceError
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from fireworks.toolbox.pipes import BioSeqPipe
from fireworks.utils.exceptions import FormatError


def records(lengths=(3, 1, 2)):
    """Records that most formats can hold."""
    return [
        SeqRecord(
            Seq("ACGT" * length),
            id=f"gene{number}.1",
            name=f"gene{number}",
            description="a gene",
            annotations={"molecule_type": "DNA"},
            letter_annotations={"phred_quality": [20] * 4 * length},
        )
        for number, length in enumerate(lengths)
    ]


def written(filetype, *lengths):
    """The bytes of a file of such records; alignments have one length."""
    binary = filetype in ("nib", "xdna", "sff", "seqxml")
    file = io.BytesIO() if binary else io.StringIO()
    SeqIO.write(records(*([lengths] if lengths else [])), file, filetype)
    return file.getvalue() if binary else file.getvalue().encode()


def two_bit():
    """A file in the twoBit format, with two sequences and a block of unknown letters."""
    names = [b"one", b"second"]
    first = struct.pack("<4I", 5, 1, 1, 2) + struct.pack("<2I", 0, 0) + bytes([0b00011011, 0])
    second = struct.pack("<4I", 4, 0, 0, 0) + bytes([0b11100100])
    offset = 16 + sum(1 + len(name) + 4 for name in names)
    index = b""
    for name, at in zip(names, (offset, offset + len(first)), strict=True):
        index += bytes([len(name)]) + name + struct.pack("<I", at)
    return struct.pack("<4I", 0x1A412743, 0, 2, 0) + index + first + second


SWISS = b"".join(
    b"ID   %s_TEST   Reviewed;   4 AA.\nAC   P0000%d;\nDT   01-JAN-2000, integrated into UniProtKB/Swiss-Prot.\n"
    b"DE   RecName: Full=Protein;\nSQ   SEQUENCE   4 AA;  400 MW;  0123456789ABCDEF CRC64;\n     ACDE\n//\n"
    % (name, row)
    for row, name in enumerate([b"ONE", b"TWO"])
)
ACE = (
    b"AS 1 2\n\nCO Contig1 4 2 1 U\nACGT\n\nBQ\n20 20 20 20\n\nAF r1 U 1\nAF r2 U 1\nBS 1 4 r1\n\n"
    b"RD r1 4 0 0\nACGT\n\nQA 1 4 1 4\nDS \n\nRD r2 4 0 0\nACGT\n\nQA 1 4 1 4\nDS \n"
)
PDB = b"".join(
    [b"HEADER    TEST" + 48 * b" " + b"1ABC\n", b"SEQRES   1 A    3  ALA GLY SER\n", b"SEQRES   1 B    2  ALA GLY\n"]
    + [
        b"ATOM      %d  CA  %s A   %d      11.000  12.000  13.000  1.00 10.00           C  \n" % (row, name, row)
        for row, name in enumerate([b"ALA", b"GLY", b"SER"], start=1)
    ]
    + [b"END" + 77 * b" " + b"\n"]
)
M10 = (
    b"# fasta\nFASTA searches a protein\n\n  1>>>q1 - 4 aa\n>>>q1, 4 aa vs lib library\n; pg_name: fasta35\n"
    b"; pg_ver: 35\n>>hit1 text\n; fa_frame: f\n; bs_ident: 1.0\n>q1 ..\n; sq_len: 4\n; sq_offset: 1\n"
    b"; sq_type: p\n; al_start: 1\n; al_stop: 4\n; al_display_start: 1\nACDE\n>hit1 ..\n; sq_len: 4\n"
    b"; sq_offset: 1\n; sq_type: p\n; al_start: 1\n; al_stop: 4\n; al_display_start: 1\nACDE\n>>><<<\n\n\n4 residues\n"
)
IG = b"; a comment\none\nACGT1\n; another\ntwo\nGG1\n"

# What a whole record, alignment or file ends with; empty where every byte counts.
CLOSED = {
    "genbank": (written("genbank"), b"//"),
    "embl": (written("embl"), b"//"),
    "imgt": (written("imgt"), b"//"),
    "swiss": (SWISS, b"//"),
    "stockholm": (written("stockholm", 3, 3) + written("stockholm", 2, 2), b"//"),
    "phd": (written("phd"), b"END_SEQUENCE"),
    "pir": (written("pir"), b"*"),
    "nexus": (written("nexus", 3, 3), b"end;"),
    "phylip": (written("phylip", 3, 3), b""),
    "phylip-sequential": (written("phylip-sequential", 3, 3), b""),
    "phylip-relaxed": (written("phylip-relaxed", 3, 3), b""),
    "seqxml": (written("seqxml"), b""),
    "fasta-m10": (M10, b">>><<<"),
    "ace": (ACE, b"DS"),
    "pdb-seqres": (PDB, b"END"),
    "pdb-atom": (PDB, b"END"),
    "nib": (written("nib", 3), b""),
    "twobit": (two_bit(), b""),
}
OPEN = ["tab", "qual", "fasta-2line", "clustal", "maf", "mauve"]


def _text(sequence):
    try:
        return str(sequence)
    except UndefinedSequenceError:
        return None


def rows_of(path, filetype):
    """The rows of a file."""
    return [
        tuple(None if isinstance(cell, float) else cell for (cell,) in (row[name] for name in row.columns))
        for row in BioSeqPipe(path, filetype=filetype)
    ]


def rows_of_biopython(path, filetype):
    """The same, from SeqIO."""
    found = []
    with SeqIO.parse(path, filetype) as parser:
        for record in parser:
            row = (None if record.seq is None else _text(record.seq), record.id, record.name, record.description)
            scores = record.letter_annotations.get("phred_quality")
            found.append((*row, record.dbxrefs, *([] if scores is None else [scores])))
    return found


@pytest.mark.parametrize("filetype", CLOSED)
def test_a_file_that_was_cut_anywhere_is_an_error_unless_what_is_left_is_whole(tmp_path, filetype):
    data, end = CLOSED[filetype]
    path = tmp_path / "records"
    path.write_bytes(data)
    whole = rows_of(path, filetype)
    assert len(whole) == len(rows_of_biopython(path, filetype)) > 0

    for cut in range(1, len(data)):
        path.write_bytes(data[:cut])
        try:
            rows = rows_of(path, filetype)
        except FormatError:
            continue
        last_line = data[:cut].rstrip().splitlines()[-1]
        assert rows == whole[: len(rows)], cut
        if filetype in ("fasta-m10", "ace"):  # which have something behind the last record
            assert rows == whole
        elif data[:cut].rstrip() != data.rstrip():
            assert end and last_line.endswith(end), cut


@pytest.mark.parametrize("filetype", [*CLOSED, *OPEN])
@pytest.mark.parametrize("change", ["none", "blank lines", "no final newline", "CRLF", "gzip"])
def test_whole_files_are_read_as_biopython_does(tmp_path, filetype, change):
    data = CLOSED[filetype][0] if filetype in CLOSED else written(filetype, 3, 3)
    path = tmp_path / "records"
    if filetype not in ("nib", "twobit"):
        if change == "CRLF":
            data = data.replace(b"\n", b"\r\n")
        elif change != "gzip" and change != "none":
            data = data.rstrip(b"\n") + (b"\n\n\n" if change == "blank lines" else b"")
    path.write_bytes(data)
    if change == "blank lines" and filetype in ("swiss", "fasta-2line", "mauve"):
        with pytest.raises(FormatError, match=r"record \d+ \(counted from 0\): expected a"):  # as it is in SeqIO
            rows_of(path, filetype)
        return
    expected = rows_of_biopython(path, filetype)
    if change == "gzip":
        path.write_bytes(gzip.compress(data))

    assert rows_of(path, filetype) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text("ACGT-", min_size=4, max_size=4), min_size=1, max_size=3), min_size=1, max_size=3),
    st.data(),
)
def test_alignments_of_a_cut_stockholm_file_are_whole_or_an_error(tmp_path_factory, alignments, data):
    blocks = [
        "# STOCKHOLM 1.0\n\n" + "".join(f"s{row} {text}\n" for row, text in enumerate(rows)) + "//\n"
        for rows in alignments
    ]
    text = "\n".join(blocks)
    cut = data.draw(st.integers(1, len(text)))
    path = tmp_path_factory.mktemp("cut") / "a.sto"
    path.write_text(text[:cut])
    rows, fails = [], False
    try:
        for row in BioSeqPipe(path, filetype="stockholm"):
            rows.append(row["sequences"][0])
    except FormatError:
        fails = True

    closed = [row for rows in alignments[: text[:cut].count("//")] for row in rows]
    assert fails != text[:cut].rstrip().endswith("//")
    assert rows == (closed[: len(rows)] if fails else closed)


SAID = [
    ("stockholm", CLOSED["stockholm"][0][:-4], 2, "expected a line '//', got the end of the file; is it cut off?"),
    ("stockholm", CLOSED["stockholm"][0].replace(b"//\n", b"", 1), 0, "expected a line '//' before '# STOCKHOLM 1.0'"),
    ("stockholm", CLOSED["stockholm"][0] + b"# STOCK", 2, "expected a line that starts with '# STOCKHOLM 1.0', got"),
    ("genbank", written("genbank") + b"LOC", 3, "expected a line that starts with 'LOCUS', got the end of the file"),
    ("genbank", written("genbank").replace(b" 8 bp", b" 9 bp"), 2, "Expected sequence length 9, found 8"),
    ("embl", written("embl") + b"I", 3, "expected a line that starts with 'ID', got the end of the file"),
    ("phd", written("phd") + b"BEGIN_SEQ", 3, "expected a line that starts with 'BEGIN_SEQUENCE', got the end"),
    ("pir", written("pir") + b">P1;x\n", 3, "expected a description and a sequence, got the end of the file"),
    ("ig", IG + b"; more\n", 2, "expected a title and a sequence, got the end of the file"),
    ("ig", IG + b"; more\nthree\n", 2, "expected a sequence, got the end of the file"),
    ("ace", ACE[: ACE.index(b"RD r2")], 0, "expected 1 contigs and 2 reads, as it says, after 1 and 1 of them, got"),
    ("phylip", b" 2 8\na         ACGT\nb         ACGT\n\n", 0, "a sequence of 8 letters, as the file says, got 4"),
    (
        "maf",
        b"##maf version=1\n\na\ns x 0 4 + 9 ACGT\ns y 0 4 + 9 AC--\n\n",
        0,
        "expected 4 letters in 'y', as it says",
    ),
    ("nexus", CLOSED["nexus"][0][:-5], 0, "expected a line 'end;', got the end of the file"),
    ("fasta-m10", M10[: M10.index(b">>><<<")], 0, "expected a line '>>><<<', got the end of the file"),
    ("pdb-seqres", PDB.replace(b"A    3", b"A    4"), 0, "expected 4 residues of chain 'A', as it says, after 3 of"),
    ("pdb-atom", PDB[:-81], 0, "expected a line 'END', got the end of the file"),
    ("gfa1", b"S\ta\tACGT\tLN:i:40\n", 0, "Segment line has incorrect length. Expected 40 but got 4"),
    ("clustal", b"CLUSTAL X (1.81) multiple sequence alignment\n\n", 0, "expected more lines, got the end of the file"),
    ("nib", written("nib", 3)[:-1], 0, "expected 14 bytes, as the file says, got 13; is it cut off?"),
    ("twobit", two_bit()[:-1], 0, "as the file says, got"),
    (
        "sff",
        b".sff\0\0\0\1" + struct.pack(">QI", 96, 40) + bytes(76),
        0,
        "expected 136 bytes, as the file says, got 96",
    ),
    ("abi-trim", b"no ABIF", 0, "ABIF"),
]


@pytest.mark.parametrize("filetype, data, row, text", SAID)
def test_what_is_missing_at_the_end_is_said_with_file_and_record(tmp_path, filetype, data, row, text):
    path = tmp_path / "records"
    path.write_bytes(data)
    pipe = BioSeqPipe(path, filetype=filetype)

    with pytest.raises(FormatError) as caught:
        list(pipe)

    assert text in str(caught.value)
    assert f"{path}, record {row} (counted from 0): " in str(caught.value)


def test_a_cif_file_with_marks_between_categories_ends_with_one(tmp_path):
    names = ["asym_id", "entity_id", "seq_id", "mon_id", "pdb_strand_id", "hetero"]
    loop = "loop_\n" + "".join(f"_pdbx_poly_seq_scheme.{name}\n" for name in names)
    rows = "A 1 1 ALA A n\nA 1 2 GLY A n\n"
    (tmp_path / "marked").write_text(f"data_x\n# \n{loop}{rows}# \n")
    (tmp_path / "cut").write_text(f"data_x\n# \n{loop}{rows}")
    (tmp_path / "plain").write_text(f"data_x\n{loop}{rows}")

    assert [rows_of(tmp_path / name, "cif-seqres")[0][0] for name in ("marked", "plain")] == ["AG", "AG"]
    with pytest.raises(FormatError, match=r"record 0 \(counted from 0\): expected a line '#' after the last category"):
        rows_of(tmp_path / "cut", "cif-seqres")


def test_a_zero_byte_is_an_error_though_biopython_reads_it(tmp_path):
    path = tmp_path / "genes.fasta"
    path.write_bytes(b">a\nAC\n>b\nA" + bytes(4) + b"C\n")

    assert rows_of_biopython(path, "fasta")[1][0] == "A\0\0\0\0C"
    with pytest.raises(FormatError, match=r"record 1 \(counted from 0\): expected text, got a zero byte; the file is"):
        list(BioSeqPipe(path))


def test_names_and_sequences_of_phylip_files_may_be_numbers(tmp_path):
    path = tmp_path / "digits.phy"
    path.write_text(" 2 8\n1         0101\n2         0011\n\n0101 \n0011 \n 1 2\n7         01\n")

    assert [row[:2] for row in rows_of(path, "phylip")] == [("01010101", "1"), ("00110011", "2"), ("01", "7")]
    assert rows_of(path, "phylip") == rows_of_biopython(path, "phylip")


@pytest.mark.parametrize("filetype", ["fasta", "genbank"])
def test_a_folder_is_named_in_the_error(tmp_path, filetype):
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        BioSeqPipe(tmp_path, filetype=filetype)
