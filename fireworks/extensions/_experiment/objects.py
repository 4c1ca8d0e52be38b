"""Saved objects: a folder each, with a description of what it is and its data in formats that need no code of ours.

`saved/NAME/object.json` says the kind; beside it are a Message, a Parquet table, safetensors, JSON or a figure. Nothing
is pickled, so reading runs no code, and needs no class that somebody may have changed since.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fireworks.core.message import Message
from fireworks.core.scaffold import Scaffold
from fireworks.core.state import (
    collect_state,
    is_stage,
    read_state,
    restore_state,
    state_from_bytes,
    state_to_bytes,
    write_state,
)
from fireworks.extensions._experiment import figures
from fireworks.extensions._experiment.files import explained, read_json, to_text, write_json
from fireworks.extensions._experiment.names import SAVED, path_in
from fireworks.utils.exceptions import FormatError, StateError, did_you_mean

__all__ = ["is_plain", "load_object", "save_object", "saved_names"]

_DESCRIPTION = "object.json"
_NOTHING: Any = object()


class Kind(NamedTuple):
    """What can be saved: how it is known, written, read as plain values, and given back to an object."""

    fits: Callable[[Any], bool]
    write: Callable[[Any, Path], None]
    read: Callable[[Path], Any]
    restore: Callable[[Any, Path], None] | None = None


# --- the kinds -------------------------------------------------------------------------------------------------------

_STATE = "state.safetensors"


def _write_bytes(value: Any, folder: Path) -> None:
    (folder / _STATE).write_bytes(state_to_bytes(value))


def _read_bytes(folder: Path) -> Any:
    return state_from_bytes((folder / _STATE).read_bytes())


def _write_table(frame: pd.DataFrame, folder: Path) -> None:
    if len({type(name) for name in frame.columns}) > 1:  # which Parquet would turn into text
        names = ", ".join(map(repr, frame.columns))
        raise TypeError(f"this DataFrame has names of columns of several types, {names:.200}: rename(columns=str) them")
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer)
    except (ValueError, TypeError) as error:  # pyarrow's own errors are of these classes
        raise TypeError(f"this DataFrame cannot be written as Parquet: {error}; convert that column first") from error
    (folder / "table.parquet").write_bytes(buffer.getvalue())


def _restore_module(module: Any, folder: Path) -> None:
    try:
        module.load_state_dict(_read_bytes(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        raise StateError(f"the state does not fit the {type(module).__name__}: {error}") from error


def _read_scaffold(folder: Path) -> Any:
    return {path.stem: read_state(path, "safetensors") for path in sorted(folder.glob("*.safetensors"))}


def _restore_scaffold(scaffold: Scaffold, folder: Path) -> None:
    scaffold.load(folder, method="safetensors")


def is_plain(value: Any) -> bool:
    """Whether a value is text, a number, a truth value or None, or a list, tuple or dict of them."""
    if isinstance(value, Mapping):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, np.generic))


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_holds_arrays(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(map(_holds_arrays, value))
    return isinstance(value, (torch.Tensor, np.ndarray)) or is_plain(value)


# In this order: a model is a stage and a module, a dict of numbers is one of arrays too.
_KINDS = {
    "message": Kind(
        lambda obj: isinstance(obj, Message),
        lambda message, folder: message.save(folder / "data.message"),
        lambda folder: Message.load(folder / "data.message"),
    ),
    "table": Kind(
        lambda obj: isinstance(obj, pd.DataFrame),
        _write_table,
        lambda folder: pd.read_parquet(folder / "table.parquet"),
    ),
    "plotly": Kind(figures.is_plotly, figures.write_plotly, figures.read_plotly),
    "matplotlib": Kind(figures.is_matplotlib, figures.write_matplotlib, figures.read_matplotlib),
    "scaffold": Kind(
        lambda obj: isinstance(obj, Scaffold),
        lambda scaffold, folder: scaffold.save(folder, method="safetensors"),
        _read_scaffold,
        _restore_scaffold,
    ),
    "pipeline": Kind(
        lambda obj: is_stage(obj) and hasattr(obj, "get_state"),
        lambda stage, folder: _write_bytes(collect_state(stage), folder),
        _read_bytes,
        lambda stage, folder: restore_state(stage, _read_bytes(folder)),
    ),
    "module": Kind(
        lambda obj: hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict"),
        lambda module, folder: _write_bytes(module.state_dict(), folder),
        _read_bytes,
        _restore_module,
    ),
    "values": Kind(
        is_plain,
        lambda value, folder: write_state(value, folder / "values.json"),
        lambda folder: read_state(folder / "values.json"),
    ),
    "arrays": Kind(_holds_arrays, _write_bytes, _read_bytes),
}


def _kind_of(name: str, obj: Any) -> str:
    for kind, each in _KINDS.items():
        if each.fits(obj):
            return kind
    raise TypeError(
        f"{name!r} is a {type(obj).__name__}, which cannot be saved without pickling; an experiment saves Messages, "
        "DataFrames, models and other stages, modules and optimizers, scaffolds, Plotly and matplotlib figures, "
        "tensors, arrays, and plain values in dicts and lists. Write other files through open()"
    )


# --- the folders -----------------------------------------------------------------------------------------------------


def _target(folder: Path, name: str) -> Path:
    return path_in(path_in(folder, SAVED, of="a folder"), name, of="a saved object")


def _previous(target: Path) -> Path:
    """Where a replaced object waits until its successor is in its place."""
    return target.with_name(f".{target.name}.previous")


def save_object(folder: Path, name: str, obj: Any, overwrite: bool) -> None:
    """Write an object to a folder of its own, which appears when it is complete.

    Raises:
        FileExistsError: There is one of this name, and it is not to be overwritten.
        TypeError: It can only be pickled.
        OSError: It cannot be written; what was there is as it was.
    """
    target = _target(folder, name)
    root = target.parent
    kind = _kind_of(name, obj)
    if not overwrite and (target.exists() or _previous(target).exists()):
        raise FileExistsError(_EXISTS.format(name, folder))
    temporary = root / f".{uuid.uuid4().hex[:12]}"
    with explained(target):
        try:
            temporary.mkdir(parents=True)
            _KINDS[kind].write(obj, temporary)
            write_json(temporary / _DESCRIPTION, _describe(kind, obj))
            _put_in_place(temporary, target, overwrite)
        except StateError as error:
            raise StateError(f"{name!r} cannot be saved: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


_EXISTS = "there is an object {0!r} in {1} already; choose another name, or give overwrite=True to replace it"


def _describe(kind: str, obj: Any) -> dict[str, Any]:
    cls = type(obj)
    name = f"{cls.__module__}.{cls.__qualname__}"
    version = sys.modules["fireworks"].__version__  # loaded already; an import of it would break the layers
    return {"kind": kind, "class": name, "saved": to_text(datetime.now(UTC)), "fireworks": version}


def _put_in_place(temporary: Path, target: Path, overwrite: bool) -> None:
    previous = _previous(target)
    if not overwrite:
        try:
            os.rename(temporary, target)  # fails where somebody else was faster, as a folder with files is there
        except OSError as error:
            if target.exists():
                raise FileExistsError(_EXISTS.format(target.name, target.parent.parent)) from error
            raise
    else:
        if target.exists():  # otherwise the previous one is the only one, until the new one is in its place
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(target, previous)
        os.rename(temporary, target)
    shutil.rmtree(previous, ignore_errors=True)


def saved_names(folder: Path) -> list[str]:
    """The names of all saved objects."""
    root = folder / SAVED
    names = {path.name for path in root.iterdir()} if root.is_dir() else set()
    waiting = {name[1 : -len(".previous")] for name in names if name.endswith(".previous")}
    return sorted(waiting | {name for name in names if not name.startswith(".")})


def load_object(folder: Path, name: str, into: Any = _NOTHING) -> Any:
    """What was saved under a name; or `into` with the state that was saved.

    Raises:
        FileNotFoundError: There is none; the text proposes the nearest name.
        FormatError: It is damaged.
        StateError: The state does not fit the object.
    """
    target = _target(folder, name)
    if not target.is_dir() and _previous(target).is_dir():  # somebody was killed while he replaced it
        target = _previous(target)
    if not (target / _DESCRIPTION).is_file():
        names = saved_names(folder)
        listed = ", ".join(names) or "(none)"
        raise FileNotFoundError(
            f"{folder} has no saved object {name!r}{did_you_mean(name, names) or '.'} Saved: {listed}"
        )
    described = read_json(target / _DESCRIPTION)
    kind = _KINDS.get(described["kind"])
    if kind is None:
        raise FormatError(f"{target} holds an object of kind {described['kind']!r}, which this version does not know")
    if into is _NOTHING:
        return kind.read(target)
    if kind.restore is None:
        raise TypeError(f"{name!r} is a {described['class']}, not a state; load it without into=")
    kind.restore(into, target)
    return into
