"""Pipe: one input, one output, messages in between.

A Pipe resembles an iterator and a sequence at once, both of them taken from its input: whatever a pipe does not define
(rows, iteration, length, calls, public attributes) comes from what it reads from. Pipes stack, and a stack of them
behaves as one object.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch.utils.data import IterableDataset

from fireworks.core._chain import MissText, add_context, check_no_arguments, describe, describe_chain, reporting
from fireworks.core._names import names_columns
from fireworks.core.cursor import (
    Cursor,
    IndexCursor,
    is_once_only,
    is_stage,
    items_per_epoch,
    length_of,
    open_cursor,
    own_attribute,
    provides,
)
from fireworks.core.message import Message
from fireworks.core.state import (
    State,
    check_names,
    generator_state,
    internal_state,
    read_state,
    save_state,
    set_generator_state,
    snapshot,
)
from fireworks.utils.exceptions import StateError

__all__ = ["HookedPassThroughPipe", "Pipe", "announce", "implements", "passed_on", "recursive"]

Method = TypeVar("Method", bound=Callable[..., Any])

# Methods whose errors tell where in the chain they happened, and what the pipe was doing then.
_REPORTING = ("__call__", "__getitem__", "__iter__", "__len__", "__next__", "reset")


def passed_on(method: Method) -> Method:
    """Mark a method that exists only as far as there is something behind it to pass the question on to.

    `implements` looks through such methods: at the `input` of a pipe, at the `route` of another object.
    """
    method.__dict__["passes_on"] = True
    return method


def implements(source: Any, name: str) -> bool:
    """Whether a source really provides a method or attribute, and does not merely pass the question on.

    Every Pipe has a `__len__`, but one that reads from a generator can only fail when asked for it. This looks through
    such pipes at what they read from. Anything that can be iterated over implements `__next__` and `__iter__` as the
    input of a pipe does.

    Args:
        source: A pipe, or anything that a pipe may read from.
        name: Such as '__getitem__', '__len__', '__call__', 'reset' or 'to_tensor'.

    Example:
        >>> implements(Pipe(input=[1, 2]), "__len__"), implements(Pipe(input=iter([1, 2])), "__len__")
        (True, False)
    """
    if not isinstance(source, Pipe):
        if source is None or not provides(source, name):
            return False
        if getattr(getattr(type(source), name, None), "passes_on", False):  # a junction that routes calls
            return _is_readable(source.route) if name in ("__next__", "__iter__") else implements(source.route, name)
        # A source may say that it has no length by giving None.
        return name != "__len__" or is_stage(source) or type(source).__len__(source) is not None
    method = _own(source, name)
    if method is _NOTHING:
        return not name.startswith("_") and (_has_dynamically(source, name) or implements(source.input, name))
    if not getattr(method, "passes_on", False):
        return method is not None
    return _is_answered(source, name)


def _is_answered(pipe: Pipe, name: str) -> bool:
    """Whether there is something behind a method that the pipe passes on."""
    if name == "__iter__":
        return implements(pipe, "__next__")
    origin = _origin(pipe)
    can_iterate = origin is pipe or _is_readable(origin)
    if name == "__next__":
        return can_iterate
    if name == "reset" and not (isinstance(origin, Pipe) and origin is not pipe):
        return (can_iterate and not is_once_only(origin)) or provides(origin, "reset")
    return origin is not pipe and implements(origin, name)


_NOTHING = object()


def _own(pipe: Pipe, name: str) -> Any:
    """What the pipe or its class has under a name, as it is written there, or `_NOTHING`."""
    if name in pipe.__dict__ and not name.startswith("__"):
        return pipe.__dict__[name]
    for class_ in type(pipe).__mro__:
        if name in class_.__dict__:
            return class_.__dict__[name]
    return _NOTHING


def _is_readable(source: Any) -> bool:
    return any(implements(source, way) for way in ("__next__", "__iter__", "__getitem__"))


def _origin(pipe: Pipe) -> Any:
    """What a pipe iterates over: its input, or itself row by row when it has none but defines `__getitem__`."""
    source = pipe.input
    if source is None and not getattr(type(pipe).__getitem__, "passes_on", False):
        return pipe
    return source


class Pipe(ABC):  # noqa: B024 - what a subclass overrides is its own choice
    """Reads from one input and passes on everything that it does not define itself.

    Subclass it for a data set (no input, your own `__getitem__` and `__len__`, or `__next__` and `reset`) or for a step
    between two others (override what changes). `pipe[index]` and `len(pipe)` always speak of rows; iteration yields
    what the pipe yields, rows or batches. `iter(pipe)` starts the input over and returns the pipe.

    A public attribute that the pipe lacks is looked up on its input, and so on up the chain; names that start with `_`
    never are. An error that passes through carries a note with the chain and the pipe that it came from.

    A subclass that reads its input item by item calls `super().__next__()` and `super().reset()`: they know where in
    the input the pipe stands, whatever kind of object that is, and the position is part of the pipe's state. What else
    is needed to continue in the middle goes into `stateful_attributes`; a random generator in the attribute `generator`
    is saved too.

    Args:
        input: A pipe, a Message, or any object with the methods needed: a list of dicts, a torch Dataset, an iterable.
            `inputs` is another name of it.

    Raises:
        TypeError: An argument that no pipe takes.

    Example:
        >>> data = Pipe(input=Message({"x": [1, 2, 3]}))
        >>> len(data), len(data[1:3]), [row["x"].item() for row in data]
        (3, 2, [1, 2, 3])
    """

    name = "base_pipe"
    input: Any = None
    stateful_attributes: Sequence[str] = ()

    def __init__(self, input: Any = None, *args: Any, **kwargs: Any) -> None:
        if "inputs" in kwargs:
            if input is not None:
                raise TypeError(f"{type(self).__name__} got both input and inputs, two names of one argument; give one")
            input = kwargs.pop("inputs")
        check_no_arguments(self, args, kwargs, ["input"])
        self.input = input

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _REPORTING:
            method = cls.__dict__.get(name)
            if inspect.isfunction(method) and "reports" not in method.__dict__:
                setattr(cls, name, reporting(name, method))

    # Nothing below may rely on `__init__`: subclasses of users need not call it.

    def __getattr__(self, name: str) -> Any:
        for class_ in type(self).__mro__:
            if name in class_.__dict__:  # a property failed inside; its own error says how
                return object.__getattribute__(self, name)
        upstream = None if name.startswith("_") else object.__getattribute__(self, "input")
        if upstream is None:
            raise _no_attribute(self, name)
        try:
            return getattr(upstream, name)
        except AttributeError as error:
            if not _is_miss(error, upstream, name):
                raise
        raise _no_attribute(self, name)

    @passed_on
    def __getitem__(self, index: Any) -> Any:
        try:
            return self.input[index]
        except Exception as error:
            raise self._explained(error, "__getitem__", index)  # noqa: B904 - it is the same error, with a note

    @passed_on
    def __next__(self) -> Any:
        try:
            cursor = self.__dict__.get("_cursor")
            if cursor is None or (cursor.source is not self.input and cursor.source is not self):
                cursor = self._open_cursor()
            return cursor.step()
        except StopIteration:
            raise
        except Exception as error:
            raise self._explained(error, "__next__")  # noqa: B904

    @passed_on
    def __iter__(self) -> Iterator[Any]:
        if not implements(self, "__next__"):
            raise AttributeError(
                f"cannot iterate over {describe_chain(self)}: it offers no __next__, __iter__ or __getitem__"
            )
        self.reset()
        return self

    @passed_on
    def __len__(self) -> int:
        try:
            return len(self.input)
        except Exception as error:
            raise self._explained(error, "__len__")  # noqa: B904

    def __bool__(self) -> bool:
        """A pipe is true, whatever it holds: to ask for its length may mean to read through it."""
        return True

    @passed_on
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.input(*args, **kwargs)
        except Exception as error:
            raise self._explained(error, "__call__")  # noqa: B904

    @passed_on
    def reset(self) -> Any:
        """Start over: the next item is the first one again. Gives the pipe."""
        try:
            source = _origin(self)
            if source is self:
                self._open_cursor().seek(0)
            elif _is_readable(source):
                self._open_cursor(starting=True).restart()
            elif implements(source, "reset"):
                source.reset()
            return self
        except Exception as error:
            raise self._explained(error, "reset")  # noqa: B904

    def _open_cursor(self, starting: bool = False) -> Cursor:
        cursor: Cursor | None = self.__dict__.get("_cursor")
        source = _origin(self)
        if cursor is None or (cursor.source is not source and (starting or "input" in self.__dict__)):
            # An `input` that is a property may give another object each time; then one serves until the next start.
            if source is None:
                raise AttributeError(f"{describe(self)} has no input to iterate over; give it one with input=...")
            # Its own `__next__` is the one that asks, so a pipe that reads from itself does so by index.
            cursor = self.__dict__["_cursor"] = IndexCursor(self) if source is self else open_cursor(source)
        return cursor

    def _explained(self, error: Exception, method: str, *args: Any) -> Exception:
        """The error with a note on where it happened, or a better one when there was nothing to read from."""
        if self.input is None and isinstance(error, TypeError):
            error = TypeError(f"{describe(self)} has no input, and no {method} of its own; give it one with input=...")
            error.__suppress_context__ = True
        add_context(self, error, method, *args)
        return error

    def remaining(self) -> Iterator[Any]:
        """The items of the current epoch that are still to come; unlike `iter(pipe)`, it does not start over.

        Use it to go on after `set_state`.

        Example:
            >>> pipe = Pipe(input=["a", "b", "c"])
            >>> next(pipe), list(pipe.remaining())
            ('a', ['b', 'c'])
        """
        while True:
            try:
                item = next(self)
            except StopIteration:
                return
            yield item

    @passed_on
    def announce(self, indices: Any) -> None:
        """Tells what the pipe reads from which rows it is going to be asked for, and in which order.

        A ShufflerPipe does this when it takes a new order; a CachingPipe upstream can then remember the rows that are
        needed soonest. It is passed on up the chain, to any object of a class that has such a method, as long as the
        row numbers are the same: a pipe with a `__getitem__` of its own has to pass it on itself, in the numbers of its
        input. Announcing promises nothing; rows may be asked for in another order.

        Args:
            indices: Row numbers, in the order in which they will be asked for; in place of what was announced before.
        """
        if getattr(type(self).__getitem__, "passes_on", False):
            announce(self.input, indices)

    @property
    def batches_per_epoch(self) -> int | None:
        """How many items one pass over the pipe yields, or None where that is not known.

        A pipe that changes the number (or defines its own `__next__`) says so by overriding this property.
        """
        class_ = type(self)
        if not (getattr(class_.__next__, "passes_on", False) and getattr(class_.__iter__, "passes_on", False)):
            return None
        source = _origin(self)
        return length_of(source) if source is self else items_per_epoch(source)

    def as_dataset(self) -> IterableDataset[Any]:
        """The pipe as what DataLoader, ignite or Lightning take: an IterableDataset of the items that the pipe yields.

        Its `len` is `batches_per_epoch`. Items are whole already, so give `batch_size=None` to a DataLoader. Several
        worker processes share the items among them; see `PipeDataset` for what happens to random orders then.

        Example:
            >>> from torch.utils.data import DataLoader
            >>> loader = DataLoader(Pipe(input=Message({"x": [1, 2, 3]})).as_dataset(), batch_size=None)
            >>> len(loader), sum(row["x"].item() for row in loader)
            (3, 6)
        """
        from fireworks.core.dataset import PipeDataset

        return PipeDataset(self)

    def recursive_call(
        self, attribute: str, *args: Any, ignore_first: bool = True, call: bool = True, **kwargs: Any
    ) -> Any:
        """Call a method of the nearest stage up the chain that has it, or read an attribute there.

        Args:
            attribute: Name of the method or attribute.
            *args: Arguments of the method.
            ignore_first: Begin with the input, even when this pipe has the attribute itself.
            call: Whether to call it; otherwise, and when it is no method, it is returned as it is.
            **kwargs: Keyword arguments of the method.

        Returns:
            What the method returned, as it is.

        Raises:
            AttributeError: No stage of the chain has it.

        Example:
            >>> Pipe(input=Message({"x": [1, 2]})).recursive_call("to_dict")
            {'x': [1, 2]}
        """
        holder = _nearest(self.input if ignore_first else self, attribute)
        if holder is None:
            raise _no_attribute(self, attribute)
        found = getattr(holder, attribute)
        return found(*args, **kwargs) if call and callable(found) else found

    def get_state(self) -> State:
        """What the pipe needs, besides its arguments, to continue exactly here in another process.

        Returns:
            `{'internal': {name: value}, 'external': {}}`: copies of the `stateful_attributes`, the random generator in
            the attribute `generator`, and the position in an input that keeps none itself (none at the start).

        Example:
            >>> pipe = Pipe(input=["a", "b"])
            >>> next(pipe), pipe.get_state()
            ('a', {'internal': {'input_position': 1}, 'external': {}})
        """
        internal = {name: snapshot(self._stateful(name)) for name in self._stateful_names()}
        generator = self.__dict__.get("generator")
        if isinstance(generator, (torch.Generator, np.random.Generator)):
            internal["generator"] = generator_state(generator)
        cursor = self.__dict__.get("_cursor")
        # The position in an input that was replaced since is of no use.
        is_stale = cursor is not None and cursor.source is not _origin(self) and "input" in self.__dict__
        if cursor is not None and cursor.position and not is_stale:
            internal["input_position"] = cursor.position
        return {"internal": internal, "external": {}}

    def set_state(self, state: State) -> None:
        """Continue where `get_state` was called, on this pipe or on another one built like it.

        Raises:
            StateError: Names are missing from the state, or unknown to this pipe; nothing is changed then.
        """
        internal = internal_state(state)
        position = internal.pop("input_position", 0)
        generator = self.__dict__.get("generator")
        names = dict.fromkeys(self._stateful_names())
        if isinstance(generator, (torch.Generator, np.random.Generator)):
            names["generator"] = None
        check_names(internal, names, what=type(self).__name__)
        if "generator" in internal and "generator" in names and generator is not None:
            set_generator_state(generator, internal.pop("generator"))
        for name, value in internal.items():
            setattr(self, name, _like(self.__dict__.get(name), snapshot(value)))
        if position or "_cursor" in self.__dict__:
            self._seek(position)

    def _seek(self, position: int) -> None:
        cursor = self._open_cursor()
        if cursor.position is not None:
            cursor.seek(position)
        elif position:
            raise StateError(
                f"the state is of a {type(self).__name__} over another kind of input: {describe_chain(self)}"
            )

    def _stateful_names(self) -> list[str]:
        names = self.stateful_attributes
        return [names] if isinstance(names, str) else [name for name in names if name != "generator"]

    def _stateful(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            raise AttributeError(
                f"{type(self).__name__} names {name!r} in stateful_attributes, but has no such attribute; set it first"
            ) from None

    def save(self, path: str | PathLike[str] | None = None, method: str = "json") -> Any:
        """Write the pipe's own internal state to a file.

        Args:
            path: The file; None to get the state itself back.
            method: 'json', 'safetensors', or 'dict' (only without a path).

        Returns:
            None, or without a path the JSON text, the safetensors bytes or the dict.

        Raises:
            StateError: The state holds what cannot be written down.

        Example:
            >>> Pipe(input=["a"]).save()
            '{}'
        """
        return save_state(self.get_state()["internal"], path, method)

    def load_state(self, path: str | PathLike[str], method: str | None = None) -> None:
        """Read the internal state that `save` wrote; without a method, by the file's suffix.

        Raises:
            FormatError: The file is no saved state.
            StateError: The state is not one of a pipe like this.
        """
        self.set_state({"internal": read_state(path, method), "external": {}})

    def __repr__(self) -> str:
        return describe_chain(self)


def announce(source: Any, indices: Any) -> None:
    """Tells a source which rows it is going to be asked for, if its class has a method `announce`."""
    if hasattr(type(source), "announce"):
        source.announce(indices)


def _like(current: Any, value: Any) -> Any:
    """A restored value, on the device where the current one is."""
    if isinstance(current, torch.Tensor) and isinstance(value, torch.Tensor):
        return value.to(current.device)
    return value


def _no_attribute(pipe: Pipe, name: str) -> AttributeError:
    error = AttributeError(MissText(pipe, name), name=name, obj=pipe)
    error.__dict__["missed"] = name
    return error


def _is_miss(error: AttributeError, source: Any, name: str) -> bool:
    """Whether the error says that the source lacks the attribute, rather than that something inside of it failed."""
    if isinstance(source, Pipe):
        return error.__dict__.get("missed") == name
    return error.name == name and error.obj is source and not hasattr(type(source), name)


def _nearest(source: Any, name: str) -> Any:
    """The nearest object up the chain that has the attribute itself, or None."""
    while isinstance(source, Pipe):
        found = _own(source, name)
        if found is not _NOTHING and not getattr(found, "passes_on", False):
            return source
        if found is not _NOTHING and (source.input is None or not implements(source.input, name)):
            return source if implements(source, name) else None
        if found is _NOTHING and _has_dynamically(source, name):
            return source
        source = source.input
    return source if source is not None and provides(source, name) else None


def _has_dynamically(source: Pipe, name: str) -> bool:
    """Whether a pipe with components, such as a Model, has the attribute as one of them."""
    components = own_attribute(source, "components")
    return components is not None and name in components


@overload
def recursive(accumulate: Method) -> Method: ...
@overload
def recursive(accumulate: bool = ...) -> Callable[[Method], Method]: ...
def recursive(accumulate: Any = False) -> Any:
    """Mark a method that runs on the input first, then here.

    Args:
        accumulate: Pass on results: the method gets, before its other arguments, what it returned further up, None in
            the first stage of the chain. Otherwise every stage gets the same arguments.

    Example:
        >>> class Scaled(Pipe):
        ...     @recursive(accumulate=True)
        ...     def factor(self, result):
        ...         return 10 if result is None else result * 10
        >>> Scaled(input=Scaled(input=[1, 2])).factor()
        100
    """
    if callable(accumulate):
        return _recursive(accumulate, accumulate=False)
    return functools.partial(_recursive, accumulate=bool(accumulate))


def _recursive(method: Callable[..., Any], accumulate: bool) -> Callable[..., Any]:
    name = method.__name__

    @functools.wraps(method)
    def run(self: Pipe, *args: Any, **kwargs: Any) -> Any:
        upstream = _nearest(self.input, name)
        result = None if upstream is None else getattr(upstream, name)(*args, **kwargs)
        return method(self, result, *args, **kwargs) if accumulate else method(self, *args, **kwargs)

    return run


class HookedPassThroughPipe(Pipe):
    """Lets a subclass change what passes, by hooks: one for rows, one for iteration, one for calls.

    Hooks get Messages: a dict from upstream becomes one, and None an empty one. Override those that you need.

    Example:
        >>> class Doubled(HookedPassThroughPipe):
        ...     def _getitem_hook(self, message):
        ...         return message.map({"x": lambda column: column * 2})
        >>> Doubled(input=Message({"x": [1, 2, 3]}))[1:3]["x"].tolist()
        [4, 6]
    """

    name = "Hooked-passthrough Pipe"

    def _getitem_hook(self, message: Any) -> Any:
        """What `pipe[index]` gives, from what the input gave."""
        return message

    def _next_hook(self, message: Any) -> Any:
        """What `next(pipe)` gives, from what the input gave."""
        return message

    def _call_hook(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the pipe gives, from what upstream gave, or from the arguments if nothing there is callable."""
        return args[0] if args else None

    @passed_on
    def __getitem__(self, index: Any) -> Any:
        if names_columns(index):  # of what the hook makes, so of all rows
            return self[:][index]
        return self._getitem_hook(_to_message(super().__getitem__(index)))

    @passed_on
    def __next__(self) -> Any:
        return self._next_hook(_to_message(super().__next__()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        upstream = self.input
        if upstream is not None and implements(upstream, "__call__"):
            return self._call_hook(_to_message(upstream(*args, **kwargs)))
        return self._call_hook(*args, **kwargs)


def _to_message(item: Any) -> Any:
    if item is None:
        return Message()
    return Message(item) if isinstance(item, dict) else item
