"""Training: ignite's Engine as a junction of a model and a data set.

An IgniteJunction resembles ignite's supervised trainer, except that model and data set are stages of fireworks: the
loss sees the Message that the model makes, and epochs are as long as the pipeline says.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.engine import State as EngineState
from torch.nn import Module, Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from fireworks.core.cursor import is_once_only, items_per_epoch, length_of
from fireworks.core.junction import Junction
from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe
from fireworks.core.state import stages
from fireworks.extensions._losses import LossRecord, not_finite
from fireworks.extensions._optimizers import build_optimizer
from fireworks.extensions._progress import progress_bar, somebody_watches
from fireworks.utils.events import visdom_loss_handler

__all__ = ["IgniteJunction", "default_evaluation_closure", "default_training_closure"]

Step = Callable[[Engine, Any], Any]
Loss = Callable[[Any], torch.Tensor]

# ignite logs each exception as well as raising it; without a handler Python would print the log, too.
_LOGGER = logging.getLogger("fireworks.training")
_LOGGER.addHandler(logging.NullHandler())


def default_training_closure(model: Module, optimizer: Optimizer, loss: Loss) -> Step:
    """The usual training step: compute, differentiate, step.

    Give a function like it as `update_function` to train in another way.

    Args:
        model: Called with what the data set yields.
        optimizer: Of the model's parameters.
        loss: Makes one number of the model's output.

    Returns:
        A function of engine and batch, which returns `{'loss': detached tensor, 'output': the model's output}`.

    Raises:
        FloatingPointError: (The function.) The loss is not finite; the parameters stay as they were before the step.
        TypeError: (The function.) The loss is not a tensor of one value.
    """

    def differentiate(engine: Engine, batch: Any) -> tuple[torch.Tensor, Any]:
        optimizer.zero_grad()
        output = model(batch)
        value = loss(output)
        _check_loss(value, engine, batch)
        value.backward()
        return value, output

    def step(engine: Engine, batch: Any) -> dict[str, Any]:
        value, output = differentiate(engine, batch)
        optimizer.step()
        return {"loss": value.detach(), "output": output}

    def step_by_closure(engine: Engine, batch: Any) -> dict[str, Any]:
        results: list[tuple[torch.Tensor, Any]] = []

        def compute() -> Any:
            results.append(differentiate(engine, batch))
            return results[-1][0]

        optimizer.step(compute)
        value, output = results[0]
        return {"loss": value.detach(), "output": output}

    # LBFGS computes the loss several times in a step.
    return step_by_closure if isinstance(optimizer, torch.optim.LBFGS) else step


def default_evaluation_closure(model: Module, loss: Loss | None = None) -> Step:
    """The usual evaluation step: compute, without gradients.

    Args:
        model: Called with what the data set yields.
        loss: Makes one number of the model's output; None for the output alone.

    Returns:
        A function of engine and batch, which returns `{'output': the model's output, 'loss': tensor}`.
    """

    def step(engine: Engine, batch: Any) -> dict[str, Any]:
        with torch.no_grad():
            output = model(batch)
            return {"output": output} if loss is None else {"output": output, "loss": loss(output)}

    return step


class IgniteJunction(Junction):
    """Trains a model on a data set with ignite's Engine.

    `engine` is the Engine: `engine.state.output['loss']` is the loss of the last step, ignite's metrics and handlers
    attach to it (or to the junction, which passes them on), and `evaluator` is the Engine of `evaluate`. The loss of
    every step is kept in `history`. A Model's linked and upstream parameters are trained with its own.

    Args:
        components: `model`, a torch module (a Model, or any other); `dataset`, what yields batches (a pipe, a Message,
            a list, a DataLoader); and, if you like, `eval_set`, the same for `evaluate`.
        loss: Function of the model's output, a Message as a rule, that gives a tensor of one value.
        optimizer: Name or class of `torch.optim`, or a function that takes the parameters, or an optimizer.
        scheduler: Name or class of `torch.optim.lr_scheduler`, or a function that takes the optimizer. It is stepped
            after each epoch (OneCycleLR, CyclicLR: each step; ReduceLROnPlateau gets the mean loss of the epoch).
        update_function: Makes the training step from model, optimizer and loss, like `default_training_closure`.
        visdom: Plot the loss on a visdom server. Without one there is a warning, and training goes on.
        environment: Of visdom.
        description: Names the plots; the model's class by default.
        progress: Show a progress bar; by default where somebody can see it, in a terminal or a notebook.
        **arguments: Of the optimizer and the scheduler, such as `lr` or `step_size`. What both could take goes to the
            optimizer; give the scheduler as a `functools.partial` then.

    Raises:
        ParameterizationError: `model` or `dataset` is missing.
        TypeError: Arguments are unknown to optimizer and scheduler, or missing; names all of them.
        ValueError: No optimizer or scheduler of that name; no parameters to train.

    Example:
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

    # Written here, these are attributes; any other public name would be a component.
    engine: Engine
    evaluator: Engine
    optimizer: Optimizer
    scheduler: LRScheduler | None
    engine = evaluator = optimizer = scheduler = None  # type: ignore[assignment]
    loss: Any = None
    update_function: Any = None
    visdom = environment = description = progress = None

    def __init__(
        self,
        components: Mapping[str, Any] | None = None,
        loss: Loss | None = None,
        optimizer: Any = "Adam",
        scheduler: Any = None,
        update_function: Callable[..., Step] = default_training_closure,
        visdom: bool = False,
        environment: str = "main",
        description: str | None = None,
        progress: bool | None = None,
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
        self.optimizer, self.scheduler = build_optimizer(
            _parameters(self.model), optimizer, scheduler, arguments, _OWN_ARGUMENTS
        )
        self._trained = self.model
        self._history = LossRecord()
        self._update = update_function(self.model, self.optimizer, loss)
        self.engine = _make_engine(self._step)
        self.engine.add_event_handler(Events.STARTED, self._start)
        self._attach_scheduler()
        self._evaluate = default_evaluation_closure(self.model, loss)
        self._evaluated: list[tuple[torch.Tensor, int]] = []
        self.evaluator = _make_engine(self._evaluation_step)
        if visdom:
            engines = {"trainer": self.engine, "evaluator": self.evaluator}
            visdom_loss_handler(engines, description or type(self.model).__name__, environment=environment)

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self, dataset: Any = None, max_epochs: int = 10) -> EngineState:
        """Train for so many epochs. A second call trains for as many more, from the parameters as they are.

        Args:
            dataset: What to train on; the component `dataset` by default.
            max_epochs: How often to go through it.

        Returns:
            The state of the engine.

        Raises:
            FloatingPointError: The loss is not finite; says in which epoch and iteration.
            TypeError: The data set cannot be iterated over, or not that often.
            ValueError: The data set yields nothing.
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
        shown = somebody_watches() if self.progress is None else self.progress
        with progress_bar(self.engine, self._history.last) if shown else nullcontext():
            state = _run(self.engine, given, max_epochs)
        self._history.check()
        return state

    def run(self, dataset: Any = None, max_epochs: int = 10) -> EngineState:
        """A second name of `train`."""
        return self.train(dataset, max_epochs)

    @property
    def history(self) -> Message:
        """The loss of every step so far, in the columns `epoch`, `iteration` (counted over all runs) and `loss`."""
        return self._history.message()

    def _step(self, engine: Engine, batch: Any) -> Any:
        output = self._update(engine, batch)
        self._history.record(output, engine.state)
        return output

    def _start(self, engine: Engine) -> None:
        self._history.start_run(engine.state)
        if not self.model.training:
            self.model.train()

    def _attach_scheduler(self) -> None:
        scheduler = self.scheduler
        if isinstance(scheduler, ReduceLROnPlateau):
            self.engine.add_event_handler(
                Events.EPOCH_COMPLETED, lambda: scheduler.step(self._history.mean_of_last_epoch())
            )
        elif scheduler is not None:
            each_step = isinstance(scheduler, (OneCycleLR, CyclicLR))
            event = Events.ITERATION_COMPLETED if each_step else Events.EPOCH_COMPLETED
            self.engine.add_event_handler(event, lambda: scheduler.step())

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
            metrics = _run(self.evaluator, given, max_epochs=1).metrics
        return {**self._mean_loss(), **metrics}

    def _evaluation_step(self, engine: Engine, batch: Any) -> Any:
        result = self._evaluate(engine, batch)
        if "loss" in result:
            self._evaluated.append((result["loss"], length_of(result["output"]) or 1))
        return result

    def _mean_loss(self) -> dict[str, float]:
        if not self._evaluated:
            return {}
        losses, rows = zip(*self._evaluated, strict=True)
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


@contextmanager
def evaluation_mode(*sources: Any) -> Iterator[None]:
    """Meanwhile all models among the sources and up their chains are in evaluation mode, with their updates off."""
    found = [stage for source in sources for stage in (*stages(source).values(), source)]
    modules = [stage for stage in found if isinstance(stage, Module)]
    training = {module: module.training for root in modules for module in root.modules()}
    updating = [model for model in training if isinstance(model, Model) and model.updates_enabled]
    try:
        for module in modules:
            module.eval()
        for model in updating:
            model.disable_updates()
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        for model in updating:
            model.enable_updates()


class _Epochs:
    """What an engine iterates over: from the start each time, whatever kind of data set it is."""

    def __init__(self, dataset: Any) -> None:
        if dataset is None or isinstance(dataset, (str, bytes)) or not _is_iterable(dataset):
            raise TypeError(f"expected a pipe, a Message or an iterable of batches as data set, got {dataset!r:.80}")
        self.length = items_per_epoch(dataset)
        if not hasattr(type(dataset), "__iter__"):
            dataset = Pipe(input=dataset)
        self._items = dataset.as_dataset() if isinstance(dataset, Pipe) else dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


def _is_iterable(dataset: Any) -> bool:
    return hasattr(type(dataset), "__iter__") or hasattr(type(dataset), "__getitem__")


def _run(engine: Engine, dataset: Any, max_epochs: int) -> EngineState:
    """Runs an engine from epoch 1 on; by itself it would go on, or refuse, where the last run ended."""
    epochs = _Epochs(dataset)
    if epochs.length == 0:
        raise ValueError(_NO_BATCHES.format(dataset))
    engine.state.max_epochs = engine.state.max_iters = engine.state.epoch_length = None
    state = engine.run(epochs, max_epochs=max_epochs, epoch_length=epochs.length)
    if state.iteration == 0:
        raise ValueError(_NO_BATCHES.format(dataset))
    return state


_NO_BATCHES = "the data set yields no batches: {!r:.200}"


def _make_engine(step: Step) -> Engine:
    engine = Engine(step)
    engine.logger = _LOGGER
    return engine


def _parameters(model: Module) -> Iterable[Parameter]:
    return model.all_parameters() if isinstance(model, Model) else model.parameters()


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


def _check_loss(value: Any, engine: Engine, batch: Any) -> None:
    """Before anything is changed: is this a loss that can be trained on?"""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(f"loss gives a tensor of one value, got {got}; take the mean or the sum")
    if not value.requires_grad:
        raise ValueError("the loss depends on no parameter that is to be trained; are all frozen, or was it detached?")
    # On a GPU this look would make every step wait; there the record of losses looks, some steps later.
    if value.is_cpu and not math.isfinite(value.item()):
        rows = f" (a {type(batch).__name__} of {len(batch)} rows)" if hasattr(batch, "__len__") else ""
        raise not_finite(value.item(), engine.state.epoch, engine.state.iteration, rows)
