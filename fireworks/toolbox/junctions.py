"""Junctions that read from several sources: one after the other, at random, in turns, or from a chosen one.

Their components are the sources. A source that keeps no position of its own (a Message) is read at a position that
belongs to the junction, and to the junction's state.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch

from fireworks.core.component_map import split_state
from fireworks.core.cursor import Cursor, items_per_epoch, open_cursor
from fireworks.core.junction import Junction
from fireworks.core.pipe import implements, passed_on
from fireworks.core.state import State, check_names, generator_state, set_generator_state
from fireworks.utils.exceptions import StateError, did_you_mean
from fireworks.utils.seeding import make_generator

__all__ = ["ClockworkHubJunction", "HubJunction", "RandomHubJunction", "SwitchJunction"]


class _SourcesJunction(Junction):
    """Steps through its components, each at a position of its own."""

    def __init__(self, *args: Any, components: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if len(args) == 1 and components is None and isinstance(args[0], Mapping):
            components, args = args[0], ()
        self._given_order = list(components or ())
        self._cursors: dict[str, Cursor] = {}
        super().__init__(*args, components=components, **kwargs)

    def _names(self) -> list[str]:
        """The names of the sources in the order given; those that were added later come last."""
        given = [name for name in self._given_order if name in self.components]
        return given + [name for name in self.components if name not in given]

    def _cursor(self, name: str) -> Cursor:
        source = self.components[name]
        cursor = self._cursors.get(name)
        if cursor is None or cursor.source is not source:
            cursor = self._cursors[name] = open_cursor(source)
        return cursor

    def _component_state(self) -> State:
        return {}  # sources are arguments, even those that a state could hold, such as a list

    def _attribute_state(self) -> State:
        cursors = {name: cursor for name, cursor in self._cursors.items() if name in self.components}
        positions = {name: cursor.position for name, cursor in cursors.items() if cursor.position}
        return {**super()._attribute_state(), "input_positions": positions}

    def set_state(self, state: Mapping[str, Any], reset: bool = True) -> None:
        """Go on where `get_state` was called.

        Args:
            state: With the keys 'internal' and 'external', or one of them.
            reset: Whether the state must be complete; otherwise what it does not name stays as it is.

        Raises:
            StateError: The state is of other sources, or of another kind of junction; then nothing is changed.
        """
        internal, _ = split_state(state, type(self).__name__)
        present = self._attribute_state()
        check_names(internal if reset else {**present, **internal}, present, what=type(self).__name__)
        self._check_known([*internal.get("input_positions", ()), *internal.get("available_inputs", ())])
        super().set_state(state, reset=reset)

    def _check_known(self, names: Iterable[str]) -> None:
        known = self._names()
        unknown = [f"{name!r}{did_you_mean(name, known).rstrip('?')}" for name in names if name not in known]
        if unknown:
            text = f"the state is of other sources: {type(self).__name__} has no {', '.join(dict.fromkeys(unknown))}"
            raise StateError(f"{text}. Sources: {', '.join(known)}")

    def _set_attribute_state(self, state: State) -> None:
        state = dict(state)
        if "input_positions" in state:
            self._seek(state.pop("input_positions"))
        super()._set_attribute_state(state)

    def _seek(self, positions: Mapping[str, int]) -> None:
        for name in self._names():
            if (name in positions or name in self._cursors) and self._cursor(name).position is not None:
                self._cursor(name).seek(positions.get(name, 0))

    def __iter__(self) -> Iterator[Any]:
        self.reset()
        return self

    def reset(self) -> Any:
        """Starts over."""
        raise NotImplementedError(f"{type(self).__name__} defines no reset()")

    def __next__(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no __next__()")


class HubJunction(_SourcesJunction):
    """This junction takes multiple sources implementing `__next__` as input and samples them.

    This one reads each source to its end, in the order given; subclasses choose otherwise, in `sample_inputs`. It ends
    when all sources have ended. Each `for` starts all of them over.

    Args:
        components: Name → source: a pipe, a Message, a hub, anything with `__next__` and `reset`.

    Raises:
        TypeError: A component is no such source; names all of them.

    Example:
        >>> from fireworks.core.message import Message
        >>> hub = HubJunction(components={"a": Message({"x": [1, 2]}), "b": Message({"x": [3]})})
        >>> [row["x"].item() for row in hub]
        [1, 2, 3]
    """

    def __init__(self, *args: Any, components: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, components=components, **kwargs)
        self.check_inputs()
        self._available_inputs = set(self.components)

    def check_inputs(self) -> None:
        """Checks that every component implements `__next__` and `reset`.

        Raises:
            TypeError: Some do not.
        """
        problems = [
            f"{name!r} ({type(source).__name__}) lacks {' and '.join(missing)}"
            for name, source in self.components.items()
            if (missing := [method for method in ("__next__", "reset") if not implements(source, method)])
        ]
        if problems:
            raise TypeError(
                f"{type(self).__name__} needs sources with __next__ and reset: {'; '.join(problems)}. "
                "Pipe(input=...) around a list or another data set provides them"
            )

    def sample_inputs(self) -> str:
        """Returns the key associated with an input source that should be stepped through next.

        A subclass chooses among `_available_inputs`, the names of the sources that have not ended.

        Raises:
            StopIteration: All of them have ended.
        """
        return self._available()[0]

    def _available(self) -> list[str]:
        names = [name for name in self._names() if name in self._available_inputs]
        if not names:
            raise StopIteration
        return names

    def reset(self) -> HubJunction:
        """Starts all sources over."""
        self.check_inputs()
        for name in self.components:
            self._cursor(name).restart()
        self._available_inputs = set(self.components)
        return self

    def __next__(self) -> Any:
        while self._available_inputs:
            name = self.sample_inputs()
            try:
                return self._cursor(name).step()
            except StopIteration:
                self._available_inputs.discard(name)
        raise StopIteration

    @property
    def batches_per_epoch(self) -> int | None:
        """How many items all sources together yield, or None where that is not known."""
        counts = [items_per_epoch(source) for source in self.components.values()]
        return None if None in counts else sum(count for count in counts if count is not None)

    def _attribute_state(self) -> State:
        available = [name for name in self._names() if name in self._available_inputs]
        return {**super()._attribute_state(), "available_inputs": available}

    def _set_attribute_state(self, state: State) -> None:
        state = dict(state)
        self._available_inputs = set(state.pop("available_inputs", self._available_inputs))
        super()._set_attribute_state(state)


class RandomHubJunction(HubJunction):
    """HubJunction that randomly chooses inputs to step through.

    The order differs from epoch to epoch.

    Args:
        components: Name → source.
        weights: How often a source is chosen, relative to the others: name → number, or a sequence of numbers in the
            order of the components. Equal by default. Sources that have ended are chosen no more.
        seed: An int or a `torch.Generator`; drawn from torch's global generator by default.

    Raises:
        ValueError: Weights that are not positive, or not of these sources.

    Example:
        >>> from fireworks.core.message import Message
        >>> sources = {"a": Message({"x": [1, 2]}), "b": Message({"x": [3, 4]})}
        >>> hub = RandomHubJunction(components=sources, weights={"a": 9, "b": 1}, seed=0)
        >>> sorted(row["x"].item() for row in hub)
        [1, 2, 3, 4]
    """

    weights: Any = None
    seed: Any = None
    generator: Any = None

    def __init__(
        self,
        *args: Any,
        components: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | Sequence[float] | None = None,
        seed: int | torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, components=components, **kwargs)
        self.weights = weights
        self.seed = seed
        self._weights = _weights_by_name(self, weights, self._names())
        self.generator = make_generator(seed)

    def sample_inputs(self) -> str:
        """Returns the key associated with an input source that should be stepped through next."""
        names = self._available()
        bounds = list(accumulate(self._weights.get(name, 1.0) for name in names))
        drawn = float(torch.rand((), dtype=torch.float64, generator=self.generator)) * bounds[-1]
        return names[min(bisect_right(bounds, drawn), len(names) - 1)]

    def _attribute_state(self) -> State:
        return {**super()._attribute_state(), "generator": generator_state(self.generator)}

    def _set_attribute_state(self, state: State) -> None:
        state = dict(state)
        if "generator" in state:
            set_generator_state(self.generator, state.pop("generator"))
        super()._set_attribute_state(state)


class ClockworkHubJunction(HubJunction):
    """HubJunction that iterates through input sources one at a time, round and round.

    Sources that have ended are passed over.

    Args:
        components: Name → source.
        order: Names in the order of a round; one may come several times. The order of the components by default.
        weights: How many items a source gives in a row: name → number, or a sequence of numbers in the order of the
            components. One by default.

    Raises:
        ValueError: An order or weights that are not of these sources, or weights that are no whole numbers from 1 up.

    Example:
        >>> from fireworks.core.message import Message
        >>> sources = {"a": Message({"x": [1, 2, 3]}), "b": Message({"x": [4, 5]})}
        >>> [row["x"].item() for row in ClockworkHubJunction(components=sources, order=["b", "a"], weights={"a": 2})]
        [4, 1, 2, 5, 3]
    """

    order: Any = None
    weights: Any = None

    def __init__(
        self,
        *args: Any,
        components: Mapping[str, Any] | None = None,
        order: Sequence[str] | None = None,
        weights: Mapping[str, int] | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, components=components, **kwargs)
        self.order = order
        self.weights = weights
        self._turn = 0
        self._schedule = self._make_schedule()

    def _make_schedule(self) -> list[str]:
        """The names of a whole round, one per item."""
        names = self._names()
        order = names if self.order is None else list(self.order)
        unknown = [f"{name!r}{did_you_mean(name, names).rstrip('?')}" for name in order if name not in names]
        left_out = [repr(name) for name in names if name not in order]
        if unknown or left_out:
            problems = [f"it has no {', '.join(unknown)}"] * bool(unknown)
            problems += [f"the order leaves out {', '.join(left_out)}"] * bool(left_out)
            raise ValueError(f"{type(self).__name__}: {'; '.join(problems)}. Sources: {', '.join(names)}")
        weights = _weights_by_name(self, self.weights, names)
        fractions = [f"{name!r}: {weight!r}" for name, weight in weights.items() if weight != int(weight)]
        if fractions:
            raise ValueError(
                f"{type(self).__name__}: a weight is a number of items in a row, got {', '.join(fractions)}"
            )
        return [name for name in order for _ in range(int(weights.get(name, 1)))]

    def sample_inputs(self) -> str:
        """Loops through inputs until finding one that is available."""
        available = self._available()
        while True:
            name = self._schedule[self._turn % len(self._schedule)]
            self._turn = (self._turn + 1) % len(self._schedule)
            if name in available:
                return name

    def reset(self) -> ClockworkHubJunction:
        """Starts all sources over, and the round."""
        super().reset()
        self._schedule = self._make_schedule()
        self._turn = 0
        return self

    def _attribute_state(self) -> State:
        return {**super()._attribute_state(), "turn": self._turn}

    def _set_attribute_state(self, state: State) -> None:
        state = dict(state)
        self._turn = state.pop("turn", self._turn)
        super()._set_attribute_state(state)


class SwitchJunction(_SourcesJunction):
    """This junction has an internal switch that determines which of its components all method calls will be routed to.

    Rows, iteration, length, calls and public attributes are those of the chosen component. Switch over with
    `junction.switch = name`; each component goes on where it stood.

    Args:
        components: Name → pipe, Message, model, or any object with the methods that will be called.
        switch: The name of the component to begin with; the first one by default.

    Raises:
        KeyError: There is no such component.

    Example:
        >>> from fireworks.core.message import Message
        >>> data = SwitchJunction(components={"train": Message({"x": [1, 2]}), "test": Message({"x": [3]})})
        >>> len(data)
        2
        >>> data.switch = "test"
        >>> data[0]["x"].item()
        3
    """

    def __init__(
        self,
        *args: Any,
        components: Mapping[str, Any] | None = None,
        switch: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, components=components, **kwargs)
        self._switch: str | None = None
        if switch is not None:
            self.switch = switch

    @property
    def switch(self) -> str | None:
        """The name of the component that calls go to; None when there are no components."""
        return self._switch if self._switch is not None else next(iter(self._names()), None)

    @switch.setter
    def switch(self, name: str) -> None:
        if name not in self.components:
            proposal = did_you_mean(name, self.components) or "."
            known = ", ".join(self._names()) or "(none)"
            raise KeyError(f"{type(self).__name__} has no component {name!r}{proposal} Components: {known}")
        self._switch = name

    @property
    def route(self) -> Any:
        """Returns the component to route method calls to based on the internal switch."""
        return self.components[self._require_switch()]

    def _require_switch(self) -> str:
        if self.switch is None:
            raise KeyError(f"{type(self).__name__} has no components to route calls to; give it some")
        return self.switch

    @passed_on
    def __getitem__(self, index: Any) -> Any:
        return self.route[index]

    @passed_on
    def __len__(self) -> int:
        return len(self.route)

    def __bool__(self) -> bool:
        return True  # and not a question of the length

    @passed_on
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.route(*args, **kwargs)

    @passed_on
    def __next__(self) -> Any:
        return self._cursor(self._require_switch()).step()

    @passed_on
    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()

    @passed_on
    def reset(self) -> SwitchJunction:
        """Starts the chosen component over; the others stay where they are."""
        self._cursor(self._require_switch()).restart()
        return self

    @property
    def batches_per_epoch(self) -> int | None:
        """How many items the chosen component yields, or None where that is not known."""
        return items_per_epoch(self.route)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            components = self.__dict__.get("_components")
            if error.obj is not self or name.startswith("_") or not components:
                raise
        return getattr(self.route, name)

    def _attribute_state(self) -> State:
        return {**super()._attribute_state(), "switch": self.switch}

    def _set_attribute_state(self, state: State) -> None:
        state = dict(state)
        switch = state.pop("switch", self.switch)
        if switch is not None:
            self._check_known([switch])
        self._switch = switch
        super()._set_attribute_state(state)


def _weights_by_name(hub: Junction, weights: Any, names: Sequence[str]) -> dict[str, float]:
    """Weights as name → number, checked."""
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        numbers = list(weights)
        if len(numbers) != len(names):
            raise ValueError(
                f"{type(hub).__name__}: expected a weight for each of {len(names)} sources, got {len(numbers)}"
            )
        weights = dict(zip(names, numbers, strict=True))
    problems = [f"no source {name!r}{did_you_mean(name, names).rstrip('?')}" for name in weights if name not in names]
    problems += [f"{name!r} has weight {weight!r}" for name, weight in weights.items() if not 0 < weight < float("inf")]
    if problems:
        raise ValueError(
            f"{type(hub).__name__}: weights are positive numbers by name of source; {'; '.join(problems)}. "
            f"Sources: {', '.join(names)}"
        )
    return dict(weights)
