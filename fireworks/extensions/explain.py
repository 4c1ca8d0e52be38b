"""Explain: how much each element of a row contributed to each output of a model.

An Explainer is a pipe: it reads messages, and passes them on with a column of attributions more. The methods differ in
what they ask of a model. `GradientxInput` and `IntegratedGradients` need a gradient, `e_LRP` and `DeepLift` a rule for
every function that the model computes with, `Occlusion` only the model.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireworks.core.message import Message, TensorMessage
from fireworks.core.pipe import HookedPassThroughPipe, implements
from fireworks.extensions._heat_maps import draw_attributions
from fireworks.extensions._row_function import RowFunction, held_still
from fireworks.extensions._slopes import EpsilonSlopes, ReferenceRun, RescaleSlopes

__all__ = [
    "DeepLift",
    "Explainer",
    "GradientxInput",
    "IntegratedGradients",
    "Occlusion",
    "Occlusion_1",
    "draw_attributions",
    "e_LRP",
]

Baseline = float | Tensor | str


class Explainer(HookedPassThroughPipe):
    """Passes messages on with the attributions of a model's output to its input; one subclass per method.

    Read the attributions as from any pipe: `explainer[rows]`, iteration, `explainer(message)`, and `explainer()` for
    all rows of the input give Messages with all columns that came, the attribution column, and the output column where
    the message had none of that name. `attribute(message)`, or calling with a tensor, gives the attributions alone.

    Every row is explained by itself, as the model computes in evaluation mode, without updates, whatever mode it is in;
    its mode, `requires_grad` and `.grad` are then as they were. (A function is called as it is: nobody knows which
    modules it uses.)

    Args:
        model: A Model, which gets messages and is called with its inputs; or a torch module (or `model_from_module`
            model, or function), which gets the tensor of the input column.
        input: Pipe or Message to read from; None for an explainer that is only called.
        input_column: The column to attribute to. Integers are computed with as reals, except by occlusion.
        output_column: The column to explain, of a Model's messages; for other models, the name of their result.
        attribution_column: The name of the new column.
        max_rows: How many rows (copies of rows, one for each output, step or window) the model gets at once, which
            bounds the memory; by default 1024, and fewer where a row has more than 64 elements, down to 8.

    Shapes:
        attributions: `(N, *output, *input)`, of the input's dtype; `(N, *input)` when outputs have no dimensions.

    Raises:
        ColumnError: There is no input column, or the model makes no output column.
        ValueError: The message has an attribution column already, or it is that of the input or output; the model does
            not give one output per row; inference of a Model is off; there is no gradient where the method needs one.
    """

    differentiates = True

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        *,
        attribution_column: str = "attributions",
        max_rows: int | None = None,
    ) -> None:
        super().__init__(input=input)
        if not callable(model):
            raise TypeError(f"expected a model, a torch module or a function to explain, got {type(model).__name__}")
        for name, column in {"input_column": input_column, "output_column": output_column}.items():
            if not isinstance(column, str) or not column:
                raise TypeError(f"{type(self).__name__} needs {name}, the name of a column, got {column!r}")
        if attribution_column in (input_column, output_column):
            raise ValueError(
                f"attribution_column={attribution_column!r} is the column of the "
                f"{'input' if attribution_column == input_column else 'output'}; choose another name"
            )
        self.model = model
        self.input_column = input_column
        self.output_column = output_column
        self.attribution_column = attribution_column
        self.max_rows = None if max_rows is None else _positive("max_rows", max_rows)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs and not implements(self.input, "__call__"):
            return self[:]
        return super().__call__(*args, **kwargs)

    def _getitem_hook(self, message: Any) -> Message:
        return self._with_attributions(message)

    def _next_hook(self, message: Any) -> Message:
        return self._with_attributions(message)

    def _call_hook(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs:
            raise TypeError(f"{type(self).__name__} is called with one message or tensor, or with nothing")
        return self.attribute(args[0]) if isinstance(args[0], Tensor) else self._with_attributions(args[0])

    def attribute(self, source: Any) -> Tensor:
        """The attributions alone.

        Args:
            source: A Message (or a dict of columns), or the tensor of the input column for models that need no other.

        Returns:
            `(N, *output, *input)`.
        """
        return self._attribute(self._message(source))[0]

    def _message(self, source: Any) -> Message:
        if isinstance(source, Tensor):
            return Message({self.input_column: source})
        if isinstance(source, (Message, TensorMessage, Mapping)):
            return Message(source)
        raise TypeError(f"expected a Message, a dict of columns or a tensor to explain, got {type(source).__name__}")

    def _with_attributions(self, source: Any) -> Message:
        message = self._message(source)
        if self.attribution_column in message.columns:
            raise ValueError(
                f"the message has a column {self.attribution_column!r} already; "
                "choose another name for the attributions with attribution_column="
            )
        attributions, outputs = self._attribute(message)
        new = {self.output_column: outputs, self.attribution_column: attributions}
        return message.merge({name: column for name, column in new.items() if name not in message.columns})

    def _attribute(self, message: Message) -> tuple[Tensor, Tensor]:
        with held_still(self.model):
            function = RowFunction(
                self.model, message, self.input_column, self.output_column, self.max_rows, self.differentiates
            )
            contributions = self._contributions(function, message)
            shape = (len(contributions), *function.output_shape, *function.inputs.shape[1:])
            return contributions.detach().reshape(shape), function.outputs

    def _contributions(self, function: RowFunction, message: Message) -> Tensor:
        """The method itself: (N, number of outputs, *input)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method _contributions; use a subclass such as GradientxInput"
        )


class GradientxInput(Explainer):
    """Attributes by gradient × input: what the output would change by if it went on as it does here, down to zero.

    The cheapest method, and exact for linear models; saturated functions, whose gradient is zero, hide contributions.

    Example:
        >>> rows = Message({"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
        >>> explainer = GradientxInput(lambda x: 5 * x[:, 0] - x[:, 1], rows, "x", "y")
        >>> explainer[:].to_dict()
        {'x': [[1.0, 2.0], [3.0, 4.0]], 'y': [3.0, 11.0], 'attributions': [[5.0, -2.0], [15.0, -4.0]]}
    """

    def _contributions(self, function: RowFunction, message: Message) -> Tensor:
        def compute(rows: Tensor, outputs: Tensor) -> Tensor:
            inputs = function.inputs[rows]
            return inputs * function.gradients(inputs, rows, outputs)

        return function.for_each_output(compute)


class e_LRP(Explainer):
    """Attributes by layer-wise relevance propagation with the ε rule.

    Every layer shares its relevance among what it was computed of, in proportion to the parts of the sum. That equals
    gradient × input with f(z) / (z + ε·sign(z)) in the place of the derivative of every nonlinear function f; so
    linear models are explained exactly, whatever ε is. Max pooling gives everything to the largest element.

    Args:
        model: As for every Explainer. It has to be made of linear functions (layers, convolutions, average pooling,
            batch norm, sums, shapes), functions of one element at a time (activations), and max pooling.
        input: As for every Explainer.
        input_column: As for every Explainer.
        output_column: As for every Explainer; explain the logits of a classifier rather than its softmax.
        epsilon: Keeps quotients finite where a function is given nearly 0; large values let small contributions vanish.
        **options: `attribution_column` and `max_rows`, as for every Explainer.

    Raises:
        NotImplementedError: The model computes with a function that has no rule; names it and the layer.

    Source:
        S. Bach et al. (2015), PLoS ONE 10(7) e0130140, equation 58; M. Ancona et al. (2018), ICLR, proposition 1.

    Example:
        >>> explainer = e_LRP(torch.nn.ReLU(), None, "x", "y")
        >>> explainer(torch.tensor([[2.0, -1.0]])).tolist()
        [[[2.0, 0.0], [0.0, 0.0]]]
    """

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        epsilon: float = 1e-9,
        **options: Any,
    ) -> None:
        super().__init__(model, input, input_column, output_column, **options)
        if not epsilon > 0:
            raise ValueError(f"epsilon must be greater than 0, got {epsilon}")
        self.epsilon = epsilon

    def _contributions(self, function: RowFunction, message: Message) -> Tensor:
        def compute(rows: Tensor, outputs: Tensor) -> Tensor:
            inputs = function.inputs[rows]
            slopes = EpsilonSlopes(type(self).__name__, self.model, self.epsilon)
            return inputs * function.gradients(inputs, rows, outputs, slopes)

        return function.for_each_output(compute)


class BaselineExplainer(Explainer):
    """An Explainer that compares each row with a baseline: a row that says nothing.

    Args:
        model, input, input_column, output_column: As for every Explainer.
        baseline: A number, a tensor of the shape of a row (or one that broadcasts to it), or the name of a column of
            the message that holds a baseline for every row.
        **options: `attribution_column` and `max_rows`, as for every Explainer.
    """

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        baseline: Baseline = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, input, input_column, output_column, **options)
        self.baseline = baseline

    def _baselines(self, function: RowFunction, message: Message) -> Tensor:
        """(N, *input)."""
        inputs = function.inputs
        if isinstance(self.baseline, str):
            given, expected = message.tensors([self.baseline])[self.baseline].detach(), inputs.shape
        else:
            numbers = self.baseline if isinstance(self.baseline, Tensor) else np.asarray(self.baseline)
            given, expected = torch.as_tensor(numbers).detach(), inputs.shape[1:]
        baselines = given.to(inputs.device, inputs.dtype)
        if not torch.equal(baselines.to(given.device, given.dtype), given) and not inputs.is_floating_point():
            raise ValueError(
                f"column {self.input_column!r} holds {inputs.dtype}, which the baseline {given} does not fit"
            )
        try:
            return baselines.broadcast_to(expected).expand(inputs.shape)
        except RuntimeError:
            raise ValueError(
                f"a baseline of shape {tuple(given.shape)} does not fit column {self.input_column!r}, whose rows have "
                f"the shape {tuple(inputs.shape[1:])}; give a number, a tensor of that shape, or the name of a column"
            ) from None


class _CompleteExplainer(BaselineExplainer):
    """One whose attributions must add up to what the output changes by from the baseline to the row."""

    tolerance: float | None
    completeness_gap: float | None = None
    remedy = ""

    def _check_completeness(self, function: RowFunction, contributions: Tensor, baselines: Tensor) -> None:
        """Measure the largest relative gap, and warn where it is larger than the tolerance."""
        if not contributions.numel():
            self.completeness_gap = 0.0
            return
        with torch.no_grad():
            before = torch.cat([function(baselines[rows], rows) for rows in function.chunks(len(baselines))])
            after = function.outputs.reshape(before.shape)
            change, parts = after - before, contributions.reshape(*before.shape, -1)
            added = parts.sum(2)
            gaps = (added - change).abs()
            # Parts that cancel leave a change that is small beside their own rounding and that of the quadrature.
            size = torch.maximum(change.abs(), parts.norm(dim=2))
            rounding = 8 * torch.finfo(after.dtype).eps * (after.abs() + before.abs())
            gaps = torch.where((gaps <= rounding) & gaps.isfinite(), 0, gaps / size).nan_to_num(math.inf, math.inf)
        self.completeness_gap = gaps.max().item()
        if self.tolerance is not None and self.completeness_gap > self.tolerance:
            row, output = divmod(int(gaps.argmax()), gaps.shape[1])
            warnings.warn(
                f"{type(self).__name__}: the attributions of row {row} add up to {added[row, output]:.4g}, but "
                f"{self.output_column!r} changes by {change[row, output]:.4g} from the baseline "
                f"({int((gaps > self.tolerance).any(1).sum())} of {len(gaps)} rows are off by more than "
                f"{self.tolerance:.2g} of it); {self.remedy}",
                stacklevel=2,
            )


class IntegratedGradients(_CompleteExplainer):
    """Attributes by the mean gradient on the straight way from a baseline to the row, times the way.

    Attributions are complete: those of a row add up to what the output changes by on the way. After each message,
    `completeness_gap` is the largest difference between the two, relative to the change; a warning says where it is
    larger than the tolerance.

    Args:
        model, input, input_column, output_column: As for every Explainer.
        baseline: A number, a tensor of the shape of a row (or one that broadcasts to it), or the name of a column of
            the message that holds a baseline for every row.
        steps: Points of the way where the gradient is taken, those of Gauss-Legendre quadrature: exact for polynomials
            of a degree up to 2·steps.
        tolerance: The largest relative gap that is no warning; None for no warnings.
        **options: `attribution_column` and `max_rows`, as for every Explainer.

    Source:
        M. Sundararajan, A. Taly, Q. Yan (2017), Axiomatic attribution for deep networks, ICML.

    Example:
        >>> rows = Message({"x": torch.tensor([[3.0, 2.0]])})
        >>> explainer = IntegratedGradients(lambda x: x.prod(1), rows, "x", "y", steps=2)
        >>> explainer()["attributions"], explainer.completeness_gap
        (tensor([[3., 3.]]), 0.0)
    """

    remedy = "raise steps, or tolerance if that is near enough"

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        baseline: Baseline = 0,
        steps: int = 100,
        *,
        tolerance: float | None = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(model, input, input_column, output_column, baseline, **options)
        self.steps = _positive("steps", steps)
        self.tolerance = tolerance

    def _contributions(self, function: RowFunction, message: Message) -> Tensor:
        baselines = self._baselines(function, message)
        points, weights = (torch.as_tensor(values).to(function.inputs) for values in _quadrature(self.steps))

        def compute(rows: Tensor, outputs: Tensor) -> Tensor:
            start, way = baselines[rows], function.inputs[rows] - baselines[rows]
            # The mean is summed as its difference from one gradient, so where gradients are all the same it is exact.
            middle = function.gradients(start + way / 2, rows, outputs)
            difference = torch.zeros_like(middle)
            for copies in function.chunks(len(rows) * self.steps):
                which, step = copies // self.steps, copies % self.steps
                place = start[which] + _like_rows(points[step], way) * way[which]
                gradients = function.gradients(place, rows[which], outputs[which])
                difference.index_add_(0, which, _like_rows(weights[step], way) * (gradients - middle[which]))
            return way * (middle + difference)

        contributions = function.for_each_output(compute)
        self._check_completeness(function, contributions, baselines)
        return contributions


class DeepLift(_CompleteExplainer):
    """Attributes by DeepLIFT's rescale rule: differences from a baseline, handed back through the model.

    That is the gradient times the difference, with (f(z) - f(z₀)) / (z - z₀) in the place of the derivative of every
    nonlinear function f, where z₀ is what f is given on the baseline; of max pooling, with the shares that its largest
    elements on row and baseline have in the change. Attributions are complete, as those of IntegratedGradients are, at
    the price of about three runs of the model.

    Captum's DeepLift gives the same where it is complete and gets one row at a time. It is incomplete where two
    nonlinear layers touch, such as ReLU and max pooling, and where the windows of a max pool overlap; and it mixes rows
    of a batch where an element of a max pool's input is the same on row and baseline. Here neither is so.

    Args:
        model: As for every Explainer. It has to be made of linear functions (layers, convolutions, average pooling,
            batch norm, sums, shapes), functions of one element at a time (activations), and max pooling.
        input: As for every Explainer.
        input_column: As for every Explainer.
        output_column: As for every Explainer; explain the logits of a classifier rather than its softmax.
        baseline: A number, a tensor of the shape of a row (or one that broadcasts to it), or the name of a column of
            the message that holds a baseline for every row.
        tolerance: The largest relative gap that is no warning; None for no warnings.
        **options: `attribution_column` and `max_rows`, as for every Explainer.

    Raises:
        NotImplementedError: The model computes with a function that has no rule; names it and the layer.

    Source:
        A. Shrikumar, P. Greenside, A. Kundaje (2017), Learning important features through propagating activation
        differences, ICML; M. Ancona et al. (2018), ICLR, proposition 2.

    Example:
        >>> saturated = lambda x: 1 - torch.relu(1 - x.sum(1))
        >>> DeepLift(saturated, None, "x", "y")(torch.tensor([[1.0, 3.0]]))
        tensor([[0.2500, 0.7500]])
    """

    remedy = "a part of the model that treats constants as such, like a mask made by a comparison, is not explained"

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        baseline: Baseline = 0,
        *,
        tolerance: float | None = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(model, input, input_column, output_column, baseline, **options)
        self.tolerance = tolerance

    def _contributions(self, function: RowFunction, message: Message) -> Tensor:
        baselines = self._baselines(function, message)

        def compute(rows: Tensor, outputs: Tensor) -> Tensor:
            inputs, start = function.inputs[rows], baselines[rows]
            reference = ReferenceRun(type(self).__name__, self.model)
            function.run(start, rows, reference)
            return (inputs - start) * function.gradients(inputs, rows, outputs, RescaleSlopes(reference))

        contributions = function.for_each_output(compute)
        self._check_completeness(function, contributions, baselines)
        return contributions


class Occlusion(BaselineExplainer):
    """Attributes by hiding: how much the output changes when a window of the input is replaced by a baseline.

    Works for whatever can be called, with or without gradients, and leaves integers (tokens, say) as they are. The
    model runs once for every window of every row. An element under several windows gets the mean of their changes.

    Args:
        model, input, input_column, output_column: As for every Explainer.
        baseline: A number, a tensor of the shape of a row (or one that broadcasts to it), or the name of a column of
            the message that holds a baseline for every row.
        window: Length of the window, in every dimension of a row or one number for each.
        stride: How far the window moves, likewise; at most the window, so that no element is left out.
        **options: `attribution_column` and `max_rows`, as for every Explainer.

    Shapes:
        attributions: `(N, *output, *input)`, of the output's dtype if that is floating point.

    Source:
        M. D. Zeiler, R. Fergus (2014), Visualizing and understanding convolutional networks, ECCV.

    Example:
        >>> Occlusion(lambda x: x.amax(1), None, "x", "y", window=2)(torch.tensor([[1.0, 5.0, 2.0]])).tolist()
        [[3.0, 3.5, 4.0]]
    """

    differentiates = False

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        baseline: Baseline = 0,
        window: int | Sequence[int] = 1,
        stride: int | Sequence[int] = 1,
        **options: Any,
    ) -> None:
        super().__init__(model, input, input_column, output_column, baseline, **options)
        self.window = window
        self.stride = stride

    def _contributions(self, function: RowFunction, message: Message) -> Tensor:
        inputs, baselines = function.inputs, self._baselines(function, message)
        covers = self._covers(inputs)
        counts = [len(cover) for cover in covers]
        windows = math.prod(counts)
        after = function.outputs.reshape(len(inputs), function.number_of_outputs)
        after = after if after.is_floating_point() else after.to(torch.get_default_dtype())
        changes = after.new_zeros(len(inputs) * windows, function.number_of_outputs)
        for copies in function.chunks(len(changes)) if changes.numel() else ():
            rows = copies // windows
            hidden = _hidden(covers, copies % windows)
            with torch.no_grad():
                changes[copies] = after[rows] - function(torch.where(hidden, baselines[rows], inputs[rows]), rows)
        by_window = changes.unflatten(0, (len(inputs), windows)).transpose(1, 2)
        return _by_element(by_window.reshape(len(inputs), function.number_of_outputs, *counts), covers)

    def _covers(self, inputs: Tensor) -> list[Tensor]:
        """For every dimension of a row (windows along it, elements along it), whether the window covers the element."""
        sizes = inputs.shape[1:]
        lengths = _for_each_dimension("window", self.window, sizes)
        covers = []
        for size, length, stride in zip(sizes, lengths, _for_each_dimension("stride", self.stride, sizes), strict=True):
            if length > size or (stride > length and size > length):
                raise ValueError(
                    f"expected windows within the rows' shape {tuple(sizes)} and strides of at most a window, "
                    f"got window {self.window} and stride {self.stride}"
                )
            starts = torch.arange(math.ceil((size - length) / stride) + 1, device=inputs.device) * stride
            after_start = torch.arange(size, device=inputs.device) - starts.unsqueeze(1)
            covers.append((after_start >= 0) & (after_start < length))
        return covers


class Occlusion_1(Occlusion):
    """Attributes by hiding one element at a time: how much the output changes when a baseline replaces it.

    It is `Occlusion` with a window of one element.

    Args:
        model, input, input_column, output_column: As for every Explainer.
        baseline: A number, a tensor of the shape of a row (or one that broadcasts to it), or the name of a column of
            the message that holds a baseline for every row.
        **options: `attribution_column` and `max_rows`, as for every Explainer.

    Example:
        >>> Occlusion_1(lambda x: x.amax(1), None, "x", "y")(torch.tensor([[1.0, 5.0, 2.0]])).tolist()
        [[0.0, 3.0, 0.0]]
    """

    def __init__(
        self,
        model: Any,
        input: Any,
        input_column: str,
        output_column: str,
        baseline: Baseline = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, input, input_column, output_column, baseline, **options)


def _hidden(covers: Sequence[Tensor], windows: Tensor) -> Tensor:
    """Which elements the windows of these numbers cover; broadcasts to (n, *input)."""
    hidden = torch.ones(len(windows), *[1] * len(covers), dtype=torch.bool, device=windows.device)
    for dimension in reversed(range(len(covers))):
        cover = covers[dimension]
        along = cover[windows % len(cover)]
        hidden = (
            hidden & along[(slice(None), *[None] * dimension, slice(None), *[None] * (len(covers) - dimension - 1))]
        )
        windows = windows // len(cover)
    return hidden


def _by_element(changes: Tensor, covers: Sequence[Tensor]) -> Tensor:
    """Changes by window as the mean change by element: (N, outputs, *windows) to (N, outputs, *input)."""
    for dimension, cover in enumerate(covers, start=2):
        if (cover.sum(1) == 1).all():
            continue  # one element a window, in order; a product would turn one infinity into a row of NaN
        weights = cover.to(changes.dtype) / cover.sum(0)
        changes = (changes.movedim(dimension, -1) @ weights).movedim(-1, dimension)
    return changes


def _for_each_dimension(name: str, given: int | Sequence[int], sizes: Sequence[int]) -> list[int]:
    numbers = list(given) if isinstance(given, Sequence) else [given] * len(sizes)
    if len(numbers) != len(sizes):
        raise ValueError(
            f"expected {name} to be a number, or one for each dimension of a row of {tuple(sizes)}; got {given}"
        )
    return [_positive(name, number) for number in numbers]


def _positive(name: str, number: Any) -> int:
    try:
        checked = operator.index(number)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {number!r}") from None
    if checked < 1:
        raise ValueError(f"{name} must be at least 1, got {checked}")
    return checked


def _like_rows(values: Tensor, rows: Tensor) -> Tensor:
    """(n,) with as many dimensions as the rows have."""
    return values.reshape(-1, *[1] * (rows.ndim - 1))


@cache
def _quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points between 0 and 1, and their weights, which sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2
