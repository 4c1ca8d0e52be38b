"""Checkpoints: where training stands, in files that are whole or not there, of which the newest sound one is found."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fireworks.core.state import state_from_bytes, state_to_bytes
from fireworks.extensions._devices import earliest, place_among_processes
from fireworks.utils.exceptions import FormatError
from fireworks.utils.files import replacing

__all__ = ["CheckpointFiles", "Checkpointing", "checkpoint_at", "find_checkpoint", "read_checkpoint"]

_NAME = re.compile(r"(checkpoint|best)-(\d{10,})-([0-9a-f]{8})\.safetensors")
_LEFT_OVER = re.compile(r"\.[0-9a-f]{12}-(checkpoint|best)-.*\.safetensors")
MODES = ("min", "max")


@dataclass(frozen=True)
class Checkpointing:
    """When and where an IgniteJunction saves its checkpoints, and how many of them are kept.

    Args:
        folder: Where the files are; made if it is not there.
        every_iterations: Save after so many steps.
        every_epochs: Save after so many epochs. Without any of the three, after each.
        every_seconds: Save at the end of a step when the last time was so long ago.
        keep: How many of the latest files stay.
        best: A name in the metric history, such as 'eval_loss': the checkpoint of the epoch with the best value is kept
            besides, as `best-…`.
        mode: 'min' when low values of it are good, 'max' when high ones are.

    Raises:
        TypeError: The folder is no path, or `best` no name.
        ValueError: One of these is not a number from 1 up (seconds: above 0), or an unknown mode.

    Example:
        >>> Checkpointing("runs/first", every_epochs=1, keep=2, best="eval_loss").keep
        2
    """

    folder: str | os.PathLike[str]
    every_iterations: int | None = None
    every_epochs: int | None = None
    every_seconds: float | None = None
    keep: int = 3
    best: str | None = None
    mode: str = "min"

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, os.PathLike)) or not os.fspath(self.folder):
            raise TypeError(f"expected the path of a folder for checkpoints, got {self.folder!r:.80}")
        if self.best is not None and not isinstance(self.best, str):
            raise TypeError(f"expected the name of a metric or None as best, got {self.best!r:.80}")
        for name in ("every_iterations", "every_epochs", "keep"):
            value = getattr(self, name)
            if (value is None and name != "keep") or (type(value) is int and value >= 1):
                continue
            raise ValueError(f"expected a whole number from 1 up as {name}, got {value!r}")
        seconds = self.every_seconds
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and seconds > 0):
            raise ValueError(f"expected a number above 0 as every_seconds, got {seconds!r}")
        if self.mode not in MODES:
            raise ValueError(f"expected mode 'min' or 'max', got {self.mode!r}")


class Found(NamedTuple):
    """A file whose name says that it is a checkpoint."""

    path: Path
    iteration: int
    checksum: str


class CheckpointFiles:
    """The checkpoints of one training run: decides when one is due, writes it, and removes those that are too many."""

    def __init__(self, plan: Checkpointing) -> None:
        self.plan = plan
        self.folder = own_folder(Path(plan.folder))
        self.best: float | None = None
        self.saved_at: int | None = None
        self._last_saved = time.monotonic()
        self._is_ours = False

    def start(self, iteration: int) -> None:
        """Make the folder, and see to it that nothing of another run is overwritten.

        Raises:
            FileExistsError: It has checkpoints of another run, or later ones than the one that training goes on from.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if _LEFT_OVER.fullmatch(path.name):  # of a process that was killed while it wrote
                path.unlink(missing_ok=True)
        later = [found.path.name for found in _found(self.folder) if found.iteration > iteration]
        if later and not self._is_ours:
            raise FileExistsError(
                f"{self.folder} has checkpoints of later steps already, such as {later[-1]}; "
                "go on from the newest with train(resume=True), or give another folder"
            )
        self._is_ours = True
        self._last_saved = time.monotonic()

    def is_due(self, iteration: int) -> bool:
        """Whether to save after this step."""
        every, seconds = self.plan.every_iterations, self.plan.every_seconds
        if every is not None and iteration % every == 0:
            return True
        return seconds is not None and time.monotonic() - self._last_saved >= seconds

    def is_due_after_epoch(self, epoch: int, iteration: int) -> bool:
        """Whether to save at the end of this epoch."""
        plan = self.plan
        every = plan.every_epochs
        if every is None and plan.every_iterations is None and plan.every_seconds is None:
            every = 1
        return (every is not None and epoch % every == 0) or self.is_due(iteration)

    def is_better(self, value: float) -> bool:
        """Whether a value of the metric to watch is the best so far, which is then remembered."""
        is_first = self.best is None and not math.isnan(value)
        is_better = is_first or (self.best is not None and self._beats(value, self.best))
        if is_better:
            self.best = value
        return is_better

    def _beats(self, value: float, best: float) -> bool:
        return value < best if self.plan.mode == "min" else value > best

    def save(self, content: Any, iteration: int, is_best: bool = False) -> None:
        """Write a checkpoint of this step, and once more as the best one so far if it is."""
        data = state_to_bytes(content)
        self._write("checkpoint", data, iteration)
        if is_best:
            self._write("best", data, iteration)
        latest = sorted(_found(self.folder), key=lambda found: found.iteration)
        for found in latest[: -self.plan.keep]:
            found.path.unlink(missing_ok=True)
        self.saved_at, self._last_saved = iteration, time.monotonic()

    def _write(self, kind: str, data: bytes, iteration: int) -> None:
        target = self.folder / f"{kind}-{iteration:010d}-{zlib.crc32(data):08x}.safetensors"
        with replacing(target) as temporary, temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        for found in _found(self.folder, kind):
            replaced = found.iteration == iteration or kind == "best"
            if replaced and found.path != target:
                found.path.unlink(missing_ok=True)


def own_folder(folder: Path) -> Path:
    """The folder itself, or where there are several processes, one in it for this process."""
    number, count = place_among_processes()
    return folder if count == 1 else folder / f"process-{number}"


def find_checkpoint(folder: Path) -> tuple[Path, Any] | None:
    """The newest checkpoint of a folder that can be read, and what is in it; None where there is none.

    A damaged file is put aside under another name, with a warning, and the one before it taken. Several processes take
    the newest that each of them has; later ones, which some of them did not come to write, are removed.
    """
    found = _newest_sound(folder) if folder.is_dir() else None
    if place_among_processes()[1] == 1:
        return found
    step = earliest(-1 if found is None else _iteration_of(found[0]))
    for later in _found(folder) if folder.is_dir() else []:
        if later.iteration > step:
            later.path.unlink(missing_ok=True)
    return _newest_sound(folder) if folder.is_dir() else None


def _iteration_of(path: Path) -> int:
    return next(found.iteration for found in _found(path.parent) if found.path == path)


def _newest_sound(folder: Path) -> tuple[Path, Any] | None:
    for found in sorted(_found(folder), key=lambda found: -found.iteration):
        try:
            return found.path, read_checkpoint(found.path)
        except FormatError as error:
            aside = found.path.with_suffix(".damaged")
            os.replace(found.path, aside)
            warnings.warn(f"{error}; it is {aside.name} now, and the checkpoint before it is taken", stacklevel=5)
    return None


def read_checkpoint(path: Path) -> Any:
    """What is in a file.

    Raises:
        FileNotFoundError: There is none.
        FormatError: It is no checkpoint, or damaged.
    """
    data = path.read_bytes()
    name = _NAME.fullmatch(path.name)
    if name is not None and f"{zlib.crc32(data):08x}" != name[3]:
        raise FormatError(f"{path} is damaged: its {len(data)} bytes have another checksum than its name says")
    try:
        return state_from_bytes(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def checkpoint_at(path: Path) -> tuple[Path, Any]:
    """A checkpoint and what is in it, given its file, or a folder of which the newest is taken.

    Raises:
        FileNotFoundError: There is none.
    """
    if path.is_file():
        return path, read_checkpoint(path)
    found = find_checkpoint(own_folder(path)) if path.is_dir() else None
    if found is None:
        raise FileNotFoundError(f"expected a checkpoint or a folder with one to resume from, found none at {path}")
    return found


def _found(folder: Path, kind: str = "checkpoint") -> list[Found]:
    matches = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    return [Found(path, int(name[2]), name[3]) for path, name in matches if name is not None and name[1] == kind]
