"""A training run in a process of its own, which the tests kill: `python training_run.py KIND FOLDER [OUTCOME]`.

It resumes what it finds in the folder, writes a line after each step, and at the end its history and parameters.
"""

import random
import sys

import numpy as np
import torch
from ignite.engine import Events
from torch.utils.data import DataLoader

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.state import write_state
from fireworks.extensions.training import Checkpointing, EarlyStopping, IgniteJunction
from fireworks.toolbox.pipes import BatchingPipe, FunctionPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import Normalizer

EPOCHS = 6


class Network(Model):
    """A hidden layer with dropout."""

    def forward(self, message):
        hidden = self.dropout(torch.relu(self.first(message["x"])))
        return message.merge({"guess": self.second(hidden).squeeze(1)})


def make_points(rows=61):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 3, generator=generator) * torch.tensor([1.0, 10.0, 0.1]) + 4
    return Message({"x": x, "y": x.sum(dim=1)})


def add_noise(message):
    """From the two global generators that torch does not own."""
    noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1)  # noqa: NPY002
    return message.merge({"y": message["y"] + noise})


def squared_error(message):
    return ((message["guess"] - message["y"]) ** 2).mean()


def make_pipeline_trainer(folder, wrap=lambda pipe: pipe):
    """Shuffling, noise, a Normalizer that learns, dropout, Adam, two schedules' worth of options."""
    shuffled = ShufflerPipe(make_points(), seed=3)
    noisy = FunctionPipe(BatchingPipe(shuffled, batch_size=7), function=add_noise)
    model = Network(
        {"first": torch.nn.Linear(3, 16), "dropout": torch.nn.Dropout(0.3), "second": torch.nn.Linear(16, 1)}
    )
    return IgniteJunction(
        components={
            "model": model,
            "dataset": wrap(Normalizer(input=noisy, columns=["x"])),
            "eval_set": [make_points()],
        },
        loss=squared_error,
        optimizer="Adam",
        scheduler="StepLR",
        lr=0.02,
        step_size=2,
        clip_norm=5.0,
        accumulate=2,
        early_stopping=EarlyStopping(patience=50),
        checkpoint=Checkpointing(folder, every_iterations=4, every_epochs=1, keep=2, best="eval_loss"),
    )


def make_loader_trainer(folder):
    """A plain module, a DataLoader that shuffles by torch's global generator, a schedule by steps."""
    points = make_points()
    rows = list(zip(points["x"], points["y"] / 50, strict=True))
    network = torch.nn.Sequential(
        torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 16), torch.nn.Dropout(), torch.nn.Linear(16, 1)
    )

    class OnPairs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, pair):
            return self.network(pair[0]).squeeze(1), pair[1]

    return IgniteJunction(
        components={"model": OnPairs(), "dataset": DataLoader(rows, batch_size=7, shuffle=True)},
        loss=lambda output: ((output[0] - output[1]) ** 2).mean(),
        optimizer="SGD",
        scheduler="OneCycleLR",
        lr=0.01,
        momentum=0.9,
        max_lr=0.02,
        total_steps=EPOCHS * 9,
        checkpoint=Checkpointing(folder, every_iterations=3, keep=2),
    )


def make_piped_trainer(folder, workers=0):
    """The pipeline once more, behind a DataLoader."""
    return make_pipeline_trainer(
        folder, lambda pipe: DataLoader(pipe.as_dataset(), batch_size=None, num_workers=workers)
    )


MAKERS = {
    "pipeline": make_pipeline_trainer,
    "loader": make_loader_trainer,
    "pipeline behind a loader": make_piped_trainer,
    "pipeline in workers": lambda folder: make_piped_trainer(folder, workers=2),
}


def main(kind, folder, outcome=None):
    seed = 11
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    trainer = MAKERS[kind](folder)

    @trainer.on(Events.ITERATION_COMPLETED)
    def tell():
        print(trainer.state.iteration, flush=True)  # noqa: T201 - the test waits for it

    trainer.train(max_epochs=EPOCHS, resume=True)
    if outcome is not None:
        history, metrics = trainer.history, trainer.metric_history
        found = {
            "history": {name: torch.tensor(history[name].tolist(), dtype=torch.float64) for name in history.columns},
            "metrics": {name: torch.tensor(metrics[name].tolist(), dtype=torch.float64) for name in metrics.columns},
            "parameters": [parameter.detach() for parameter in trainer.model.parameters()],
            "rate": trainer.optimizer.param_groups[0]["lr"],
        }
        write_state(found, outcome, method="safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
