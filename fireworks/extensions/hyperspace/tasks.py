"""Tasks: problems that are specified in full, one JSON file each, checked when they are loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fireworks.extensions.hyperspace.configurables import CLASS_NAME
from fireworks.utils.exceptions import ConfigError, did_you_mean

__all__ = ["TaskFile", "load_task", "load_tasks"]

_KEYS = ("Scenario", "seed")


@dataclass(frozen=True)
class TaskFile:
    """What one task file says.

    Attributes:
        name: The name of the file without `.json`.
        scenario: `{"className": ..., **settings}`: the scenario and what its constructor gets.
        seed: Seeds each run of the task; None lets every run draw its own.
    """

    name: str
    scenario: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None


def load_task(path: str | Path) -> TaskFile:
    """The task that a file specifies.

    Args:
        path: A JSON file: an object with `Scenario` (an object with `className`) and, if wanted, an integer `seed`.

    Raises:
        FileNotFoundError: There is no such file; the text names the tasks that are there.
        ConfigError: The file is no such object; the text gives file, key and what was expected.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.json"))
        listed = ", ".join(there) or "none"
        near = did_you_mean(path.stem, there)
        raise FileNotFoundError(f"no task {path.stem!r} in {path.parent}{near}; there are: {listed}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected JSON, but {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected an object with the key 'Scenario', got {_kind(content)}")
    problems = [
        f"unknown key {key!r}{did_you_mean(key, _KEYS)}; a task has 'Scenario' and 'seed'"
        for key in content.keys() - set(_KEYS)
    ]
    scenario, seed = content.get("Scenario"), content.get("seed")
    if not isinstance(scenario, dict):
        problems.append(f"key 'Scenario': expected an object with {CLASS_NAME!r}, got {_kind(scenario)}")
    elif not isinstance(scenario.get(CLASS_NAME), str):
        got = _kind(scenario.get(CLASS_NAME))
        problems.append(f"key 'Scenario.{CLASS_NAME}': expected the name of a scenario, got {got}")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
        problems.append(f"key 'seed': expected an integer from 0 to 4294967295, got {seed!r:.60}")
    if problems:
        raise ConfigError(f"{path}: {'; also '.join(sorted(problems))}")
    return TaskFile(path.stem, content["Scenario"], seed)


def load_tasks(folder: str | Path) -> dict[str, TaskFile]:
    """Every task of a folder by its name, in alphabetical order.

    Raises:
        NotADirectoryError: There is no such folder.
        ConfigError: One of the files is not a task.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"expected a folder of task files (*.json), found none at {folder}")
    return {path.stem: load_task(path) for path in sorted(folder.glob("*.json"))}


def _kind(value: Any) -> str:
    """What a JSON value is, for an error."""
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.60}"
