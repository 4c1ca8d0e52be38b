"""Freezing: which parameters of a module take part in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import Module

from fireworks.utils.exceptions import ParameterizationError, did_you_mean

__all__ = ["as_names", "freeze_module", "set_requires_grad", "unfreeze_module", "unknown_names"]


def freeze_module(
    module: Module, parameters: str | Iterable[str] | None = None, submodules: str | Iterable[str] | None = None
) -> None:
    """Exclude parameters of a module from training, those inside of its submodules too.

    Args:
        module: Any torch module.
        parameters: Names of parameters; dotted ones reach into submodules.
        submodules: Names of submodules to freeze with all that is inside. Without any names all of `module` is frozen.

    Raises:
        ParameterizationError: A name that the module does not have; proposes the nearest.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> freeze_module(network, submodules=["0"])
        >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """
    _set_module(module, parameters, submodules, requires_grad=False)


def unfreeze_module(
    module: Module, parameters: str | Iterable[str] | None = None, submodules: str | Iterable[str] | None = None
) -> None:
    """Let parameters of a module take part in training again; the arguments are those of `freeze_module`.

    Parameters of whole numbers or booleans cannot have a gradient and stay as they are.

    Raises:
        ParameterizationError: A name that the module does not have; proposes the nearest.

    Example:
        >>> network = torch.nn.Linear(2, 1)
        >>> freeze_module(network)
        >>> unfreeze_module(network, parameters="bias")
        >>> network.weight.requires_grad, network.bias.requires_grad
        (False, True)
    """
    _set_module(module, parameters, submodules, requires_grad=True)


def _set_module(
    module: Module,
    parameters: str | Iterable[str] | None,
    submodules: str | Iterable[str] | None,
    requires_grad: bool,
) -> None:
    chosen: list[Any] = [module] if parameters is None and submodules is None else []
    for names, known, kind in (
        (parameters, dict(module.named_parameters(remove_duplicate=False)), "parameter"),
        (submodules, dict(module.named_modules(remove_duplicate=False)), "submodule"),
    ):
        wanted = as_names(names)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise unknown_names(module, unknown, known, kind)
        chosen += [known[name] for name in wanted]
    for item in chosen:
        set_requires_grad(item, requires_grad)


def as_names(names: str | Iterable[str] | None) -> list[str]:
    """One name, several or none, as a list."""
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def unknown_names(owner: object, names: Iterable[str], known: Mapping[str, Any], kind: str) -> ParameterizationError:
    """The error for names that an object does not have."""
    known = {name: value for name, value in known.items() if name}
    missing = ", ".join(f"{kind} {name!r}{did_you_mean(name, known).rstrip('?')}" for name in names)
    return ParameterizationError(f"{type(owner).__name__} has no {missing}. It has: {', '.join(known) or '(none)'}")


def set_requires_grad(value: Any, requires_grad: bool) -> None:
    """Freeze or unfreeze a parameter, or all inside of a module; what cannot have a gradient stays as it is."""
    tensors = value.parameters() if isinstance(value, Module) else [value]
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.is_leaf and (tensor.is_floating_point() or tensor.is_complex()):
            tensor.requires_grad_(requires_grad)
