"""ComponentMap: who owns which component. It keeps what belongs to a junction apart from what it only borrows.

A component is internal when its value is held here, and external when it is a link `(owner, 'attribute')`: then it is
read from its owner at each access, and stays the owner's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch.nn import Module, Parameter

from fireworks.core._component_values import (
    GENERATORS,
    array_snapshot,
    as_parameter,
    check_restorable,
    is_plain,
    restored,
    saved_value,
    short,
)
from fireworks.core.state import State, is_stage, snapshot
from fireworks.utils.exceptions import StateError, did_you_mean

__all__ = ["ComponentMap", "Component_Map", "PyTorch_Component_Map"]

# A pair that starts with one of these is a value, never a link: nobody borrows an attribute of a number.
_NO_OWNERS: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_NO_OWNERS += (np.generic, np.ndarray, torch.Tensor)


def as_link(value: Any) -> tuple[Any, str] | None:
    """The pair `(owner, attribute)` when a value is a link, otherwise None."""
    if type(value) is tuple and len(value) == 2 and isinstance(value[1], str) and not isinstance(value[0], _NO_OWNERS):
        return value
    return None


class ComponentMap(MutableMapping[str, Any]):
    """A dictionary of components that knows which of them are borrowed.

    `in`, `len`, `items`, `get` and the rest see internal and external components alike, with live values.

    Args:
        components: Name → value. A value `(owner, 'attribute')` is a link; any other tuple is a value like others.

    Example:
        >>> from types import SimpleNamespace
        >>> owner = SimpleNamespace(rate=1)
        >>> components = ComponentMap({"size": 3, "rate": (owner, "rate")})
        >>> owner.rate = 2
        >>> dict(components), components.is_external("rate")
        ({'size': 3, 'rate': 2}, True)
    """

    _internal_components: MutableMapping[str, Any]
    _external_modules: dict[str, Any]
    _external_attribute_names: dict[str, str]

    def __init__(self, components: Mapping[str, Any] | None = None) -> None:
        self._internal_components = {}
        self._external_modules = {}
        self._external_attribute_names = {}
        self.update(raw_items(components))

    def __getitem__(self, name: str) -> Any:
        if name in self._external_modules:
            return self._read_link(name)
        if name in self._internal_components:
            return self._internal_components[name]
        problem = f"no component {name!r}{did_you_mean(name, self) or '.'}"
        raise KeyError(f"{problem} Components: {', '.join(self) or '(none)'}")

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a component is named by a str, got {name!r} ({type(name).__name__})")
        link = as_link(value)
        if link is None:
            value = self._convert(name, value)
            self._external_modules.pop(name, None)
            self._external_attribute_names.pop(name, None)
            self._internal_components[name] = value
        else:
            self._internal_components.pop(name, None)
            self._external_modules[name], self._external_attribute_names[name] = link

    def __delitem__(self, name: str) -> None:
        if name in self._external_modules:
            del self._external_modules[name], self._external_attribute_names[name]
        else:
            del self._internal_components[name]

    def __iter__(self) -> Iterator[str]:
        yield from [*self._internal_components, *self._external_modules]

    def __len__(self) -> int:
        return len(self._internal_components) + len(self._external_modules)

    def __contains__(self, name: object) -> bool:
        return name in self._external_modules or name in self._internal_components

    def __repr__(self) -> str:
        shown = [f"{name!r}: {short(value)}" for name, value in self._internal_components.items()]
        shown += [
            f"{name!r}: link to {self._external_attribute_names[name]!r} of {_owner_name(owner)}"
            for name, owner in self._external_modules.items()
        ]
        return f"{type(self).__name__}({{{', '.join(shown)}}})"

    def is_external(self, name: str) -> bool:
        """Whether a component is a link to what something else owns."""
        return name in self._external_modules

    def internal(self) -> dict[str, Any]:
        """The internal components: name → value."""
        return dict(self._internal_components)

    def links(self) -> dict[str, tuple[Any, str]]:
        """The external components: name → (owner, attribute)."""
        return {name: (owner, self._external_attribute_names[name]) for name, owner in self._external_modules.items()}

    def get_state(self) -> dict[str, Any]:
        """All components: `{'internal': name → value, 'external': name → (owner, attribute)}`.

        Plain values are copies, modules give their state dicts; what is neither is there as it is.
        """
        return {"internal": {**self._internal_components, **self.saved()}, "external": self.links()}

    def saved(self) -> State:
        """Copies of the internal components that are state: plain values, modules (their state dicts), generators.

        Functions, open files and the like are not; and a component that is a stage has a state of its own.
        """
        internal = self._internal_components.items()
        return {name: self._saved(value) for name, value in internal if self._is_state(name, value)}

    def set_state(self, state: Mapping[str, Any], reset: bool = True) -> None:
        """Take back what `get_state` gave.

        Args:
            state: With the keys 'internal' and 'external', or one of them.
            reset: Whether components that the state does not name go away; otherwise they stay as they are.

        Raises:
            StateError: The state has other keys, or values that do not fit; then nothing is changed.
        """
        internal, external = split_state(state, "ComponentMap")
        self.restore(internal)
        self.update(external)
        if reset:
            for name in [name for name in self if name not in internal and name not in external]:
                del self[name]

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Set internal components to values out of a state; nothing is changed when one of them does not fit.

        Tensors of the same shape take the values in place, modules load their dicts.

        Raises:
            StateError: A dict does not fit its module; names all that is missing, extra or of another shape.
        """
        current = {name: self._internal_components.get(name) for name in saved}
        problems = [problem for name in saved for problem in check_restorable(name, saved[name], current[name])]
        if problems:
            raise StateError("this state does not fit: " + "; ".join(problems))
        for name, value in saved.items():
            self[name] = self._restored(value, current[name])

    def _is_state(self, name: str, value: Any) -> bool:
        return is_plain(value) or (isinstance(value, (Module, *GENERATORS)) and not is_stage(value))

    def _saved(self, value: Any) -> Any:
        return saved_value(value, snapshot)

    def _restored(self, saved: Any, current: Any) -> Any:
        return restored(saved, current)

    def _convert(self, name: str, value: Any) -> Any:
        """What is stored for a value: itself, but a dict for a module is loaded; subclasses make Parameters here."""
        current = self._internal_components.get(name)
        if isinstance(current, Module) and isinstance(value, Mapping):
            self.restore({name: value})
            return current
        return value

    def _read_link(self, name: str) -> Any:
        owner, attribute = self._external_modules[name], self._external_attribute_names[name]
        try:
            return getattr(owner, attribute)
        except AttributeError as error:
            raise AttributeError(
                f"component {name!r} is linked to {attribute!r} of {_owner_name(owner)}, which cannot be read: {error}"
            ) from error


Component_Map = ComponentMap


class PyTorch_Component_Map(ComponentMap):
    """A ComponentMap that makes what is learnable into Parameters.

    Lists and arrays of numbers become floating-point Parameters, tensors become Parameters (of integers or booleans:
    without a gradient). Parameters and modules are kept as the very same objects; numbers, text and all else too.

    Example:
        >>> components = PyTorch_Component_Map({"m": [2], "column": "x"})
        >>> components["m"], components["column"]
        (Parameter containing:
        tensor([2.], requires_grad=True), 'x')
    """

    def _convert(self, name: str, value: Any) -> Any:
        value = super()._convert(name, value)
        parameter = as_parameter(value)
        if parameter is value or not isinstance(parameter, Parameter):
            return parameter
        current = self._internal_components.get(name)
        if isinstance(current, Parameter) and current.is_floating_point() and not current.requires_grad:
            parameter.requires_grad_(False)  # what was frozen stays so with another value
        return parameter

    def _saved(self, value: Any) -> Any:
        return saved_value(value, array_snapshot)

    def _restored(self, saved: Any, current: Any) -> Any:
        value = restored(saved, current)
        return torch.as_tensor(value) if isinstance(value, np.ndarray) else value  # keeps whole numbers whole


def split_state(state: Mapping[str, Any], owner: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The internal and the external half of a state.

    Raises:
        StateError: It has no such halves, or others.
    """
    if not isinstance(state, Mapping) or not state or not set(state) <= {"internal", "external"}:
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise StateError(f"the state of a {owner} is {{'internal': ..., 'external': ...}}, got {found}")
    internal, external = state.get("internal") or {}, state.get("external") or {}
    for name, link in external.items():
        if as_link(link) is None:
            raise StateError(f"external component {name!r} is a pair (object, 'attribute'), got {link!r:.80}")
    return internal, external


def raw_items(components: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name → value or link; the links of a ComponentMap stay links."""
    if components is None:
        return {}
    if not isinstance(components, Mapping):
        raise TypeError(
            f"components are a mapping of names to values or (object, 'attribute') pairs, "
            f"got {type(components).__name__}"
        )
    if isinstance(components, ComponentMap):
        return {**components._internal_components, **components.links()}
    return dict(components)


def _owner_name(owner: Any) -> str:
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__
