"""Junction: a place where several inputs meet, each under a name of its own.

A pipe has one input; a junction has components. Since there is no one way to pass a call on to several of them, each
junction says itself how it combines what its components give.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fireworks.core._chain import check_no_arguments, describe
from fireworks.core.component_map import ComponentMap, PyTorch_Component_Map, raw_items, split_state
from fireworks.core.state import State, read_state, save_state, snapshot
from fireworks.utils.exceptions import ParameterizationError, StateError, did_you_mean

__all__ = ["Junction", "PyTorch_Junction"]


class Junction:
    """Joins several inputs by name; subclass it and say what the junction does with them.

    Components are attributes of the junction, and setting a public attribute makes a component. Names that begin with
    an underscore, and names that the class defines, are ordinary attributes. A component `(obj, 'name')` is a link: it
    reads `obj.name` at each access and belongs to `obj`.

    A subclass lists what it cannot do without in `required_components`: names, or a dict of name → type.

    Args:
        components: Name → value or link.

    Raises:
        ParameterizationError: Required components are missing or of the wrong type; names all of them.
        TypeError: An argument that the junction does not know.

    Example:
        >>> class Adder(Junction):
        ...     required_components = ["left", "right"]
        ...     def total(self):
        ...         return self.left + self.right
        >>> Adder(components={"left": 1, "right": 2}).total()
        3
        >>> Adder(components={"left": 1, "rigth": 2})
        Traceback (most recent call last):
        fireworks.utils.exceptions.ParameterizationError: Adder lacks components: 'right' (did you mean 'rigth'?).
        Components: left, rigth
    """

    _component_map_type: ClassVar[type[ComponentMap]] = ComponentMap
    # Names of attributes, beside the components, that are part of the state.
    stateful_attributes: Sequence[str] = ()

    def __init__(self, *args: Any, components: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if len(args) == 1 and components is None and isinstance(args[0], Mapping):
            components, args = args[0], ()
        check_no_arguments(self, args, kwargs, ["components"])
        self.update_components(components)
        self.check_components()

    @property
    def components(self) -> ComponentMap:
        """The components by name; a dictionary that also knows which of them are borrowed."""
        components: ComponentMap | None = self.__dict__.get("_components")
        if components is None:  # attributes may be set before `__init__` runs
            components = self.__dict__["_components"] = self._component_map_type()
        return components

    @components.setter
    def components(self, components: Mapping[str, Any]) -> None:
        self.components.clear()
        self.update_components(components)

    @property
    def required_components(self) -> Sequence[str] | Mapping[str, Any]:
        """The names that must be there, or name → type; without a subclass's word, those that are there."""
        required: Sequence[str] | Mapping[str, Any] = self.__dict__.get("_required_components", [*self.components])
        return required

    @required_components.setter
    def required_components(self, required: Sequence[str] | Mapping[str, Any]) -> None:
        self.__dict__["_required_components"] = required

    def update_components(self, components: Mapping[str, Any] | None = None) -> None:
        """Add components, or replace them.

        Args:
            components: Name → value or link. The links of another junction's `components` stay links.

        Raises:
            ValueError: A name that the class uses for itself, which would hide the component.
        """
        items = raw_items(components)
        hidden = [name for name in items if class_defines(type(self), name)]
        if hidden:
            raise ValueError(
                f"{type(self).__name__} uses {', '.join(map(repr, hidden))} itself, which would hide the components "
                "of that name; give them other names"
            )
        self.components.update(items)

    def check_components(self, components: Mapping[str, Any] | None = None) -> None:
        """Check that all required components are there, and of the required types.

        Args:
            components: What to check; the junction's own components by default.

        Raises:
            ParameterizationError: Names all that is missing or of the wrong type.
        """
        given = self.components if components is None else components
        required = self.required_components
        missing = [name for name in required if name not in given]
        if not missing and not isinstance(required, Mapping):
            return
        strangers = [name for name in given if name not in required]
        problems = [f"{name!r}{_proposal(name, strangers)}" for name in missing]
        text = f"lacks components: {', '.join(problems)}" if missing else ""
        if isinstance(required, Mapping):
            wrong = [
                f"{name!r} is {_type_name(type(given[name]))}, expected {_type_name(expected)}"
                for name, expected in required.items()
                if name in given and expected is not None and not isinstance(given[name], expected)
            ]
            text += ("; " if text and wrong else "") + ", ".join(wrong)
        if text:
            known = ", ".join(given) or "(none)"
            raise ParameterizationError(f"{type(self).__name__} {text}. Components: {known}")

    def get_state(self) -> State:
        """What makes the junction what it is: plain components and `stateful_attributes`, and what is borrowed.

        Returns:
            `{'internal': {name: value}, 'external': {name: (owner, attribute)}}`. Components that are stages
            themselves (pipes, models) keep their own state and are not in it.
        """
        internal = {**self._component_state(), **self._attribute_state()}
        return {"internal": internal, "external": self.components.links()}

    def set_state(self, state: Mapping[str, Any], reset: bool = True) -> None:
        """Take back what `get_state` gave.

        Args:
            state: With the keys 'internal' and 'external', or one of them.
            reset: Whether plain components that the state does not name go away; otherwise they stay.

        Raises:
            StateError: The state does not fit; then nothing is changed.
        """
        internal, external = split_state(state, type(self).__name__)
        attributes = self._attribute_state()
        missing = [name for name in attributes if name not in internal]
        if missing and reset:
            raise StateError(f"the state of a {type(self).__name__} lacks {', '.join(map(repr, missing))}")
        unnamed = [name for name in self._component_state() if name not in internal]
        self.components.restore({name: value for name, value in internal.items() if name not in attributes})
        self.components.update(external)
        if reset:
            for name in unnamed:
                if name not in external:
                    del self.components[name]
        self._set_attribute_state({name: internal[name] for name in attributes if name in internal})

    def save(self, path: str | os.PathLike[str] | None = None, method: str = "json") -> Any:
        """Write the internal state to a file, wholly or not at all.

        Args:
            path: The file; None to get the state itself back.
            method: 'json', 'safetensors', or 'dict' (only without a path).

        Returns:
            None, or without a path the JSON text, the safetensors bytes or the dict.
        """
        return save_state(self.get_state()["internal"], path, method)

    def load_state(self, path: str | os.PathLike[str], method: str | None = None, reset: bool = True) -> None:
        """Read the internal state from a file that `save` wrote; the kind is told from the suffix unless given."""
        self.set_state({"internal": read_state(path, method)}, reset=reset)

    def _component_state(self) -> State:
        """The part of the state that components are."""
        return self.components.saved()

    def _attribute_state(self) -> State:
        """The values of `stateful_attributes`; a subclass whose state is no attribute adds to it."""
        return {name: snapshot(getattr(self, name)) for name in self.stateful_attributes}

    def _set_attribute_state(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, name, snapshot(value))

    def _is_component_name(self, name: str) -> bool:
        """Whether setting an attribute of this name makes a component."""
        return not (name.startswith("_") or name in self.__dict__ or class_defines(type(self), name))

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_component_name(name):
            self.components[name] = value
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        components = self.__dict__.get("_components", {})
        if class_defines(type(self), name):
            # A property of the class raised AttributeError inside; reading it again brings that error to light.
            return object.__getattribute__(self, name)
        if name in components and not name.startswith("_"):
            return components[name]
        raise AttributeError(missing_attribute(self, name, components), name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__ or name not in self.components:
            object.__delattr__(self, name)
        else:
            del self.components[name]

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.components})

    def __repr__(self) -> str:
        return describe(self)


class PyTorch_Junction(Junction):
    """A Junction whose lists, arrays and tensors become Parameters.

    Example:
        >>> PyTorch_Junction(components={"m": [1.0]}).m
        Parameter containing:
        tensor([1.], requires_grad=True)
    """

    _component_map_type = PyTorch_Component_Map


def class_defines(class_: type, name: str) -> bool:
    """Whether a class or one of its bases has the attribute."""
    return any(name in base.__dict__ for base in class_.__mro__)


def missing_attribute(owner: object, name: str, components: Mapping[str, Any]) -> str:
    """The text of an AttributeError for a name that is neither attribute nor component."""
    text = f"{type(owner).__name__} has no attribute or component {name!r}"
    if name.startswith("_"):
        return text
    return f"{text}{did_you_mean(name, components) or '.'} Components: {', '.join(components) or '(none)'}"


def _proposal(name: str, candidates: Sequence[str]) -> str:
    proposal = did_you_mean(name, candidates).removeprefix("; ")
    return f" ({proposal})" if proposal else ""


def _type_name(type_: Any) -> str:
    if isinstance(type_, tuple):
        return " or ".join(map(_type_name, type_))
    return f"a {type_.__name__}" if isinstance(type_, type) else str(type_)
