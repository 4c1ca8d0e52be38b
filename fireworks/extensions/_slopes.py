"""Gradients with other slopes: what layer-wise relevance propagation and DeepLift put in the place of derivatives.

Both rules leave everything that is linear as autograd has it, and give each nonlinear function another slope: f(z) / z
the one, (f(z) - f(z0)) / (z - z0) the other. So while a model runs, each function of torch that it calls on something
that depends on the explained column is looked at here: linear ones pass, those with a rule get their slope, and all
others are refused, since a plain derivative in their place would be a wrong result without a word.

Source:
    M. Ancona et al. (2018), Towards better understanding of gradient-based attribution methods, ICLR.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import Module
from torch.overrides import TorchFunctionMode, resolve_name

__all__ = ["EpsilonSlopes", "ReferenceRun", "RescaleSlopes", "Slopes", "class_name"]

# Linear (or affine) in all of their tensors together.
_LINEAR = set(
    """
    T adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add as_strided avg_pool1d avg_pool2d avg_pool3d
    broadcast_tensors broadcast_to cat chunk clone column_stack concat concatenate constant_pad_nd contiguous copy cpu
    cuda cumsum diag diag_embed diagonal diff double dsplit dstack expand expand_as fill flatten flip fliplr flipud
    float fold gather getitem hsplit hstack iadd index_add index_fill index_select interpolate isub mT masked_fill
    masked_scatter masked_select mean moveaxis movedim narrow neg negative pad permute pixel_shuffle pixel_unshuffle pos
    positive radd ravel repeat repeat_interleave requires_grad reshape reshape_as roll rot90 rsub scatter_add select
    split split_with_sizes squeeze stack sub subtract sum swapaxes swapdims t take take_along_dim tensor_split tile to
    transpose tril triu type type_as unbind unflatten unfold unsqueeze upsample view view_as vsplit vstack where zero
    """.split()  # noqa: SIM905 - as a list it would be as long as the rest of the file
)
# Linear in each of their tensors while the others stay as they are.
_LINEAR_IN_ONE = set(
    """
    addbmm addmm addmv baddbmm bilinear bmm chain_matmul conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d div divide dot einsum idiv imatmul imul inner itruediv linear matmul mm mul multiply mv outer
    rmatmul rmul tensordot true_divide truediv
    """.split()  # noqa: SIM905 - as a list it would be as long as the rest of the file
)
_DIVISIONS = {"div", "divide", "idiv", "itruediv", "true_divide", "truediv"}
# Functions of one element at a time.
_ELEMENTWISE = set(
    """
    abs absolute asinh acosh arctan atan atanh celu clamp clamp_max clamp_min clip cos cosh elu erf erfc exp exp2 expit
    expm1 gelu hardshrink hardsigmoid hardswish hardtanh ipow leaky_relu log log10 log1p log2 log_sigmoid logit
    logsigmoid maximum minimum mish pow prelu rdiv reciprocal relu relu6 rpow rsqrt rtruediv selu sigmoid silu sin sinh
    softplus softshrink softsign sqrt square tan tanh tanhshrink threshold
    """.split()  # noqa: SIM905 - as a list it would be as long as the rest of the file
)
_MAX_POOL = {f"{kind}max_pool{dims}d": dims for kind in ("", "adaptive_") for dims in (1, 2, 3)}
# Where the argument stands that makes these random, or rows depend on each other, if it is given by position.
_TRAINING = {
    "batch_norm": 5,
    **dict.fromkeys(("alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"), 2),
}


class Slopes(TorchFunctionMode):
    """While active, nonlinear functions have the slopes of a rule instead of their derivatives.

    Values stay as they are. What is computed from a tensor that `follow` was given is looked at; all else, parameters
    too, is constant.

    Args:
        rule: What the rule is called in errors.
        model: The model that will run, whose layers errors name.
    """

    def __init__(self, rule: str, model: Any) -> None:
        super().__init__()
        self.rule = rule
        self.model = model
        self._mark = object()

    def follow(self, *tensors: Tensor) -> None:
        """Look at what is computed from these tensors, as long as they carry gradients."""
        for tensor in tensors:
            if tensor.requires_grad:
                tensor._fireworks_followed = self._mark  # type: ignore[attr-defined]

    def _is_followed(self, tensor: Tensor) -> bool:
        return getattr(tensor, "_fireworks_followed", None) is self._mark

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = [tensor for tensor in _tensors((args, kwargs)) if self._is_followed(tensor)]
        if not operands:
            return function(*args, **kwargs)
        name = _short_name(function)
        if name == "iter":
            return iter(self.__torch_function__(torch.unbind, types, args))
        result = self._apply(function, name, operands, args, kwargs)
        self.follow(*_tensors(args[0] if name == "setitem" else result))
        return result

    def _apply(self, function: Any, name: str, operands: list[Tensor], args: Any, kwargs: Any) -> Any:
        if name in _MAX_POOL and _is_plain_max_pool(name, args, kwargs):
            return self.max_pool(function, name, operands[0], args, kwargs)
        if len(operands) == 1 and _is_elementwise(name, operands[0], args):
            return self._elementwise(function, operands[0], args, kwargs)
        result = function(*args, **kwargs)
        # What carries no gradient is a constant to any rule: shapes, comparisons, indices, detached tensors.
        if any(tensor.requires_grad for tensor in _tensors(result)) and not _is_linear(name, operands, args, kwargs):
            raise self._refusal(function)
        return result

    def _elementwise(self, function: Any, operand: Tensor, args: Any, kwargs: Any) -> Tensor:
        def apply(values: Tensor) -> Tensor:
            with_values = _replaced((args, kwargs), operand, values)
            return function(*with_values[0], **with_values[1])

        before = operand.detach().clone()  # which a later function may change in place
        work = before.clone()
        after = apply(work)
        slope = self.slope(apply, before, after)
        result = _WithSlope.apply(operand, after, slope)
        return operand.copy_(result) if after is work or work._version else result

    def slope(self, function: Callable[[Tensor], Tensor], before: Tensor, after: Tensor) -> Tensor:
        """The slope of an elementwise function, in the shape of its result."""
        raise NotImplementedError(f"{type(self).__name__} has no rule for elementwise functions; define slope()")

    def max_pool(self, function: Any, name: str, operand: Tensor, args: Any, kwargs: Any) -> Tensor:
        """The result of max pooling, with the gradient that the rule gives it."""
        return function(*args, **kwargs)

    def check_graph(self, result: Tensor) -> None:
        """Refuses what was computed out of sight, by functions with a derivative of their own or in a compiled form."""
        seen = set()
        nodes = [result.grad_fn]
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if isinstance(node, BackwardCFunction) and type(node).__name__ not in _OWN_NODES:
                raise NotImplementedError(
                    f"{self.rule} has no rule for {type(node).__name__.removesuffix('Backward')}, an autograd Function "
                    f"that {class_name(self.model)} computes with; {_OTHER_METHODS}"
                )
            nodes += [neighbour for neighbour, _ in node.next_functions]

    def __enter__(self) -> Any:
        for name, module in self.model.named_modules() if isinstance(self.model, Module) else ():
            if isinstance(module, torch.jit.ScriptModule):
                raise NotImplementedError(
                    f"{self.rule} cannot look into layer {name!r}, a TorchScript module; use the module that it was "
                    f"made of; {_OTHER_METHODS}"
                )
        return super().__enter__()

    def _refusal(self, function: Any) -> NotImplementedError:
        called = resolve_name(function) or getattr(function, "__name__", repr(function))
        remedy = f"explain the logits that it is given, or {_OTHER_METHODS}" if "softmax" in called else _OTHER_METHODS
        return NotImplementedError(f"{self.rule} has no rule for {called}, which {self._layer()} calls; {remedy}")

    def _layer(self) -> str:
        """The layer that is running, found among the callers."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, Module):
                named = self.model.named_modules() if isinstance(self.model, Module) else ()
                name = next((name for name, module in named if module is owner), "")
                return f"layer {name!r} ({type(owner).__name__})" if name else class_name(owner)
            frame = frame.f_back
        return class_name(self.model)


class EpsilonSlopes(Slopes):
    """Slopes of layer-wise relevance propagation: f(z) / (z + ε·sign(z)), where sign(0) is 1."""

    def __init__(self, rule: str, model: Any, epsilon: float) -> None:
        super().__init__(rule, model)
        self.epsilon = epsilon

    def slope(self, function: Callable[[Tensor], Tensor], before: Tensor, after: Tensor) -> Tensor:
        return after / (before + torch.where(before < 0, -self.epsilon, self.epsilon))


class ReferenceRun(Slopes):
    """Remembers what each nonlinear function got and gave while the model ran on the baseline."""

    def __init__(self, rule: str, model: Any) -> None:
        super().__init__(rule, model)
        self.record: list[tuple[Tensor, ...]] = []

    def slope(self, function: Callable[[Tensor], Tensor], before: Tensor, after: Tensor) -> Tensor:
        self.record.append((before, after))
        return torch.zeros_like(after)  # nobody asks for a gradient here

    def max_pool(self, function: Any, name: str, operand: Tensor, args: Any, kwargs: Any) -> Tensor:
        result, indices = _max_pool(name, args, kwargs)
        self.record.append((operand.detach().clone(), result.detach().clone(), indices))
        return result


class RescaleSlopes(Slopes):
    """Slopes of DeepLIFT's rescale rule: by how much the result of a function changed, per change of its argument.

    Changes are counted from a run on the baseline. Where the argument hardly changed, the slope is the derivative
    half-way.
    """

    def __init__(self, reference: ReferenceRun) -> None:
        super().__init__(reference.rule, reference.model)
        self._record = iter(reference.record)

    def _reference(self, *shapes: torch.Size, length: int) -> tuple[Tensor, ...]:
        found = next(self._record, ())
        if len(found) != length or tuple(tensor.shape for tensor in found[:2]) != shapes:
            raise NotImplementedError(
                f"{self.rule} compares a run on the rows with one on the baseline, but {self._layer()} computed "
                f"different things in the two: steps that depend on the data have no rule; {_OTHER_METHODS}"
            )
        return found

    def slope(self, function: Callable[[Tensor], Tensor], before: Tensor, after: Tensor) -> Tensor:
        before_0, after_0 = self._reference(before.shape, after.shape, length=2)
        change = before - before_0
        slope = (after - after_0) / change.masked_fill(change == 0, 1)
        # A smaller change than this, and the rounding of the results would spoil the quotient.
        size = torch.stack([value.abs().broadcast_to(after.shape) for value in (before, before_0, after, after_0)])
        is_small = change.abs() <= size.amax(0) * torch.finfo(before.dtype).eps ** 0.5
        if not is_small.any():
            return slope
        half_way = ((before + before_0) / 2).broadcast_to(after.shape).clone().requires_grad_()
        (derivative,) = torch.autograd.grad(function(half_way.clone()).sum(), half_way)
        return torch.where(is_small, derivative, slope)

    def max_pool(self, function: Any, name: str, operand: Tensor, args: Any, kwargs: Any) -> Tensor:
        # Two elements of a window share the change: the one that is the largest now, and the one that was. The first
        # accounts for a rise above the reference's result, the other for a fall below it. An element that did not
        # change has the derivative, as in other functions: it adds nothing here, but what it was summed of may.
        after, indices = _max_pool(name, args, kwargs)
        before_0, after_0, indices_0 = self._reference(operand.shape, after.shape, length=3)
        flat = operand.flatten(-_MAX_POOL[name])
        shape = after.shape[flat.ndim - 1 :]
        indices, indices_0 = indices.flatten(flat.ndim - 1), indices_0.flatten(flat.ndim - 1)
        after, after_0 = after.detach().flatten(flat.ndim - 1), after_0.flatten(flat.ndim - 1)
        change = flat.detach() - before_0.flatten(-_MAX_POOL[name])
        larger = torch.maximum(after, after_0)
        share = _ratio(larger - after_0, change.gather(-1, indices), otherwise=1.0)
        share_0 = _ratio(after - larger, change.gather(-1, indices_0), otherwise=0.0)
        return _WithShares.apply(flat, after, share, indices, share_0, indices_0).unflatten(-1, shape)


def _ratio(part: Tensor, change: Tensor, otherwise: float) -> Tensor:
    return (part / change.masked_fill(change == 0, 1)).masked_fill(change == 0, otherwise)


class _WithSlope(torch.autograd.Function):
    """A value whose gradient is a given slope."""

    @staticmethod
    def forward(ctx: Any, operand: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.shape = operand.shape
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return (gradients[0] * slope).sum_to_size(ctx.shape), None, None


class _WithShares(torch.autograd.Function):
    """A value per window whose gradient goes, by given shares, to two elements of the last dimension."""

    @staticmethod
    def forward(ctx: Any, operand: Tensor, value: Tensor, *shares_and_indices: Tensor) -> Tensor:
        ctx.shape = operand.shape
        ctx.save_for_backward(*shares_and_indices)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        share, indices, share_0, indices_0 = ctx.saved_tensors
        (gradient,) = gradients
        result = gradient.new_zeros(ctx.shape)
        # Windows may overlap, so an element can get gradients of several.
        result.scatter_add_(-1, indices, gradient * share).scatter_add_(-1, indices_0, gradient * share_0)
        return result, None, None, None, None, None


_OWN_NODES = {f"{function.__name__}Backward" for function in (_WithSlope, _WithShares)}
_OTHER_METHODS = "for any model use GradientxInput, IntegratedGradients or Occlusion"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    """Arguments with another tensor in the place of one."""
    if value is old:
        return new
    if isinstance(value, dict):
        return {name: _replaced(item, old, new) for name, item in value.items()}
    return type(value)(_replaced(item, old, new) for item in value) if type(value) in (tuple, list) else value


def _short_name(function: Any) -> str:
    """`relu` for torch.relu, Tensor.relu_ and functional.relu; `T` for the property; `radd` for an operator."""
    parts = (resolve_name(function) or getattr(function, "__name__", "")).split(".")
    return (parts[-2] if parts[-1] == "__get__" and len(parts) > 1 else parts[-1]).strip("_")


def _is_elementwise(name: str, operand: Tensor, args: Any) -> bool:
    return name in _ELEMENTWISE or (name in _DIVISIONS and (not args or args[0] is not operand))


def _is_linear(name: str, operands: list[Tensor], args: Any, kwargs: Any) -> bool:
    if name in _TRAINING:
        position = _TRAINING[name]
        return not (args[position] if len(args) > position else kwargs.get("training", name != "batch_norm"))
    if name in _LINEAR_IN_ONE:
        return len(operands) == 1 and kwargs.get("rounding_mode") is None
    return name in _LINEAR


def _is_plain_max_pool(name: str, args: Any, kwargs: Any) -> bool:
    """Whether the result alone is wanted, without the indices."""
    return not (kwargs.get("return_indices") or any(args[_arguments_of_pool(name) :]))


def _arguments_of_pool(name: str) -> int:
    """How many arguments of a pooling function come before `return_indices`."""
    return 2 if name.startswith("adaptive") else 6


def _max_pool(name: str, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    given = {key: value for key, value in kwargs.items() if key != "return_indices"}
    result, indices = getattr(F, f"{name}_with_indices")(*args[: _arguments_of_pool(name)], **given)
    return result, indices


def class_name(model: Any) -> str:
    """What a model is called in errors."""
    return getattr(model, "__name__", None) or type(model).__name__
