"""Coding or not? From an annotated genome to a network that finds genes, through a FASTA file and padded batches.

Windows of the chloroplast genome of thale cress code for protein, or come from between genes, from introns or from
genes of RNA. A convolutional network tells them apart, and so does logistic regression on counts of k-mers. Both are
tested on whole genes, and on what lies between, that had no part in training.

Run `python examples/genes.py --results somewhere`.
"""

import argparse
import gzip
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from ignite.engine import Events
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, Normalizer
from torch import nn

from fireworks import IgniteJunction, Message, Model
from fireworks.toolbox import BioSeqPipe, BucketBatchingPipe, CachingPipe, FunctionPipe, TokenizerPipe
from fireworks.toolbox.text import character_tokenizer, make_indices

GENOME = Path(__file__).parent / "data" / "NC_000932.gb.bgz"
REPEAT = 128_214  # from here on the genome repeats letters 84,170 to 110,434, on the other strand; left out
KINDS = ["intergenic", "intron", "RNA gene", "coding, forward strand", "coding, reverse strand"]
CODING = 3  # kinds from this number on
LENGTHS = range(90, 241, 15)  # of windows
LETTERS = make_indices("ACGT", padding_token="-")
FORWARD, REVERSE = "#2a6f97", "#c8553d"


class GeneFinder(Model):
    """Tells whether windows code for protein; adds `probability`, `log_odds`, and the scores of the six `frames`.

    A gene is read in steps of three letters, so there are three frames on each strand. A convolution scores every three
    letters, the scores of a frame are summed up, and a window codes if one of its frames does. The same weights read
    both strands.
    """

    def init_default_components(self):
        self.codons = nn.Sequential(nn.Conv1d(4, 48, kernel_size=3), nn.ReLU(), nn.Conv1d(48, 1, kernel_size=1))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, message):
        letters = nn.functional.one_hot(message["tokens"], 5)[:, :, 1:].mT.float()  # padding has no letter
        mask = message["mask"]
        other_strand = letters.flip(1, 2)  # from the end, with A for T and C for G
        frames = torch.cat([self.read(letters, mask), self.read(other_strand, mask.flip(1))], dim=1)
        log_odds = frames.logsumexp(dim=1) + self.bias
        return message.merge({"frames": frames, "log_odds": log_odds, "probability": log_odds.sigmoid()})

    def read(self, letters, mask):
        """The score of each frame of one strand, (N, 3)."""
        scores = 0.3 * self.codons(letters).squeeze(1)  # smaller, as many are summed up
        scores = scores * (mask[:, 2:] & mask[:, :-2])  # nothing for padding
        return torch.stack([scores[:, frame::3].sum(dim=1) for frame in range(3)], dim=1)


# --- the genome ------------------------------------------------------------------------------------------------------


def read_genome():
    with gzip.open(GENOME, "rt") as file:
        return SeqIO.read(file, "genbank")


def annotate(genome):
    """The kind of every letter, as a number of KINDS. Where features overlap, coding comes first."""
    kinds = np.zeros(len(genome), dtype=np.int64)
    for types in [["gene"], ["tRNA", "rRNA"], ["CDS"]]:
        for feature in genome.features:
            for part in feature.location.parts if feature.type in types else []:
                number = {"gene": 1, "CDS": CODING + (part.strand == -1)}.get(feature.type, 2)
                kinds[part.start : part.end] = number
    return kinds[:REPEAT]


def cut(genome, least=5000):
    """The genome in stretches of whole genes, as pairs of start and stop: each gene, and what follows it, is in one."""
    genes = sorted(
        (part.start, part.end) for gene in genome.features if gene.type == "gene" for part in gene.location.parts
    )
    starts, reached = [0], 0
    for start, stop in genes:
        if reached <= start < REPEAT and start - starts[-1] >= least:
            starts.append(int(start))
        reached = max(reached, stop)
    return list(pairwise([*starts, REPEAT]))


def draw_windows(kinds, stretches, pairs, seed):
    """Windows at random places in some stretches, as pairs of start and stop.

    Each is of one kind throughout. They come in pairs of the same length, one coding and one not.
    """
    generator = np.random.default_rng(seed)
    stretch = np.full(len(kinds), -1)
    for number, (start, stop) in enumerate(stretches):
        stretch[start:stop] = number
    changes = (np.diff(kinds) != 0) | (np.diff(stretch) != 0)
    run = np.concatenate([[0], changes.cumsum()])  # numbers letters that are of one kind and one stretch
    windows = []
    for length in generator.choice(LENGTHS, pairs).tolist():
        within = (run[: 1 - length] == run[length - 1 :]) & (stretch[: 1 - length] >= 0)
        for wanted in [True, False]:
            starts = (within & ((kinds[: 1 - length] >= CODING) == wanted)).nonzero()[0]
            start = int(generator.choice(starts))
            windows.append((start, start + length))
    return windows


def write_fasta(genome, kinds, windows, path):
    records = [
        SeqRecord(genome.seq[start:stop], id=f"{start + 1}..{stop}", description=KINDS[kinds[start]])
        for start, stop in windows
    ]
    SeqIO.write(records, path, "fasta")


# --- the pipeline ----------------------------------------------------------------------------------------------------


def read_windows(path):
    """Rows by index: each is read from the file once, when it is first asked for."""
    return FunctionPipe(input=CachingPipe(input=BioSeqPipe(path), cache_type="unlimited"), function=add_kind)


def add_kind(message):
    """A message with the columns `kind`, from the heading of the record, and `coding`, 1 or 0."""
    kind = message["descriptions"].str.partition(" ")[2]
    return message.merge({"kind": kind, "coding": torch.tensor(kind.str.startswith("coding").tolist()).float()})


def train(train_rows, validation_rows, epochs):
    """A model that has learnt from the training rows, and the junction that trained it."""
    batches = BucketBatchingPipe(train_rows, "sequences", dim=1, cutoff=10_000, seed=0)  # letters, with the padding
    tokens = TokenizerPipe(
        embeddings_dict=LETTERS, column="sequences", tokenizer=character_tokenizer, padding_token="-"
    )
    model = GeneFinder(input=tokens)  # calling the model calls its input first, so it takes text
    trainer = IgniteJunction(
        components={"model": model, "dataset": batches, "eval_set": [validation_rows[:]]},
        loss=lambda message: nn.functional.binary_cross_entropy_with_logits(message["log_odds"], message["coding"]),
        optimizer="AdamW",
        lr=0.1,
        scheduler=partial(
            torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, epochs=epochs, steps_per_epoch=batches.batches_per_epoch
        ),
        progress=True,
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: trainer.evaluate())
    trainer.train(max_epochs=epochs)
    return model, trainer


# --- the baseline ----------------------------------------------------------------------------------------------------


def kmers(sequence, k):
    """All k letters in a row, on both strands."""
    strands = [sequence, str(Seq(sequence).reverse_complement())]
    return [strand[start : start + k] for strand in strands for start in range(len(strand) - k + 1)]


def fit_baseline(train_rows, validation_rows):
    """Logistic regression on the frequencies of k-mers; k and the regularisation are the best ones in validation."""
    rows, validation = train_rows[:], validation_rows[:]
    fitted = []
    for k in range(2, 7):
        features = make_pipeline(CountVectorizer(analyzer=partial(kmers, k=k)), Normalizer("l1"), MaxAbsScaler())
        counted, to_validate = features.fit_transform(rows["sequences"]), features.transform(validation["sequences"])
        for c in [0.01, 0.1, 1, 10]:
            classifier = LogisticRegression(C=c, max_iter=1000).fit(counted, rows["coding"])
            score = classifier.score(to_validate, validation["coding"])
            fitted.append((score, k, make_pipeline(features, classifier)))
    _, k, best = max(fitted, key=lambda entry: entry[0])
    return best, k


# --- what comes out --------------------------------------------------------------------------------------------------


def compare(rows, found, baseline):
    """How many of the windows of each kind both models know for what they are."""
    kinds, coding = np.array(rows["kind"]), rows["coding"].bool().numpy()
    right = {
        "network": (found["probability"] > 0.5).numpy() == coding,
        "k-mers": baseline.predict(rows["sequences"]).astype(bool) == coding,
    }
    groups = {kind: kinds == kind for kind in KINDS if kind in kinds} | {"all": kinds != ""}
    shares = {name: [f"{correct[group].mean():.1%}" for group in groups.values()] for name, correct in right.items()}
    counts = [int(group.sum()) for group in groups.values()]
    return Message({"kind": list(groups), "windows": counts, **shares})


def scan(model, genome, start, stop, width=150, step=15):
    """Along a stretch of the genome: the middle of each window, and the probability that it codes."""
    begins = np.arange(start, stop - width + 1, step)
    with torch.no_grad():
        found = model(Message({"sequences": [str(genome.seq[begin : begin + width]) for begin in begins]}))
    return begins + width / 2, found["probability"].numpy()


def draw_losses(trainer, path):
    """The loss of each step, and after each epoch that of training and validation."""
    steps, epochs = trainer.history.df, trainer.metric_history.df
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps["iteration"], steps["loss"], color="lightsteelblue", linewidth=0.8, label="each step")
    axes.plot(epochs["iteration"], epochs["loss"], color="navy", marker="o", markersize=4, label="mean of an epoch")
    axes.plot(
        epochs["iteration"], epochs["eval_loss"], color=REVERSE, marker="s", markersize=4, label="genes of validation"
    )
    axes.set(title="Training on windows of a genome", xlabel="step", ylabel="loss (cross entropy)", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def draw_stretches(model, genome, stretches, path):
    """What the network finds along stretches that it has not seen, above the genes that are known there."""
    figure = Figure(figsize=(11, 1.7 * len(stretches) + 0.5), layout="constrained")
    figure.suptitle("Probability of coding in each window of 150 letters, above the known genes")
    panels = figure.subplots(len(stretches), squeeze=False).flat
    for axes, (start, stop) in zip(panels, stretches, strict=True):
        middles, probability = scan(model, genome, start, stop)
        axes.fill_between(middles, probability, color="lightsteelblue", linewidth=0)
        axes.plot(middles, probability, color="navy", linewidth=0.8)
        axes.axhline(0.5, color="black", linewidth=0.5, linestyle=":")
        draw_genes(axes, genome, start, stop)
        axes.set(xlim=(start, stop), ylim=(-0.75, 1.05), yticks=[0, 0.5, 1])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("letter of the genome (genes in blue are on the forward strand, in red on the reverse)")
    figure.savefig(path, dpi=120)


def draw_genes(axes, genome, start, stop):
    parts = [(part, feature) for feature in genome.features if feature.type == "CDS" for part in feature.location.parts]
    height, taken = -0.43, start
    for part, feature in sorted(parts, key=lambda pair: pair[0].start):
        if start <= part.start < stop:
            color, middle = FORWARD if part.strand == 1 else REVERSE, (part.start + part.end) / 2
            axes.barh(-0.2, part.end - part.start, left=part.start, height=0.18, color=color, edgecolor="white")
            height = -0.63 if middle < taken and height == -0.43 else -0.43  # where names would touch, one is lower
            taken = middle + 250
            axes.text(middle, height, feature.qualifiers["gene"][0], ha="center", va="center", size=8, style="italic")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/genes"), help="folder for all that is made")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the training windows")
    options = parser.parse_args(arguments)
    results = options.results
    results.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # every run gives the same model
    torch.set_num_threads(1)  # for a model so small, sharing the work takes longer than doing it

    genome = read_genome()
    kinds, stretches = annotate(genome), cut(genome)
    sides = {"train": [], "validation": [], "test": []}
    for number, stretch in enumerate(stretches):  # of five in a row, one for the test and one for validation
        sides[["test", "validation", "train", "train", "train"][number % 5]].append(stretch)
    rows = {}
    for seed, (side, pairs) in enumerate({"train": 1500, "validation": 300, "test": 500}.items()):
        windows = draw_windows(kinds, sides[side], pairs, seed)
        write_fasta(genome, kinds, windows, results / f"{side}.fasta")
        rows[side] = read_windows(results / f"{side}.fasta")
    print(f"{genome.description}: {len(genome):,} letters\n")
    print(rows["train"][:])
    print(f"\nTraining on {len(rows['train']):,} windows of {len(sides['train'])} stretches of the genome;")
    print(f"{len(rows['test']):,} windows of {len(sides['test'])} other stretches are kept for the test\n")

    model, trainer = train(rows["train"], rows["validation"], options.epochs)
    baseline, k = fit_baseline(rows["train"], rows["validation"])
    model.eval()
    test = rows["test"][:]
    with torch.no_grad():
        table = compare(test, model(test), baseline)

    model.save(path=results / "model.json")
    table.to("csv", path=results / "accuracy.csv")
    trainer.history.to("csv", path=results / "losses.csv")
    draw_losses(trainer, results / "losses.png")
    draw_stretches(model, genome, sides["test"], results / "stretches.png")

    print(f"\n{model}\n\nCoding or not? Right answers in unseen stretches, by the network and by counts of {k}-mers:\n")
    print(table.df.to_string(index=False))
    print(f"\nResults are in {results}:")
    for path in sorted(results.iterdir()):
        print(f"  {path.name}")


if __name__ == "__main__":
    main()
