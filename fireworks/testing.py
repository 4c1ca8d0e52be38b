"""Checks for your own stages: does a pipeline resume exactly, are two streams of messages the same.

`check_resume(make_pipeline)` is the one to have for every pipe, junction or model that keeps something between items.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import math
import multiprocessing
import pickle
import random
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fireworks.core.message import Message, TensorMessage
from fireworks.core.state import (
    collect_state,
    restore_state,
    state_from_bytes,
    state_from_json,
    state_to_bytes,
    state_to_json,
)

__all__ = ["assert_same_messages", "check_resume"]


def check_resume(
    make_pipeline: Callable[[], Any],
    epochs: int = 2,
    *,
    every: int = 1,
    max_items: int | None = None,
    fresh_process: bool = True,
) -> None:
    """Check that a pipeline continues exactly where it was, from whichever step its state was saved at.

    One pipeline runs through, and before each step its state is saved and written out: before the first item, between
    items, after the last one, between epochs. Then each of these states is given to a freshly built pipeline, and
    everything that follows must be what the first one gave: the same items, types, shapes, and values bit for bit, and
    the same ends of epochs. On the way the state is saved once more and resumed a second time. The global random
    generators are set to something else each time, so they cannot help. Some of the states are resumed in another
    process.

    The cost grows with the square of the number of items, so use a small data set, or `every` and `max_items`.

    Args:
        make_pipeline: Builds the pipeline, the same one each time; gives its last stage (pipe, hub, model).
        epochs: How many times to iterate over it.
        every: Resume after each n-th item only; the start and the end of each epoch are always among them.
        max_items: At most so many items per epoch, as for endless pipelines.
        fresh_process: Whether to resume in a new process too. `make_pipeline` must be importable there: a function of
            a module, or a `functools.partial` of one; no lambda, no function inside of another.

    Raises:
        AssertionError: A resumed pipeline gave something else; tells after which step it was resumed, and the first
            difference.
        StateError: A state cannot be written down, or does not fit the pipeline that was built anew.
        ValueError: The pipeline gave nothing, or `make_pipeline` cannot be sent to another process.

    Example:
        >>> from fireworks.core.pipe import Pipe
        >>> check_resume(lambda: Pipe(input=Message({"x": [1, 2, 3]})), fresh_process=False)
    """
    shipped = _pack(make_pipeline) if fresh_process else None
    with _global_randomness_kept():
        steps, states = _record(make_pipeline, epochs, max_items)
        if not any(step.kind == "item" for step in steps):
            raise ValueError(f"the pipeline gave no items in {epochs} epochs, so there was nothing to check")
        for number in _chosen(steps, every):
            _resume_twice(make_pipeline, steps, states[number], number)
    if shipped is not None:
        _resume_elsewhere(shipped, steps, states)


def assert_same_messages(actual: Any, expected: Any) -> None:
    """Check that two messages, or two series of items, are the same bit for bit: columns, types, shapes and values.

    NaN equals NaN. Other than `==` on messages, this tells int from float columns, and -0.0 from 0.0.

    Args:
        actual: A message, a list of messages or other items, or anything that iterates over them, such as a pipe.
        expected: Likewise.

    Raises:
        AssertionError: They differ; names the item, the column and the first row.

    Example:
        >>> assert_same_messages(Message({"x": [1, 2]}), Message({"x": [1, 3]}))
        Traceback (most recent call last):
        AssertionError: column 'x': row 1: got 2, expected 3
    """
    difference = _difference(_frozen(_items(actual)), _frozen(_items(expected)))
    if difference:
        raise AssertionError(difference)


def _items(given: Any) -> Any:
    single = (Message, TensorMessage, torch.Tensor, np.ndarray, pd.DataFrame, pd.Series, dict, str)
    return given if isinstance(given, single) or not isinstance(given, Iterable) else list(given)


# Running and resuming


class _Step(NamedTuple):
    """One thing that a consumer of the pipeline saw: a start of an epoch, an item of it, its end."""

    kind: str
    epoch: int
    number: int
    item: Any = None

    def __str__(self) -> str:
        if self.kind == "start":
            return f"the start of epoch {self.epoch}"
        return f"{'item' if self.kind == 'item' else 'the end after item'} {self.number} of epoch {self.epoch}"


def _record(make_pipeline: Callable[[], Any], epochs: int, max_items: int | None) -> tuple[list[_Step], list[str]]:
    """Every step of a run, and the state before each."""
    pipeline = make_pipeline()
    steps: list[_Step] = []
    states: list[str] = []
    for epoch in range(epochs):
        states.append(_saved(pipeline))
        steps.append(_Step("start", epoch, 0))
        iterator = iter(pipeline)
        number = 0
        while max_items is None or number < max_items:
            states.append(_saved(pipeline))
            try:
                item = next(iterator)
            except StopIteration:
                steps.append(_Step("end", epoch, number - 1))
                break
            steps.append(_Step("item", epoch, number, _frozen(item)))
            number += 1
    return steps, states


def _saved(pipeline: Any) -> str:
    return state_to_json(collect_state(pipeline))


def _chosen(steps: list[_Step], every: int) -> list[int]:
    if every < 1:
        raise ValueError(f"expected every to be 1 or more, got {every}")
    chosen = []
    for position, step in enumerate(steps):
        on_edge = step.kind != "item" or position + 1 == len(steps) or steps[position + 1].kind != "item"
        if on_edge or step.number % every == 0:
            chosen.append(position)
    return chosen


def _resume_twice(make_pipeline: Callable[[], Any], steps: list[_Step], state: str, number: int) -> None:
    """Resume before a step and run to the end; save again half-way, and run from there to the end too."""
    half = (number + len(steps)) // 2
    pipeline = _resumed(make_pipeline, state_from_json(state), number)
    _replay(pipeline, steps, number, half, f"resumed before {steps[number]}")
    again = state_to_bytes(collect_state(pipeline))
    _replay(pipeline, steps, half, len(steps), f"resumed before {steps[number]}")
    if half > number:
        pipeline = _resumed(make_pipeline, state_from_bytes(again), half)
        _replay(pipeline, steps, half, len(steps), f"resumed before {steps[number]} and again before {steps[half]}")


def _resumed(make_pipeline: Callable[[], Any], state: Any, number: int) -> Any:
    _scramble(2 * number)
    pipeline = make_pipeline()
    _scramble(2 * number + 1)
    restore_state(pipeline, state)
    return pipeline


def _replay(pipeline: Any, steps: list[_Step], start: int, stop: int, where: str) -> None:
    """Do the steps once more and compare."""
    iterator = pipeline
    for step in steps[start:stop]:
        if step.kind == "start":
            iterator = iter(pipeline)
            continue
        try:
            item = next(iterator)
        except StopIteration:
            if step.kind == "item":
                raise AssertionError(f"{where}: the epoch ended where {step} was expected") from None
            continue
        except Exception as error:
            error.add_note(f"{where}, the pipeline failed at {step}")
            raise
        if step.kind == "end":
            raise AssertionError(f"{where}: got another item where {step} was expected")
        difference = _difference(_frozen(item), step.item)
        if difference:
            raise AssertionError(f"{where}: {step} differs: {difference}")


def _scramble(seed: int) -> None:
    torch.manual_seed(10_007 + seed)
    np.random.seed(20_011 + seed)  # noqa: NPY002 - the global generator is meant
    random.seed(30_011 + seed)


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])


# In a fresh process


def _pack(make_pipeline: Callable[[], Any]) -> bytes:
    """A function for another process, with the files of the modules that it comes from."""
    function = make_pipeline
    while isinstance(function, functools.partial):
        function = function.func
    names = {getattr(function, "__module__", None), type(function).__module__} - {None, "builtins", "__main__"}
    files = {str(name): getattr(sys.modules.get(str(name)), "__file__", None) for name in names}
    try:
        return pickle.dumps((files, pickle.dumps(make_pipeline)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{make_pipeline!r} cannot be sent to a fresh process ({error}); "
            "define it at the top of a module, or give fresh_process=False"
        ) from error


def _resume_elsewhere(shipped: bytes, steps: list[_Step], states: list[str]) -> None:
    last = max(number for number, step in enumerate(steps) if step.kind == "item" and step.epoch == 0)
    chosen = sorted({0, last // 2, last, min(last + 2, len(steps) - 1), len(steps) - 1})
    work = [(number, state_to_bytes(state_from_json(states[number]))) for number in chosen]
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_resume_here, args=(shipped, pickle.dumps((steps, work)), sender))
    process.start()
    sender.close()
    try:
        failed, text = receiver.recv()
    except EOFError:
        failed, text = RuntimeError, "it ended without an answer"
    finally:
        process.join()
        receiver.close()
    if failed is not None:
        raise failed(f"in a fresh process: {text}")


def _resume_here(shipped: bytes, job: bytes, sender: Connection) -> None:
    """What the fresh process does."""
    answer: tuple[type[Exception] | None, str] = (None, "")
    try:
        make_pipeline = _unpack(shipped)
        steps, work = pickle.loads(job)
        for number, state in work:
            pipeline = _resumed(make_pipeline, state_from_bytes(state), number)
            _replay(pipeline, steps, number, len(steps), f"resumed before {steps[number]}")
    except AssertionError as error:
        answer = AssertionError, str(error)
    except Exception:
        answer = RuntimeError, traceback.format_exc()
    sender.send(answer)
    sender.close()


def _unpack(shipped: bytes) -> Callable[[], Any]:
    files, function = pickle.loads(shipped)
    for name, file in files.items():
        try:
            importlib.import_module(name)
        except ImportError:
            if file is None:
                raise
            # Test runners load files under names that only they can import.
            specification = importlib.util.spec_from_file_location(name, file)
            if specification is None or specification.loader is None:
                raise
            module = importlib.util.module_from_spec(specification)
            sys.modules[name] = module
            specification.loader.exec_module(module)
    make_pipeline: Callable[[], Any] = pickle.loads(function)
    return make_pipeline


# Comparing


class _Columns(NamedTuple):
    """A message taken apart, in a form that later changes of the message do not reach."""

    kind: str
    columns: dict[str, Any]


def _frozen(item: Any) -> Any:
    if isinstance(item, (Message, TensorMessage)):
        return _Columns(type(item).__name__, {name: _frozen(item[name]) for name in item.columns})
    if isinstance(item, torch.Tensor):
        return item.detach().clone()
    if type(item) in (list, tuple):
        return [_frozen(part) for part in item]
    if isinstance(item, dict):
        return {name: _frozen(part) for name, part in item.items()}
    return copy.deepcopy(item)


def _difference(actual: Any, expected: Any) -> str:
    """The first difference in words, or nothing."""
    if type(actual) is not type(expected):
        return f"got a {type(actual).__name__}, expected a {type(expected).__name__}"
    if isinstance(expected, _Columns):
        return _column_difference(actual, expected)
    if isinstance(expected, (torch.Tensor, np.ndarray, pd.Series)):
        return _array_difference(actual, expected)
    if isinstance(expected, pd.DataFrame):
        return _difference(dict(actual.items()), dict(expected.items()))
    if isinstance(expected, dict):
        if list(actual) != list(expected):
            return f"got the names {list(actual)}, expected {list(expected)}"
        return _first((repr(name), _difference(actual[name], expected[name])) for name in expected)
    if isinstance(expected, list):
        if len(actual) != len(expected):
            return f"got {len(actual)} items, expected {len(expected)}"
        pairs = zip(actual, expected, strict=True)
        return _first((f"item {number}", _difference(*pair)) for number, pair in enumerate(pairs))
    return "" if _same(actual, expected) else f"got {actual!r:.80}, expected {expected!r:.80}"


def _column_difference(actual: _Columns, expected: _Columns) -> str:
    if actual.kind != expected.kind:
        return f"got a {actual.kind}, expected a {expected.kind}"
    if list(actual.columns) != list(expected.columns):
        return f"got the columns {list(actual.columns)}, expected {list(expected.columns)}"
    pairs = ((name, actual.columns[name], column) for name, column in expected.columns.items())
    return _first((f"column {name!r}", _difference(got, column)) for name, got, column in pairs)


def _array_difference(actual: Any, expected: Any) -> str:
    for what in ("dtype", "shape", "device"):
        got, wanted = getattr(actual, what, None), getattr(expected, what, None)
        if got != wanted:
            return f"got {what} {got}, expected {wanted}"
    # Most are equal; then one comparison in C replaces one per element.
    if isinstance(expected, torch.Tensor):
        if expected.layout == torch.strided and torch.equal(_bits(actual), _bits(expected)):
            return ""
    elif expected.dtype.kind in "biumM" and bool((actual == expected).all()):
        return ""
    if not expected.shape:
        return _difference(actual.item(), expected.item())
    pairs = zip(actual.tolist(), expected.tolist(), strict=True)
    return _first((f"row {number}", _difference(*pair)) for number, pair in enumerate(pairs))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    # Not `contiguous()`: it leaves a tensor of one element or none with whatever strides it has.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def _same(actual: Any, expected: Any) -> bool:
    if actual is expected:
        return True
    if isinstance(expected, float):
        if math.isnan(expected) or math.isnan(actual):
            return math.isnan(expected) and math.isnan(actual)
        return actual == expected and math.copysign(1, actual) == math.copysign(1, expected)
    if isinstance(expected, complex):
        return _same(actual.real, expected.real) and _same(actual.imag, expected.imag)
    return bool(actual == expected)


def _first(differences: Iterable[tuple[str, str]]) -> str:
    return next((f"{where}: {difference}" for where, difference in differences if difference), "")
