"""What an engine does with a batch: train on it, or evaluate it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from ignite.engine import Engine
from torch.nn import Module, Parameter
from torch.optim import LBFGS, Optimizer

from fireworks.core.model import Model
from fireworks.core.state import stages
from fireworks.extensions._blame import blamed_rows
from fireworks.extensions._devices import average_gradients, place_among_processes
from fireworks.extensions._losses import not_finite, not_finite_in_evaluation
from fireworks.utils.exceptions import did_you_mean

__all__ = ["Loss", "Step", "TrainingStep", "default_evaluation_closure", "default_training_closure", "evaluation_mode"]

Step = Callable[[Engine, Any], Any]
Loss = Callable[[Any], torch.Tensor]
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def default_training_closure(
    model: Module,
    optimizer: Optimizer,
    loss: Loss,
    clip_norm: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
) -> TrainingStep:
    """The usual training step: compute, differentiate, step.

    Give a function like it as `update_function` to train in another way.

    Args:
        model: Called with what the data set yields.
        optimizer: Of the model's parameters.
        loss: Makes one number of the model's output.
        clip_norm: Scale gradients down so that the norm of all of them together is at most this.
        accumulate: Step after so many batches, with the mean of their gradients.
        precision: 'bfloat16' or 'float16' to compute in it where that is safe, by `torch.autocast`; with float16 a
            `GradScaler` keeps small gradients from vanishing.

    Returns:
        A function of engine and batch, which returns `{'loss': detached tensor, 'output': the model's output}`.

    Raises:
        FloatingPointError: (The function.) The loss is not finite; the parameters stay as they were before the step.
        TypeError: (The function.) The loss is not a tensor of one value.
        ValueError: An argument is none of the values that it can have.
    """
    return TrainingStep(model, optimizer, loss, clip_norm, accumulate, precision)


def default_evaluation_closure(model: Module, loss: Loss | None = None, precision: str | None = None) -> Step:
    """The usual evaluation step: compute, without gradients.

    Args:
        model: Called with what the data set yields.
        loss: Makes one number of the model's output; None for the output alone.
        precision: As for `default_training_closure`.

    Returns:
        A function of engine and batch, which returns `{'output': the model's output, 'loss': tensor}`.

    Raises:
        FloatingPointError: (The function.) The loss is not finite.
        TypeError: (The function.) The loss is not a tensor of one value.
    """

    def step(engine: Engine, batch: Any) -> dict[str, Any]:
        with torch.no_grad(), _autocast(_device_type(model.parameters()), precision):
            output = model(batch)
            if loss is None:
                return {"output": output}
            value = loss(output)
        _check_is_one_value(value)
        if value.is_cpu and not math.isfinite(value.item()):
            raise not_finite_in_evaluation(value.item(), engine.state.iteration, blamed_rows(batch, output, loss))
        return {"output": output, "loss": value}

    return step


class TrainingStep:
    """A training step that knows what is left over from the steps before: gradients, and the scale of them."""

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Loss,
        clip_norm: float | None = None,
        accumulate: int = 1,
        precision: str | None = None,
    ) -> None:
        _check_options(optimizer, clip_norm, accumulate, precision)
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.clip_norm, self.accumulate, self.precision = clip_norm, accumulate, precision
        self.scaler = torch.amp.GradScaler(self._device_type()) if precision == "float16" else None
        # How many batches' gradients wait for the optimizer to step.
        self.waiting = 0
        # Whether the last call changed the parameters.
        self.stepped = False
        self._is_shared = place_among_processes()[1] > 1
        self._is_plain = clip_norm is None and accumulate == 1 and precision is None and not self._is_shared
        self._is_plain = self._is_plain and not isinstance(optimizer, LBFGS)
        self._run = self._step_by_closure if isinstance(optimizer, LBFGS) else self._step

    def __call__(self, engine: Engine, batch: Any) -> dict[str, Any]:
        if self._is_plain:  # as most are; the way below costs several microseconds more
            self._drop_gradients()
            output = self.model(batch)
            value = self.loss(output)
            is_scalar = type(value) is torch.Tensor and value.ndim == 0
            if not (is_scalar and value.requires_grad and value.is_cpu and math.isfinite(value.item())):
                self._check(value, output, engine, batch)
            value.backward()
            self.optimizer.step()
            self.stepped = True
        else:
            value, output = self._run(engine, batch)
        return {"loss": value.detach(), "output": output}

    def restart(self) -> None:
        """Forget gradients that wait."""
        self.waiting = 0

    def finish(self) -> None:
        """Step with the gradients that wait, if any: the epoch ends before as many batches came as there should."""
        if self.waiting:
            missing = self.accumulate / self.waiting
            gradients = [parameter.grad for parameter in self._parameters() if parameter.grad is not None]
            for gradient in gradients:
                gradient.mul_(missing)
            self._update()

    def _step(self, engine: Engine, batch: Any) -> tuple[torch.Tensor, Any]:
        if self.waiting == 0:
            self._drop_gradients()
        value, output = self._differentiate(engine, batch)
        self.waiting += 1
        self.stepped = False
        if self.waiting == self.accumulate:
            self._update()
        return value, output

    def _drop_gradients(self) -> None:
        """What `optimizer.zero_grad()` does, without its entry in a profile, which takes ten microseconds."""
        zero_grad = self.optimizer.zero_grad
        if getattr(zero_grad, "__func__", None) is not Optimizer.zero_grad:
            zero_grad()  # of an optimizer that has its own
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _differentiate(self, engine: Engine, batch: Any) -> tuple[torch.Tensor, Any]:
        if self.precision is None:
            output = self.model(batch)
            value = self.loss(output)
        else:
            with _autocast(self._device_type(), self.precision):
                output = self.model(batch)
                value = self.loss(output)
        self._check(value, output, engine, batch)
        share = value if self.accumulate == 1 else value / self.accumulate
        (share if self.scaler is None else self.scaler.scale(share)).backward()
        return value, output

    def _update(self) -> None:
        self.waiting, self.stepped = 0, True
        if self._is_shared:
            average_gradients(self._parameters())
        if self.scaler is None:
            self._clip()
            self.optimizer.step()
            return
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self._clip()
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.stepped = self.scaler.get_scale() >= before  # it leaves out a step whose gradients overflow

    def _step_by_closure(self, engine: Engine, batch: Any) -> tuple[torch.Tensor, Any]:
        """For LBFGS, which computes the loss several times in a step."""
        results: list[tuple[torch.Tensor, Any]] = []

        def compute() -> Any:
            self._drop_gradients()
            results.append(self._differentiate(engine, batch))
            self._clip()
            return results[-1][0]

        self.optimizer.step(compute)
        self.stepped = True
        return results[0]

    def _clip(self) -> None:
        if self.clip_norm is None:
            return
        norm = _clip_gradients(self._parameters(), self.clip_norm)
        if self.scaler is None and norm.is_cpu and not math.isfinite(norm.item()):
            raise FloatingPointError(
                f"the gradients have the norm {norm.item()}, so they cannot be clipped to {self.clip_norm}, although "
                "the loss is finite; look for a function of the model whose slope is infinite, such as sqrt at 0"
            )

    def _check(self, value: Any, output: Any, engine: Engine, batch: Any) -> None:
        """Before anything is changed: is this a loss that can be trained on?"""
        _check_is_one_value(value)
        if not value.requires_grad:
            raise ValueError(
                "the loss depends on no parameter that is to be trained; are all frozen, or was it detached?"
            )
        # On a GPU this look would make every step wait; there the record of losses looks, some steps later.
        if value.is_cpu and not math.isfinite(value.item()):
            rows = blamed_rows(batch, output, self.loss)
            raise not_finite(value.item(), engine.state.epoch, engine.state.iteration, rows)

    def _parameters(self) -> Iterator[Parameter]:
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def _device_type(self) -> str:
        return _device_type(self._parameters())

    def get_state(self) -> dict[str, Any]:
        """The scale of gradients, and those that wait for a step."""
        waiting = [_packed(item.grad) for item in self._parameters()] if self.waiting else []
        return {
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "waiting": self.waiting,
            "stepped": self.stepped,
            "gradients": waiting,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `get_state` was called."""
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.waiting, self.stepped = state["waiting"], state["stepped"]
        if self.waiting:
            for parameter, gradient in zip(self._parameters(), state["gradients"], strict=True):
                parameter.grad = _unpacked(gradient, parameter.device)


def _check_options(optimizer: Optimizer, clip_norm: Any, accumulate: Any, precision: Any) -> None:
    is_number = isinstance(clip_norm, (int, float)) and not isinstance(clip_norm, bool)
    if clip_norm is not None and not (is_number and 0 < clip_norm < math.inf):
        raise ValueError(f"expected a number above 0 as clip_norm, or None, got {clip_norm!r}")
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"expected a whole number of batches from 1 up as accumulate, got {accumulate!r}")
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"expected precision 'bfloat16', 'float16' or None, got {precision!r}{did_you_mean(precision, PRECISIONS)}"
        )
    if isinstance(optimizer, LBFGS) and (accumulate > 1 or precision == "float16" or place_among_processes()[1] > 1):
        raise ValueError(
            "LBFGS computes the loss several times in a step, so it goes neither with accumulate nor with float16, "
            "nor in several processes"
        )


def _check_is_one_value(value: Any) -> None:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(f"loss gives a tensor of one value, got {got}; take the mean or the sum")


def _clip_gradients(parameters: Iterable[Parameter], most: float) -> torch.Tensor:
    """Scale the gradients so that their norm is `most`, if it is larger; gives the norm that they had."""
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not any(gradient.is_sparse for gradient in gradients):
        return torch.nn.utils.clip_grad_norm_(parameters, most)
    # torch's own function knows no sparse ones; their norm is that of the values, each row once.
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [gradient._values() if gradient.is_sparse else gradient for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(item) for item in gradients]))
    share = torch.clamp(most / (norm + 1e-6), max=1.0)
    for item in gradients:
        item.mul_(share)
    return norm


def _packed(gradient: torch.Tensor | None) -> Any:
    """A gradient as a value that a state can hold."""
    if gradient is None or not gradient.is_sparse:
        return None if gradient is None else gradient.clone()
    gradient = gradient.coalesce()
    return {"indices": gradient.indices(), "values": gradient.values(), "shape": list(gradient.shape)}


def _unpacked(state: Any, device: torch.device) -> torch.Tensor | None:
    if not isinstance(state, Mapping):
        return None if state is None else state.to(device)
    gradient = torch.sparse_coo_tensor(state["indices"], state["values"], state["shape"], check_invariants=True)
    return gradient.to(device).coalesce()


def _autocast(device_type: str, precision: str | None) -> AbstractContextManager[Any]:
    return nullcontext() if precision is None else torch.autocast(device_type, PRECISIONS[precision])


def _device_type(parameters: Iterator[Parameter]) -> str:
    return next((parameter.device.type for parameter in parameters), "cpu")


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
