"""Are these the values that a class of torch takes? Its annotations say what kinds they are, before training starts."""

from __future__ import annotations

import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from fireworks.utils.exceptions import did_you_mean

__all__ = ["check_values", "describe_kind", "kinds_of"]

# Where torch itself looks only when it is too late, or says less.
_LEAST = {
    "step_size": 1, "T_max": 1, "step_size_up": 1, "step_size_down": 1, "history_size": 1, "max_iter": 1,
    "lr": 0, "momentum": 0, "weight_decay": 0, "eps": 0, "patience": 0, "cooldown": 0, "total_iters": 0,
}  # fmt: skip

_NARROWER = {"line_search_fn": typing.Literal["strong_wolfe", None]}


def check_values(taker: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    """See to it that every argument of a class is of the kind, and in the range, that the class takes.

    Args:
        taker: A class of torch, or a `functools.partial` of one; other functions may take what they like.
        name: What the error calls it.
        arguments: By name.

    Raises:
        TypeError: Some are of another kind; names all that are wrong.
        ValueError: Some are not finite, or too small.
    """
    if isinstance(taker, functools.partial):
        arguments = {**taker.keywords, **arguments}
    kinds = kinds_of(taker)
    problems: list[str] = []
    error: type[Exception] = ValueError
    for argument, value in arguments.items():
        if argument not in kinds:
            continue
        kind, least = kinds[argument], _LEAST.get(argument)
        expected = describe_kind(kind)
        if not _fits(value, kind):
            error = TypeError
        elif not _is_finite(value):
            expected = f"{expected} that is finite"
        elif least is not None and isinstance(value, (int, float)) and value < least:
            expected = f"{expected} from {least} up"
        else:
            continue
        proposal = did_you_mean(value, typing.get_args(kind)) if typing.get_origin(kind) is typing.Literal else ""
        problems.append(f"expected {expected} as {argument}, got {value!r:.80}{proposal}")
    if problems:
        raise error(f"{name}: {'; '.join(problems)}")


def kinds_of(taker: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a class's arguments, where they can be read."""
    class_ = taker.func if isinstance(taker, functools.partial) else taker
    if not isinstance(class_, type) or not class_.__module__.startswith("torch."):
        return {}
    initialize = class_.__init__  # type: ignore[misc]
    # Some names of its annotations are imported for type checkers only.
    names = {"Callable": Callable, "Iterable": Iterable, "Sequence": Sequence, **initialize.__globals__}
    try:
        kinds = typing.get_type_hints(initialize, globalns=names)
    except (NameError, TypeError):  # an annotation need not be more than a text
        return {}
    return {**kinds, **{name: kind for name, kind in _NARROWER.items() if name in kinds}}


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        is_row = isinstance(value, (tuple, list)) and len(value) == len(inner)
        return is_row and all(_fits(item, part) for item, part in zip(value, inner, strict=True))
    if kind is float or kind is int:
        number = numbers.Real if kind is float else numbers.Integral
        return isinstance(value, number) and not isinstance(value, bool)
    if origin is not None and issubclass(origin, Iterable) and not isinstance(value, (str, bytes)):
        items = value if isinstance(value, Sequence) else []
        return isinstance(value, Iterable) and all(_fits(item, inner[0]) for item in items)
    if origin is not None:
        return callable(value) if issubclass(origin, Callable) else False  # type: ignore[arg-type]
    return not isinstance(kind, type) or isinstance(value, kind)


def _is_finite(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_finite(item) for item in value)
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all())
    return not isinstance(value, numbers.Real) or math.isfinite(value)


_WORDS = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", type(None): "None"}


def describe_kind(kind: Any) -> str:
    """In words what an annotation takes."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        # A tensor of one number is for those who compile their training, and know.
        return " or ".join(dict.fromkeys(describe_kind(option) for option in inner if option is not torch.Tensor))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return f"({', '.join(describe_kind(part) for part in inner)})"
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
        return "a function"
    if origin is not None:
        return f"a list, each of it {describe_kind(inner[0])}"
    return _WORDS.get(kind) or (f"a {kind.__name__}" if isinstance(kind, type) else "a value")
