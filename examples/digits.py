"""Read handwritten digits: from a database to a trained model, through a pipeline.

Run `make demo`, or `python examples/digits.py --results somewhere`.
"""

import argparse
import math
from pathlib import Path

import torch
from ignite.metrics import Accuracy
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from fireworks import IgniteJunction, Message, Model
from fireworks.extensions.database import DBPipe, TablePipe, create_table
from fireworks.extensions.experiment import Experiment
from fireworks.toolbox import BatchingPipe, Normalizer, ShufflerPipe, TensorPipe, train_test_split


class DigitReader(Model):
    """Guesses which digit each row of the column `pixels` shows; adds the columns `scores` and `guess`."""

    def init_default_components(self):
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(32 * 4 * 4, 10),
        )

    def forward(self, message):
        scores = self.network(message["pixels"].reshape(-1, 1, 8, 8))
        return message.merge({"scores": scores, "guess": scores.argmax(dim=1)})


DIGITS = create_table("digits", {"pixels": torch.Tensor, "digit": int})


def store_digits(engine):
    """The digits that come with scikit-learn: 1,797 pictures of 8 × 8 pixels, each from 0 (white) to 16."""
    pixels, digits = load_digits(return_X_y=True)
    with TablePipe(DIGITS, engine) as table:
        table.insert({"pixels": torch.tensor(pixels, dtype=torch.float32), "digit": digits})


def train(train_rows, test_rows, epochs, experiment=None):
    """A model that has learnt from the training rows, and the junction that trained it."""
    batches = BatchingPipe(input=ShufflerPipe(input=train_rows, seed=0), batch_size=64)
    prepare = Normalizer(input=TensorPipe(cuda=False), columns=["pixels"], epsilon=1.0)
    prepare.fit(batches)  # learns mean and variance from the training rows,
    prepare.disable_updates()  # and nothing from those of the test
    model = DigitReader(input=prepare)  # calling the model calls its input first, so it takes rows as they are

    trainer = IgniteJunction(
        components={"model": model, "dataset": batches, "eval_set": BatchingPipe(input=test_rows, batch_size=64)},
        loss=lambda message: nn.functional.cross_entropy(message["scores"], message["digit"]),
        optimizer="Adam",
        lr=0.003,
        progress=True,
        experiment=experiment,
    )
    accuracy = Accuracy(lambda output: (output["output"]["scores"], output["output"]["digit"]))
    accuracy.attach(trainer.evaluator, "accuracy")
    trainer.train(max_epochs=epochs)
    return model, trainer


def count_guesses(read):
    """How often each digit was read as which: a row for each digit, a column for each guess."""
    pairs = torch.stack([read["digit"], read["guess"]], dim=1).tolist()
    columns = {f"as {guess}": [pairs.count([digit, guess]) for digit in range(10)] for guess in range(10)}
    return Message({"digit": list(range(10)), **columns})


def draw_losses(history):
    """A figure of the loss of each step, and of the mean of each epoch."""
    steps = history.df
    epochs = steps.groupby("epoch")[["iteration", "loss"]].mean()
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(steps["iteration"], steps["loss"], color="lightsteelblue", linewidth=0.8, label="each step")
    axes.semilogy(epochs["iteration"], epochs["loss"], color="navy", marker="o", markersize=4, label="mean of an epoch")
    axes.set(title="Training on handwritten digits", xlabel="step", ylabel="loss (cross entropy)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def draw_wrong(rows, read, per_line=6, most=18):
    """A figure of the digits that were read wrongly, with what they are and what they were taken for."""
    wrong = (read["guess"] != read["digit"]).nonzero().flatten()
    pictures, guesses = rows[wrong[:most]], read["guess"][wrong[:most]].tolist()
    lines = max(1, math.ceil(len(guesses) / per_line))
    figure = Figure(figsize=(9, 1.8 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, per_line, squeeze=False)
    figure.suptitle(f"{len(wrong)} of {len(rows)} digits were read wrongly")
    for cell in grid.flat[len(guesses) :]:
        cell.axis("off")
    for cell, picture, guess in zip(grid.flat, pictures, guesses, strict=False):
        cell.imshow(picture["pixels"].reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        cell.set(xticks=[], yticks=[])
        cell.set_title(f"{picture['digit'][0]}, read as {guess}", fontsize=10)
    return figure


def run(experiment, epochs):
    """The whole of it, from data to results; all of them are in the folder of the experiment."""
    engine = experiment.get_engine("digits")
    store_digits(engine)
    digits = DBPipe(DIGITS, engine)  # reads rows when they are asked for
    print(digits[:])
    train_rows, test_rows = train_test_split(digits, test=0.2, seed=0)
    print(f"\nTraining on {len(train_rows):,} digits; {len(test_rows)} are kept for the test\n")

    model, trainer = train(train_rows, test_rows, epochs, experiment)
    metrics = trainer.evaluate()
    model.eval()
    with torch.no_grad():
        read = model(test_rows[:])
    confusion = count_guesses(read)

    experiment.save("model", model)
    experiment.save("test", metrics)
    experiment.save("confusion", confusion)
    experiment.save("losses", draw_losses(trainer.history))
    experiment.save("wrong", draw_wrong(test_rows, read))
    print(f"\n{model}\n\nTest accuracy: {metrics['accuracy']:.1%}, loss {metrics['loss']:.3f}\n")
    print(confusion.df.to_string(index=False))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for the experiments")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training digits")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # every run gives the same model
    torch.set_num_threads(1)  # for a model so small, sharing the work takes longer than doing it

    with Experiment("digits", options.results, "Handwritten digits, from a database to a trained model") as experiment:
        run(experiment, options.epochs)
    folder = options.results / Path(experiment.save_path).name
    print(f"\nResults are in {folder}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}{'/' if path.is_dir() else ''}")


if __name__ == "__main__":
    main()
