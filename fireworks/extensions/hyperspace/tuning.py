"""Tuning: a generator proposes parameters, informed by all past runs of a task, and the queue executes them."""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from fireworks.extensions._factory.blackboard import Blackboard
from fireworks.extensions._factory.columns import plain_row
from fireworks.extensions._factory.generators import GridGenerator, RandomGenerator
from fireworks.extensions._factory.protocol import Proposer, TrialRecord
from fireworks.extensions._factory.spaces import Dimension, as_space
from fireworks.extensions.hyperspace._records import runs_of
from fireworks.extensions.hyperspace._store import ENDED, checked_config, proposals, runs
from fireworks.extensions.hyperspace.queue import RunQueue, with_values
from fireworks.extensions.hyperspace.results import Run, results_comparison
from fireworks.extensions.hyperspace.utils import flatten
from fireworks.utils._watching import somebody_watches
from fireworks.utils.exceptions import EndHyperparameterOptimization, did_you_mean

if TYPE_CHECKING:
    from tqdm.std import tqdm

__all__ = ["Tuning", "tune"]

_ABSENT = object()


@dataclass(frozen=True)
class Tuning:
    """What a search has found so far.

    Attributes:
        runs: The runs of the search that are on record, whatever became of them, by id.
        best: The completed run with the best objective, or None while there is none.
        objective: The name of the result that was compared.
        direction: 'minimize' or 'maximize'.
        n_runs: How many runs there are to be.
    """

    runs: list[Run] = field(repr=False)
    best: Run | None
    objective: str
    direction: str
    n_runs: int

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is waiting or running."""
        return all(run.status in ENDED for run in self.runs)

    def table(self, hide_const_cols: bool = True) -> pd.DataFrame:
        """The completed runs side by side, the best one first."""
        completed = [run for run in self.runs if run.status == "completed"]
        return results_comparison(_from_best(completed, self.objective, self.direction), hide_const_cols)


def tune(
    queue: RunQueue,
    task: str,
    space: Mapping[str, Any],
    generator: Any = "tpe",
    n_runs: int = 20,
    *,
    params: Mapping[str, Any] | None = None,
    objective: str = "result",
    direction: str = "minimize",
    parallel: int = 4,
    priority: int = 0,
    wait: bool = True,
    poll_seconds: float = 1.0,
    show_progress: bool | None = None,
) -> Tuning:
    """Search for good parameters of a task: submit what a generator proposes, until there are `n_runs` runs.

    Workers execute the runs. All that counts is in the database: interrupt the call or close the notebook whenever you
    like. The runs that were submitted go on, and the same call later takes up the search where it was: runs of the task
    with the same `params` apart from the space count, whoever submitted them. Several notebooks may tune one task at a
    time; each proposal is made with the others in view.

    Args:
        queue: The queue. Its workers must be running elsewhere, now or later.
        task: The name of the task.
        space: Dotted name of a parameter → `Uniform`, `Integers`, `Choice` or a list of values.
        generator: 'grid', 'random', or the name of a sampler of Optuna's ('tpe', 'cmaes', 'gp', …); a class of
            generators, which gets the space; or a generator as `fireworks.extensions.factory` describes them. It sees
            every past run of the task as a trial: also those that failed, and those that are pending.
        n_runs: How many runs there are to be in all, in whatever state; those on record count.
        params: What all runs have in common.
        objective: 'result', or the dotted name of one of several results: 'accuracy' or 'result.accuracy'.
        direction: 'minimize' or 'maximize'.
        parallel: How many runs may wait or run at the same time. Fewer inform the generator better.
        priority: Of the runs; higher ones go first.
        wait: Whether to stay until all runs have ended. Otherwise it submits up to `parallel` runs and returns.
        poll_seconds: The time between two looks at the runs.
        show_progress: Whether to draw a bar; by default where somebody watches.

    Returns:
        The runs so far, and the best of them.

    Raises:
        FileNotFoundError: There is no such task.
        ConfigError: The space leads through something that is no dict.
        ValueError: `n_runs`, `parallel` or the direction make no sense, or runs complete and none has the objective.

    Example:
        >>> import json, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "tasks")
        >>> folder.mkdir()
        >>> _ = (folder / "imdb.json").write_text(json.dumps({"Scenario": {"className": "Classification"}}))
        >>> queue = RunQueue(None, "reviews", folder)
        >>> found = tune(queue, "imdb", {"classifier.drop": [0.1, 0.5]}, "grid", n_runs=2, wait=False)
        >>> [run.config for run in found.runs]
        [{'classifier': {'drop': 0.1}}, {'classifier': {'drop': 0.5}}]
        >>> queue.close()
    """
    search = _Search(queue, task, space, generator, n_runs, params or {}, objective, direction, parallel, priority)
    shows = somebody_watches() if show_progress is None else show_progress
    bar = _bar(task, n_runs) if shows and wait else None
    try:
        while True:
            found = search.advance()
            if bar is not None:
                _show(bar, found)
            if not wait or (found.is_done and search.is_over):
                return found
            time.sleep(poll_seconds)
    finally:
        if bar is not None:
            bar.close()


class _Search:
    """One search: what is on record, and what to propose next."""

    def __init__(
        self,
        queue: RunQueue,
        task: str,
        space: Mapping[str, Any],
        generator: Any,
        n_runs: int,
        params: Mapping[str, Any],
        objective: str,
        direction: str,
        parallel: int,
        priority: int,
    ) -> None:
        if n_runs < 1 or parallel < 1:
            raise ValueError(f"expected n_runs and parallel from 1 up, got {n_runs} and {parallel}")
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"expected 'minimize' or 'maximize' as direction, got {direction!r}")
        self.queue, self.task, self.space = queue, task, as_space(space)
        self.params = checked_config(params, "the parameters that all runs have in common")
        with_values(self.params, dict.fromkeys(self.space))  # fails now if a name leads nowhere
        self.objective = objective.removeprefix("result.")  # as queries call it
        self.direction, self.n_runs = direction, n_runs
        self.parallel, self.priority = parallel, priority
        self.generator = _made(generator, self.space, self.objective, direction)
        self.is_over = False  # whether the generator or the number of runs has ended it
        self._board, self._states = Blackboard(), dict[int, str]()
        self._base = self._without_space(self.params)

    def advance(self) -> Tuning:
        """Submit what there is room for, each proposal in one transaction with its look at the record."""
        claims = self.queue.claims
        while True:
            self._make_lock()
            with claims.transaction() as connection:
                connection.execute(self._lock().with_for_update()).all()
                past = runs_of(connection, sa.and_(runs.c.study == self.queue.study, runs.c.task == self.task))
                own = [run for run in past if self._without_space(_submitted(run)) == self._base]
                under_way = sum(run.status not in ENDED for run in own)
                self.is_over = self.is_over or len(own) >= self.n_runs
                if self.is_over or under_way >= self.parallel:
                    return self._found(own)
                self._learn(past)
                try:
                    point = self._propose()
                except EndHyperparameterOptimization:
                    self.is_over = True
                    return self._found(own)
                config = with_values(self.params, point)
                self.queue.submit(self.task, config, self.priority, connection=connection)

    def _lock(self) -> sa.Select[Any]:
        return sa.select(proposals.c.task).where(proposals.c.study == self.queue.study, proposals.c.task == self.task)

    def _make_lock(self) -> None:
        """The row that whoever proposes for this task holds meanwhile."""
        with self.queue.claims.transaction() as connection:
            if connection.execute(self._lock()).first() is not None:
                return
        try:
            with self.queue.engine.begin() as connection:
                connection.execute(proposals.insert().values(study=self.queue.study, task=self.task))
        except sa.exc.IntegrityError:
            return  # another notebook was faster

    def _propose(self) -> dict[str, Any]:
        board = self._board
        is_proposer = isinstance(self.generator, Proposer)
        answer = self.generator.propose(board) if is_proposer else self.generator(board.params, board.metrics)
        point = plain_row(answer, "the generator's proposal")
        if point.keys() != self.space.keys():
            raise ValueError(
                f"expected the generator to propose values for {', '.join(self.space)}, got {', '.join(point)}"
            )
        return point

    def _learn(self, past: list[Run]) -> None:
        """Bring the blackboard up to date; a run that ended and was queued again needs a new one."""
        if any(self._states.get(run.id) in ENDED and self._states[run.id] != run.status for run in past):
            self._board, self._states = Blackboard(), {}
        for run in past:
            if self._states.get(run.id) != run.status:
                self._board.put(self._record(run))
                self._states[run.id] = run.status
        self._check_objective([_numbers(run) for run in past if run.status == "completed"])

    def _check_objective(self, results: list[dict[str, float]]) -> None:
        """A misspelt objective is told by the first run that completes, and not when all have been spent."""
        known = sorted({name for numbers in results for name in numbers})
        if known and self.objective not in known:
            raise ValueError(
                f"no completed run of {self.task!r} has a result {self.objective!r}"
                f"{did_you_mean(self.objective, known)}; there are: {', '.join(known)}"
            )

    def _record(self, run: Run) -> TrialRecord:
        submitted = _submitted(run)
        values = {name: _at(submitted, name, _at(run.config, name)) for name in self.space}
        point = {name: value for name, value in values.items() if value is not _ABSENT}
        if run.status != "completed":
            return TrialRecord(run.id, point, "waiting" if run.status == "paused" else run.status, error=run.error)
        metrics = {name: {name: value} for name, value in _numbers(run).items()}
        if self.objective not in metrics:  # nothing to learn from, and nothing to compare
            return TrialRecord(run.id, point, "failed", error=f"the run has no result {self.objective!r}")
        return TrialRecord(run.id, point, "completed", metrics)

    def _without_space(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What is left of a configuration without the parameters that are searched, for comparing."""
        flat = {name: value for name, value in flatten(config).items() if value != {}}
        return {
            name: value
            for name, value in flat.items()
            if not any(name == key or name.startswith(f"{key}.") for key in self.space)
        }

    def _found(self, own: list[Run]) -> Tuning:
        completed = [run for run in own if run.status == "completed"]
        ordered = _from_best(completed, self.objective, self.direction)
        has_best = ordered and _is_finite(_numbers(ordered[0]).get(self.objective))
        return Tuning(own, ordered[0] if has_best else None, self.objective, self.direction, self.n_runs)


def _made(generator: Any, space: dict[str, Dimension], objective: str, direction: str) -> Any:
    """The generator: as it is given, or made for this space."""
    more: dict[str, Any] = {"objective": objective, "direction": direction}
    if isinstance(generator, str):
        kinds: dict[str, Any] = {"grid": GridGenerator, "random": RandomGenerator}
        if generator not in kinds:
            from fireworks.extensions._factory.optuna_generator import OptunaGenerator  # needs optuna

            return OptunaGenerator(space, sampler=generator, **more)
        generator = kinds[generator]
    if inspect.isclass(generator):
        make: Any = generator
        accepted = inspect.signature(make).parameters
        return make(space, **{name: value for name, value in more.items() if name in accepted})
    if not callable(generator) and not isinstance(generator, Proposer):
        raise TypeError(
            f"expected a generator, its class or its name, got {type(generator).__name__} {generator!r:.60}"
        )
    return generator


def _submitted(run: Run) -> dict[str, Any]:
    """The configuration as it was before any default was filled in."""
    return run.config if run.original_config is None else run.original_config


def _at(config: Mapping[str, Any], name: str, missing: Any = _ABSENT) -> Any:
    place: Any = config
    for part in name.split("."):
        if not isinstance(place, Mapping) or part not in place:
            return missing
        place = place[part]
    return place


def _numbers(run: Run) -> dict[str, float]:
    """The results of a run that are numbers, by dotted name; a single one is called 'result'."""
    named = flatten(run.result) if isinstance(run.result, Mapping) else {"result": run.result}
    plain = {name: value.item() if getattr(value, "ndim", None) == 0 else value for name, value in named.items()}
    return {name: float(value) for name, value in plain.items() if isinstance(value, (bool, int, float))}


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _from_best(completed: list[Run], objective: str, direction: str) -> list[Run]:
    """The best first; those without a number last."""
    sign = 1.0 if direction == "minimize" else -1.0

    def key(run: Run) -> tuple[bool, float]:
        value = _numbers(run).get(objective)
        return (True, 0.0) if value is None or not math.isfinite(value) else (False, sign * value)

    return sorted(completed, key=key)


def _bar(task: str, n_runs: int) -> tqdm[Any]:
    from tqdm.auto import tqdm as make  # looks for a notebook and its widgets when it is imported

    return make(total=n_runs, desc=task, file=sys.stderr)


def _show(bar: tqdm[Any], found: Tuning) -> None:
    bar.n = sum(run.status in ENDED for run in found.runs)
    going = {status: sum(run.status == status for run in found.runs) for status in ("running", "waiting", "failed")}
    shown = [f"{count} {status}" for status, count in going.items() if count]
    if found.best is not None:
        shown.append(f"best {_numbers(found.best)[found.objective]:.4g} (run {found.best.id})")
    bar.set_postfix_str(", ".join(shown))
