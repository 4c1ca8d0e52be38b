"""Model: a function with learnable components that is also a stage of a pipeline.

A Model resembles three things at once: a pipe for its data (`input=`), a junction for its parameters (`components=`),
and a `torch.nn.Module` for everything that PyTorch does with it.
"""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn import Buffer, Module, Parameter

from fireworks.core._chain import check_no_arguments, describe_chain
from fireworks.core._freezing import as_names, freeze_module, set_requires_grad, unfreeze_module, unknown_names
from fireworks.core._model_components import REGISTRIES, ModelComponents
from fireworks.core._model_graph import file_name_of, files_of
from fireworks.core.component_map import split_state
from fireworks.core.cursor import own_attribute
from fireworks.core.junction import Junction, class_defines
from fireworks.core.pipe import HookedPassThroughPipe, Pipe
from fireworks.core.state import State, is_stage, reachable, read_state, save_state, write_state
from fireworks.utils.exceptions import StateError

__all__ = ["Model", "PyTorch_Model", "freeze_module", "model_from_module", "unfreeze_module"]

_NOTHING = object()


class Model(Module, HookedPassThroughPipe, Junction, ABC):
    """Computes messages from messages with components that can be learned, given, shared and saved.

    Subclass it and define `forward(message)`. Lists, arrays and tensors given as components become Parameters, modules
    become submodules; a component `(other_model, 'name')` is a link: used and trained here, but saved and listed in
    `parameters()` there. Attributes set on the model are components too, except names that begin with an underscore or
    that the class defines. An attribute is looked up among torch's parameters, buffers and modules first, then among
    the other components, then upstream.

    Calling the model calls its input first; `next(model)` and `model[rows]` read from it. The message then goes through
    `update` (while updates are on) and `forward` (while inference is on).

    Args:
        components: Name → value or link. They replace what `init_default_components` made. A dict for a component that
            is a module is its state dict.
        input: Pipe, Message or other source to read from; never a submodule, even when it is a module.
        skip_module_init: For programs that ran `torch.nn.Module.__init__` themselves; it is never run twice anyway.

    Raises:
        ParameterizationError: At first use, when required components are missing; names all of them.
        TypeError: An argument that the model does not know.

    Example:
        >>> class Line(Model):
        ...     required_components = ["m", "b"]
        ...     def init_default_components(self):
        ...         self.components["b"] = [0.0]
        ...     def forward(self, message):
        ...         return message.merge({"y": self.m * message["x"] + self.b})
        >>> from fireworks.core.message import Message
        >>> line = Line({"m": [2.0]}, input=Message({"x": torch.tensor([1.0, 2.0])}))
        >>> line[:]["y"].tolist(), sorted(line.state_dict())
        ([2.0, 4.0], ['b', 'm'])
    """

    training: bool = True  # as a name of the class it is an ordinary attribute, not a component

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Here and not in `__init__`, so that Parameters and components can be set before `Model.__init__` runs.
        model = super().__new__(cls)
        model.__dict__.update(_plain_components={}, _external_modules={}, _external_attribute_names={})
        model.__dict__.update(_inference_enabled=True, _updates_enabled=True)
        Module.__init__(model)
        return model

    def __init__(
        self,
        components: Mapping[str, Any] | None = None,
        *args: Any,
        input: Any = None,
        skip_module_init: bool = False,
        **kwargs: Any,
    ) -> None:
        check_no_arguments(self, args, kwargs, ["components", "input"])
        self.input = input
        self.init_default_components()
        self.update_components(components)

    # --- components ---------------------------------------------------------------------------------------------------

    @property
    def components(self) -> ModelComponents:
        """All components by name, wherever they are kept; setting one here is the same as setting the attribute."""
        return ModelComponents(self)

    @components.setter
    def components(self, components: Mapping[str, Any]) -> None:
        self.components.clear()
        self.update_components(components)

    def init_default_components(self) -> None:
        """Hook: set components that the model can make itself. It runs first, given components replace them."""

    def __getattr__(self, name: str) -> Any:
        value = self._component(name)
        return Pipe.__getattr__(self, name) if value is _NOTHING else value

    def _component(self, name: str) -> Any:
        """The component of this name, or `_NOTHING`. Reads `__dict__` only, so it works on half-built models too."""
        state = self.__dict__
        for kind in (*REGISTRIES, "_plain_components"):
            if name in state.get(kind, ()):
                return state[kind][name]
        return self.components[name] if name in state.get("_external_modules", ()) else _NOTHING

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_component_name(name):
            self.components[name] = value
        elif name == "input":
            object.__setattr__(self, name, value)
        else:
            Module.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.components:
            del self.components[name]
        else:
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.components})

    def _register_component(self, kind: str, name: str, value: Any) -> None:
        """Put a component into one of torch's registries, and out of the others."""
        self._leave_other_registries(kind, name)
        if kind == "_parameters":
            self.register_parameter(name, value)
        elif kind == "_modules":
            self.add_module(name, value)
        else:
            stays = value.persistent if isinstance(value, Buffer) else name not in self._non_persistent_buffers_set
            self.register_buffer(name, value, persistent=stays)

    def _leave_other_registries(self, kind: str, name: str) -> None:
        for other in REGISTRIES:
            if other != kind:
                self.__dict__[other].pop(name, None)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        for name in ("_plain_components", "_external_modules", "_external_attribute_names"):
            replica.__dict__[name] = dict(self.__dict__[name])  # torch copied the model's dictionary, not those in it
        return replica

    # torch refuses to register a name that is an attribute already; one that is merely found upstream is none.

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, as `torch.nn.Module.register_parameter` does."""
        with self._without_input():
            super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: torch.Tensor | None, persistent: bool = True) -> None:
        """Add a buffer, as `torch.nn.Module.register_buffer` does."""
        with self._without_input():
            super().register_buffer(name, tensor, persistent)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule, as `torch.nn.Module.add_module` does."""
        with self._without_input():
            super().add_module(name, module)

    @contextmanager
    def _without_input(self) -> Iterator[None]:
        held = {name: self.__dict__.pop(name) for name in ("input",) if name in self.__dict__}
        try:
            yield
        finally:
            self.__dict__.update(held)

    # --- messages -----------------------------------------------------------------------------------------------------

    def forward(self, message: Any) -> Any:
        """What the model computes from a message; a subclass must define it, and returns a Message."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(self, message); define it in the class, "
            "or call disable_inference() to pass messages on unchanged"
        )

    def update(self, *args: Any, method: str | None = None, **kwargs: Any) -> None:
        """Hook: learn from a message as it flows through, before `forward`.

        Args:
            *args: The message (of a call, whatever the model was called with).
            method: How the message came: 'call', 'next' or 'get'.
            **kwargs: Keyword arguments of a call.
        """

    __call__ = HookedPassThroughPipe.__call__

    def _call_hook(self, *args: Any, **kwargs: Any) -> Any:
        return self._process("call", *args, **kwargs)

    def _next_hook(self, message: Any) -> Any:
        return self._process("next", message)

    def _getitem_hook(self, message: Any) -> Any:
        return self._process("get", message)

    def _process(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.check_components()
        if self._updates_enabled:
            self.update(*args, method=method, **kwargs)
        if self._inference_enabled:
            return Module.__call__(self, *args, **kwargs)
        return args[0] if args else None

    def enable_inference(self) -> None:
        """Let messages go through `forward`."""
        self.__dict__["_inference_enabled"] = True

    def disable_inference(self) -> None:
        """Pass messages on without `forward`; `update` still sees them."""
        self.__dict__["_inference_enabled"] = False

    @property
    def inference_enabled(self) -> bool:
        """Whether messages go through `forward`."""
        return bool(self.__dict__["_inference_enabled"])

    @property
    def updates_enabled(self) -> bool:
        """Whether `update` sees messages."""
        return bool(self.__dict__["_updates_enabled"])

    enable_evaluation = enable_inference
    disable_evaluation = disable_inference

    def enable_updates(self) -> None:
        """Let `update` see messages."""
        self.__dict__["_updates_enabled"] = True

    def disable_updates(self) -> None:
        """Keep the model as it is: `update` no longer sees messages."""
        self.__dict__["_updates_enabled"] = False

    def enable_inference_all(self) -> None:
        """`enable_inference` for this model, the models among its components and those up the chain."""
        self._for_all_models(Model.enable_inference)

    def disable_inference_all(self) -> None:
        """`disable_inference` for this model, the models among its components and those up the chain."""
        self._for_all_models(Model.disable_inference)

    def enable_updates_all(self) -> None:
        """`enable_updates` for this model, the models among its components and those up the chain."""
        self._for_all_models(Model.enable_updates)

    def disable_updates_all(self) -> None:
        """`disable_updates` for this model, the models among its components and those up the chain."""
        self._for_all_models(Model.disable_updates)

    def _for_all_models(self, switch: Callable[[Model], None]) -> None:
        for item in reachable(self, owners=False):
            if isinstance(item, Model):
                switch(item)

    # --- training -----------------------------------------------------------------------------------------------------

    def all_parameters(self) -> Iterator[Parameter]:
        """Every parameter that the model's results depend on, each once.

        Its own and those of submodules, of the owners of linked components, and of everything up the chain: what an
        optimizer takes to train all of them together.

        Example:
            >>> source = Model({"m": [1.0]})
            >>> follower = Model({"b": [0.0], "m": (source, "m")}, input=source)
            >>> len(list(follower.parameters())), len(list(follower.all_parameters()))
            (1, 2)
        """
        seen: set[int] = set()
        for item in reachable(self, owners=True):
            found = item.parameters(recurse=False) if isinstance(item, Module) else [item]
            for parameter in found:
                if isinstance(parameter, Parameter) and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    def freeze(self, components: str | Iterable[str] | None = None) -> None:
        """Exclude components from training.

        Args:
            components: One name or several, of linked components too; all by default. Of a module, all that is inside.

        Raises:
            ParameterizationError: A name that the model does not have; proposes the nearest.

        Example:
            >>> model = Model({"m": [1.0], "b": [0.0]})
            >>> model.freeze("m")
            >>> model.m.requires_grad, model.b.requires_grad
            (False, True)
        """
        self._set_requires_grad(components, False)

    def unfreeze(self, components: str | Iterable[str] | None = None) -> None:
        """Let components take part in training again; the argument is that of `freeze`."""
        self._set_requires_grad(components, True)

    def _set_requires_grad(self, components: str | Iterable[str] | None, requires_grad: bool) -> None:
        known = self.components
        names = list(known) if components is None else as_names(components)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise unknown_names(self, unknown, known, "component")
        for name in names:
            set_requires_grad(known[name], requires_grad)

    def cuda(self, device: Any = None) -> Any:
        """Move the model and the models up the chain to a GPU."""
        self._for_upstream_module(lambda module: module.cuda(device))
        return super().cuda(device)

    def cpu(self) -> Any:
        """Move the model and the models up the chain to the CPU."""
        self._for_upstream_module(lambda module: module.cpu())
        return super().cpu()

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or convert the model and the models up the chain, as `torch.nn.Module.to` does."""
        self._for_upstream_module(lambda module: module.to(*args, **kwargs))
        return super().to(*args, **kwargs)

    def _for_upstream_module(self, action: Callable[[Module], Any]) -> None:
        """Act on the nearest module up the chain; a model passes it on to its own input."""
        upstream = self.input
        while upstream is not None and not isinstance(upstream, Module):
            upstream = own_attribute(upstream, "input") if is_stage(upstream) else None
        if upstream is not None:
            action(upstream)

    # --- state --------------------------------------------------------------------------------------------------------

    def get_state(self) -> State:
        """Everything that was given, learned or counted, and what is borrowed from whom.

        Returns:
            `{'internal': {name: value}, 'external': {name: (owner, attribute)}}`. Parameters, buffers and tensors are
            numpy arrays (tensors where numpy lacks the type), submodules their state dicts, models their components.
            Functions, open files, pipes and the like are no state and not in it. The position in the input is, when
            the model reads from something that keeps none itself.

        Example:
            >>> Model({"m": [2.0], "column": "x"}).get_state()
            {'internal': {'m': array([2.], dtype=float32), 'column': 'x'}, 'external': {}}
        """
        components = self.components
        internal = {**components.saved(), **HookedPassThroughPipe.get_state(self)["internal"]}
        return {"internal": internal, "external": components.links()}

    def set_state(self, state: Mapping[str, Any], reset: bool = True) -> None:
        """Take back what `get_state` gave.

        Parameters of the same shape take the values in place, so that optimizers keep their references; others are
        replaced. Dicts load into submodules.

        Args:
            state: With the keys 'internal' and 'external', or one of them.
            reset: Whether components that the state does not name go back to their defaults, or away when they have
                none; otherwise they stay as they are. Links, modules and what is no state stay in any case.

        Raises:
            StateError: The state does not fit; names all that is missing, extra or of another shape.
        """
        internal, external = split_state(state, type(self).__name__)
        stream = HookedPassThroughPipe.get_state(self)["internal"]
        missing = [repr(name) for name in stream if name not in internal and name != "input_position"]
        if missing and reset:
            raise StateError(f"the state of a {type(self).__name__} lacks {', '.join(missing)}")
        own = {name: value for name, value in internal.items() if name in stream or name == "input_position"}
        components = self.components
        unnamed = [
            name
            for name in components.saved()
            if name not in internal and name not in external and not isinstance(components[name], Module)
        ]
        components.restore({name: value for name, value in internal.items() if name not in own})
        components.update(external)
        if reset and unnamed:
            self._restore_defaults(unnamed)
        HookedPassThroughPipe.set_state(self, {"internal": own if reset else stream | own, "external": {}})

    def _stateful_names(self) -> list[str]:
        # A component is state in any case, so naming it again changes nothing.
        return [name for name in super()._stateful_names() if name not in self.components]

    def _restore_defaults(self, names: Iterable[str]) -> None:
        """Remove components, or set them to what `init_default_components` makes; all others stay as they are."""
        components = self.components
        for name in names:
            del components[name]
        kept = {**components.internal(), **components.links()}
        self.init_default_components()
        present = {**components.internal(), **components.links()}
        components.update({name: value for name, value in kept.items() if present.get(name, _NOTHING) is not value})

    def save(self, path: str | os.PathLike[str] | None = None, method: str = "json") -> Any:
        """Write the model to a file, and the owners of its links and its inputs beside it.

        Args:
            path: Folder and last part of the names: 'dir/test.json' makes `dir/torch_NAME-test.json` for the model,
                `dir/torch_OWNER-COMPONENT_NAME-test.json` for the owner of a linked component, and
                `dir/torch_INPUT---NAME-test.json` for its input, and so on up the chain. NAME is the model's
                `__name__`, by default the name of its class. None to get the model's own state back.
            method: 'json', 'safetensors', or 'dict' (only without a path): a dict by component.

        Returns:
            None, or without a path the JSON text, the safetensors bytes or the dict.

        Raises:
            StateError: The state holds what cannot be written down.
            ValueError: A name that cannot be part of a file name.
        """
        if path is None:
            return save_state(self.get_state()["internal"], None, method)
        path = Path(path)
        for file_name, state in list(files_of(self, path.name, set())):
            write_state(state, path.parent / file_name, method)
        return None

    def load_state(self, path: str | os.PathLike[str], method: str | None = None, reset: bool = True) -> None:
        """Read the model's own file.

        Args:
            path: The file, or what `save` was given as path.
            method: 'json' or 'safetensors'; by default what the suffix says.
            reset: As in `set_state`.

        Raises:
            FileNotFoundError: There is no such file.
            FormatError: The file is no saved state.
            StateError: The state does not fit the model.
        """
        path = Path(path)
        own = path.with_name(file_name_of(self, path.name))
        found = next((file for file in (path, own) if file.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"there is no saved model at {path}, nor {own.name} beside it")
        self.set_state({"internal": read_state(found, method)}, reset=reset)

    def __repr__(self) -> str:
        lines = [describe_chain(self)]
        for name, module in self._modules.items():
            lines += f"({name}): {module!r}".splitlines()
        return "\n  ".join(lines)


PyTorch_Model = Model


def model_from_module(module_class: type[Module]) -> type[Model]:
    """A Model class that encapsulates a torch module class.

    Its constructor takes the module's arguments, besides `components=` (or a leading dict) and `input=`. Parameters and
    submodules of the module are its components, `forward` is the module's, and calling it calls its input first. Other
    attributes of the module are attributes of the model.

    Args:
        module_class: A subclass of `torch.nn.Module`. The same class always gives the same Model class.

    Raises:
        TypeError: It is something else.

    Example:
        >>> LinearModel = model_from_module(torch.nn.Linear)
        >>> model = LinearModel(2, 1, components={"bias": [0.5]})
        >>> sorted(model.components), model.in_features, model(torch.zeros(1, 2)).item()
        (['bias', 'weight'], 2, 0.5)
    """
    if not (isinstance(module_class, type) and issubclass(module_class, Module)):
        raise TypeError(f"expected a subclass of torch.nn.Module, got {module_class!r:.80}")
    if issubclass(module_class, Model):
        return module_class
    return _module_model_class(module_class)


_MODEL_CLASSES: dict[type[Module], type[Model]] = {}


def _module_model_class(module_class: type[Module]) -> type[Model]:
    if module_class not in _MODEL_CLASSES:
        attributes = {
            "__doc__": f"A Model around `{module_class.__module__}.{module_class.__qualname__}`.",
            "__module__": module_class.__module__,
            "module_class": module_class,
        }
        _MODEL_CLASSES[module_class] = type(f"{module_class.__name__}Model", (_ModuleModel,), attributes)
    return _MODEL_CLASSES[module_class]


class _ModuleModel(Model):
    """A model whose registries are those of a module that it holds, so that both always have the same contents.

    It holds the module and does not inherit from it: `for layer in self` in the forward of a Sequential and `for batch
    in model` of a pipeline are different things.
    """

    module_class: ClassVar[type[Module]]

    def __init__(
        self,
        *args: Any,
        components: Mapping[str, Any] | None = None,
        input: Any = None,
        skip_module_init: bool = False,
        **kwargs: Any,
    ) -> None:
        if args and components is None and isinstance(args[0], Mapping):
            components, args = args[0], args[1:]
        self._adopt(self.module_class(*args, **kwargs))
        super().__init__(components, input=input, skip_module_init=skip_module_init)

    def _adopt(self, module: Module) -> None:
        for kind in REGISTRIES:
            registry = module.__dict__[kind]
            registry.update(self.__dict__[kind])  # what was set before `__init__`
            self.__dict__[kind] = registry
        self.__dict__["_non_persistent_buffers_set"] = module._non_persistent_buffers_set
        self.__dict__["_module"] = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        # Links and plain values are in no registry; the module sees them for the time of the call.
        held = self._module.__dict__
        lent = {name: value for name, value in self.components.items() if self._is_lent(name)}
        held.update(lent)
        try:
            return self._module(*args, **kwargs)
        finally:
            for name in lent:
                del held[name]

    def _is_lent(self, name: str) -> bool:
        return name not in self._module.__dict__ and not any(name in self.__dict__[kind] for kind in REGISTRIES)

    def _component(self, name: str) -> Any:
        value = super()._component(name)
        module = self.__dict__.get("_module")
        if value is _NOTHING and not name.startswith("_") and not class_defines(type(self), name):
            return getattr(module, name, _NOTHING)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        module = self.__dict__.get("_module")
        if module is not None and name in module.__dict__ and self._is_component_name(name):
            setattr(module, name, value)
        else:
            super().__setattr__(name, value)

    def _register_component(self, kind: str, name: str, value: Any) -> None:
        if "_module" not in self.__dict__:
            super()._register_component(kind, name, value)
            return
        self._leave_other_registries(kind, name)
        setattr(self._module, name, value)  # the module may watch its attributes, as recurrent ones do

    def train(self, mode: bool = True) -> Any:
        """Set training mode, of the module too."""
        self._module.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        self._module._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self._module._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._module._load_from_state_dict(*args)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if type(self) is _module_model_class(self.module_class):  # a class made here cannot be imported by its name
            return _unfilled, (self.module_class,), self.__dict__
        return super().__reduce_ex__(protocol)


def _unfilled(module_class: type[Module]) -> Model:
    model_class = model_from_module(module_class)
    model: Model = model_class.__new__(model_class)
    return model
