"""F. Hyperparameter search: 1,000 trials that do nothing."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.runner import OURS, Fact, Target, Workload, missing
from fireworks.extensions.factory import LocalMemoryFactory, RandomGenerator, SQLFactory, Uniform

TITLE = "Hyperparameter search: 1,000 trials that do nothing"
OPTUNA = "optuna, random"


class _Evaluator:
    def __init__(self, params: Any) -> None:
        self.loss = (params["x"] - 2) ** 2

    def run(self, data: Any, max_epochs: int = 1) -> float:
        return self.loss


class _Loss:
    def attach(self, evaluator: _Evaluator, name: str) -> None:
        self.evaluator = evaluator

    def compute(self) -> float:
        return self.evaluator.loss


def workloads(scale: float, folder: Path) -> Iterator[Workload | Fact]:
    trials = max(int(1000 * scale), 20)
    databases = (f"sqlite:///{folder}/{number}.sqlite" for number in itertools.count())
    yield Workload(
        "in memory",
        {
            OURS: lambda: _run(LocalMemoryFactory(*_parts(trials))),
            OPTUNA: None if missing("optuna") else lambda: _optuna(trials, None),
        },
        [Target(0.8, OPTUNA)],
    )
    yield Workload(
        "SQLite, a commit per trial",
        {
            OURS: lambda url: _sql(url, trials),
            "SQLAlchemy Core, WAL": lambda url: _core(url, trials),
            OPTUNA: None if missing("optuna") else lambda url: _optuna(trials, url),
        },
        [Target(0.005, OPTUNA)],
        before=lambda: next(databases),
    )
    for name, late, early in (("memory", trials, trials // 10), ("SQLite", trials, trials // 10)):
        costs = [seconds_per_trial(name, trials + trials // 10, next(databases)) for _ in range(3)]
        width = max(trials // 20, 1)
        values = {
            OURS: min(median(cost[late - width : late + width]) for cost in costs) * 1e6,
            "trial 100": min(median(cost[early - width : early + width]) for cost in costs) * 1e6,
        }
        yield Fact(f"trial 1,000, {name}", values, [Target(1.5, "trial 100")], "µs")


def _parts(trials: int) -> tuple[Any, ...]:
    return _Evaluator, {"loss": _Loss()}, RandomGenerator({"x": Uniform(-10.0, 10.0)}, trials, seed=0), [0]


def _outcome(x: Any, loss: Any) -> dict[str, Any]:
    """What is the same for searches that draw different numbers: how many trials, and that losses are right."""
    return {"trials": [len(x)], "right": [bool(np.allclose((np.asarray(x) - 2) ** 2, np.asarray(loss)))]}


def _run(factory: Any) -> Callable[[], Any]:
    factory.run(progress=False)

    def delivered() -> dict[str, Any]:
        params, metrics = factory.read()
        return _outcome(params["x"], metrics["loss"]["loss"])

    return delivered


def _sql(url: str, trials: int) -> Callable[[], Any]:
    engine = sa.create_engine(url)
    _run(SQLFactory(*_parts(trials), engine=engine))
    engine.dispose()
    return lambda: _run(SQLFactory(*_parts(trials), engine=url))()


def _optuna(trials: int, url: str | None) -> Callable[[], Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: (trial.suggest_float("x", -10.0, 10.0) - 2) ** 2, n_trials=trials)
    return lambda: _outcome([trial.params["x"] for trial in study.trials], [trial.value for trial in study.trials])


def _core(url: str, trials: int) -> Callable[[], Any]:
    """The bound: a row per trial by one connection, which keeps the history in memory."""
    engine = sa.create_engine(url)
    table = sa.Table("trials", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
                     sa.Column("params", sa.Text), sa.Column("metrics", sa.Text))  # fmt: skip
    random = np.random.default_rng(0)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
        table.create(connection)
        connection.commit()
        for _ in range(trials):
            evaluator = _Evaluator(params := {"x": random.uniform(-10, 10)})
            row = {"params": json.dumps(params), "metrics": json.dumps({"loss": evaluator.run([0])})}
            connection.execute(table.insert(), row)
            connection.commit()
    engine.dispose()

    def delivered() -> dict[str, Any]:
        with engine.connect() as connection:
            rows = connection.execute(sa.select(table.c.params, table.c.metrics)).all()
        engine.dispose()
        return _outcome([json.loads(one)["x"] for one, _ in rows], [json.loads(other)["loss"] for _, other in rows])

    return delivered


def seconds_per_trial(where: str, trials: int, url: str) -> np.ndarray:
    """Seconds of each trial."""
    engine = sa.create_engine(url)
    factory: Any = (
        LocalMemoryFactory(*_parts(trials)) if where == "memory" else SQLFactory(*_parts(trials), engine=engine)
    )
    times: list[float] = []
    factory.after = lambda params, metrics: times.append(time.perf_counter())
    factory.run(progress=False)
    engine.dispose()
    return np.diff(times)
