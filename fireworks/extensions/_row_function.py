"""A model as a function of one column: what attributions differentiate and probe, with the model left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from fireworks.core.message import Message, TensorMessage
from fireworks.core.model import Model
from fireworks.core.state import is_stage, reachable
from fireworks.extensions._slopes import Slopes, class_name
from fireworks.utils.exceptions import ColumnError

__all__ = ["RowFunction", "held_still"]

_NUMBERS_AT_ONCE = 2**16


@contextmanager
def held_still(model: Any) -> Iterator[None]:
    """A model as it is when nobody trains it: evaluation mode, no updates, constant parameters; then as it was."""
    items = list(reachable(model, owners=True))
    modules = [item for item in items if isinstance(item, Module)]
    found = [p for item in items for p in (item.parameters(recurse=False) if isinstance(item, Module) else [item])]
    trained = [p for p in {id(p): p for p in found}.values() if isinstance(p, Parameter) and p.requires_grad]
    updated = [item for item in items if isinstance(item, Model) and item.updates_enabled]
    modes = [(module, module.training) for module in modules]
    try:
        for module in modules:
            module.eval()
        for item in updated:
            item.disable_updates()
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for item in updated:
            item.enable_updates()
        # Parents come before their children, so each module has the last word on its own mode, and on its children's
        # until these are reached; a module with two parents gets its mode from the second loop.
        for module, mode in modes:
            if module.training != mode:
                module.train(mode)
        for module, mode in modes:
            module.training = mode


class RowFunction:
    """What a model computes from one column of a message, row by row, while the other columns stay as they are.

    Args:
        model: A stage of fireworks, which gets messages; or a module or function, which gets the column's tensor.
        message: The rows.
        input_column: The column that the function depends on.
        output_column: Where a model puts what it computes.
        max_rows: How many rows the model gets at once; by default fewer the more elements they have.
        differentiable: Whether gradients will be asked for; a column of integers is then computed with as reals.
    """

    def __init__(
        self,
        model: Any,
        message: Message,
        input_column: str,
        output_column: str,
        max_rows: int | None,
        differentiable: bool,
    ) -> None:
        if isinstance(model, Model) and not model.inference_enabled:
            raise ValueError(
                f"inference of {class_name(model)} is off, so it computes no {output_column!r}; call enable_inference()"
            )
        self.model = model
        self.input_column = input_column
        self.output_column = output_column
        self.takes_messages = is_stage(model) and not hasattr(type(model), "module_class")
        given = message.tensors([input_column])[input_column]
        self.given_dtype = given.dtype
        self.inputs = _constant(given)
        if differentiable and not (given.is_floating_point() or given.is_complex()):
            self.inputs = self.inputs.to(torch.get_default_dtype())
        # Larger batches are hardly faster, and a model may keep much more of a row than the row itself.
        self.max_rows = max_rows or min(max(_NUMBERS_AT_ONCE // max(self.inputs.shape[1:].numel(), 1), 8), 1024)
        other_columns = [name for name in message.columns if name != input_column]
        others = message[other_columns] if other_columns else Message()  # an empty list would choose no rows
        self.others = others.map(dict.fromkeys(others.tensor_message.keys(), _constant))
        self.outputs = self._outputs()
        self.output_shape = self.outputs.shape[1:]

    @property
    def number_of_outputs(self) -> int:
        """Elements of a row's output; 1 when rows have no dimensions."""
        return self.output_shape.numel()

    def _outputs(self) -> Tensor:
        with torch.no_grad():
            parts = [self._run(self.inputs[rows], rows) for rows in self.chunks(len(self.inputs))]
        return torch.cat(parts)

    def chunks(self, count: int) -> tuple[Tensor, ...]:
        """The numbers 0 to count - 1, as many at once as the model may get rows; one empty chunk if there are none."""
        return torch.arange(count, device=self.inputs.device).split(self.max_rows)

    def __call__(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """The outputs, one row of numbers for each input.

        Args:
            inputs: (n, *input), values to put in the place of the column.
            rows: (n,), the rows of the message that the other columns are taken from.

        Returns:
            (n, number of outputs).
        """
        return self._run(inputs, rows).reshape(len(inputs), self.number_of_outputs)

    def _run(self, inputs: Tensor, rows: Tensor) -> Tensor:
        try:
            result = self.model(self._message(inputs, rows) if self.takes_messages else inputs)
        except Exception as error:
            if self.given_dtype != self.inputs.dtype:
                error.add_note(
                    f"column {self.input_column!r} holds {self.given_dtype}; the model got it as {self.inputs.dtype}, "
                    "because only reals can be differentiated; Occlusion and Occlusion_1 leave it as it is"
                )
            raise
        output = self._output_of(result)
        if output.ndim == 0 or len(output) != len(inputs):
            raise ValueError(
                f"expected one output per row, {len(inputs)} in all, from {class_name(self.model)}; "
                f"got {self.output_column!r} of shape {tuple(output.shape)}"
            )
        return output

    def _message(self, inputs: Tensor, rows: Tensor) -> Message:
        message = self.others.permute(rows) if self.others.columns else Message()
        message[self.input_column] = inputs
        return message

    def _output_of(self, result: Any) -> Tensor:
        if isinstance(result, (Message, TensorMessage)):
            return Message(result).tensors([self.output_column])[self.output_column]
        if isinstance(result, Mapping) and self.output_column not in result:
            raise ColumnError.unknown([self.output_column], result)
        output = result[self.output_column] if isinstance(result, Mapping) else result
        if not isinstance(output, Tensor):
            expected = "a Message" if self.takes_messages else "a tensor, or a dict or Message of tensors,"
            raise TypeError(f"expected {expected} from {class_name(self.model)}, got {type(output).__name__}")
        return output

    def run(self, inputs: Tensor, rows: Tensor, slopes: Slopes | None = None) -> tuple[Tensor, Tensor]:
        """The inputs as a leaf of autograd, and the outputs that depend on it: (n, number of outputs)."""
        leaf = inputs.detach().clone().requires_grad_()
        given = leaf.clone()  # the model may change its input in place, which torch refuses for the leaf itself
        if slopes is None:
            return leaf, self(given, rows)
        slopes.follow(given)
        with slopes:
            computed = self(given, rows)
        slopes.check_graph(computed)
        return leaf, computed

    def gradients(self, inputs: Tensor, rows: Tensor, outputs: Tensor, slopes: Slopes | None = None) -> Tensor:
        """The gradient of one output per row with respect to the inputs.

        Args:
            inputs: (n, *input).
            rows: (n,), the row of the message that each belongs to.
            outputs: (n,), the number of the output to differentiate.
            slopes: The rule for nonlinear functions; their derivatives by default.

        Returns:
            (n, *input).
        """
        leaf, computed = self.run(inputs, rows, slopes)
        gradient = None
        if computed.requires_grad:
            chosen = computed.gather(1, outputs.unsqueeze(1)).sum()
            (gradient,) = torch.autograd.grad(chosen, leaf, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"{self.output_column!r}, as {class_name(self.model)} computes it ({computed.dtype}), has no gradient "
                f"by {self.input_column!r}: it does not depend on it, or by way of integers, detach() or no_grad(); "
                "Occlusion and Occlusion_1 need none"
            )
        return gradient

    def for_each_output(self, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Something of the shape of the input, for every output of every row.

        Args:
            compute: Function of n rows and the numbers of n outputs that gives (n, *input).

        Returns:
            (N, number of outputs, *input).
        """
        count = self.number_of_outputs
        result = self.inputs.new_zeros(len(self.inputs) * count, *self.inputs.shape[1:])
        if len(result):
            for pairs in self.chunks(len(result)):
                result[pairs] = compute(pairs // count, pairs % count)
        return result.unflatten(0, (len(self.inputs), count))


def _constant(tensor: Tensor) -> Tensor:
    """The values alone, as a tensor that autograd can work with."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
