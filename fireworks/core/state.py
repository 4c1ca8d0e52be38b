"""State: what makes a pipeline resume exactly, as plain values, and how it is written down.

Every stage (pipe, junction, model) has `get_state()`, which gives `{'internal': {name: value}, 'external': {name:
(owner, attribute)}}`, and `set_state(state)`, which takes it back. Here stands what is common to all of them:
which stages a pipeline has, the states of all of them together, and the files they are kept in.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch.nn import Module

from fireworks.core import _columns
from fireworks.core._encoding import state_from_bytes, state_from_json, state_to_bytes, state_to_json
from fireworks.core.cursor import is_stage, own_attribute, stage_behind
from fireworks.core.message import Message
from fireworks.utils.exceptions import FormatError, StateError, did_you_mean
from fireworks.utils.files import replacing

__all__ = [
    "METHODS",
    "State",
    "check_names",
    "collect_state",
    "columns_from_state",
    "columns_to_state",
    "computes",
    "encode_state",
    "generator_state",
    "internal_state",
    "is_stage",
    "reachable",
    "read_state",
    "restore_state",
    "save_state",
    "set_generator_state",
    "snapshot",
    "stages",
    "state_from_bytes",
    "state_from_json",
    "state_to_bytes",
    "state_to_json",
    "take_out",
    "write_state",
]

State: TypeAlias = dict[str, Any]

METHODS = ("json", "safetensors")

# --- one pipeline ----------------------------------------------------------------------------------------------------


def stages(root: object) -> dict[str, Any]:
    """Every stage of a pipeline by its path: the root, its inputs, its components, and the owners of linked components.

    Args:
        root: The last pipe, junction or model of the pipeline.

    Returns:
        Path to stage, from the root up; each object once, under the first path that leads to it. The root's own path is
        "", its input is "input", that one's input "input.input", a component "components.NAME", the owner of a linked
        component "owners.NAME".

    Example:
        >>> from fireworks.core.pipe import Pipe
        >>> list(stages(Pipe(input=Pipe(input=[1, 2]))))
        ['', 'input']
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("", root)]
    while queue:
        path, item = queue.pop(0)
        item = stage_behind(item)
        if id(item) in seen or not is_stage(item):
            continue
        seen.add(id(item))
        found[path] = item
        prefix = f"{path}." if path else ""
        queue += [(prefix + name, neighbour) for name, neighbour in _neighbours(item)]
    return found


def _neighbours(stage: Any) -> Iterator[tuple[str, Any]]:
    yield "input", own_attribute(stage, "input")
    components = own_attribute(stage, "components")
    owners = getattr(components, "_external_modules", {})
    for name, owner in owners.items():
        yield f"owners.{name}", owner
    if isinstance(components, Mapping):
        for name in components:
            if name not in owners:
                yield f"components.{name}", components[name]


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
            queue += [value for name in components if computes(value := components[name]) or name in links]
            queue += list(links.values()) if owners else []


def computes(value: object) -> bool:
    """Whether a value is a stage or a module, rather than data."""
    return isinstance(value, Module) or is_stage(value)


def collect_state(root: object) -> dict[str, State]:
    """The internal state of every stage of a pipeline, by path.

    A component whose state is part of its junction's or model's own is not listed a second time.

    Example:
        >>> from fireworks.core.pipe import Pipe
        >>> pipe = Pipe(input=["a", "b"])
        >>> next(pipe), collect_state(pipe)
        ('a', {'': {'input_position': 1}})
    """
    return {path: state for path, (_, state) in _own_states(root).items()}


def _own_states(root: object) -> dict[str, tuple[Any, State]]:
    states = {path: (stage, stage.get_state()["internal"]) for path, stage in stages(root).items()}
    return {path: own for path, own in states.items() if not _is_part_of_another(path, states)}


def _is_part_of_another(path: str, states: Mapping[str, tuple[Any, State]]) -> bool:
    """Whether the stage at a path is a component that its holder saves as part of itself."""
    prefix, found, name = path.rpartition("components.")
    holder = prefix.removesuffix(".")
    return bool(found) and holder in states and name in states[holder][1]


def restore_state(root: object, states: Mapping[str, State]) -> None:
    """Give every stage of a pipeline its state back; the pipeline must be built like the one the states came from.

    Args:
        root: The last stage of the pipeline.
        states: What `collect_state` gave.

    Raises:
        StateError: A stage has no state, a state has no stage, or a stage refuses its own; the text names the path.
    """
    known = _own_states(root)
    check_names(states, known, what="the pipeline", part="stage")
    for path, (stage, _) in known.items():
        try:
            stage.set_state({"internal": states[path], "external": {}})
        except StateError as error:
            raise StateError(f"stage {path!r} ({type(stage).__name__}): {error}") from error


def check_names(given: Mapping[str, Any], expected: Mapping[str, Any], what: str, part: str = "value") -> None:
    """Compare the names in a state with those that its taker expects; all differences in one error.

    Raises:
        StateError: Names are missing or too many.
    """
    missing = [repr(name) for name in expected if name not in given]
    extra = [f"{name!r}{did_you_mean(name, expected).rstrip('?')}" for name in given if name not in expected]
    problems = []
    if missing:
        problems.append(f"no {part} for {', '.join(missing)}")
    if extra:
        problems.append(f"a {part} that {what} does not have: {', '.join(extra)}")
    if problems:
        names = ", ".join(map(repr, expected)) or "nothing"
        raise StateError(f"the state does not fit {what}: {'; '.join(problems)}. Expected: {names}")


def internal_state(state: Any) -> dict[str, Any]:
    """A copy of the internal half of a state: name → value.

    Raises:
        StateError: It has none.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("internal"), Mapping):
        raise StateError(f"expected a state {{'internal': {{name: value}}, 'external': ...}}, got {state!r:.80}")
    return dict(state["internal"])


def take_out(state: Any, names: Iterable[str], what: str) -> tuple[dict[str, Any], State]:
    """The values of these names out of a state, and the state without them.

    For a stage that adds values of its own to the state of its base class.

    Raises:
        StateError: One of the names is missing.

    Example:
        >>> take_out({"internal": {"row": 2, "order": [1, 0]}, "external": {}}, ["order"], what="a shuffler")
        ({'order': [1, 0]}, {'internal': {'row': 2}, 'external': {}})
    """
    rest = internal_state(state)
    own = {name: rest.pop(name) for name in names if name in rest}
    check_names(own, dict.fromkeys(names), what=what)
    return own, {"internal": rest, "external": {}}


# --- values ----------------------------------------------------------------------------------------------------------


def snapshot(value: Any) -> Any:
    """A copy of a value that later changes of the original do not reach; tensors without their gradient history.

    Example:
        >>> order = [3, 1]
        >>> saved = snapshot({"order": order})
        >>> order.append(2)
        >>> saved
        {'order': [3, 1]}
    """
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(snapshot(item) for item in value)
    if type(value) is dict:
        return {key: snapshot(item) for key, item in value.items()}
    return copy.deepcopy(value)


def generator_state(generator: torch.Generator | np.random.Generator) -> Any:
    """Where a random generator stands, as a value that a state can hold."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return snapshot(generator.bit_generator.state)


def set_generator_state(generator: torch.Generator | np.random.Generator, state: Any) -> None:
    """Send a random generator to where `generator_state` found it."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    else:
        generator.bit_generator.state = state


def columns_to_state(message: Message) -> dict[str, Any]:
    """The columns of a message as plain values: tensors, arrays of numbers, lists of text and objects.

    For a stage that holds rows back. Columns that only pandas can hold are kept as the bytes of a saved Message.

    Example:
        >>> state = columns_to_state(Message({"a": [1, 2], "s": ["x", "y"]}))
        >>> columns_from_state(state).to_dict()
        {'a': [1, 2], 's': ['x', 'y']}
    """
    state: dict[str, Any] = {"tensors": dict(message._tensors), "frame": {}, "dtypes": {}, "saved": None}
    state["order"] = message.columns
    extensions = []
    for name in message._frame_names():
        array, dtype = message._array(name)
        other_text = isinstance(dtype, pd.StringDtype) and dtype != _columns.TEXT
        if other_text or not isinstance(array, np.ndarray):
            extensions.append(name)
        elif array.dtype == _columns.OBJECT:
            state["frame"][name] = array.tolist()
            state["dtypes"][name] = {_columns.TEXT: "text", _columns.UNKNOWN: "unknown"}.get(dtype, "object")
        else:
            state["frame"][name] = array.view(np.int64) if array.dtype.kind in "mM" else array
            state["dtypes"][name] = array.dtype.str
    if extensions:
        buffer = BytesIO()
        message[extensions].save(buffer)
        state["saved"] = np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()
    return state


def columns_from_state(state: dict[str, Any]) -> Message:
    """The message whose columns `columns_to_state` wrote down."""
    saved = Message() if state["saved"] is None else Message.load(BytesIO(state["saved"].tobytes()))
    arrays: dict[str, Any] = {}
    dtypes: dict[str, Any] = {}
    tags = {"text": _columns.TEXT, "unknown": _columns.UNKNOWN, "object": _columns.OBJECT}
    for name in state["order"]:
        values = state["frame"].get(name)
        if isinstance(values, list):
            arrays[name], dtypes[name] = _columns.object_array(values), tags[state["dtypes"][name]]
        elif values is not None:
            dtypes[name] = np.dtype(state["dtypes"][name])
            arrays[name] = values.view(dtypes[name]) if dtypes[name].kind in "mM" else values
        elif name not in state["tensors"]:
            arrays[name], dtypes[name] = saved._array(name)
    return Message._from_columns(dict(state["tensors"]), arrays, dtypes)


# --- files -----------------------------------------------------------------------------------------------------------


def write_state(state: Any, path: str | os.PathLike[str], method: str = "json") -> None:
    """Write a state to a file, wholly or not at all.

    Args:
        state: Plain values, arrays and tensors.
        path: The file; an existing one is replaced once the new one is complete.
        method: 'json' or 'safetensors'.

    Raises:
        StateError: The state holds something that is no plain value; an existing file stays as it is.
    """
    data = encode_state(state, method)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def save_state(state: State, path: str | os.PathLike[str] | None, method: str) -> Any:
    """Write a state to a file; without a path, give its text, bytes or, with the method 'dict', itself."""
    if path is not None:
        return write_state(state, path, method)
    if method == "dict":
        return state
    data = encode_state(state, method)
    return data.decode().rstrip("\n") if method == "json" else data


def encode_state(state: Any, method: str) -> bytes:
    """A state as the bytes of a file of this kind."""
    if method == "json":
        return (state_to_json(state) + "\n").encode()
    if method == "safetensors":
        return state_to_bytes(state)
    raise ValueError(f"expected method 'json' or 'safetensors', got {method!r}{did_you_mean(method, METHODS)}")


def read_state(path: str | os.PathLike[str], method: str | None = None) -> Any:
    """Read a state from a file that `write_state` wrote; without a method by its suffix, JSON where that says nothing.

    Raises:
        FormatError: The file is not such a state; the text names it.
    """
    path = Path(path)
    if method is None:
        method = "safetensors" if path.suffix == ".safetensors" else "json"
    data = path.read_bytes()
    try:
        if method == "safetensors":
            return state_from_bytes(data)
        return state_from_json(data.decode())
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error
