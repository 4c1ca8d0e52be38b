"""Proposals by Optuna's samplers and decisions by its pruners; the trials stay on our blackboard.

Optuna is asked and told. Its study lives in memory, is built from the history, and can be thrown away at any time: its
own storage is not safe for several workers on SQLite, and a search would have two truths.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from fireworks.extensions._factory.generators import checked_limit, drawn_seed, next_number
from fireworks.extensions._factory.protocol import History, TrialRecord
from fireworks.extensions._factory.spaces import Choice, Dimension, Integers, as_space, comparable
from fireworks.utils.exceptions import MissingExtraError, did_you_mean

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import FrozenTrial, TrialState, create_trial
except ImportError as error:
    raise MissingExtraError.of("OptunaGenerator", "optuna", "optuna") from error

__all__ = ["OptunaGenerator", "OptunaPruner"]

_SAMPLERS = {
    "cmaes": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
}
_LOOKED_AT = 10  # trials that CMA-ES wants to start from, of which it takes the best tenth
_STATES = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class OptunaGenerator:
    """Proposes what one of Optuna's samplers expects to be good, given every trial on the blackboard.

    A new generator learns from the old history, whoever wrote it, so a restarted search goes on where it was; trials
    under way elsewhere count too. Assign to `space` to change it in the middle: of old trials, the parameters
    that the new space allows still inform it.

    Args:
        space: Parameter → `Uniform`, `Integers`, `Choice` or a list of values.
        objective: The metric to improve: the name of one with a single column, or 'metric.column'.
        direction: 'minimize' or 'maximize'.
        sampler: 'tpe', 'cmaes', 'gp', 'qmc', 'random', 'nsgaii', or a sampler of Optuna's.
        trials: How many trials the blackboard gets in all, in whatever state; None proposes until somebody stops it.
        pruner: One of Optuna's pruners. A factory then stops trials by the values that they report.
        seed: An int; drawn from torch's global generator by default. A sampler given as an object has its own.

    Raises:
        ValueError: The direction or the name of the sampler is unknown.
        MissingExtraError: At import, where optuna is not installed.

    Source:
        T. Akiba et al. (2019), Optuna: a next-generation hyperparameter optimization framework, KDD.

    Example:
        >>> from fireworks.extensions.factory import OptunaGenerator, Uniform
        >>> generator = OptunaGenerator({"rate": Uniform(1e-4, 1e-1, log=True)}, objective="loss", trials=30, seed=0)
    """

    def __init__(
        self,
        space: Mapping[str, Any],
        objective: str,
        direction: str = "minimize",
        sampler: str | optuna.samplers.BaseSampler = "tpe",
        trials: int | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        seed: int | None = None,
    ) -> None:
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"expected 'minimize' or 'maximize' as direction, got {direction!r}")
        if isinstance(sampler, str) and sampler not in _SAMPLERS:
            known = ", ".join(_SAMPLERS)
            raise ValueError(f"no sampler {sampler!r}{did_you_mean(sampler, _SAMPLERS)}; there are {known}")
        if not isinstance(sampler, (str, optuna.samplers.BaseSampler)):
            raise TypeError(f"expected the name of a sampler or a sampler of optuna, got {type(sampler).__name__}")
        self.objective, self.direction, self.sampler = objective, direction, sampler
        self.trials = checked_limit(trials)
        self.pruner = None if pruner is None else OptunaPruner(pruner, direction)
        self.seed = drawn_seed(seed)
        self.space = space

    @property
    def space(self) -> dict[str, Dimension]:
        """The search space. Trials of old spaces stay on the blackboard as they are."""
        return self._space

    @space.setter
    def space(self, space: Mapping[str, Any]) -> None:
        self._space = as_space(space)
        self._distributions = {name: _distribution(dimension) for name, dimension in self._space.items()}
        self._history: History | None = None  # the next proposal builds the study anew

    def propose(self, history: History) -> dict[str, Any]:
        """The next point."""
        number = next_number(history, self.trials)
        if history is not self._history:
            self._start(history, number)
        self._learn(history)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(self._distributions)
        self._asked.append((self._key(params := self._decoded(trial.params)), trial.number))
        return params

    def _start(self, history: History, number: int) -> None:
        """A new study; its seed counts the trials there are, so that a restarted search does not repeat itself."""
        self._history, self._read = history, 0
        self._numbers: dict[int, int] = {}  # our id of a trial that is under way → its number in the study
        self._asked: list[tuple[Any, int]] = []  # proposals that have no id yet
        seed = (self.seed * 1_000_003 + number) % 2**32
        self._study = _study(self._make_sampler(history, seed), None, self.direction)

    def _make_sampler(self, history: History, seed: int) -> optuna.samplers.BaseSampler:
        if not isinstance(self.sampler, str):
            return self.sampler
        options: dict[str, Any] = {"seed": seed}
        if self.sampler in ("cmaes", "gp", "qmc"):
            options["warn_independent_sampling"] = False  # choices are drawn at random beside it, as documented there
        if self.sampler == "cmaes":
            # Its state is in no table of ours. So it starts from where the earlier trials point to.
            found = self._numeric_trials(history)
            options["source_trials"] = found * math.ceil(_LOOKED_AT / len(found)) if found else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _SAMPLERS[self.sampler](**options)

    def _numeric_trials(self, history: History) -> list[FrozenTrial]:
        """Completed trials with nothing but their numbers that vary, which is all that CMA-ES looks at."""
        names = {
            name
            for name, distribution in self._distributions.items()
            if not isinstance(distribution, CategoricalDistribution) and not distribution.single()
        }
        frozen = [self._frozen(trial, names) for trial in history.ended if trial.state == "completed"]
        return [trial for trial in frozen if trial.state == TrialState.COMPLETE and trial.params.keys() == names]

    def _learn(self, history: History) -> None:
        ended = history.ended
        for position in range(self._read, len(ended)):
            record = ended[position]
            number = self._number(record)
            if number is None:
                self._study.add_trial(self._frozen(record))
            else:
                self._tell(number, self._frozen(record))
        self._read = len(ended)
        for record in history.pending:
            number = self._number(record)
            if number is None:
                self._study.add_trial(self._frozen(record))
                number = len(self._study.get_trials(deepcopy=False)) - 1
            self._numbers[record.id] = number
        for _, number in self._asked:  # proposed, but never written: nobody will run it
            self._study.tell(number, state=TrialState.FAIL)
        self._asked.clear()

    def _number(self, record: TrialRecord) -> int | None:
        """The number in the study of a trial that was under way, or None when the study does not know it."""
        if record.id in self._numbers:
            return self._numbers.pop(record.id)
        key = self._key(record.params)
        for position, (asked, number) in enumerate(self._asked):
            if asked == key:
                del self._asked[position]
                return number
        return None

    def _tell(self, number: int, trial: FrozenTrial) -> None:
        trial_id = self._study.get_trials(deepcopy=False)[number]._trial_id
        for step, value in trial.intermediate_values.items():
            self._study._storage.set_trial_intermediate_value(trial_id, step, value)
        self._study.tell(number, trial.value if trial.state == TrialState.COMPLETE else None, state=trial.state)

    def _frozen(self, record: TrialRecord, names: Collection[str] | None = None) -> FrozenTrial:
        """A trial as Optuna sees it: the parameters that the space of today allows, and the value if there is one."""
        params = {
            name: encoded
            for name, dimension in self._space.items()
            if name in record.params
            and (names is None or name in names)
            and (encoded := _encoded(record.params[name], dimension)) is not None
        }
        state, value = _STATES.get(record.state, TrialState.FAIL), None
        if record.state in ("waiting", "running"):
            state = TrialState.RUNNING
        elif record.state == "completed":
            value = record.value(self.objective)
            if not math.isfinite(value):  # a diverged trial teaches where not to look, but has no place on the scale
                state, value = TrialState.FAIL, None
        reported = {step: reading for step, reading in record.reported.items() if math.isfinite(reading)}
        return create_trial(
            state=state,
            value=value,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            intermediate_values=reported,
        )

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: dimension.values[params[name]] if isinstance(dimension, Choice) else params[name]
            for name, dimension in self._space.items()
        }

    def _key(self, params: Mapping[str, Any]) -> Any:
        return comparable([params.get(name) for name in self._space])


class OptunaPruner:
    """One of Optuna's pruners, asked with the values that all trials have reported.

    Args:
        pruner: The pruner. It is pickled where trials run in other processes.
        direction: 'minimize' or 'maximize'.

    Example:
        >>> prune = OptunaPruner(optuna.pruners.ThresholdPruner(upper=1.0))
        >>> prune(0, {0: {0: 0.5}}), prune(0, {0: {0: 0.5, 1: 2.0}})
        (False, True)
    """

    def __init__(self, pruner: optuna.pruners.BasePruner, direction: str = "minimize") -> None:
        if not isinstance(pruner, optuna.pruners.BasePruner):
            raise TypeError(f"expected a pruner of optuna, got {type(pruner).__name__}")
        self.pruner, self.direction = pruner, direction

    def __call__(self, trial_id: int, reported: Mapping[int, Mapping[int, float]]) -> bool:
        """Whether the trial should stop: id → step → value are the readings of every trial that did not fail."""
        if not reported.get(trial_id):
            return False
        study = _study(None, self.pruner, self.direction)
        for number, values in sorted(reported.items()):
            if number != trial_id and values:
                last = values[max(values)]
                study.add_trial(create_trial(state=TrialState.COMPLETE, value=last, intermediate_values=dict(values)))
        own = create_trial(state=TrialState.RUNNING, intermediate_values=dict(reported[trial_id]))
        study.add_trial(own)
        return bool(self.pruner.prune(study, study.get_trials(deepcopy=False)[-1]))


def _study(
    sampler: optuna.samplers.BaseSampler | None, pruner: optuna.pruners.BasePruner | None, direction: str
) -> optuna.Study:
    """A study in memory, made without the line that Optuna logs for each."""
    storage = optuna.storages.InMemoryStorage()
    way = optuna.study.StudyDirection[direction.upper()]
    logger = optuna.logging.get_logger("optuna.storages._in_memory")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        name = storage.get_study_name_from_id(storage.create_new_study([way]))
    finally:
        logger.disabled = was_disabled
    return optuna.Study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):  # by position, because Optuna takes only a few types as choices
        return CategoricalDistribution(range(len(dimension.values)))
    if isinstance(dimension, Integers):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _encoded(value: Any, dimension: Dimension) -> Any:
    """A value as the distribution of its dimension has it, or None when it is outside."""
    value = getattr(value, "item", lambda: value)()
    if isinstance(dimension, Choice):
        return dimension.position(value)
    if not dimension.contains(value):
        return None
    return int(value) if isinstance(dimension, Integers) else float(value)
