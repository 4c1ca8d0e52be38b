"""G. FASTA: a file of 207 MB with 100,000 records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from Bio import SeqIO

from benchmarks.runner import OURS, Target, Workload, missing
from fireworks import cat
from fireworks.toolbox import BioSeqPipe

TITLE = "FASTA: 100,000 records of 2,000 letters on average, 207 MB"
BIOPYTHON, PYFASTX, PYFAIDX = "Bio.SeqIO", "pyfastx", "pyfaidx"
FETCHES = 200


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    records = max(int(100_000 * scale), 300)
    path = folder / "records.fasta"
    _write(path, records)
    yield from _iterating(path)
    yield from _indexing(path, records)


def _write(path: Path, records: int) -> None:
    """Lines of 60 letters; the same file each time."""
    random = np.random.default_rng(0)
    lengths = random.integers(1000, 3070, records)
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)[random.integers(0, 4, 5000)].tobytes()
    with path.open("wb") as file:
        for number, length in enumerate(lengths.tolist()):
            start = number % 1900
            sequence = letters[start : start + length]
            lines = b"\n".join(sequence[at : at + 60] for at in range(0, length, 60))
            file.write(b">record%d number %d\n%b\n" % (number, number, lines))


def _iterating(path: Path) -> Iterator[Workload]:
    def ours_by_batch() -> Iterator[tuple[str, str]]:
        for batch in BioSeqPipe(path).batches(1000):
            yield from zip(batch["ids"], batch["sequences"], strict=True)

    def batches() -> Callable[[], Any]:
        letters = 0
        for batch in BioSeqPipe(path).batches(1000):
            for sequence in batch.array("sequences"):
                letters += len(sequence)
        return lambda: _digest(ours_by_batch())

    def ours_by_row() -> Iterator[tuple[str, str]]:
        rows = (row for row in BioSeqPipe(path))  # `iter` of a pipe starts it over
        while some := list(islice(rows, 1000)):
            batch = cat(some)
            yield from zip(batch["ids"], batch["sequences"], strict=True)

    def rows() -> Callable[[], Any]:
        letters = 0
        for row in BioSeqPipe(path):
            letters += len(row.array("sequences")[0])
        return lambda: _digest(ours_by_row())

    def biopython() -> Callable[[], Any]:
        letters = 0
        for record in SeqIO.parse(path, "fasta"):
            letters += len(record.seq)
        return lambda: _digest((record.id, str(record.seq)) for record in SeqIO.parse(path, "fasta"))

    def pyfastx() -> Callable[[], Any]:
        from pyfastx import Fastx

        letters = 0
        for _, sequence, _ in Fastx(str(path), comment=True):
            letters += len(sequence)
        return lambda: _digest((name, sequence) for name, sequence, _ in Fastx(str(path), comment=True))

    peers = {BIOPYTHON: biopython, PYFASTX: None if missing("pyfastx") else pyfastx}
    targets = [Target(0.60, BIOPYTHON), Target(1.15, PYFASTX), Target(55, "MB")]
    yield Workload("iterate, batches of 1,000", {OURS: batches, **peers}, targets)
    yield Workload("iterate, row by row", {OURS: rows, **peers}, targets[:2])


def _digest(records: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """200 MB need not be held twice to be compared."""
    digest, count = blake2b(), 0
    for name, sequence in records:
        digest.update(f">{name}\n{sequence}\n".encode())
        count += 1
    return {"digest": [digest.hexdigest()], "records": [count]}


def _indexing(path: Path, records: int) -> Iterator[Workload]:
    def without_index() -> None:
        for suffix in (".fxi", ".fai"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    rows = np.random.default_rng(1).integers(0, records, min(FETCHES, records)).tolist()

    def building(
        make: Callable[[], Any], fetched: Callable[[Any, int], str], length: Callable[[Any], int] = len
    ) -> Callable[[Any], Any]:
        def build(_: Any) -> Callable[[], Any]:
            made = make()
            count = length(made)
            return lambda: {"records": [count], "some": [fetched(made, row) for row in rows[:20]]}

        return build

    build: dict[str, Any] = {
        OURS: building(lambda: BioSeqPipe(path), lambda pipe, row: pipe[row].array("sequences")[0]),
        BIOPYTHON: building(
            lambda: SeqIO.index(str(path), "fasta"), lambda indexed, row: str(indexed[f"record{row}"].seq)
        ),
        PYFASTX: None,
        PYFAIDX: None,
    }
    pipe, indexed = BioSeqPipe(path), SeqIO.index(str(path), "fasta")
    fetch: dict[str, Any] = {
        OURS: lambda: {"sequence": [pipe[row].array("sequences")[0] for row in rows]},
        BIOPYTHON: lambda: {"sequence": [str(indexed[f"record{row}"].seq) for row in rows]},
        PYFASTX: None,
        PYFAIDX: None,
    }
    if not missing("pyfastx"):
        from pyfastx import Fasta

        build[PYFASTX] = building(lambda: Fasta(str(path)), lambda fasta, row: fasta[row].seq)
    if not missing("pyfaidx"):
        from pyfaidx import Fasta as Faidx

        build[PYFAIDX] = building(
            lambda: Faidx(str(path)),
            lambda faidx, row: str(faidx[f"record{row}"]),
            lambda faidx: len(faidx.keys()),  # its own length counts letters
        )
    targets = [Target(0.10, BIOPYTHON), Target(0.8, PYFASTX), Target(55, "MB")]
    yield Workload("build the index", build, targets, before=without_index)
    if not missing("pyfastx"):
        fasta = Fasta(str(path))
        fetch[PYFASTX] = lambda: {"sequence": [fasta[row].seq for row in rows]}
    if not missing("pyfaidx"):
        faidx = Faidx(str(path))
        fetch[PYFAIDX] = lambda: {"sequence": [str(faidx[f"record{row}"]) for row in rows]}
    targets = [Target(0.30, BIOPYTHON), Target(0.45, PYFASTX)]
    yield Workload(f"fetch {FETCHES} records, one at a time", fetch, targets)
    in_one_call = {OURS: lambda: {"sequence": pipe[rows].array("sequences").tolist()}}
    yield Workload(f"fetch {FETCHES} records, in one call where there is one", fetch | in_one_call)
    indexed.close()
    without_index()
