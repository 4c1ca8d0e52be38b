"""ResumableJunction: where a training stands, as a state and in checkpoints, and how it goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch.nn import Module, Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fireworks.core._loading import check_resumable
from fireworks.core._randomness import generators_kept, global_generators, set_global_generators
from fireworks.core.junction import Junction
from fireworks.core.model import Model
from fireworks.core.state import State, check_names, collect_state, restore_state, snapshot
from fireworks.extensions._checkpoints import CheckpointFiles, checkpoint_at, find_checkpoint
from fireworks.extensions._losses import LossRecord
from fireworks.extensions._metrics import MetricRecord
from fireworks.extensions._reading import BatchReader
from fireworks.extensions._steps import Step, TrainingStep
from fireworks.extensions._stopping import StoppingRule
from fireworks.utils.exceptions import FormatError, StateError

__all__ = ["ResumableJunction", "parameters_of"]

# The data that a junction reads: what they are is no state of its own, where they stand is theirs.
_DATA = ("dataset", "eval_set")


class ResumableJunction(Junction):
    """The part of an IgniteJunction that saves and restores; all it works on is made by that class."""

    engine: Engine
    optimizer: Optimizer
    scheduler: LRScheduler | None
    model: Module
    engine = optimizer = scheduler = None  # type: ignore[assignment]
    _history: LossRecord
    _metrics: MetricRecord
    _reader: BatchReader
    _stopping: StoppingRule | None
    _files: CheckpointFiles | None
    _update: Step
    # Of the run that a state was taken of, until it goes on.
    _progress: dict[str, Any] | None
    _goes_on: bool
    _generators: Mapping[str, Any]

    def _place(self) -> tuple[int, int]:
        """Epoch and iteration, counted over all runs."""
        return self._history.place(self.engine.state)

    def _measured(self, name: str) -> float:
        """A metric of the epoch that has just ended."""
        raise NotImplementedError(f"{type(self).__name__} measures nothing; define _measured(name)")

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _savers(self, files: CheckpointFiles) -> dict[Events, Callable[[], None]]:
        """When to save: also at once, so that what cannot be saved is known before it matters, and at the end."""

        def save(is_best: bool = False) -> None:
            files.save({"checkpoint": 1, "stages": collect_state(self)}, self._place()[1], is_best)

        def save_at_start() -> None:
            if not self._goes_on:
                save()

        def save_after_step() -> None:
            if files.is_due(self._place()[1]):
                save()

        def save_after_epoch() -> None:
            is_best = files.plan.best is not None and files.is_better(self._measured(files.plan.best))
            if is_best or files.is_due_after_epoch(*self._place()):
                save(is_best)

        def save_at_end() -> None:
            if files.saved_at != self._place()[1]:
                save()

        savers = {
            Events.STARTED: save_at_start,
            Events.EPOCH_COMPLETED: save_after_epoch,
            Events.COMPLETED: save_at_end,
        }
        within = files.plan.every_iterations is not None or files.plan.every_seconds is not None
        return {**savers, Events.ITERATION_COMPLETED: save_after_step} if within else savers

    def _find_progress(self, resume: Any) -> dict[str, Any] | None:
        """Load what is to be resumed; gives where its run stands, or None for a new run."""
        if not isinstance(resume, (bool, str, PathLike)):
            raise TypeError(f"expected True, False, a checkpoint or a folder of some as resume, got {resume!r:.80}")
        if resume is not False or self._files is not None:
            check_resumable(self._reader.dataset)
        if resume is False:
            self._progress = None
        elif resume is not True:
            self._load(*checkpoint_at(Path(resume)))
        elif self._progress is None and self._files is not None and self._files.folder.is_dir():
            found = find_checkpoint(self._files.folder)
            if found is not None:
                self._load(*found)
        progress, self._progress = self._progress, None
        if progress is not None:
            self._reader.set_state(progress["reading"])
            self.engine.state.epoch, self.engine.state.iteration = progress["epoch"], progress["iteration"]
            self._generators = progress["generators"]
            return progress
        return None

    def _load(self, path: Path, content: Any) -> None:
        if not isinstance(content, dict) or set(content) != {"checkpoint", "stages"}:
            raise FormatError(f"{path} is a saved state, but no checkpoint of an IgniteJunction")
        trained = {id(parameter) for parameter in parameters_of(self.model)}
        try:
            restore_state(self, content["stages"])
        except StateError as error:
            raise StateError(f"{path} does not fit: {error}") from error
        if {id(parameter) for parameter in parameters_of(self.model)} != trained:
            raise StateError(f"{path} is of a model whose parameters have other shapes")

    def _is_over(self, progress: Mapping[str, Any], max_epochs: int) -> bool:
        has_stopped = self._stopping is not None and self._stopping.is_met
        return self._reader.position is None and (has_stopped or progress["epoch"] >= max_epochs)

    def _restore_generators(self) -> None:
        """After whatever was drawn since the checkpoint was loaded."""
        if self._goes_on:
            set_global_generators(self._generators)

    @contextmanager
    def _kept(self, dataset: Any) -> Iterator[None]:
        """Whatever is trained meanwhile, afterwards everything is as it was."""
        progress, rates = self._progress, [group["lr"] for group in self.optimizer.param_groups]
        states, of_data = collect_state(self), collect_state(dataset)
        modes = {module: module.training for module in self.model.modules()}
        with generators_kept(dataset):
            try:
                yield
            finally:
                self.optimizer.zero_grad()
                restore_state(self, states)
                restore_state(dataset, of_data)
                for module, mode in modes.items():
                    module.training = mode
                for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate
                self._progress = progress

    # --- state --------------------------------------------------------------------------------------------------------

    def _component_state(self) -> State:
        return {name: value for name, value in super()._component_state().items() if name not in _DATA}

    def _attribute_state(self) -> State:
        # `engine` is no name that a component could have.
        return {**super()._attribute_state(), "engine": snapshot(self._engine_state())}

    def _engine_state(self) -> dict[str, Any]:
        scheduler, step, stopping = self.scheduler, self._update, self._stopping
        return {
            "kinds": self._kinds(),
            "progress": self._current_progress(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "step": step.get_state() if isinstance(step, TrainingStep) else None,
            "stopping": None if stopping is None else stopping.get_state(),
            "best": None if self._files is None else self._files.best,
            "history": self._history.get_state(),
            "metrics": self._metrics.get_state(),
        }

    def _kinds(self) -> dict[str, str]:
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "stopping rule": self._stopping}
        return {name: "none" if part is None else type(part).__name__ for name, part in parts.items()}

    def _current_progress(self) -> dict[str, Any]:
        if self._progress is not None:
            return self._progress
        return {
            "epoch": self.engine.state.epoch,
            "iteration": self.engine.state.iteration,
            "reading": self._reader.get_state(),
            "generators": global_generators(),
        }

    def _set_attribute_state(self, state: State) -> None:
        engine = snapshot(state["engine"])
        super()._set_attribute_state({name: value for name, value in state.items() if name != "engine"})
        self._load_parts(engine)
        self._history.set_state(engine["history"])
        self._metrics.set_state(engine["metrics"])
        self._progress = engine["progress"]

    def _load_parts(self, state: Mapping[str, Any]) -> None:
        check_names(state, self._engine_state(), what=type(self).__name__)
        for part, kind in self._kinds().items():
            if state["kinds"][part] != kind:
                raise StateError(
                    f"the {part} of the state is {state['kinds'][part]}, but of this junction it is {kind}"
                )
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise StateError(
                f"the state is of another optimizer than this {type(self.optimizer).__name__}: {error}"
            ) from error
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
            # It would warn that its first step comes before the optimizer's, which was made before the state was taken.
            vars(self.optimizer)["_opt_called"] = True
        if self._stopping is not None:
            self._stopping.set_state(state["stopping"])
        if isinstance(self._update, TrainingStep) and state["step"] is not None:
            self._update.set_state(state["step"])
        if self._files is not None:
            self._files.best = state["best"]


def parameters_of(model: Module) -> Iterable[Parameter]:
    """Everything that training a model changes."""
    return model.all_parameters() if isinstance(model, Model) else model.parameters()
