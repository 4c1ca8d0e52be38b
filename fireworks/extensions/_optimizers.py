"""Optimizers and schedulers by name or class, with every argument checked before training starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from fireworks.extensions._values import check_values, describe_kind, kinds_of
from fireworks.utils.exceptions import did_you_mean

__all__ = ["build_optimizer"]


def build_optimizer(
    parameters: Iterable[Parameter],
    optimizer: Any,
    scheduler: Any,
    arguments: Mapping[str, Any],
    own_arguments: Sequence[str],
) -> tuple[Optimizer, LRScheduler | None]:
    """An optimizer of the parameters and, if asked for, a scheduler of that optimizer.

    Args:
        parameters: What to train.
        optimizer: Name in `torch.optim`, a class, a function that takes the parameters, or an optimizer that is ready.
        scheduler: Name in `torch.optim.lr_scheduler`, a class, a function that takes the optimizer, one that is ready,
            or None.
        arguments: Keyword arguments of both. What both could take is the optimizer's.
        own_arguments: Names that the caller takes itself, for the proposals in an error.

    Raises:
        ValueError: No such name; nothing to train; arguments that are out of range.
        TypeError: Arguments are unknown, missing or of a wrong kind; names all of them.
    """
    make_optimizer = _resolve(optimizer, torch.optim, Optimizer, "optimizer")
    make_scheduler = None if scheduler is None else _resolve(scheduler, lr_scheduler, LRScheduler, "scheduler")
    makers = [maker for maker in (make_optimizer, make_scheduler) if maker is not None]
    takers = [(maker, _accepted(maker)) for maker in makers]
    _check_known(arguments, {_name(maker): accepted for maker, accepted in takers}, own_arguments)
    for_optimizer = {name: value for name, value in arguments.items() if _takes(takers[0][1], name)}
    for_scheduler = {name: value for name, value in arguments.items() if name not in for_optimizer}
    for (maker, accepted), its_own in zip(takers, (for_optimizer, for_scheduler), strict=False):
        _check_complete(maker, accepted, its_own)
        check_values(maker, _name(maker), its_own)
    is_ready = isinstance(optimizer, Optimizer)
    built = optimizer if is_ready else _make(make_optimizer, _trainable(parameters), for_optimizer)
    _check_kind(built, Optimizer, "optimizer", optimizer)
    if make_scheduler is None:
        return built, None
    planned = scheduler if isinstance(scheduler, LRScheduler) else _make(make_scheduler, built, for_scheduler)
    _check_kind(planned, LRScheduler, "scheduler", scheduler)
    if planned.optimizer is not built:
        raise ValueError(f"the {type(planned).__name__} belongs to another optimizer; give that one as optimizer= too")
    return built, planned


_CHAINED, _SEQUENTIAL = (
    "ChainedScheduler([ConstantLR(optimizer), ExponentialLR(optimizer, 0.9)])",
    "SequentialLR(optimizer, [ConstantLR(optimizer), ExponentialLR(optimizer, 0.9)], milestones=[5])",
)
# What torch makes of several schedulers.
_OF_OTHERS: Mapping[Any, str] = {
    "ChainedScheduler": _CHAINED,
    "SequentialLR": _SEQUENTIAL,
    lr_scheduler.ChainedScheduler: _CHAINED,
    lr_scheduler.SequentialLR: _SEQUENTIAL,
}


def _resolve(given: Any, module: ModuleType, base: type, kind: str) -> Callable[..., Any]:
    """What makes the optimizer or scheduler; for one that is ready, a function without arguments of its own."""
    if isinstance(given, base):
        return lambda _: given
    if isinstance(given, (str, type)) and given in _OF_OTHERS:
        name = given if isinstance(given, str) else given.__name__
        raise ValueError(
            f"{name} is made of schedulers, each of which needs the optimizer, so it cannot be given by its name or "
            f"class; give a function: scheduler=lambda optimizer: {_OF_OTHERS[given]}"
        )
    if isinstance(given, str):
        known = {
            name: class_
            for name, class_ in vars(module).items()
            if isinstance(class_, type) and issubclass(class_, base) and class_ is not base and name[0] != "_"
        }
        if given in known:
            return known[given]
        by_lower = {name.lower(): name for name in known}
        near = get_close_matches(given.lower(), by_lower)
        # Of the nearest the one of the same length: letters get swapped more often than lost.
        nearest = min(near, key=lambda name: abs(len(name) - len(given)), default="")
        proposal = f"; did you mean {by_lower[nearest]!r}?" if near else "."
        raise ValueError(f"no {kind} {given!r} in {module.__name__}{proposal} It has: {', '.join(sorted(known))}")
    if not callable(given) or (isinstance(given, type) and not issubclass(given, base)):
        raise TypeError(f"expected a name or a class of {module.__name__} as {kind}, got {given!r:.80}")
    return given


def _trainable(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Those that can have a gradient; frozen ones too, because they may be unfrozen while training goes on."""
    chosen = [item for item in parameters if item.is_floating_point() or item.is_complex()]
    if not chosen:
        raise ValueError("the model has no parameters to train; set them before the junction is made")
    return chosen


def _accepted(taker: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name: all but the first, which takes what is optimized or scheduled."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    parameters = list(inspect.signature(taker).parameters.values())[1:]
    return {item.name: item for item in parameters if item.kind in by_name}


def _takes(accepted: Mapping[str, inspect.Parameter], name: str) -> bool:
    return _is_named(accepted, name) or _takes_anything(accepted)


def _is_named(accepted: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in accepted and accepted[name].kind is not inspect.Parameter.VAR_KEYWORD


def _takes_anything(accepted: Mapping[str, inspect.Parameter]) -> bool:
    return any(item.kind is inspect.Parameter.VAR_KEYWORD for item in accepted.values())


def _check_known(
    arguments: Mapping[str, Any], takers: Mapping[str, Mapping[str, inspect.Parameter]], own_arguments: Sequence[str]
) -> None:
    if any(_takes_anything(accepted) for accepted in takers.values()):
        return
    known = [*own_arguments, *(name for accepted in takers.values() for name in accepted)]
    unknown = [f"{name!r}{did_you_mean(name, known)}".rstrip("?") for name in arguments if name not in known]
    if unknown:
        lists = "; ".join(f"{taker} takes: {', '.join(names) or 'none'}" for taker, names in takers.items())
        raise TypeError(f"unknown arguments: {', '.join(unknown)}. {lists}")


def _check_complete(
    taker: Callable[..., Any], accepted: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    names = [name for name, item in accepted.items() if _is_named(accepted, name) and item.default is item.empty]
    missing = [name for name in names if name not in arguments]
    if missing:
        kinds = kinds_of(taker)
        missing = [f"{name!r} ({describe_kind(kinds[name])})" if name in kinds else repr(name) for name in missing]
        raise TypeError(f"{_name(taker)} needs {', '.join(missing)}; give it as a keyword argument")


def _make(taker: Callable[..., Any], first: Any, arguments: Mapping[str, Any]) -> Any:
    """Call a class or function of torch or of the user; what torch refuses is said together with what it was given."""
    try:
        return taker(first, **arguments)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        if not kinds_of(taker):
            raise
        given = ", ".join(f"{name}={value!r:.40}" for name, value in arguments.items())
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{_name(taker)}({given}) is not possible: {error}") from error


def _check_kind(built: Any, base: type, kind: str, given: Any) -> None:
    if not isinstance(built, base):
        raise TypeError(f"{_name(given)} should make a torch {base.__name__} as {kind}, it made {built!r:.80}")


def _name(taker: Any) -> str:
    name = getattr(getattr(taker, "func", taker), "__name__", None)  # `func` of a functools.partial
    return name if isinstance(name, str) else type(taker).__name__
