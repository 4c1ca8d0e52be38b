"""What a model is connected to: the stages and modules it computes with, and the files that they are saved in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.nn import Module

from fireworks.core._component_values import array_snapshot, saved_value
from fireworks.core.component_map import ComponentMap
from fireworks.core.cursor import own_attribute
from fireworks.core.state import State, is_stage

__all__ = ["file_name_of", "files_of", "reachable"]


def reachable(root: Any, owners: bool) -> Iterator[Any]:
    """Every stage and module that a model computes with, and with `owners` those that its links belong to, each once.

    The values of links are among them, tensors too.
    """
    seen: dict[int, Any] = {}  # holds the items, so that no id is used twice
    queue: list[Any] = [root]
    while queue:
        item = queue.pop(0)
        if id(item) in seen or item is None:
            continue
        seen[id(item)] = item
        yield item
        queue += item.children() if isinstance(item, Module) else []
        if not is_stage(item):
            continue
        queue.append(own_attribute(item, "input"))
        components = own_attribute(item, "components")
        if isinstance(components, Mapping):
            links = getattr(components, "_external_modules", {})
            queue += [value for name in components if _computes(value := components[name]) or name in links]
            queue += list(links.values()) if owners else []


def _computes(value: Any) -> bool:
    return isinstance(value, Module) or is_stage(value)


def files_of(stage: Any, file_name: str, seen: set[int]) -> Iterator[tuple[str, State]]:
    """File name and state of a model, of the owners of its links, and of what it reads from; each once."""
    if id(stage) in seen or not _computes(stage):
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
