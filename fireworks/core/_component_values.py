"""Values of components: which are learnable, which are state, how they are copied out and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import Buffer, Module, Parameter
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from fireworks.core.state import generator_state, is_stage, set_generator_state, snapshot
from fireworks.utils.exceptions import StateError, did_you_mean

__all__ = [
    "GENERATORS",
    "array_snapshot",
    "as_parameter",
    "check_restorable",
    "is_plain",
    "restored",
    "saved_value",
    "short",
]

GENERATORS = (torch.Generator, np.random.Generator)
_SCALARS = (type(None), bool, int, float, str)


def is_plain(value: Any) -> bool:
    """Whether a value can be part of a state: None, bool, number, text, array, tensor, or lists and dicts of these.

    Example:
        >>> is_plain({"size": [1, 2.5], "name": None}), is_plain(print), is_plain([print])
        (True, False, False)
    """
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, _SCALARS) and is_plain(item) for key, item in value.items())
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufcmMU"
    if isinstance(value, np.generic):
        return value.dtype.kind in "biuf"
    return isinstance(value, (*_SCALARS, torch.Tensor))


def array_snapshot(value: Any) -> Any:
    """A copy of a plain value; of a tensor as an array, where numpy has its type (it lacks bfloat16).

    Example:
        >>> array_snapshot(torch.ones(2))
        array([1., 1.], dtype=float32)
    """
    if isinstance(value, torch.Tensor):
        values = value.detach().cpu().clone().resolve_conj().resolve_neg()
        try:
            return values.numpy()
        except TypeError:
            return values
    return snapshot(value)


def restored(saved: Any, current: Any) -> Any:
    """The value to keep for one out of a state, given the one that is there now.

    A module loads its dict; a Parameter of the same shape takes the values in place, so that an optimizer keeps its
    references, and gives way to another of its kind otherwise.
    """
    if isinstance(current, GENERATORS):
        set_generator_state(current, saved)
        return current
    if isinstance(current, Module) and isinstance(saved, Mapping):
        _load_module(current, saved)
        return current
    if isinstance(current, torch.Tensor):
        tensor = _as_tensor(saved)
        if isinstance(tensor, torch.Tensor):
            return _restored_tensor(tensor, current)
    return snapshot(saved) if is_plain(saved) else saved


def check_restorable(name: str, saved: Any, current: Any) -> list[str]:
    """What keeps `restored` from putting a value back, in words; nothing when it fits."""
    if not isinstance(current, Module):
        return []
    if not isinstance(saved, Mapping):
        return [f"{name} is a {type(current).__name__} and takes a dict, got {type(saved).__name__}"]
    if is_stage(current):
        return []
    expected = {key: value for key, value in current.state_dict().items() if isinstance(value, torch.Tensor)}
    problems = [f"{name}.{key} is missing" for key in expected if key not in saved]
    unknown = [key for key in saved if key not in current.state_dict()]
    problems += [f"{name}.{key} is not in the {type(current).__name__}{did_you_mean(key, expected)}" for key in unknown]
    for key in expected.keys() & saved.keys():
        shape = tuple(np.shape(saved[key]))
        if not _is_lazy(expected[key]) and shape != tuple(expected[key].shape):
            problems.append(f"{name}.{key} has shape {shape}, expected {tuple(expected[key].shape)}")
    return sorted(problems)


def saved_value(value: Any, copied: Callable[[Any], Any]) -> Any:
    """What a state holds for a component: a copy, or of a module its state dict; of a Model, all its components."""
    if isinstance(value, GENERATORS):
        return generator_state(value)
    if not isinstance(value, Module):
        return copied(value)
    module: Any = value
    if is_stage(module):
        return dict(module.get_state()["internal"])
    return {key: array_snapshot(item) for key, item in module.state_dict().items() if not _is_lazy(item)}


def _load_module(module: Any, saved: Mapping[str, Any]) -> None:
    if is_stage(module):
        module.set_state(saved if saved.keys() == {"internal", "external"} else {"internal": saved})
        return
    problems = check_restorable(type(module).__name__, saved, module)
    if problems:
        raise StateError("; ".join(problems))
    module.load_state_dict({key: _as_tensor(value) for key, value in saved.items()})


def _as_tensor(value: Any) -> Any:
    """A tensor made of an array or a list of numbers; any other value as it is."""
    array = _numeric_array(value) if isinstance(value, list) else value
    return torch.as_tensor(array) if isinstance(array, (np.ndarray, torch.Tensor)) else value


def _is_lazy(value: Any) -> bool:
    return isinstance(value, (UninitializedParameter, UninitializedBuffer))


def _restored_tensor(saved: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
    if isinstance(current, Parameter) and saved.shape == current.shape:
        with torch.no_grad():
            current.copy_(saved)
        return current
    values = saved.detach().to(current.device, copy=True)
    if not isinstance(current, Parameter):
        return values
    if _is_learnable(current) and _is_learnable(values) and not values.is_complex():
        values = values.to(current.dtype)
    return Parameter(values, requires_grad=current.requires_grad and _is_learnable(values))


def _is_learnable(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def as_parameter(value: Any) -> Any:
    """A Parameter made of a tensor, or of a list or an array of numbers; any other value as it is.

    Tensors that were computed from others (with a `grad_fn`) are results, not parameters, and stay as they are.
    """
    if isinstance(value, torch.Tensor):
        if isinstance(value, (Parameter, Buffer)) or value.grad_fn is not None:
            return value
        return Parameter(value.detach().clone(), requires_grad=_is_learnable(value))
    array: Any = value
    if isinstance(value, pd.Series) and isinstance(value.dtype, np.dtype):
        array = value.to_numpy()
    elif isinstance(value, list):
        array = _numeric_array(value)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        return value
    if array.dtype.kind in "iuf":  # learnable means floating-point, so whole numbers too
        return Parameter(torch.from_numpy(array.astype(np.float64)).to(torch.get_default_dtype()))
    return Parameter(torch.tensor(array), requires_grad=array.dtype.kind == "c")


def _numeric_array(values: list[Any]) -> np.ndarray | None:
    """A nested list of numbers as an array; None when it is empty, ragged or holds anything else."""
    leaves = values
    while leaves and all(isinstance(leaf, list) for leaf in leaves):
        if len({len(leaf) for leaf in leaves}) > 1:
            return None
        leaves = [item for leaf in leaves for item in leaf]
    if leaves and all(isinstance(leaf, (bool, int, float, complex, np.number, np.bool_)) for leaf in leaves):
        array = np.array(values)
        return array if array.dtype.kind in "biufc" else array.astype(np.float64)
    return None


def short(value: Any) -> str:
    """A value in a few words, for a repr."""
    if isinstance(value, torch.Tensor) and value.numel() > 8:
        return f"{type(value).__name__}{tuple(value.shape)}"
    if isinstance(value, torch.Tensor):
        return f"{type(value).__name__}({value.detach().cpu().tolist()})"
    if isinstance(value, Module):
        return f"{type(value).__name__}(...)"
    text = repr(value)
    return text if len(text) <= 80 else f"{type(value).__name__}(...)"
