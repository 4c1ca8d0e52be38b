"""Scenarios of the study `digits`: reading handwritten digits, with models and training to choose by configuration."""

from dataclasses import dataclass, field

import torch
from ignite.metrics import Accuracy
from sklearn.datasets import load_digits
from torch import nn

from fireworks import IgniteJunction, Message, Model
from fireworks.extensions.hyperspace.configurables import ConfigurableDataclass
from fireworks.extensions.hyperspace.scenario_base import Scenario
from fireworks.toolbox import BatchingPipe, Normalizer, ShufflerPipe, TensorPipe, train_test_split

torch.set_num_threads(1)  # for models so small, sharing the work takes longer than doing it


@dataclass
class Network(ConfigurableDataclass, is_registry=True):
    """What maps 64 pixels to 10 scores: a configuration chooses one by `network.className`."""

    def build(self):
        raise NotImplementedError


@dataclass
class Linear(Network):
    """One layer."""

    def build(self):
        return nn.Linear(64, 10)


@dataclass
class Perceptron(Network):
    """Hidden layers with dropout between them."""

    hidden: list = field(default_factory=lambda: [32])
    dropout: float = 0.0  # added later; the default is what the code did before

    def build(self):
        layers, width = [], 64
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(self.dropout)]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, 10))


class DigitReader(Model):
    """Adds the column `scores` to rows with a column `pixels`."""

    def forward(self, message):
        return message.merge({"scores": self.network(message["pixels"])})


def read_digits():
    """The digits that come with scikit-learn: 1,797 pictures of 8 × 8 pixels."""
    pixels, digits = load_digits(return_X_y=True)
    return Message({"pixels": torch.tensor(pixels, dtype=torch.float32), "digit": digits})


def fit(train_rows, test_rows, params, log):
    """The accuracy on the test rows of a model that has learnt from the training rows, epoch after epoch."""
    training = {"rate": 0.01, "epochs": 3, **params.get("training", {})}
    batches = BatchingPipe(input=ShufflerPipe(input=train_rows, seed=0), batch_size=64)
    prepare = Normalizer(input=TensorPipe(cuda=False), columns=["pixels"], epsilon=1.0)
    prepare.fit(batches)
    prepare.disable_updates()
    model = DigitReader(input=prepare, components={"network": Network.from_config(params["network"]).build()})
    trainer = IgniteJunction(
        components={"model": model, "dataset": batches, "eval_set": BatchingPipe(input=test_rows, batch_size=256)},
        loss=lambda message: nn.functional.cross_entropy(message["scores"], message["digit"]),
        optimizer="Adam",
        lr=training["rate"],
        progress=False,  # a scenario's output is kept with its run
    )
    Accuracy(lambda output: (output["output"]["scores"], output["output"]["digit"])).attach(
        trainer.evaluator, "accuracy"
    )
    for epoch in range(training["epochs"]):
        trainer.train(max_epochs=epoch + 1)
        log("accuracy", trainer.evaluate()["accuracy"], epoch)
    return trainer.evaluate()["accuracy"], model


class HoldOut(Scenario):
    """Learn from a part of the digits, read the rest. The result is the accuracy."""

    def __init__(self, test=0.25):
        self.test = test

    def single_run(self, params):
        train_rows, test_rows = train_test_split(read_digits(), test=self.test, seed=0)
        accuracy, model = fit(train_rows, test_rows, params, self.log_scalar)
        print(f"{accuracy:.1%} of {len(test_rows)} digits were read rightly")
        return accuracy, {"parameters": sum(p.numel() for p in model.parameters())}, {}


class LearningCurve(Scenario):
    """Learn from ever more digits with the same parameters. The results are accuracies by the number of digits."""

    def __init__(self, sizes=(100, 400)):
        self.sizes = sizes

    def single_run(self, params):
        train_rows, test_rows = train_test_split(read_digits(), test=0.25, seed=0)
        results = {}
        for size in self.sizes:
            log = self.log_scalar if size == self.sizes[-1] else lambda name, value, step: None
            results[f"digits_{size}"], _ = fit(train_rows[:size], test_rows, params, log)
        return results, {}, {}
