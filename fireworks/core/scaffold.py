"""Scaffold: holds stages by name, and saves and restores them together.

A Scaffold resembles a checkpoint: a folder with one file per stage, enough to build the same pipeline in another
process and receive the very messages that would have come next.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fireworks.core.state import METHODS, State, check_names, encode_state, internal_state, read_state, snapshot, stages
from fireworks.utils.exceptions import StateError, did_you_mean
from fireworks.utils.files import replacing

__all__ = ["Scaffold"]


class Scaffold:
    """Saves and restores the states of several objects, such as all stages of a pipeline.

    Args:
        items: Name → object with `get_state` and `set_state`: pipes, junctions, models, or others.

    Raises:
        AttributeError: An object without `get_state`.
        ValueError: A name that cannot be the name of a file in the folder.

    Example:
        >>> import tempfile
        >>> from fireworks.core.pipe import Pipe
        >>> pipe, same = Pipe(input=["a", "b"]), Pipe(input=["a", "b"])
        >>> _ = next(pipe)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Scaffold({"letters": pipe}).save(path=folder)
        ...     Scaffold({"letters": same}).load(folder)
        >>> next(same)
        'b'
    """

    def __init__(self, items: Mapping[str, Any] | None = None) -> None:
        self._items: dict[str, Any] = {}
        for name, item in (items or {}).items():
            self.attach(name, item)

    @classmethod
    def from_pipeline(cls, root: Any, name: str = "pipeline") -> Scaffold:
        """A scaffold of every stage of a pipeline, found through inputs and components.

        Args:
            root: The last stage.
            name: Its name here; those of the others add their path, as in 'pipeline.input'.

        Example:
            >>> from fireworks.core.pipe import Pipe
            >>> Scaffold.from_pipeline(Pipe(input=Pipe(input=["a"])))
            Scaffold(pipeline, pipeline.input)
        """
        return cls({f"{name}.{path}" if path else name: stage for path, stage in stages(root).items()})

    def attach(self, name: str, item: Any) -> None:
        """Add an object under a name, or replace the one of that name.

        Raises:
            AttributeError: The object has no `get_state` and `set_state`.
            ValueError: The name cannot be the name of a file in the folder.
        """
        if not isinstance(name, str) or name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
            raise ValueError(f"expected a name that can be a file's, without / \\ and :, got {name!r}")
        for method in ("get_state", "set_state"):
            if not callable(getattr(item, method, None)):
                raise AttributeError(f"{name!r} cannot be saved: {type(item).__name__} has no {method}()")
        self._items[name] = item

    def serialize(self) -> dict[str, State]:
        """The state of each object by name, as its `get_state` gives it."""
        return {name: item.get_state() for name, item in self._items.items()}

    def save(self, path: str | os.PathLike[str], method: str = "json") -> None:
        """Write the internal state of each object to a file NAME.json (or NAME.safetensors) in a folder.

        All states are taken and encoded before the first file is written, and each file is replaced whole.

        Args:
            path: The folder; made if it is not there.
            method: 'json', to be read by people, or 'safetensors', for large states.

        Raises:
            StateError: A state holds what cannot be written down; the text names the object. No file is changed.
        """
        encoded = {}
        for name, state in self.serialize().items():
            try:
                encoded[name] = encode_state(state["internal"], method)
            except StateError as error:
                raise StateError(f"{name!r} cannot be saved: {error}") from error
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in encoded.items():
            with replacing(folder / f"{name}.{method}") as temporary:
                temporary.write_bytes(data)

    def load(self, path: str | os.PathLike[str], method: str = "json", strict: bool = True) -> None:
        """Give each object the state in its file of a folder; other files there are ignored.

        Args:
            path: The folder.
            method: As given to `save`.
            strict: Whether each object must have a file; otherwise those without keep the state that they have.

        Raises:
            StateError: An object has no file, or a state does not fit it; the text names the object.
            FormatError: A file is no saved state.
        """
        if method not in METHODS:
            raise ValueError(f"expected method 'json' or 'safetensors', got {method!r}{did_you_mean(method, METHODS)}")
        folder = Path(path)
        files = {name: folder / f"{name}.{method}" for name in self._items}
        found = {name: read_state(file, method) for name, file in files.items() if file.is_file()}
        if strict and len(found) < len(files):
            missing = ", ".join(file.name for name, file in files.items() if name not in found)
            raise StateError(f"{folder} has no {missing}; give strict=False to leave such objects as they are")
        self._restore(found)

    def _restore(self, states: Mapping[str, Any]) -> None:
        for name, state in states.items():
            try:
                self._items[name].set_state({"internal": state, "external": {}})
            except StateError as error:
                raise StateError(f"{name!r}: {error}") from error

    def get_state(self) -> State:
        """The internal states of all objects by name, as one state."""
        return {"internal": {name: state["internal"] for name, state in self.serialize().items()}, "external": {}}

    def set_state(self, state: State) -> None:
        """Give each object its part of what `get_state` gave.

        Raises:
            StateError: The names differ from those of this scaffold, or a state does not fit its object.
        """
        states = internal_state(state)
        check_names(states, self._items, what="this scaffold", part="state")
        self._restore(snapshot(states))

    def __repr__(self) -> str:
        return f"Scaffold({', '.join(self._items)})"
