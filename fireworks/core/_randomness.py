"""Where random generators stand: those that belong to nobody (Python's, numpy's, torch's), and those of one object."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["generators_kept", "generators_of", "global_generators", "set_generators", "set_global_generators"]


def global_generators() -> dict[str, Any]:
    """Where each of those that belong to nobody stands, as plain values and tensors."""
    return {
        "python": _python_state(random),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global generator is meant
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_global_generators(states: Mapping[str, Any]) -> None:
    """Send each of them to where `global_generators` found it; GPUs that are not here are left out."""
    _set_python_state(random, states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number, state in enumerate(states["cuda"][:available]):
        torch.cuda.set_rng_state(state, number)


def generators_of(source: Any) -> dict[str, Any]:
    """Where each generator stands that an object holds in an attribute, or its samplers and data sets do, by path."""
    return {path: _state_of(generator) for path, generator in _held_by(source).items()}


def set_generators(source: Any, states: Mapping[str, Any]) -> None:
    """Send each of them to where `generators_of` found it."""
    for path, generator in _held_by(source).items():
        if path in states:
            _set_state_of(generator, states[path])


@contextmanager
def generators_kept(source: Any = None) -> Iterator[None]:
    """Whatever is drawn meanwhile, afterwards the global generators and those of the source stand where they stood."""
    kept, own = global_generators(), generators_of(source)
    try:
        yield
    finally:
        set_global_generators(kept)
        set_generators(source, own)


_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_PARTS = ("dataset", "sampler", "batch_sampler")


def _held_by(source: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: set[int] = set()
    queue = [("", source)]
    while queue:
        path, item = queue.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        for name, value in getattr(item, "__dict__", {}).items():
            if isinstance(value, _KINDS):
                found[path + name] = value
            elif isinstance(value, (DataLoader, Dataset, Sampler)) or (name in _PARTS and isinstance(item, DataLoader)):
                queue.append((f"{path}{name}.", value))
    return found


def _state_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return _python_state(generator)
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.bit_generator.state


def _set_state_of(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        _set_python_state(generator, state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _python_state(generator: Any) -> tuple[Any, ...]:
    version, words, gauss = generator.getstate()
    return version, np.array(words, dtype=np.uint32), gauss


def _set_python_state(generator: Any, state: tuple[Any, ...]) -> None:
    version, words, gauss = state
    generator.setstate((version, tuple(words.tolist()), gauss))
