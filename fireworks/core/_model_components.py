"""The components of a Model: torch's own registries and one dictionary for plain values, seen as one ComponentMap."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch.nn import Buffer, Module, Parameter

from fireworks.core._component_values import GENERATORS, as_parameter, is_plain
from fireworks.core.component_map import PyTorch_Component_Map

__all__ = ["ModelComponents"]

REGISTRIES = ("_parameters", "_buffers", "_modules")


class ModelComponents(PyTorch_Component_Map):
    """A view of a model's components, without a store of its own.

    Parameters, buffers and submodules stand in the registries of `torch.nn.Module` and nowhere else, so whatever torch
    changes there is seen here, and what is set here is known to torch.
    """

    def __init__(self, model: Any) -> None:
        state = model.__dict__
        self._buffers = state["_buffers"]
        self._transient = state["_non_persistent_buffers_set"]
        self._internal_components = _Registries(model)
        self._external_modules = state["_external_modules"]
        self._external_attribute_names = state["_external_attribute_names"]

    def _convert(self, name: str, value: Any) -> Any:
        if name not in self._buffers or isinstance(value, Module):
            return super()._convert(name, value)
        tensor = value if isinstance(value, torch.Tensor) else as_parameter(value)
        if tensor is value or not isinstance(tensor, Parameter):
            return tensor
        return tensor.detach().to(getattr(self._buffers[name], "dtype", None))

    def _is_state(self, name: str, value: Any) -> bool:
        return name not in self._transient and (is_plain(value) or isinstance(value, (Module, *GENERATORS)))


class _Registries(MutableMapping[str, Any]):
    """What a model owns: parameters, buffers, submodules, then plain values."""

    def __init__(self, model: Any) -> None:
        state = model.__dict__
        self._model = model
        self._plain: dict[str, Any] = state["_plain_components"]
        self._stores: list[dict[str, Any]] = [*(state[name] for name in REGISTRIES), self._plain]

    def __getitem__(self, name: str) -> Any:
        for store in self._stores:
            if name in store:
                return store[name]
        raise KeyError(name)

    def __setitem__(self, name: str, value: Any) -> None:
        kind = self._kind(name, value)
        if kind is None:
            self._discard(name)
            self._plain[name] = value
        else:
            self._plain.pop(name, None)
            self._model._register_component(kind, name, value)

    def __delitem__(self, name: str) -> None:
        if not self._discard(name):
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from [name for store in self._stores for name in store]

    def __len__(self) -> int:
        return sum(map(len, self._stores))

    def __contains__(self, name: object) -> bool:
        return any(name in store for store in self._stores)

    def _kind(self, name: str, value: Any) -> str | None:
        """The registry that a value belongs to, or None for a plain one; None as a value stays where it is."""
        if isinstance(value, Parameter):
            return "_parameters"
        if isinstance(value, Module):
            return "_modules"
        held = next((kind for kind in REGISTRIES if name in self._model.__dict__[kind]), None)
        if isinstance(value, Buffer) or (isinstance(value, torch.Tensor) and held == "_buffers"):
            return "_buffers"
        return held if value is None else None

    def _discard(self, name: str) -> bool:
        self._model.__dict__["_non_persistent_buffers_set"].discard(name)
        removed = [store.pop(name) for store in self._stores if name in store]
        return bool(removed)
