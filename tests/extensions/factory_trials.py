"""Trainers, metrics and generators for tests of factories; importable by other processes."""

import os
import signal
import time
from pathlib import Path

from fireworks.core.message import Message
from fireworks.utils.exceptions import EndHyperparameterOptimization


class Evaluator:
    """What a trainer returns: it knows its loss, and which data it ran over."""

    def __init__(self, loss):
        self.loss, self.data = loss, None

    def run(self, data, max_epochs=1):
        self.data, self.epochs = data, max_epochs


class Loss:
    """The loss of the evaluator that it is attached to."""

    def attach(self, evaluator, name):
        self.evaluator, self.name = evaluator, name

    def compute(self):
        return self.evaluator.loss


class Rows(Loss):
    """A metric with two columns, as a message."""

    def compute(self):
        return Message({"rows": [len(self.evaluator.data)], "half": [self.evaluator.loss / 2]})


def square(params):
    """(x - 2)²"""
    return Evaluator((params["x"] - 2) ** 2)


def square_with_trial(params, trial):
    """The same, with reports and a checkpoint."""
    for step in range(3):
        trial.report(step, params["x"] + step)
        if trial.should_stop():
            return None
    trial.save_checkpoint({"x": params["x"]})
    return Evaluator(trial.last_checkpoint()["x"])


def break_on_odd(params):
    """Fails for odd numbers."""
    if params["x"] % 2:
        raise ZeroDivisionError(f"x is {params['x']}")
    return square(params)


class Count:
    """Proposes x = 0, 1, 2 … by the history alone, so that any number of factories may share it."""

    def __init__(self, trials):
        self.trials = trials

    def propose(self, history):
        number = len(history.ended) + len(history.pending)
        if number >= self.trials:
            raise EndHyperparameterOptimization
        return {"x": number}


class ThinkOnce(Count):
    """The same, but thinks for a while about the second trial."""

    def propose(self, history):
        proposal = super().propose(history)
        if proposal["x"] == 1:
            time.sleep(2)  # while others wait, who give up after a second on MariaDB if they can
        return proposal


class Checkpoints:
    """Reports values and saves checkpoints while a generator thinks, and ends before it."""

    def __call__(self, params, trial):
        for step in range(4):
            time.sleep(0.1)
            trial.report(step, 1.0)
            trial.save_checkpoint({"step": step})
        return Evaluator(params["x"])


def count_ten(past_params, past_metrics):
    """As in the manual: ten trials."""
    if len(past_params) == 10:
        raise EndHyperparameterOptimization
    return {"x": len(past_params)}


class DieOnce:
    """Saves a checkpoint of each of five steps; the first process that comes to step 3 of x = 1 kills itself there."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, params, trial):
        state = trial.last_checkpoint() or {"step": 0, "total": 0}
        self.log(params["x"], f"from {state['step']}")
        while state["step"] < 5:
            if params["x"] == 1 and state["step"] == 3 and not (self.folder / "died").exists():
                (self.folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            state = {"step": state["step"] + 1, "total": state["total"] + params["x"]}
            trial.save_checkpoint(state)
        return Evaluator(state["total"])

    def log(self, x, line):
        with (self.folder / f"{x}.log").open("a") as log:
            log.write(f"{line}\n")

    def read(self, x):
        return (self.folder / f"{x}.log").read_text().splitlines()


class WaitForFile:
    """Trains until a file is there; tells by another that it began, and who it is."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, params):
        (self.folder / f"began-{params['x']}-{os.getpid()}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        return Evaluator(params["x"])


class Log:
    """Appends each x to a file of its process."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, params):
        with (self.folder / f"{os.getpid()}.log").open("a") as log:
            log.write(f"{params['x']}\n")
        return Evaluator(params["x"])

    def read(self):
        return {file.stem: [int(x) for x in file.read_text().split()] for file in self.folder.glob("*.log")}
