"""The files that a model is saved in: its own, and those of what it is connected to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.nn import Module

from fireworks.core._component_values import array_snapshot, saved_value
from fireworks.core.component_map import ComponentMap
from fireworks.core.cursor import own_attribute
from fireworks.core.state import State, computes, is_stage

__all__ = ["file_name_of", "files_of"]


def files_of(stage: Any, file_name: str, seen: set[int]) -> Iterator[tuple[str, State]]:
    """File name and state of a model, of the owners of its links, and of what it reads from; each once."""
    if id(stage) in seen or not computes(stage):
        return
    seen.add(id(stage))
    state = stage.get_state()["internal"] if is_stage(stage) else saved_value(stage, array_snapshot)
    if state or isinstance(stage, Module):
        yield file_name_of(stage, file_name), state
    name = _name(stage)
    components = own_attribute(stage, "components")
    links = components.links() if isinstance(components, ComponentMap) else {}
    for key, (owner, _) in links.items():
        yield from files_of(owner, f"{key}_{name}-{file_name}", seen)
    yield from files_of(own_attribute(stage, "input"), f"--{name}-{file_name}", seen)


def file_name_of(stage: Any, file_name: str) -> str:
    name = f"torch_{_name(stage)}-{file_name}"
    if Path(name).name != name or "\0" in name or "\\" in name:
        raise ValueError(
            f"{name!r} cannot be the name of a file; give the model another __name__ or the link another name"
        )
    return name


def _name(stage: Any) -> str:
    name = getattr(stage, "__name__", None)
    return name if isinstance(name, str) else type(stage).__name__
