"""Digits in a database: a schema from the data, rows in and out, and a model trained straight from the table.

`python examples/database.py` uses a SQLite file; `--url postgresql+psycopg://user@host/name` or
`--url mysql+pymysql://user@host/name` another database. The tables `digits` and `readings` are made anew.
"""

import argparse
from pathlib import Path

import sqlalchemy
import torch
from ignite.metrics import Accuracy
from sklearn.datasets import load_digits
from torch import nn

from fireworks import IgniteJunction, Message, Model
from fireworks.extensions.database import DBPipe, TablePipe, create_table, propose_columns
from fireworks.toolbox import BatchingPipe, CachingPipe, ShufflerPipe, TensorPipe


class Reader(Model):
    """Guesses the digit of each row; adds the columns `scores` and `guess`."""

    def init_default_components(self):
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, message):
        scores = self.network(message["pixels"] / 16)
        return message.merge({"scores": scores, "guess": scores.argmax(dim=1)})


def load():
    """The digits of scikit-learn: 1,797 pictures of 8 × 8 pixels; every fifth is for the test."""
    pixels, digits = load_digits(return_X_y=True)
    part = ["test" if row % 5 == 0 else "train" for row in range(len(digits))]
    return Message({"pixels": torch.tensor(pixels, dtype=torch.float32), "digit": digits, "part": part})


def fill(engine, digits):
    """The table of the digits, with a schema proposed from them: a tensor, a number and a text in each row."""
    table = create_table("digits", propose_columns(digits))
    table.metadata.drop_all(engine)
    with TablePipe(table, engine) as rows:  # commits at the end, or not at all
        rows.insert(digits, progress=True)
    return table


def train(rows, test_rows, epochs):
    """A model trained on rows of the table: each is read once, and then remembered by the cache."""
    cached = CachingPipe(input=rows, cache_size=len(rows))
    batches = BatchingPipe(input=ShufflerPipe(input=cached, seed=0), batch_size=64)
    model = Reader(input=TensorPipe(columns=["pixels", "digit"]))
    trainer = IgniteJunction(
        components={"model": model, "dataset": batches, "eval_set": BatchingPipe(input=test_rows, batch_size=256)},
        loss=lambda message: nn.functional.cross_entropy(message["scores"], message["digit"]),
        optimizer="Adam",
        lr=0.003,
        progress=True,
    )
    Accuracy(lambda output: (output["output"]["scores"], output["output"]["digit"])).attach(
        trainer.evaluator, "accuracy"
    )
    trainer.train(max_epochs=epochs)
    return trainer


def keep_readings(engine, read):
    """What the model made of each test row, beside the row's id: written once, and then brought up to date."""
    table = create_table("readings", {"id": int, "guess": int, "sure": float}, primary_key="id")
    table.metadata.drop_all(engine)
    sure = read["scores"].softmax(dim=1).amax(dim=1)
    with TablePipe(table, engine) as readings:
        readings.insert({"id": read["id"], "guess": read["guess"], "sure": sure})
        readings.upsert({"id": read["id"][:1], "guess": read["guess"][:1], "sure": [1.0]})
    return readings.query().filter("sure", "__lt__", 0.5).all()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="the database; a SQLite file in the results folder by default")
    parser.add_argument("--results", type=Path, default=Path("results/database"), help="folder for the SQLite file")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training digits")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)

    engine = sqlalchemy.create_engine(options.url or f"sqlite:///{options.results / 'digits.sqlite'}")
    digits = load()
    table = fill(engine, digits)
    stored = DBPipe(table, engine)
    print(f"{len(stored):,} rows in {engine.dialect.name}; the first three:\n{stored[:3]}\n")
    same = torch.equal(stored.all()["pixels"], digits["pixels"])
    print(f"The pixels come back {'bit for bit' if same else 'CHANGED'}")
    zeros = stored.filter("digit", "__eq__", 0).filter("part", "in_", ["train"])
    print(f"{len(zeros)} of the training rows are zeros\n")

    train_rows, test_rows = (stored.filter("part", "__eq__", part) for part in ("train", "test"))
    trainer = train(train_rows, test_rows, options.epochs)
    print(f"\nTest accuracy: {trainer.evaluate()['accuracy']:.1%}")
    with torch.no_grad():
        unsure = keep_readings(engine, trainer.components["model"](test_rows.all()))
    print(f"\nRows that were read with less than 50 % certainty, from the table `readings`:\n{unsure}")
    engine.dispose()


if __name__ == "__main__":
    main()
