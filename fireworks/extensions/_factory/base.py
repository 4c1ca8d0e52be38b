"""What every factory does, wherever its blackboard is."""

from __future__ import annotations

import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from fireworks.core.message import Message
from fireworks.extensions._factory.blackboard import Blackboard
from fireworks.extensions._factory.evaluation import Evaluation, Outcome
from fireworks.extensions._factory.handle import Store
from fireworks.extensions._factory.plots import plot_history, plot_importance, plot_parallel_coordinates
from fireworks.extensions._factory.protocol import History, Proposer, Pruner, TrialRecord
from fireworks.extensions._factory.search import Assignment, number_of_workers, progress_bar, search
from fireworks.utils.exceptions import (
    EndHyperparameterOptimization,
    ParameterizationError,
    SearchFailedError,
    did_you_mean,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Factory"]

COMPONENTS = ("trainer", "metrics", "parameterizer", "eval_set")
DIRECTIONS = ("minimize", "maximize")
PLOTS = ("history", "importance", "parallel")


class Factory(ABC):
    """Repeats trials until its generator ends the search; subclasses say where the blackboard is.

    Args:
        trainer: `trainer(params)` trains a model and returns an evaluator with `run(eval_set, max_epochs=1)`, such as
            an ignite Engine. With an argument `trial` it gets a `Trial` too.
        metrics_dict: Name → metric with `attach(evaluator, name)` and `compute()`, which gives a number, a dict or a
            Message of one row.
        generator: Proposes parameters; see `Generator` and `Proposer`.
        eval_dataloader: What the evaluator runs over.
        components: All four in one dict: 'trainer', 'metrics', 'parameterizer', 'eval_set'.
        objective: What `best()` and `plot()` look at: a metric with one column, or 'metric.column'. By default that of
            the generator, or the only column there is.
        direction: 'minimize' or 'maximize' it; by default that of the generator.
        pruner: Decides whether a trial goes on; by default that of the generator, if it has one.
        max_failures: A run ends with a SearchFailedError when more trials than this failed in it; None for no limit.

    Raises:
        ParameterizationError: Components are missing or cannot be what they should be; names all of them.
    """

    def __init__(
        self,
        trainer: Any = None,
        metrics_dict: Mapping[str, Any] | None = None,
        generator: Any = None,
        eval_dataloader: Any = None,
        *,
        components: Mapping[str, Any] | None = None,
        objective: str | None = None,
        direction: str | None = None,
        pruner: Pruner | None = None,
        max_failures: int | None = 10,
    ) -> None:
        given = dict(zip(COMPONENTS, (trainer, metrics_dict, generator, eval_dataloader), strict=True))
        self.components = _checked_components(type(self).__name__, given, components)
        self.trainer, self.metrics_dict, self.generator, self.eval_dataloader = self.components.values()
        self.objective = objective if objective is not None else getattr(self.generator, "objective", None)
        self.direction = direction if direction is not None else getattr(self.generator, "direction", None)
        if self.direction not in (*DIRECTIONS, None):
            raise ValueError(f"expected 'minimize' or 'maximize' as direction, got {direction!r}")
        self.pruner = pruner if pruner is not None else getattr(self.generator, "pruner", None)
        self.max_failures = max_failures
        self._is_proposer = isinstance(self.generator, Proposer)
        self._board = Blackboard()
        self._ended = False
        self._best: TrialRecord | None = None
        self._compared = 0
        self.get_connection()

    # What subclasses define

    @abstractmethod
    def get_connection(self) -> Any:
        """Opens the blackboard and reads what is on it."""

    @abstractmethod
    def read(self) -> tuple[Message, Mapping[str, Message]]:
        """Parameters and metrics of the completed trials; row i of each belongs together."""

    @abstractmethod
    def write(self, params: Any, metrics_dict: Mapping[str, Any]) -> int:
        """Records a completed trial, such as one that was run elsewhere; returns its id."""

    @abstractmethod
    def exchange(self, done: list[tuple[Assignment, Outcome]], ask: bool) -> Assignment | None:
        """Records trials that ended, and hands out the next."""

    @abstractmethod
    def give_back(self, assignments: list[Assignment], error: str | None) -> None:
        """Puts trials that were not finished among those that wait."""

    @abstractmethod
    def _store(self, executor: concurrent.futures.Executor | None) -> Store:
        """Where checkpoints and reported values of the trials go."""

    def has_foreign_trials(self) -> bool:
        """Whether trials of other factories are under way."""
        return False

    def sync(self) -> None:  # noqa: B027 (memory has nothing to read again)
        """Reads what other factories wrote to the blackboard since the last time."""

    def after(self, params: Any, metrics: Mapping[str, Any]) -> None:  # noqa: B027 (a hook, which may stay empty)
        """Called after each trial that completed, with its parameters and metrics; a subclass may override it."""

    # The search

    def run(
        self,
        executor: concurrent.futures.Executor | None = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> None:
        """Run trials until the generator raises EndHyperparameterOptimization.

        Args:
            executor: Where trials run: threads, processes, `dask.distributed.Client(...).get_executor()`; here and one
                after the other by default. Other processes get trainer, metrics and evaluation set by pickle.
            workers: How many trials run at a time; as many as the executor has workers if it says so.
            progress: Whether to show a bar with the best value; by default where somebody watches.

        Raises:
            SearchFailedError: More than `max_failures` trials failed.
        """
        count = number_of_workers(executor, workers)
        evaluate = Evaluation(self.trainer, self.metrics_dict, self.eval_dataloader, self._store(executor), self.pruner)
        self._ended, self._failures = False, 0
        with progress_bar(progress, self._progress) as show:
            search(self, evaluate, executor, count, show)

    def _propose(self) -> Any:
        """The next parameters, or None when the generator has ended the search."""
        try:
            if self._is_proposer:
                params = self.generator.propose(self._board)
            else:
                params = self.generator(self._board.params, self._board.metrics)
        except EndHyperparameterOptimization:
            self._ended = True
            return None
        if params is None:
            raise TypeError(
                "expected parameters as a dict or a Message from the generator, got None; "
                "it ends a search by raise EndHyperparameterOptimization"
            )
        return params

    def _count_failures(self, done: Iterable[tuple[Assignment, Outcome]]) -> None:
        """Called when these have been recorded."""
        for assignment, outcome in done:
            if outcome.state == "completed":
                self.after(assignment.params, outcome.metrics)
            if outcome.state != "failed":
                continue
            self._failures += 1
            if self.max_failures is not None and self._failures > self.max_failures:
                raise SearchFailedError(
                    f"{self._failures} trials failed, which is more than max_failures={self.max_failures}; the last is "
                    f"trial {assignment.id} with {assignment.params!r}. Its traceback:\n{outcome.error}"
                )

    # What was found

    @property
    def history(self) -> History:
        """The blackboard as the generator sees it."""
        return self._board

    def best(self, objective: str | None = None, direction: str | None = None) -> TrialRecord:
        """The completed trial with the best value.

        Args:
            objective: A metric with one column, or 'metric.column'; that of the factory by default.
            direction: 'minimize' or 'maximize'; that of the factory by default.

        Raises:
            ValueError: Nobody said what is good, or no trial has completed with a value that is a number.
        """
        self.sync()
        objective, direction = self._goal(objective, direction)
        better = min if direction == "minimize" else max
        scored = [(record.value(objective), record) for record in self._board.completed]
        scored = [(value, record) for value, record in scored if value == value]
        if not scored:
            raise ValueError(f"no trial has completed with a {objective} that is a number")
        return better(scored, key=lambda pair: pair[0])[1]

    def to_dataframe(self) -> pd.DataFrame:
        """All trials, one row each: id, state, parameters, metrics, and the error of those that failed.

        A metric of one column has its own name, unless a parameter has it too; all others are 'metric.column'.
        """
        self.sync()
        rows = []
        for record in self._board.trials():
            row: dict[str, Any] = {"id": record.id, "state": record.state, **record.params}
            for name, columns in record.metrics.items():
                for column, value in columns.items():
                    row[self._label(name, column, len(columns), record.params)] = value
            rows.append({**row, "error": record.error})
        return pd.DataFrame(rows, columns=None if rows else ["id", "state", "error"])

    @staticmethod
    def _label(name: str, column: str, columns: int, params: Mapping[str, Any]) -> str:
        if columns == 1 and name not in params and name not in ("id", "state", "error"):
            return name
        return f"{name}.{column}"

    def plot(self, kind: str = "history", objective: str | None = None, direction: str | None = None) -> Figure:
        """A picture of the completed trials, by Plotly (extra `plots`).

        Args:
            kind: 'history' (each value and the best so far), 'importance' (of the parameters), or 'parallel'
                (coordinates).
            objective: As for `best`.
            direction: As for `best`; of no meaning for 'importance'.

        Raises:
            ValueError: An unknown kind, or nobody said what is good.
        """
        if kind not in PLOTS:
            raise ValueError(f"no plot {kind!r}{did_you_mean(kind, PLOTS)}; there are {', '.join(PLOTS)}")
        self.sync()
        goal, way = self._goal(objective, direction or ("minimize" if kind == "importance" else None))
        completed = self._board.completed
        params = list(dict.fromkeys(name for record in completed for name in record.params))
        label = goal if goal not in (*params, "id") else f"objective {goal}"
        rows = [{"id": record.id, **record.params, label: record.value(goal)} for record in completed]
        frame = pd.DataFrame(rows, columns=["id", *params, label])
        if kind == "history":
            return plot_history(frame, label, way)
        if kind == "importance":
            return plot_importance(frame, params, label)
        return plot_parallel_coordinates(frame, params, label, way)

    def _goal(self, objective: str | None, direction: str | None) -> tuple[str, str]:
        """What to look at and which way, from the arguments, the factory, and what the trials have."""
        direction = direction or self.direction
        if direction not in DIRECTIONS:
            raise ValueError(
                f"expected direction='minimize' or 'maximize', got {direction!r}; say it here or to the factory"
            )
        objective = objective or self.objective
        if objective is not None:
            return objective, direction
        metrics = self._board.completed[0].metrics if self._board.completed else {}
        known = [f"{name}.{column}" for name, columns in metrics.items() for column in columns]
        if len(known) != 1:
            raise ValueError(f"expected objective=, one of {', '.join(known) or '(no trial has completed)'}")
        return known[0], direction

    def _progress(self) -> tuple[int, str]:
        """How many trials have ended, and the text of the best value."""
        ended = self._board.ended
        if self.direction is not None:
            for record in ended[self._compared :]:
                self._compare(record)
        self._compared = len(ended)
        if self._best is None:
            return len(ended), ""
        objective, _ = self._goal(None, None)
        return len(ended), f"best {objective} {self._best.value(objective):.4g} (trial {self._best.id})"

    def _compare(self, record: TrialRecord) -> None:
        if record.state != "completed":
            return
        try:
            objective, direction = self._goal(None, None)
        except ValueError:  # there are several metrics, and nobody said which one counts
            return
        value = record.value(objective)
        sign = 1 if direction == "minimize" else -1
        if value == value and (self._best is None or sign * value < sign * self._best.value(objective)):
            self._best = record

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._board.ended)} trials ended, {len(self._board.pending)} pending)"


def _checked_components(owner: str, given: Mapping[str, Any], components: Mapping[str, Any] | None) -> dict[str, Any]:
    """The four components from either form."""
    if components is None and isinstance(given["trainer"], Mapping):
        components, given = given["trainer"], {**given, "trainer": None}
    unknown = [name for name in components or {} if name not in COMPONENTS]
    if unknown:
        hints = ", ".join(f"{name!r}{did_you_mean(name, COMPONENTS)}" for name in unknown)
        raise ParameterizationError(
            f"{owner} has no component {hints}{'' if hints.endswith('?') else '.'} Components: {', '.join(COMPONENTS)}"
        )
    both = [name for name in components or {} if given[name] is not None]
    if both:
        raise ParameterizationError(f"{owner}: {', '.join(map(repr, both))} is given twice")
    found = {name: given[name] if given[name] is not None else (components or {}).get(name) for name in COMPONENTS}
    problems = [f"lacks {name!r}" for name, value in found.items() if value is None]
    proposes = callable(found["parameterizer"]) or isinstance(found["parameterizer"], Proposer)
    for name, fits, expected in (
        ("trainer", callable(found["trainer"]), "a function"),
        ("metrics", isinstance(found["metrics"], Mapping), "a dict of metrics"),
        ("parameterizer", proposes, "a function or a generator with propose()"),
    ):
        if found[name] is not None and not fits:
            problems.append(f"has {type(found[name]).__name__} as {name!r}, expected {expected}")
    if problems:
        raise ParameterizationError(f"{owner} {'; '.join(problems)}. Components: {', '.join(COMPONENTS)}")
    return found
