"""Which polynomial? Hyperparameter search on a blackboard: in memory, and in a database with two worker processes.

Noisy points of a cubic are fitted by polynomials of several degrees, with several strengths of regularisation, and each
is judged by points that it has not seen. An Experiment keeps the tables, the pictures and the best model.

Run `python examples/model_selection.py --results somewhere`.
"""

import argparse
import concurrent.futures
import multiprocessing
from pathlib import Path

import torch
from ignite.metrics import MeanSquaredError
from torch import nn

from fireworks import IgniteJunction, Message, Model
from fireworks.extensions.experiment import Experiment, experiments
from fireworks.extensions.factory import GridGenerator, LocalMemoryFactory, SQLFactory
from fireworks.toolbox import BatchingPipe

SPACE = {"degree": [1, 2, 3, 4, 6, 9], "penalty": [0.0, 0.01, 0.1]}


class Polynomial(Model):
    """`y` as a polynomial of `x`, which lies between -1 and 1; adds the column `guess`."""

    def __init__(self, degree, **kwargs):
        self.degree = degree
        super().__init__(components={"weights": nn.Parameter(torch.zeros(degree + 1))}, **kwargs)

    def forward(self, message):
        # Chebyshev's polynomials span the same space as the powers, and are far easier to learn.
        basis = torch.cos(torch.arange(self.degree + 1) * torch.arccos(message["x"])[:, None])
        return message.merge({"guess": basis @ self.weights})


def guess_and_truth(output):
    """What ignite's metrics compare."""
    return output["output"]["guess"], output["output"]["y"]


def make_points(count, seed):
    """Points of a cubic with noise: `x` from -1 to 1 and `y`."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(count, generator=generator) - 1
    y = 4 * x**3 - 2 * x + 0.5 + 0.3 * torch.randn(count, generator=generator)
    return Message({"x": x, "y": y})


def fit(params):
    """A trained junction for one choice of parameters; the same each time, in whatever process."""
    torch.set_num_threads(1)
    model = Polynomial(int(params["degree"]))
    batches = BatchingPipe(input=make_points(25, seed=0), batch_size=25)
    penalty = float(params["penalty"])

    def loss(message):
        return ((message["guess"] - message["y"]) ** 2).mean() + penalty * (model.weights**2).sum()

    trainer = IgniteJunction(
        components={"model": model, "dataset": batches}, loss=loss, optimizer="Adam", lr=0.1, progress=False
    )
    trainer.train(max_epochs=100)
    return trainer


def train(params):
    """What a factory wants: something with `run(eval_set, max_epochs=1)`."""
    return fit(params).evaluator


def search(kind, **options):
    """A search over the whole grid that judges by unseen points."""
    eval_set = BatchingPipe(input=make_points(200, seed=1), batch_size=100)
    return kind(
        train,
        {"mse": MeanSquaredError(guess_and_truth)},
        GridGenerator(SPACE),
        eval_set,
        objective="mse",
        direction="minimize",
        **options,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/model_selection"), help="folder for experiments")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)

    with Experiment("polynomials", str(options.results), "Which degree fits noisy points of a cubic?") as experiment:
        in_memory = search(LocalMemoryFactory)
        in_memory.run()
        print(f"In memory: {in_memory.best().params}, error {in_memory.best().value('mse'):.4f}")

        in_database = search(SQLFactory, engine=experiment.get_engine("search"))
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as two_processes:
            in_database.run(executor=two_processes, workers=2)
        best = in_database.best()
        print(f"In a database, by two processes: {best.params}, error {best.value('mse'):.4f}\n")

        trials = in_database.to_dataframe()
        table = trials.pivot_table("mse", "degree", "penalty")
        print(f"Error on unseen points, by degree and penalty:\n{table.round(4).to_string()}\n")

        experiment.save("trials", Message(trials[["id", *SPACE, "mse"]]))
        for kind in ("history", "importance", "parallel"):
            experiment.save(kind, in_database.plot(kind))
        model = fit(best.params).components["model"]
        experiment.save("model", model)
        experiment.log_parameters(**best.params)
        experiment.log_metrics(mse=best.value("mse"))
        experiment.get_engine("search").dispose()

    again = Polynomial(int(best.params["degree"]))
    experiment.load("model", into=again)
    print(
        f"The best model, loaded from {experiment.save_path}: weights {[round(w, 2) for w in again.weights.tolist()]}\n"
    )
    print(f"All experiments in {options.results}:")
    shown = ["name", "iteration", "status", "parameters.degree", "parameters.penalty", "metrics.mse"]
    print(experiments(options.results)[shown].to_string(index=False))


if __name__ == "__main__":
    main()
