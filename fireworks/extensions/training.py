"""Training: ignite's Engine as a junction of a model and a data set.

An IgniteJunction resembles ignite's supervised trainer, except that model and data set are stages of fireworks: the
loss sees the Message that the model makes, and epochs are as long as the pipeline says.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.engine import State as EngineState
from torch.nn import Module
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau

from fireworks.core.cursor import is_once_only, length_of
from fireworks.core.message import Message
from fireworks.extensions._checkpoints import CheckpointFiles, Checkpointing
from fireworks.extensions._devices import mean_of_all, place_among_processes, share_parameters
from fireworks.extensions._experiment_log import ExperimentLog
from fireworks.extensions._losses import LossRecord, not_finite_in_evaluation
from fireworks.extensions._metrics import HistoryLines, MetricRecord
from fireworks.extensions._optimizers import build_optimizer
from fireworks.extensions._progress import progress_bar, somebody_watches
from fireworks.extensions._rates import LearningRates, sweep
from fireworks.extensions._reading import BatchReader, run_engine
from fireworks.extensions._resuming import ResumableJunction, parameters_of
from fireworks.extensions._steps import (
    Loss,
    Step,
    TrainingStep,
    default_evaluation_closure,
    default_training_closure,
    evaluation_mode,
)
from fireworks.extensions._stopping import EarlyStopping, StoppingRule
from fireworks.extensions._tensorboard import EventFiles
from fireworks.utils._visdom import LinePlots
from fireworks.utils.exceptions import did_you_mean

__all__ = [
    "Checkpointing",
    "EarlyStopping",
    "IgniteJunction",
    "LearningRates",
    "default_evaluation_closure",
    "default_training_closure",
]

# ignite logs each exception as well as raising it; without a handler Python would print the log, too.
_LOGGER = logging.getLogger("fireworks.training")
_LOGGER.addHandler(logging.NullHandler())

# A request takes longer than a step.
_STEPS_PER_MIRRORING = 50

# Schedulers that are stepped after each step of the optimizer, not after each epoch.
_EACH_STEP = (OneCycleLR, CyclicLR)


class IgniteJunction(ResumableJunction):
    """Trains a model on a data set with ignite's Engine.

    `engine` is the Engine: `engine.state.output['loss']` is the loss of the last step, ignite's metrics and handlers
    attach to it (or to the junction, which passes them on), and `evaluator` is the Engine of `evaluate`. The loss of
    every step is kept in `history`. A Model's linked and upstream parameters are trained with its own.

    The device is the model's: move it there before, and let a TensorPipe bring the batches. Several processes, each
    with a device of its own, train together once `torch.distributed.init_process_group` was called in each of them, as
    under `torchrun`: of so many batches each takes one, all step with the mean of their gradients, and each keeps the
    losses and the checkpoints of its share. Pipelines must be the same in all of them, so give seeds.

    Args:
        components: `model`, a torch module (a Model, or any other); `dataset`, what yields batches (a pipe, a Message,
            a list, a DataLoader); and, if you like, `eval_set`, the same for `evaluate`.
        loss: Function of the model's output, a Message as a rule, that gives a tensor of one value.
        optimizer: Name or class of `torch.optim`, or a function that takes the parameters, or an optimizer.
        scheduler: Name or class of `torch.optim.lr_scheduler`, or a function that takes the optimizer. It is stepped
            after each epoch (OneCycleLR, CyclicLR: each step; ReduceLROnPlateau gets the mean loss of the epoch).
        update_function: Makes the training step from model, optimizer and loss, like `default_training_closure`.
        clip_norm: Scale gradients down so that the norm of all of them together is at most this.
        accumulate: Step after so many batches, with the mean of their gradients; at the end of an epoch after fewer.
        precision: 'bfloat16' or 'float16' to compute in it where that is safe.
        early_stopping: An `EarlyStopping`, or just its patience in epochs.
        checkpoint: A `Checkpointing`, or just its folder; with an experiment, by default a folder `checkpoints` of it.
        tensorboard: Folder for event files with every point of the histories. What cannot be written is a warning.
        experiment: An `Experiment` that gets every point of the histories as a metric. One that was loaded runs again
            when training does; what it has of steps after those that training goes on from is taken back.
        visdom: Plot the histories on a visdom server: True, or a dict with its `server` and `port`. Without one there
            is a warning, and training goes on; one that comes later, or comes back, gets all points.
        environment: Of visdom.
        description: Names the plots; the model's class by default.
        progress: Show a progress bar; by default where somebody can see it, in a terminal or a notebook.
        **arguments: Of the optimizer and the scheduler, such as `lr` or `step_size`. What both could take goes to the
            optimizer; give the scheduler as a `functools.partial` then.

    Raises:
        ParameterizationError: `model` or `dataset` is missing.
        TypeError: Arguments are unknown to optimizer and scheduler, missing or of a wrong kind; names all of them.
        ValueError: No optimizer or scheduler of that name; arguments out of range; no parameters to train.

    Example:
        >>> from fireworks.core.model import Model
        >>> class Line(Model):
        ...     def forward(self, message):
        ...         return message.merge({"guess": self.m * message["x"]})
        >>> batch = Message({"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([3.0, 6.0])})
        >>> line = Line({"m": [1.0]})
        >>> trainer = IgniteJunction(
        ...     components={"model": line, "dataset": [batch]},
        ...     loss=lambda message: ((message["guess"] - message["y"]) ** 2).mean(),
        ...     optimizer="SGD",
        ...     lr=0.1,
        ... )
        >>> state = trainer.train(max_epochs=20)
        >>> round(line.m.item(), 3), len(trainer.history)
        (3.0, 20)
    """

    required_components = {"model": Module, "dataset": None}  # noqa: RUF012

    # Written here (and in the base class), these are attributes; any other public name would be a component.
    evaluator: Engine = None  # type: ignore[assignment]
    loss: Any = None
    update_function: Any = None
    visdom: Any = None
    environment: Any = None
    description = progress = None
    clip_norm = accumulate = precision = tensorboard = None
    early_stopping: Any = None
    checkpoint: Any = None
    experiment: Any = None

    def __init__(
        self,
        components: Mapping[str, Any] | None = None,
        loss: Loss | None = None,
        optimizer: Any = "Adam",
        scheduler: Any = None,
        update_function: Callable[..., Step] = default_training_closure,
        visdom: bool | Mapping[str, Any] = False,
        environment: str = "main",
        description: str | None = None,
        progress: bool | None = None,
        *,
        clip_norm: float | None = None,
        accumulate: int = 1,
        precision: str | None = None,
        early_stopping: EarlyStopping | int | None = None,
        checkpoint: Checkpointing | str | PathLike[str] | None = None,
        tensorboard: str | PathLike[str] | None = None,
        experiment: Any = None,
        **arguments: Any,
    ) -> None:
        super().__init__(components=components)
        _check_is_function(loss, needed=update_function is default_training_closure)
        self.loss = loss
        self.update_function = update_function
        self.visdom = visdom
        self.environment = environment
        self.description = description
        self.progress = progress
        self.clip_norm, self.accumulate, self.precision = clip_norm, accumulate, precision
        self.early_stopping = EarlyStopping(early_stopping) if isinstance(early_stopping, int) else early_stopping
        self.experiment = experiment
        self._history, self._metrics = LossRecord(), MetricRecord()
        lines = HistoryLines(self._history, self._metrics)
        self._log = None if experiment is None else ExperimentLog(lines, experiment)
        if experiment is not None and checkpoint is None:
            checkpoint = Checkpointing(experiment.folder("checkpoints"))
        self.checkpoint = Checkpointing(checkpoint) if isinstance(checkpoint, (str, PathLike)) else checkpoint
        _check_kind(self.early_stopping, EarlyStopping, "early_stopping", "an EarlyStopping, a number of epochs")
        _check_kind(self.checkpoint, Checkpointing, "checkpoint", "a Checkpointing, a folder")
        if self.checkpoint is not None and self.checkpoint.every_seconds is not None and place_among_processes()[1] > 1:
            raise ValueError("several processes would save at different steps by every_seconds; use every_iterations")
        self.tensorboard = tensorboard
        _check_kind(visdom or None, (bool, Mapping), "visdom", "True, a dict of the server's place")
        _check_kind(progress, bool, "progress", "True, False")
        _check_kind(description, str, "description", "a text")
        _check_kind(environment, str, "environment", "a text")
        if not callable(update_function):
            raise TypeError(
                f"expected a function that makes the training step as update_function, got {update_function!r:.80}"
            )
        _check_kind(tensorboard, (str, PathLike), "tensorboard", "a folder")
        if tensorboard == "":
            raise ValueError("expected a folder or None as tensorboard, got ''; for the current one give '.'")
        self.optimizer, self.scheduler = build_optimizer(
            parameters_of(self.model), optimizer, scheduler, arguments, _OWN_ARGUMENTS
        )
        self._trained = self.model
        self._reader = BatchReader([])
        self._progress = None
        self._goes_on = False
        self._stopping = self._make_stopping_rule()
        self._files = None if self.checkpoint is None else CheckpointFiles(self.checkpoint)
        self._update = self._make_step()
        self.engine = _make_engine(self._step)
        self.engine.add_event_handler(Events.STARTED, self._start)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        if isinstance(self.scheduler, _EACH_STEP):
            self.engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_scheduler)
        self._evaluate = default_evaluation_closure(self.model, loss, precision)
        self._evaluated: list[tuple[torch.Tensor, int]] = []
        self.evaluator = _make_engine(self._evaluation_step)
        self._mirrors = self._make_mirrors(lines)

    def _make_step(self) -> Step:
        """The training step, with those options that differ from what it does by itself."""
        options = {"clip_norm": self.clip_norm, "precision": self.precision}
        options = {name: value for name, value in options.items() if value is not None}
        if self.accumulate != 1:
            options["accumulate"] = self.accumulate
        parameters = inspect.signature(self.update_function).parameters
        takes_all = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
        unknown = [name for name in options if name not in parameters and not takes_all]
        if unknown:
            raise TypeError(
                f"{', '.join(unknown)}: options of default_training_closure, and the given update_function has no "
                "arguments of that name; add them, or do in it what they ask for"
            )
        return self.update_function(self.model, self.optimizer, self.loss, **options)

    def _make_mirrors(self, lines: HistoryLines) -> list[LinePlots | EventFiles | ExperimentLog]:
        """What shows elsewhere what is recorded here."""
        mirrors: list[LinePlots | EventFiles | ExperimentLog] = [] if self._log is None else [self._log]
        if self.visdom or isinstance(self.visdom, Mapping):
            connection = self.visdom if isinstance(self.visdom, Mapping) else None
            mirrors.append(
                LinePlots(lines, self.description or type(self.model).__name__, self.environment, connection)
            )
        if self.tensorboard is not None:
            mirrors.append(EventFiles(lines, Path(self.tensorboard)))
        return mirrors

    def _mirror(self, patient: bool = True) -> None:
        for mirror in self._mirrors:
            mirror.send(patient)

    def _make_stopping_rule(self) -> StoppingRule | None:
        if self.early_stopping is None:
            return None
        default = "eval_loss" if "eval_set" in self.components and self.loss is not None else "loss"
        return StoppingRule(self.early_stopping, self.early_stopping.metric or default)

    # --- training -----------------------------------------------------------------------------------------------------

    def train(
        self, dataset: Any = None, max_epochs: int = 10, resume: bool | str | PathLike[str] = False
    ) -> EngineState:
        """Train for so many epochs. A second call trains for as many more, from the parameters as they are.

        To resume a run, build the junction as it was, and call `train` with the same data set and `max_epochs`: what
        follows is exactly what would have followed without the interruption, wherever in an epoch that was. Handlers
        of `STARTED` (and in the middle of an epoch `EPOCH_STARTED`) run once more; ignite metrics that are attached to
        the training engine begin anew. A run that is over stays as it is.

        Args:
            dataset: What to train on; the component `dataset` by default.
            max_epochs: How often to go through it.
            resume: A checkpoint's file, or a folder, of which the newest sound one is taken. True: the state that
                `set_state` was given, or the checkpoints that this junction writes; from the start if there is neither.

        Returns:
            The state of the engine.

        Raises:
            FileExistsError: The folder for checkpoints has some already, and the run is not resumed from its newest.
            FileNotFoundError: `resume` names no file and no folder with checkpoints.
            FloatingPointError: The loss is not finite; says in which epoch, iteration and rows of the batch.
            FormatError: The file to resume from is damaged.
            StateError: It is of another model, optimizer or pipeline.
            TypeError: The data set cannot be iterated over, or not that often.
            ValueError: The data set yields nothing, or a OneCycleLR plans fewer steps than there will be.
        """
        if self.model is not self._trained:
            raise ValueError("the model was replaced, but the optimizer has the parameters of the old one; "
                             "make another IgniteJunction for the new model")  # fmt: skip
        if isinstance(max_epochs, bool) or not isinstance(max_epochs, int) or max_epochs < 1:
            raise ValueError(f"expected a whole number of epochs from 1 up as max_epochs, got {max_epochs!r}")
        given = self.dataset if dataset is None else dataset
        if max_epochs > 1 and is_once_only(given):
            raise TypeError(
                f"a {type(given).__name__} can be read once, and {max_epochs} epochs read it {max_epochs} times; "
                "give a list or a pipe, or max_epochs=1"
            )
        self._reader = BatchReader(given, known=self, share=place_among_processes())
        progress = self._find_progress(resume)
        if progress is not None and self._is_over(progress, max_epochs):
            return self.engine.state
        self._check_steps_left(max_epochs, progress)
        if place_among_processes()[1] > 1:
            share_parameters(self.model, parameters_of(self.model))
        self._goes_on = progress is not None
        with self._handlers():
            state = run_engine(self.engine, self._reader, max_epochs, progress)
        self._history.check()
        return state

    def _check_steps_left(self, max_epochs: int, progress: Mapping[str, Any] | None) -> None:
        """A OneCycleLR plans a number of steps, and refuses one more: better now than after all these."""
        scheduler, reader = self.scheduler, self._reader
        # With early stopping nobody knows how many steps there will be.
        if not isinstance(scheduler, OneCycleLR) or reader.length is None or self._stopping is not None:
            return
        accumulate: int = self._update.accumulate if isinstance(self._update, TrainingStep) else 1
        begun = reader.position if progress is not None else None
        epochs = max_epochs - (0 if progress is None else progress["epoch"] - (begun is not None))
        steps = epochs * math.ceil(reader.length / accumulate) - (begun or 0) // accumulate
        left = scheduler.total_steps - scheduler.last_epoch
        if steps > left:
            raise ValueError(
                f"OneCycleLR plans {scheduler.total_steps} steps, of which {left} are left, but "
                f"{max_epochs} epochs take {steps} more; "
                f"give it total_steps={scheduler.last_epoch + steps}, or a smaller max_epochs"
            )

    def run(self, dataset: Any = None, max_epochs: int = 10, resume: bool | str | PathLike[str] = False) -> EngineState:
        """A second name of `train`."""
        return self.train(dataset, max_epochs, resume)

    def find_learning_rate(
        self, dataset: Any = None, lowest: float = 1e-7, highest: float = 10.0, steps: int = 100
    ) -> LearningRates:
        """Try learning rates from low to high, to see which one lowers the loss fastest.

        Afterwards the model, the optimizer, the position in the data and the random generators are as they were.

        Args:
            dataset: What to train on meanwhile; the component `dataset` by default. It may be read several times.
            lowest: The first rate.
            highest: The last one; the search ends before, once the loss has grown to a multiple of its best value.
            steps: How many rates are tried.

        Returns:
            `suggestion`, the rate, and `history`, a Message with the columns `lr`, `loss` and `smoothed`.

        Raises:
            FloatingPointError: The first loss is not finite; says in which rows of the batch.
            TypeError: The data set can be read only once.
            ValueError: The rates make no sense, or the loss grows from the start.

        Example:
            >>> line = torch.nn.Linear(1, 1)
            >>> components = {"model": line, "dataset": [torch.ones(4, 1)]}
            >>> trainer = IgniteJunction(components, loss=lambda output: output.square().mean())
            >>> 1e-7 < trainer.find_learning_rate().suggestion < 10
            True
        """
        given = self.dataset if dataset is None else dataset
        if is_once_only(given):
            raise TypeError(
                f"a {type(given).__name__} can be read once, and training needs it then; give a list or a pipe"
            )
        with self._kept(given):
            self._start(self.engine)
            return sweep(self._update, self.optimizer, BatchReader(given), lowest, highest, steps)

    @property
    def history(self) -> Message:
        """The loss of every step so far, in the columns `epoch`, `iteration` (counted over all runs) and `loss`."""
        return self._history.message()

    @property
    def metric_history(self) -> Message:
        """What was measured after each epoch: a row per epoch, a column per metric, NaN where one was not measured.

        `loss` is the mean over the epoch, metrics of the engine have their own names. Those of `evaluate`, on the
        `eval_set`, have `eval_` before them.
        """
        return self._metrics.message()

    def _step(self, engine: Engine, batch: Any) -> Any:
        output = self._update(engine, batch)
        self._history.record(output, engine.state)
        return output

    def _start(self, engine: Engine) -> None:
        if not self._goes_on:
            self._history.start_run(engine.state)
            if isinstance(self._update, TrainingStep):
                self._update.restart()
        if not self.model.training:
            self.model.train()

    def _finish_epoch(self) -> None:
        """Before all other handlers of the end of an epoch."""
        if isinstance(self._update, TrainingStep) and self._update.waiting:
            self._update.finish()
            if isinstance(self.scheduler, _EACH_STEP):
                self._step_scheduler()

    def _end_epoch(self) -> None:
        """After all other handlers of the end of an epoch: a state taken by one is of the last step."""
        self._measure()
        scheduler = self.scheduler
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(mean_of_all(self._history.mean_of_last_epoch()))
        elif scheduler is not None and not isinstance(scheduler, _EACH_STEP):
            if isinstance(self._update, TrainingStep):
                # It would warn when float16 left out every step so far.
                vars(self.optimizer)["_opt_called"] = True
            scheduler.step()
        self._reader.position = None

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        """What happens beside the steps of a run, after the handlers that were attached before it."""
        with ExitStack() as handlers:
            if self.progress or (self.progress is None and somebody_watches()):
                handlers.enter_context(progress_bar(self.engine, self._history.last))
            attach = self.engine.add_event_handler
            handlers.enter_context(attach(Events.STARTED, self._restore_generators))
            handlers.enter_context(attach(Events.EPOCH_COMPLETED, self._end_epoch))
            if self._files is not None:
                self._files.start(self._place()[1])
            if self._log is not None:
                self._log.start(self._place()[1], self._goes_on)
            if self._files is not None:
                for event, save in self._savers(self._files).items():
                    handlers.enter_context(attach(event, save))
            if self._mirrors:
                handlers.enter_context(
                    attach(Events.ITERATION_COMPLETED(every=_STEPS_PER_MIRRORING), lambda: self._mirror())
                )
                handlers.enter_context(attach(Events.EPOCH_COMPLETED, lambda: self._mirror()))
                handlers.callback(self._mirror, patient=False)
            yield

    def _measure(self) -> None:
        """Record the metrics of the epoch that has just ended, and see whether there should be another one."""
        epoch, iteration = self._place()
        self._history.check()
        own = {} if len(self._history) == 0 else {"loss": self._history.mean_of_last_epoch()}
        self._metrics.record(epoch, iteration, {**own, **self.engine.state.metrics})
        if self._stopping is not None:
            self._stopping.see(self._measured(self._stopping.metric))
            if self._stopping.is_met:
                self.engine.terminate()

    def _measured(self, name: str) -> float:
        """A metric of the epoch that has just ended; the eval_set is evaluated for it when nobody did that yet."""
        iteration = self._place()[1]
        value = self._metrics.at(iteration, name)
        if value is None and name.startswith("eval_") and "eval_set" in self.components:
            self.evaluate()
            value = self._metrics.at(iteration, name)
        if value is None:
            known = ", ".join(self._metrics.names()) or "(none)"
            proposal = did_you_mean(name, self._metrics.names()) or "."
            raise ValueError(f"there is no metric {name!r} to watch{proposal} Measured: {known}")
        return mean_of_all(value)

    def _step_scheduler(self) -> None:
        scheduler, step = self.scheduler, self._update
        # A training step that waits for more gradients, or that was left out, is none.
        if scheduler is not None and (not isinstance(step, TrainingStep) or step.stepped):
            scheduler.step()

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, dataset: Any = None) -> dict[str, Any]:
        """Go through a data set once without learning anything from it.

        Meanwhile models (upstream ones and those of the data set's pipeline too) are in evaluation mode with their
        updates off; afterwards they are as they were.

        Args:
            dataset: What to evaluate on; the component `eval_set` by default.

        Returns:
            'loss': the mean over all rows, when there is a loss; and every metric that is attached to `evaluator`.

        Raises:
            FloatingPointError: The loss is not finite; says in which batch and rows of it.
            ValueError: There is no data set, or it yields nothing.

        Example:
            >>> from ignite.metrics import Average
            >>> half = torch.nn.Linear(1, 1)
            >>> trainer = IgniteJunction(components={"model": half, "dataset": []}, loss=torch.sum)
            >>> Average(lambda output: output["output"].numel()).attach(trainer.evaluator, "rows")
            >>> trainer.evaluate([torch.ones(4, 1)])["rows"]
            4.0
        """
        given = self.components.get("eval_set") if dataset is None else dataset
        if given is None:
            raise ValueError("there is no data set to evaluate on; give evaluate() one, or the junction an eval_set")
        self._evaluated.clear()
        with evaluation_mode(self.model, given):
            metrics = run_engine(self.evaluator, BatchReader(given), max_epochs=1).metrics
        result = {**self._mean_loss(), **metrics}
        if dataset is None:
            self._metrics.record(*self._place(), {f"eval_{name}": value for name, value in result.items()})
            self._mirror()
        return result

    def _evaluation_step(self, engine: Engine, batch: Any) -> Any:
        result = self._evaluate(engine, batch)
        if "loss" in result:
            self._evaluated.append((result["loss"].reshape(()), length_of(result["output"]) or 1))
        return result

    def _mean_loss(self) -> dict[str, float]:
        if not self._evaluated:
            return {}
        losses, rows = zip(*self._evaluated, strict=True)
        finite = torch.stack([torch.isfinite(loss) for loss in losses]).tolist()
        if not all(finite):  # on a GPU nobody looked at each
            first = finite.index(False)
            raise not_finite_in_evaluation(losses[first].item(), first + 1)
        weights = torch.tensor(rows, dtype=torch.float64)
        return {"loss": float(torch.stack(losses).cpu().double() @ weights / weights.sum())}

    # --- events -------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> EngineState:
        """The state of `engine`: `epoch`, `iteration`, `output`, `metrics`."""
        return self.engine.state

    def on(self, event: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Decorates a handler of training events, as `Engine.on` does."""
        return self.engine.on(event, *args, **kwargs)

    def add_event_handler(self, event: Any, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Adds a handler of training events, as `Engine.add_event_handler` does."""
        return self.engine.add_event_handler(event, handler, *args, **kwargs)

    def has_event_handler(self, handler: Callable[..., Any], event: Any = None) -> bool:
        """Whether a handler is there, as `Engine.has_event_handler` says."""
        return self.engine.has_event_handler(handler, event)

    def remove_event_handler(self, handler: Callable[..., Any], event: Any) -> None:
        """Removes a handler, as `Engine.remove_event_handler` does."""
        self.engine.remove_event_handler(handler, event)


_OWN_ARGUMENTS = [name for name in inspect.signature(IgniteJunction).parameters if name != "arguments"]


def _make_engine(step: Step) -> Engine:
    engine = Engine(step)
    engine.logger = _LOGGER
    return engine


def _check_is_function(loss: Any, needed: bool) -> None:
    if loss is None and not needed:
        return
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"loss is a function that makes one number of the model's output, got {loss!r:.80}")
    if isinstance(loss, torch.nn.modules.loss._Loss):
        name = type(loss).__name__
        raise TypeError(
            f"loss gets the model's output alone, and {name} needs two tensors; say which columns they are: "
            f"loss=lambda message: {name}()(message['output'], message['target'])"
        )


def _check_kind(given: Any, expected: type | tuple[type, ...], name: str, text: str) -> None:
    if given is not None and not isinstance(given, expected):
        raise TypeError(f"expected {text} or None as {name}, got {given!r:.80}")
