"""How a chain of pipes is written out, in `repr`, in the notes that errors carry and in the texts of errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fireworks.core.cursor import is_stage, length_of, own_attribute
from fireworks.core.message import Message, TensorMessage
from fireworks.utils.exceptions import did_you_mean
from fireworks.utils.utils import describe_rows

__all__ = ["MissText", "add_context", "check_no_arguments", "describe", "describe_chain", "reporting"]

_LONGEST_VALUE = 40
_MOST_COLUMNS = 6
_NOT_SHOWN = {"self", "input", "inputs", "components"}


def describe_chain(stage: Any) -> str:
    """A stage and what it reads from, such as `BatchingPipe(batch_size=10) <- Message(1000 rows: x, y)`."""
    parts: list[str] = []
    seen: set[int] = set()
    while stage is not None and id(stage) not in seen:
        seen.add(id(stage))
        parts.append(describe(stage))
        stage = own_attribute(stage, "input") if is_stage(stage) else None
    return " <- ".join(parts)


def describe(source: Any) -> str:
    """One stage with its arguments, or one source with its size, in a few words; never fails."""
    try:
        return _describe_stage(source) if is_stage(source) else _describe_source(source)
    except Exception:  # a repr that fails would hide the error in whose text it stands
        return type(source).__name__


def _describe_stage(stage: Any) -> str:
    components = own_attribute(stage, "components")
    shown = [str(name) for name in components] if components is not None else []
    for parameter in inspect.signature(type(stage).__init__).parameters.values():
        if parameter.name in _NOT_SHOWN or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = own_attribute(stage, parameter.name, parameter.default)
        if value is not parameter.default and not _equal(value, parameter.default):
            shown.append(f"{parameter.name}={_short(value)}")
    return f"{type(stage).__name__}({', '.join(shown)})" if shown else type(stage).__name__


def _describe_source(source: Any) -> str:
    name = type(source).__name__
    if isinstance(source, (Message, TensorMessage)):
        columns = [str(column) for column in source.columns]
        shown = ", ".join(columns[:_MOST_COLUMNS]) + (", ..." if len(columns) > _MOST_COLUMNS else "")
        return f"{name}({len(source)} row{'' if len(source) == 1 else 's'}{': ' if columns else ''}{shown})"
    if isinstance(source, (str, int, float, bytes)):
        return _short(source)
    # Other objects may have to do work to find their length.
    length = length_of(source) if isinstance(source, (Sequence, Dataset, np.ndarray, torch.Tensor)) else None
    return name if length is None else f"{name} of {length}"


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and isinstance(value, (bool, int, float, str, tuple, list)) and value == default


def _short(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str, bytes, list, tuple, set, dict, slice, range)):
        text = repr(value[:_LONGEST_VALUE] if isinstance(value, (str, bytes, list, tuple)) else value)
        return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"{type(value).__name__}{tuple(value.shape)}"
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else type(value).__name__


_ACTIONS = {
    "__next__": "stepping to the next item",
    "__iter__": "iterating",
    "__len__": "finding the length",
    "__call__": "being called",
    "reset": "starting over",
}


def add_context(stage: Any, error: Exception, method: str, *args: Any) -> None:
    """Put one note on an error: which stage it came from, what that was doing, and the chain as seen from this stage.

    An error passes through every stage downstream of its origin; each replaces the note by one with the longer chain.
    """
    notes = getattr(error, "__notes__", [])
    origin, previous = getattr(error, "_fireworks_origin", (None, None))
    if origin is None:
        origin = f"raised by {describe(stage)} while {_action(method, args)}"
    note = f"{origin}; chain: {describe_chain(stage)}"
    if previous in notes:
        notes[notes.index(previous)] = note
    else:
        error.add_note(note)
    error._fireworks_origin = (origin, note)  # type: ignore[attr-defined]


def _action(method: str, args: tuple[Any, ...]) -> str:
    if method == "__getitem__":
        index = args[0]
        if isinstance(index, str) or (isinstance(index, list) and index and isinstance(index[0], str)):
            return f"reading column {_short(index)}"
        return f"reading {describe_rows(index)}"
    return _ACTIONS[method]


def reporting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a pipe, but errors that pass through it carry a note that names the pipe and the chain."""
    if inspect.isgeneratorfunction(method):
        wrapper = _reporting_generator(name, method)
    elif name == "__getitem__":
        wrapper = _reporting_index(name, method)
    elif name in ("__next__", "__len__"):
        wrapper = _reporting_step(name, method)
    else:
        wrapper = _reporting_call(name, method)
    wrapped = functools.wraps(method)(wrapper)
    wrapped.__dict__["reports"] = True
    return wrapped


def _reporting_index(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def report(self: Any, index: Any) -> Any:
        try:
            return method(self, index)
        except Exception as error:
            add_context(self, error, name, index)
            raise

    return report


def _reporting_step(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def report(self: Any) -> Any:
        try:
            return method(self)
        except StopIteration:
            raise
        except Exception as error:
            add_context(self, error, name)
            raise

    return report


def _reporting_call(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def report(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            add_context(self, error, name)
            raise

    return report


def _reporting_generator(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def report(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            yield from method(self, *args, **kwargs)
        except Exception as error:
            add_context(self, error, name, *args)
            raise

    return report


def check_no_arguments(owner: object, args: Sequence[Any], kwargs: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse the arguments that no constructor of an object has taken.

    Args:
        owner: What is being constructed; the parameters of its own `__init__` are proposed.
        args: Positional arguments that are left.
        kwargs: Keyword arguments that are left.
        known: Names that its base class takes.

    Raises:
        TypeError: There are any; proposes the nearest argument of each.
    """
    if not args and not kwargs:
        return
    takes_names = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    _, *parameters = inspect.signature(type(owner).__init__).parameters.values()
    known = list(dict.fromkeys([*(item.name for item in parameters if item.kind in takes_names), *known]))
    problems = [f"unknown argument {name!r}{did_you_mean(name, known).rstrip('?')}" for name in kwargs]
    if args:
        problems.append(f"{len(args)} positional arguments too many")
    raise TypeError(f"{type(owner).__name__}: {'; '.join(problems)}. It takes: {', '.join(known)}")


class MissText:
    """The text of the error about an attribute that no stage has; made when it is read, which `hasattr` never does."""

    def __init__(self, stage: Any, name: str) -> None:
        self._stage, self._name = stage, name

    def __str__(self) -> str:
        if self._name.startswith("_"):
            return f"{type(self._stage).__name__} has no attribute {self._name!r}"
        near = did_you_mean(self._name, _public_names(self._stage))
        if own_attribute(self._stage, "input") is None:
            return f"{type(self._stage).__name__} has no attribute {self._name!r}{near}"
        return f"no stage has an attribute {self._name!r}: {describe_chain(self._stage)}{near}"

    def __repr__(self) -> str:
        return repr(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def _public_names(stage: Any) -> set[str]:
    """Every public name that a look-up on a stage could have found, its inputs' included."""
    names: set[str] = set()
    seen: set[int] = set()
    while stage is not None and id(stage) not in seen:
        seen.add(id(stage))
        names.update(name for name in dir(stage) if not name.startswith("_"))
        stage = own_attribute(stage, "input") if is_stage(stage) else None
    return names
