"""The example that finds genes runs, gives what it promises, and tests on nothing that it was trained on."""

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from Bio import SeqIO

from fireworks.toolbox.pipes import TokenizerPipe
from fireworks.toolbox.text import character_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def genes():
    """The example as a module."""
    specification = importlib.util.spec_from_file_location("genes", EXAMPLES / "genes.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def genome(genes):
    return genes.read_genome()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the example printed, and the folder of its results."""
    results = tmp_path_factory.mktemp("genes") / "new" / "folder"
    command = [sys.executable, EXAMPLES / "genes.py", "--results", results]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True), results


def read_fasta(path):
    with path.open() as file:
        return list(SeqIO.parse(file, "fasta"))


@pytest.fixture
def one_thread():
    """As in the example: several threads are slower for a small model, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_genes_beats_counting_kmers_on_genes_it_has_not_seen(run):
    _, results = run
    accuracy = pd.read_csv(results / "accuracy.csv", index_col="kind").loc["all"]

    assert accuracy["windows"] == 1000
    network, baseline = (float(accuracy[name].rstrip("%")) for name in ("network", "k-mers"))
    assert network >= 85
    assert network >= baseline + 10


def test_genes_prints_the_table_that_it_saves(run):
    finished, results = run
    table = pd.read_csv(results / "accuracy.csv")

    assert table.to_string(index=False) in finished.stdout
    assert table["windows"][:-1].sum() == table["windows"].iloc[-1]


def test_genes_says_where_its_results_are(run):
    finished, results = run

    _, _, listed = finished.stdout.partition(f"Results are in {results}:\n")
    assert listed.split() == sorted(path.name for path in results.iterdir())
    for name in ["losses.png", "stretches.png"]:
        assert (results / name).read_bytes().startswith(b"\x89PNG\r\n")
    assert "Warning" not in finished.stderr


def test_genes_tests_on_no_letters_that_it_trained_on(run, genome):
    _, results = run
    letters = {side: set() for side in ("train", "validation", "test")}
    for side, places in letters.items():
        for record in read_fasta(results / f"{side}.fasta"):
            start, stop = map(int, record.id.split(".."))
            assert record.seq == genome.seq[start - 1 : stop]
            places.update(range(start, stop + 1))

    assert not letters["train"] & letters["test"]
    assert not letters["train"] & letters["validation"]
    assert not letters["validation"] & letters["test"]


def test_genes_tests_on_nothing_that_stands_elsewhere_in_what_it_trained_on(run):
    _, results = run
    pieces = {}
    for side in ("train", "test"):
        sequences = [record.seq for record in read_fasta(results / f"{side}.fasta")]
        strands = [str(strand) for sequence in sequences for strand in (sequence, sequence.reverse_complement())]
        pieces[side] = {strand[start : start + 25] for strand in strands for start in range(len(strand) - 24)}

    assert not pieces["train"] & pieces["test"]


def test_genes_splits_the_genome_between_genes(genes, genome):
    stretches = genes.cut(genome)

    assert stretches[0][0] == 0 and stretches[-1][1] == genes.REPEAT
    assert all(stop == start for (_, stop), (start, _) in pairwise(stretches))
    cuts = [start for start, _ in stretches[1:]]
    spans = [(part.start, part.end) for item in genome.features if item.type == "gene" for part in item.location.parts]
    assert not [(start, stop) for start, stop in spans for cut in cuts if start < cut < stop]


def test_genes_of_the_test_have_no_part_in_training(genes, genome):
    names = [set() for _ in range(5)]
    for number, (start, stop) in enumerate(genes.cut(genome)):
        for feature in genome.features:
            if feature.type == "CDS" and any(start <= part.start < stop for part in feature.location.parts):
                names[number % 5].update(feature.qualifiers["gene"])

    test, validation, train = names[0], names[1], set.union(*names[2:])
    assert len(test) > 15 and not test & train
    assert len(validation) > 10 and not validation & train


def test_genes_leaves_out_what_the_genome_says_twice(genes, genome):
    repeat = genome.seq[genes.REPEAT :]

    assert genome.seq.find(repeat.reverse_complement()) == 84_170
    assert len(genes.annotate(genome)) == genes.REPEAT


def test_genes_draws_pairs_of_windows_of_one_length_each_of_one_kind(genes, genome):
    kinds, stretches = genes.annotate(genome), genes.cut(genome)
    windows = genes.draw_windows(kinds, stretches[2:6], pairs=50, seed=0)

    assert windows == genes.draw_windows(kinds, stretches[2:6], pairs=50, seed=0)
    lengths = [stop - start for start, stop in windows]
    assert lengths[::2] == lengths[1::2] and len(set(lengths)) > 5
    for number, (start, stop) in enumerate(windows):
        assert stretches[2][0] <= start and stop <= stretches[5][1]
        assert len(np.unique(kinds[start:stop])) == 1
        assert (kinds[start] >= genes.CODING) == (number % 2 == 0)


def test_genes_knows_the_kinds_of_letters(genes, genome):
    kinds = genes.annotate(genome)
    share = {name: (kinds == number).mean().round(2) for number, name in enumerate(genes.KINDS)}

    assert share == {
        "intergenic": 0.30,
        "intron": 0.12,
        "RNA gene": 0.05,
        "coding, forward strand": 0.16,
        "coding, reverse strand": 0.37,
    }
    assert kinds[54_957] == 3 and kinds[1_443] == 4  # rbcL begins, and so does psbA, on the other strand
    assert kinds[2_000] == 1  # between the ends of trnK, before matK


def test_genes_reads_both_strands_alike_whatever_the_padding(genes, run):
    _, results = run
    tokens = TokenizerPipe(
        embeddings_dict=genes.LETTERS, column="sequences", tokenizer=character_tokenizer, padding_token="-"
    )
    model = genes.GeneFinder(input=tokens)
    model.load_state(results / "torch_GeneFinder-model.json")
    model.eval()
    record = read_fasta(results / "test.fasta")[0]
    longer = "ACGT" * 60

    def log_odds(*sequences):
        message = genes.Message({"sequences": [str(sequence) for sequence in sequences]})
        return model(message)["log_odds"][0].item()

    alone = log_odds(record.seq)
    assert log_odds(record.seq, longer) == pytest.approx(alone, abs=1e-4)
    assert log_odds(record.seq.reverse_complement()) == pytest.approx(alone, abs=1e-4)
    assert log_odds(record.seq[:-30]) != pytest.approx(alone, abs=1e-4)


def test_genes_gives_the_same_model_every_time(genes, run, one_thread):
    _, results = run
    rows = {side: genes.read_windows(results / f"{side}.fasta") for side in ("train", "validation")}
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        _, trainer = genes.train(rows["train"], rows["validation"], epochs=1)
        losses.append(trainer.history["loss"].tolist())

    assert losses[0] == losses[1]
    saved = pd.read_csv(results / "losses.csv")["loss"]
    assert losses[0][0] == pytest.approx(saved[0])
