"""What a trainer holds of its trial: checkpoints, reported values, and whether to stop."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fireworks.core.state import state_from_bytes, state_from_json, state_to_bytes, state_to_json
from fireworks.extensions._factory.protocol import Pruner
from fireworks.utils.files import replacing

__all__ = ["FolderStore", "MemoryStore", "Store", "Trial"]


class Store(Protocol):
    """Where checkpoints and reported values of trials are kept while these run; maybe read by several processes."""

    def save(self, trial_id: int, attempt: int, data: bytes) -> None:
        """Keep this checkpoint instead of the one before.

        Raises:
            LeaseLostError: The trial was taken over by somebody else.
        """

    def load(self, trial_id: int) -> bytes | None:
        """The last checkpoint, whichever attempt saved it."""

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Keep a value."""

    def reported(self) -> Mapping[int, Mapping[int, float]]:
        """The values of all trials that are of use to a pruner: id → step → value."""

    def of(self, trial_id: int) -> dict[int, float]:
        """The values of one trial."""

    def forget(self, trial_id: int, keep_values: bool) -> None:
        """Remove the checkpoint of a trial that ended, and its values unless they help to judge others."""


class Trial:
    """A trial as its trainer sees it: a trainer with an argument `trial` is given one.

    Example:
        >>> trial = Trial(7, {"rate": 0.1}, 1, MemoryStore())
        >>> trial.last_checkpoint() is None
        True
        >>> trial.save_checkpoint({"epoch": 3, "weights": [0.5, 1.0]})
        >>> trial.last_checkpoint()
        {'epoch': 3, 'weights': [0.5, 1.0]}
        >>> trial.report(1, 0.25)
        >>> trial.should_stop()
        False
    """

    def __init__(self, id: int, params: Any, attempt: int, store: Store, pruner: Pruner | None = None) -> None:
        self.id, self.params, self.attempt = id, params, attempt
        self._store, self._pruner = store, pruner
        self.was_stopped = False

    def save_checkpoint(self, state: Any) -> None:
        """Keep a state to go on from, should this process die; replaces the one before.

        Args:
            state: Plain values, arrays and tensors, nested in lists and dicts, such as a `state_dict()` or the
                `get_state()` of a pipe. Nothing is pickled.

        Raises:
            StateError: The state holds something else; the text says where and what.
            LeaseLostError: The trial was taken over by somebody else, because this process was thought dead. Let it
                through: the factory drops the trial and goes on.
        """
        self._store.save(self.id, self.attempt, state_to_bytes(state))

    def last_checkpoint(self) -> Any:
        """The state that was saved last, in this process or in one that died; None when there is none."""
        data = self._store.load(self.id)
        return None if data is None else state_from_bytes(data)

    def report(self, step: int, value: float) -> None:
        """Tell how good the model is after some steps; kept with the trial, and the ground for pruning.

        Args:
            step: An epoch, a number of batches; a value that was reported for it before is replaced.
            value: On the scale of the objective.

        Raises:
            TypeError: The step is no whole number, or the value no number.
        """
        if isinstance(step, bool) or not isinstance(step, int):
            raise TypeError(f"expected a whole number as the step of a report, got {step!r}")
        number = float(value)
        self._store.report(self.id, step, number)

    def should_stop(self) -> bool:
        """Whether to give this trial up, by what it and others reported. Return from the trainer then: the trial is
        recorded as pruned, and not evaluated.
        """
        if self._pruner is not None and not self.was_stopped:
            self.was_stopped = bool(self._pruner(self.id, self._store.reported()))
        return self.was_stopped

    def __repr__(self) -> str:
        return f"Trial({self.id}, {self.params!r})"


class MemoryStore:
    """Keeps all in memory, for trials that run in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checkpoints: dict[int, bytes] = {}
        self._reports: dict[int, dict[int, float]] = defaultdict(dict)

    def save(self, trial_id: int, attempt: int, data: bytes) -> None:
        """Keep this checkpoint."""
        self._checkpoints[trial_id] = data

    def load(self, trial_id: int) -> bytes | None:
        """The last checkpoint."""
        return self._checkpoints.get(trial_id)

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Keep a value."""
        with self._lock:
            self._reports[trial_id][step] = value

    def reported(self) -> Mapping[int, Mapping[int, float]]:
        """The values of all trials."""
        with self._lock:
            return {trial: dict(values) for trial, values in self._reports.items()}

    def of(self, trial_id: int) -> dict[int, float]:
        """The values of one trial."""
        with self._lock:
            return dict(self._reports.get(trial_id, {}))

    def forget(self, trial_id: int, keep_values: bool) -> None:
        """Remove the checkpoint, and the values unless they are to be kept."""
        self._checkpoints.pop(trial_id, None)
        if not keep_values:
            self._reports.pop(trial_id, None)


class FolderStore:
    """Keeps all in files of a temporary folder, for trials that run in other processes of this host."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fireworks-trials-"))
        self._remove = weakref.finalize(self, _remove, self.path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # the folder itself belongs to the process that made it

    def save(self, trial_id: int, attempt: int, data: bytes) -> None:
        """Keep this checkpoint."""
        self._write(f"{trial_id}.checkpoint", data)

    def load(self, trial_id: int) -> bytes | None:
        """The last checkpoint."""
        file = self.path / f"{trial_id}.checkpoint"
        return file.read_bytes() if file.exists() else None

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Keep a value."""
        values = {**self.of(trial_id), step: value}
        self._write(f"{trial_id}.values", state_to_json(values).encode())

    def reported(self) -> Mapping[int, Mapping[int, float]]:
        """The values of all trials."""
        numbers = [int(file.stem) for file in self.path.glob("[0-9]*.values")]
        return {number: self.of(number) for number in numbers}

    def of(self, trial_id: int) -> dict[int, float]:
        """The values of one trial."""
        try:
            text = (self.path / f"{trial_id}.values").read_text()
        except FileNotFoundError:
            return {}
        values: dict[int, float] = state_from_json(text)
        return values

    def forget(self, trial_id: int, keep_values: bool) -> None:
        """Remove the checkpoint, and the values unless they are to be kept."""
        (self.path / f"{trial_id}.checkpoint").unlink(missing_ok=True)
        if not keep_values:
            (self.path / f"{trial_id}.values").unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(data)

    def close(self) -> None:
        """Remove the folder."""
        self._remove()


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not in a process that was forked from it
        shutil.rmtree(path, ignore_errors=True)
